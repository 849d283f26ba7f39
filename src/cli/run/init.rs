//! Process 1 of the command's process namespace.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as RawSignal, WaitOptions, kill_process, set_parent_process_death_signal, setsid,
    wait as wait_any,
};

use super::super::{internal, say};
use super::{FORWARDED, READY, RunRequest, blocked, exit_code, or_own_failure, root};
use crate::error::MountError;
use crate::sys::process::{Fork, fork};

/// The exit code of a command that exists and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// The exit code of a command that does not exist.
const NOT_FOUND: u8 = 127;

/// Runs the command in the tree mounted on `tree`, and ends with it; everything else in the process
/// namespace ends then as well. `proof` can be written to as long as the parent lives. The exit code.
pub fn run(request: &RunRequest, tree: &Path, by_real_root: bool, proof: OwnedFd) -> u8 {
    or_own_failure(run_in(request, tree, by_real_root, proof))
}

fn run_in(
    request: &RunRequest,
    tree: &Path,
    by_real_root: bool,
    proof: OwnedFd,
) -> Result<u8, MountError> {
    set_parent_process_death_signal(Some(RawSignal::KILL))
        .map_err(|error| internal("prctl", &error.into()))?;
    // A parent that ended before that call does not read this.
    rustix::io::write(&proof, &[READY])
        .map_err(|error| internal("the supervisor", &error.into()))?;
    drop(proof);
    let signals = blocked(&FORWARDED).map_err(|error| internal("signals", &error))?;
    root::enter(request, tree, by_real_root)?;
    match fork().map_err(|error| internal("fork", &error))? {
        Fork::Parent(command) => wait(command, &signals),
        Fork::Child => Ok(become_command(request)),
    }
}

/// Executes the command, with the caller's descriptors and terminal; the exit code if that fails.
fn become_command(request: &RunRequest) -> u8 {
    let name = request.command.first().map(OsString::as_os_str).unwrap_or_default();
    let mut command = Command::new(name);
    command.args(request.command.iter().skip(1)).env_clear().envs(request.env.iter().cloned());
    let error = match SigSet::all().thread_unblock() {
        Ok(()) => command.exec(),
        Err(error) => error.into(),
    };
    say(format_args!("{}: {error}", name.display()));
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

/// Reaps whatever ends, and hands signals on, until `command` ends; its exit code.
fn wait(command: Pid, signals: &SignalFd) -> Result<u8, MountError> {
    // What the terminal sends is for the command, which stays in the caller's session.
    setsid().map_err(|error| internal("setsid", &error.into()))?;
    loop {
        if let Some(code) = reap(command)? {
            return Ok(code);
        }
        let signal = signals.read_signal().map_err(|error| internal("signals", &error.into()))?;
        let number = signal.map_or(0, |signal| signal.ssi_signo.cast_signed());
        if number != Signal::SIGCHLD as i32
            && let Some(signal) = RawSignal::from_named_raw(number)
        {
            match kill_process(command, signal) {
                // It has ended, and is reaped next.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => say(format_args!("warning: signal {number}: {error}")),
            }
        }
    }
}

/// Takes the status of every process that has ended; the exit code of `command` if it is among them.
fn reap(command: Pid) -> Result<Option<u8>, MountError> {
    loop {
        match wait_any(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => return Ok(Some(exit_code(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(error) => return Err(internal("wait", &error.into())),
        }
    }
}
