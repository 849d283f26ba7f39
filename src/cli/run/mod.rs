//! `ovlfuse run`: a command with the merged tree as its root, in namespaces of its own.
//!
//! | process | namespaces | what it does |
//! | --- | --- | --- |
//! | caller (this file) | the caller's | writes the id maps (`ids`), hands on signals, waits |
//! | `supervisor` | user, mount | makes the rest, ends it, removes what is ephemeral (`place`) |
//! | the daemon | user, mount | serves the mount, as `ovlfuse mount` does |
//! | `init` | all, with the merged tree as its root (`root`) | is process 1: starts the command, reaps |
//! | the command | all | |
//!
//! None of them has a second thread but the daemon, which is forked off before there is one.
//!
//! **Terminal.** Command and caller are in the caller's session and process group, so that the
//! kernel sends both what is typed (Ctrl-C, Ctrl-Z) and changes of the window's size. The caller
//! leaves interrupts to the command and lets itself be stopped; the others have sessions of their
//! own, so that a stopped command never waits for a stopped daemon.
//!
//! **Invariant: nothing outlives the caller.** The supervisor sees it end at a pipe, init and the
//! daemon die with the supervisor, and everything in the namespaces with init. What is mounted is
//! seen in these namespaces only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, getpgrp, test_kill_process_group, waitpid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::{internal, say};
use crate::error::MountError;
use crate::sys::process::{Fork, fork};

mod args;
mod ids;
mod init;
mod place;
mod root;
mod supervisor;

pub use args::{RunArgs, RunRequest};

/// The exit code when the command could not be started because of ovlfuse itself.
const OWN_FAILURE: u8 = 125;

/// The exit code of a command that a signal ended is the signal's number above this.
const SIGNAL_BASE: i32 = 128;

/// What the supervisor and the caller tell each other before the supervisor goes on.
const READY: u8 = 0;

/// Signals that are handed on to the command.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Runs the command; its exit code, or [`OWN_FAILURE`] after a sentence on stderr.
pub fn run(request: &RunRequest) -> ExitCode {
    ExitCode::from(or_own_failure(start(request)))
}

/// The exit code that `result` is, or [`OWN_FAILURE`] after its sentence on stderr.
fn or_own_failure(result: Result<u8, MountError>) -> u8 {
    result.unwrap_or_else(|error| {
        say(&error);
        OWN_FAILURE
    })
}

/// The caller's ends of two pipes, or the supervisor's.
#[derive(Debug)]
struct Link {
    from_other: File,
    to_other: File,
}

impl Link {
    fn pair() -> io::Result<(Self, Self)> {
        let (caller_reads, supervisor_writes) = pipe_with(PipeFlags::CLOEXEC)?;
        let (supervisor_reads, caller_writes) = pipe_with(PipeFlags::CLOEXEC)?;
        let caller = Self { from_other: caller_reads.into(), to_other: caller_writes.into() };
        let supervisor =
            Self { from_other: supervisor_reads.into(), to_other: supervisor_writes.into() };
        Ok((caller, supervisor))
    }

