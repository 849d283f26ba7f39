//! The supervisor: makes the user namespace, has the daemon mount, has init run the command in the
//! mount, and clears up after both, also when the caller is killed.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, setsid, waitpid,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::super::daemon;
use super::super::{internal, say};
use super::place::{Place, make_upper};
use super::{Link, OWN_FAILURE, READY, RunRequest, exit_code, init};
use crate::config::{Config, Upper};
use crate::error::{Failure, MountError};
use crate::sys::identity;
use crate::sys::process::{Fork, fork};

/// How long the daemon may take to end once its mount is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command of `request`; its exit code.
///
/// # Errors
/// What keeps the command from being started, or that the daemon was lost.
pub fn run(request: &RunRequest, mut link: Link) -> Result<u8, MountError> {
    let by_real_root = identity::is_initial_admin();
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| no_namespace(error.into()))?;
    if !link.send(READY) || !link.wait() {
        // The caller is gone, or says itself why it cannot go on.
        return Ok(OWN_FAILURE);
    }
    become_root().map_err(|error| internal("the root of the user namespace", &error))?;
    own_mounts().map_err(no_mounts)?;
    let place = Place::new(request)?;
    let config = config(request, &place)?;
    let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    let daemon = daemon::start(&config, request.verbosity, die_with_us)?;
    let daemon = Child::new(daemon)?;
    let result = run_init(request, &config, by_real_root, &daemon, link);
    end_daemon(&config, &daemon)?;
    result
}

fn no_namespace(error: io::Error) -> MountError {
    let message = format!(
        "no user namespace can be made: {error}; the system forbids them (in a container or \
         chroot, or by the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone)"
    );
    MountError::new(Failure::Internal, message)
}

fn no_mounts(error: io::Error) -> MountError {
    let message = format!(
        "the user namespace may not have mounts: {error}; the system restricts it (AppArmor: sysctl \
         kernel.apparmor_restrict_unprivileged_userns)"
    );
    MountError::new(Failure::Internal, message)
}

/// Takes the ids of the namespace's root.
fn become_root() -> io::Result<()> {
    match set_thread_groups(&[]) {
        // Who has a single id only has to keep its groups.
        Err(Errno::PERM) => {}
        done => done?,
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

/// A mount namespace that nothing leaves. What is unmounted outside goes here too: a copy would keep
/// it in use.
fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// The mount of `request` in `place`.
fn config(request: &RunRequest, place: &Place) -> Result<Config, MountError> {
    let mut config = request.config.clone();
    let dir = request.upper.clone().unwrap_or_else(|| place.upper());
    make_upper(&dir, &config.lowers).map_err(|error| {
        let message = format!("upper layer {} cannot be made: {error}", dir.display());
        MountError::new(Failure::Layer, message)
    })?;
    let work = config.upper.and_then(|upper| upper.work);
    config.upper = Some(Upper { dir, work });
    config.mountpoint = place.root();
    Ok(config)
}

/// A child process, with a descriptor that becomes readable when it ends.
struct Child {
    pid: Pid,
    handle: OwnedFd,
}

impl Child {
    fn new(pid: Pid) -> Result<Self, MountError> {
        let handle = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| internal("pidfd_open", &error.into()))?;
        Ok(Self { pid, handle })
    }

    /// Sends `signal`; one that has ended needs none.
    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal)
            && error != Errno::SRCH
        {
            say(format_args!("warning: signal {}: {error}", signal.as_raw()));
        }
    }

    fn wait(&self) -> Result<WaitStatus, MountError> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(internal("waitpid", &error.into())),
            }
        }
    }

    /// Waits for its end; false when it does not come within `patience`.
    fn ends_within(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut fds, patience.as_ref()).is_ok_and(|ended| ended > 0)
    }
}

/// Runs the command, by an init in further namespaces; its exit code.
fn run_init(
    request: &RunRequest,
    config: &Config,
    by_real_root: bool,
    daemon: &Child,
    mut link: Link,
) -> Result<u8, MountError> {
    let failed = |what: &'static str| move |error: io::Error| internal(what, &error);
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|error| failed("a process namespace")(error.into()))?;
    let (parent_lives, proof) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("pipe")(error.into()))?;
    let init = match fork().map_err(failed("fork"))? {
        Fork::Child => {
            drop((parent_lives, link));
            let code = init::run(request, &config.mountpoint, by_real_root, proof);
            std::process::exit(code.into());
        }
        Fork::Parent(pid) => Child::new(pid)?,
    };
    drop(proof);
    // From here on the terminal is the command's and the caller's. Init has left it alone already.
    setsid().map_err(|error| failed("setsid")(error.into()))?;
    let served = watch(&init, daemon, &mut link);
    let status = init.wait()?;
    drop(parent_lives);
    if served { Ok(exit_code(status)) } else { Err(daemon_lost(config)) }
}

fn daemon_lost(config: &Config) -> MountError {
    let shown = config.mountpoint.display();
    let message = format!("the daemon that served {shown} was lost, and the command with it");
    MountError::new(Failure::Internal, message)
}

/// Hands signals on until `init` ends, and ends it when the caller or the daemon does; false for the
/// daemon.
fn watch(init: &Child, daemon: &Child, link: &mut Link) -> bool {
    loop {
        let ready = {
            let mut fds = [
                PollFd::new(&init.handle, PollFlags::IN),
                PollFd::new(&daemon.handle, PollFlags::IN),
                PollFd::new(&link.from_other, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => fds.map(|fd| !fd.revents().is_empty()),
                Err(error) => {
                    say(format_args!("warning: poll: {error}"));
                    [false, true, false]
                }
            }
        };
        match ready {
            [true, _, _] => return true,
            [_, true, _] => {
                init.signal(Signal::KILL);
                return false;
            }
            [_, _, true] => match link.receive() {
                Some(number) => {
                    if let Some(signal) = Signal::from_named_raw(number.into()) {
                        init.signal(signal);
                    }
                }
                None => {
                    init.signal(Signal::KILL);
                    return true;
                }
            },
            _ => {}
        }
    }
}

/// Unmounts, and waits until the daemon has put everything in its place.
fn end_daemon(config: &Config, daemon: &Child) -> Result<(), MountError> {
    if let Err(error) = unmount(&config.mountpoint, UnmountFlags::DETACH) {
        say(format_args!("warning: {} cannot be unmounted: {error}", config.mountpoint.display()));
    }
    if !daemon.ends_within(PATIENCE) {
        say("warning: the mount is still used from elsewhere: its daemon is ended");
        daemon.signal(Signal::KILL);
    }
    daemon.wait().map(drop)
}