    /// The next byte; `None` when the other is gone.
    fn receive(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.from_other.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Waits for the other's [`READY`]; false when it is gone.
    fn wait(&mut self) -> bool {
        self.receive() == Some(READY)
    }

    /// Sends one byte; false when the other is gone.
    fn send(&mut self, byte: u8) -> bool {
        self.to_other.write_all(&[byte]).is_ok()
    }
}

fn start(request: &RunRequest) -> Result<u8, MountError> {
    // Blocked before the fork: none may end one process and leave the others.
    let signals = blocked(&FORWARDED).map_err(|error| internal("signals", &error))?;
    let terminal = Terminal::in_foreground();
    let (mut link, supervisors_link) = Link::pair().map_err(|error| internal("pipe", &error))?;
    let supervisor = match fork().map_err(|error| internal("fork", &error))? {
        Fork::Child => {
            drop((signals, terminal, link));
            let result = supervisor::run(request, supervisors_link);
            std::process::exit(or_own_failure(result).into());
        }
        Fork::Parent(supervisor) => supervisor,
    };
    drop(supervisors_link);
    if link.wait() {
        match ids::map(supervisor) {
            Ok(kind) => request.tell(kind),
            Err(error) => {
                drop(link);
                wait_for(supervisor)?;
                return Err(error);
            }
        }
        link.send(READY);
    }
    let code = wait_handing_on(&signals, &mut link, supervisor);
    if let Some(terminal) = terminal {
        terminal.take_back();
    }
    code
}

/// Blocks `signals` and SIGCHLD, to be read from the result instead.
fn blocked(signals: &[Signal]) -> io::Result<SignalFd> {
    let set: SigSet = signals.iter().copied().chain([Signal::SIGCHLD]).collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// Waits for the supervisor's end, sending it the signals that come meanwhile; its exit code.
fn wait_handing_on(signals: &SignalFd, link: &mut Link, supervisor: Pid) -> Result<u8, MountError> {
    loop {
        let signal = signals.read_signal().map_err(|error| internal("signals", &error.into()))?;
        let Some(signal) = signal else { continue };
        if signal.ssi_signo == Signal::SIGCHLD as u32 {
            let ended = waitpid(Some(supervisor), WaitOptions::NOHANG)
                .map_err(|error| internal("the supervisor cannot be waited for", &error.into()))?;
            if let Some((_, status)) = ended {
                return supervisors_code(status);
            }
        } else if signal.ssi_code != libc::SI_KERNEL {
            // What the terminal sends, the command gets as well, being in its foreground too.
            let number = u8::try_from(signal.ssi_signo).unwrap_or_default();
            // A supervisor that is gone shows with the next SIGCHLD.
            link.send(number);
        }
    }
}

fn wait_for(supervisor: Pid) -> Result<u8, MountError> {
    loop {
        match waitpid(Some(supervisor), WaitOptions::empty()) {
            Ok(Some((_, status))) => return supervisors_code(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(internal("the supervisor cannot be waited for", &error.into()));
            }
        }
    }
}

fn supervisors_code(status: WaitStatus) -> Result<u8, MountError> {
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    code.ok_or_else(|| {
        let signal = status.terminating_signal().unwrap_or_default();
        internal("the supervisor was lost", &io::Error::other(format!("signal {signal} ended it")))
    })
}

/// The exit code that tells how a process ended, as shells do.
fn exit_code(status: WaitStatus) -> u8 {
    let by_signal = status.terminating_signal().map(|signal| SIGNAL_BASE + signal);
    let code = by_signal.or(status.exit_status()).unwrap_or_default();
    u8::try_from(code).unwrap_or(OWN_FAILURE)
}

/// The controlling terminal, with this process in its foreground.
struct Terminal(File);

impl Terminal {
    fn in_foreground() -> Option<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        (tcgetpgrp(&terminal) == Ok(getpgrp())).then_some(Self(terminal))
    }

    /// A shell that ran as the command leaves its own group, now empty, in the foreground, because
    /// ours has no number that it could name.
    fn take_back(&self) {
        let abandoned = tcgetpgrp(&self.0)
            .is_ok_and(|group| test_kill_process_group(group) == Err(Errno::SRCH));
        let own = || {
            // Who sets the foreground from the background is stopped, unless this is blocked.
            SigSet::from(Signal::SIGTTOU).thread_block()?;
            tcsetpgrp(&self.0, getpgrp()).map_err(io::Error::from)
        };
        if abandoned && let Err(error) = own() {
            say(format_args!("warning: the terminal stays with another process group: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by its id")]
    fn exit_codes_are_those_of_shells() {
        for (script, code) in [("exit 3", 3), ("kill -TERM $$", 143), ("exit 0", 0)] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(exit_code(status), code, "{script}");
        }
    }
}
