//! `ovlfuse umount`: unmounts, and waits until the daemon is gone.
//!
//! The daemon is the process that has `/dev/fuse` open for the mount's device
//! number, which newer kernels tell in `/proc/PID/fdinfo` (`fuse_connection:`).
//! Where they do not, every ovlfuse process with an open `/dev/fuse` is a
//! candidate, and the first one to end after the unmount is taken for it.
//! Processes of other users, and of other process namespaces, are not seen; then
//! there is nothing to wait for.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::mounts::{self, How, Mount, UnmountError};
use super::say;
use crate::error::{Failure, MountError};

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unmounts what is mounted at `mountpoint`.
///
/// # Errors
/// [`Failure::Unmount`] when it is no ovlfuse mount, is in use, or its daemon
/// goes on after the unmount.
pub fn run(mountpoint: &Path) -> Result<(), MountError> {
    let name = mountpoint.display();
    let point =
        mounts::real_path(mountpoint).map_err(|error| failed(format!("{name}: {error}")))?;
    let table = mounts::read().map_err(|error| failed(format!("/proc/self/mountinfo: {error}")))?;
    let mount = mounts::topmost(&table, &point)
        .ok_or_else(|| failed(format!("{name} is not a mount point: nothing to unmount")))?;
    let daemons = Daemons::of(mount);
    if mount.fs_type != "fuse.ovlfuse" && !daemons.are_ovlfuse() {
        let fs_type = Path::new(&mount.fs_type).display();
        return Err(failed(format!(
            "{name} is a mount of type {fs_type}, not of ovlfuse: use umount(8) for it"
        )));
    }
    mounts::unmount(&point, How::Plain).map_err(|error| match error {
        UnmountError::Busy => failed(format!(
            "{name} is in use: end the processes that have files or their working directory in it \
             (`fuser -vm` lists them)"
        )),
        UnmountError::Other(reason) => failed(format!("{name} cannot be unmounted: {reason}")),
    })?;
    daemons.wait(mountpoint)
}

fn failed(message: String) -> MountError {
    MountError::new(Failure::Unmount, message)
}

/// The process that serves `mount`, where it may be seen, if `mount` is one of ovlfuse.
pub fn daemon_of(mount: &Mount) -> Option<Option<u32>> {
    let daemons = Daemons::of(mount);
    let ours = mount.fs_type == "fuse.ovlfuse" || daemons.are_ovlfuse();
    ours.then(|| match daemons {
        Daemons::Known { daemons, .. } => {
            daemons.first().map(|it| it.pid.as_raw_nonzero().get() as u32)
        }
        Daemons::Candidates(_) => None,
    })
}

/// A process that serves a FUSE mount.
struct Daemon {
    pid: Pid,
    /// Becomes readable when the process ends (pidfd_open(2)).
    handle: OwnedFd,
}

/// The processes that may serve a mount.
enum Daemons {
    /// These do, and whether they are all ovlfuse.
    Known { daemons: Vec<Daemon>, ovlfuse: bool },
    /// The kernel does not tell; it is one of these, if any.
    Candidates(Vec<Daemon>),
}

impl Daemons {
    fn of(mount: &Mount) -> Self {
        let (mut known, mut candidates) = (Vec::new(), Vec::new());
        let mut ovlfuse = true;
        for pid in processes() {
            match serves(pid, mount.device.1) {
                Serves::No => {}
                Serves::Yes => {
                    ovlfuse &= is_ovlfuse(pid);
                    known.extend(Daemon::find(pid));
                }
                Serves::Perhaps if is_ovlfuse(pid) => candidates.extend(Daemon::find(pid)),
                Serves::Perhaps => {}
            }
        }
        if known.is_empty() {
            Self::Candidates(candidates)
        } else {
            Self::Known { daemons: known, ovlfuse }
        }
    }

    /// Whether the mount is known to be served by ovlfuse, whatever its type is called.
    fn are_ovlfuse(&self) -> bool {
        matches!(self, Self::Known { ovlfuse: true, .. })
    }

    /// Waits until the known ones, or one of the candidates, have ended.
    fn wait(self, mountpoint: &Path) -> Result<(), MountError> {
        let deadline = Instant::now() + PATIENCE;
        match self {
            Self::Known { daemons, .. } => {
                let ended = daemons.iter().all(|it| wait_for_any(&[it], deadline) || it.syncs());
                if ended { Ok(()) } else { Err(still_there(mountpoint, &daemons)) }
            }
            Self::Candidates(daemons) if daemons.is_empty() => {
                say("warning: unmounted; no daemon of this mount was seen, so none was waited for");
                Ok(())
            }
            Self::Candidates(daemons) => {
                let all: Vec<&Daemon> = daemons.iter().collect();
                if wait_for_any(&all, deadline) {
                    Ok(())
                } else {
                    Err(still_there(mountpoint, &daemons))
                }
            }
        }
    }
}

fn still_there(mountpoint: &Path, daemons: &[Daemon]) -> MountError {
    let pids: Vec<String> = daemons.iter().map(|daemon| daemon.pid.to_string()).collect();
    failed(format!(
        "{} is unmounted here, but its daemon (process {}) still runs after {} seconds: the mount \
         is in use in another mount namespace",
        mountpoint.display(),
        pids.join(" or "),
        PATIENCE.as_secs(),
    ))
}

/// Waits until one of `daemons` has ended; false when `deadline` comes first.
fn wait_for_any(daemons: &[&Daemon], deadline: Instant) -> bool {
    let mut handles: Vec<PollFd<'_>> =
        daemons.iter().map(|daemon| PollFd::new(&daemon.handle, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else {
            return false;
        };
        match poll(&mut handles, Some(&left)) {
            Ok(ended) => return ended > 0,
            Err(Errno::INTR) => {}
            Err(error) => {
                say(format_args!("warning: the daemon cannot be waited for: {error}"));
                return false;
            }
        }
    }
}

impl Daemon {
    /// `None` when the process has ended meanwhile.
    fn find(pid: Pid) -> Option<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { pid, handle })
    }

    /// Waits on while the process only brings to the disk what was changed; false when it still
    /// serves a mount.
    fn syncs(&self) -> bool {
        while fuse_descriptors(self.pid).next().is_none() {
            if wait_for_any(&[self], Instant::now() + PATIENCE) {
                return true;
            }
        }
        false
    }
}

/// The ids of all processes that `/proc` shows.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// A file below `/proc/PID`.
fn proc_file(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// Whether a process serves a FUSE device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    No,
    Yes,
    /// It has `/dev/fuse` open, and the kernel does not say for which mount.
    Perhaps,
}

fn serves(pid: Pid, device_minor: u32) -> Serves {
    let mut found = Serves::No;
    for fd in fuse_descriptors(pid) {
        let info = fs::read_to_string(proc_file(pid, "fdinfo").join(fd)).unwrap_or_default();
        match connection(&info) {
            Some(number) if number == device_minor => return Serves::Yes,
            Some(_) => {}
            None => found = Serves::Perhaps,
        }
    }
    found
}

/// The numbers of the process's descriptors of `/dev/fuse`, as far as they may be seen.
fn fuse_descriptors(pid: Pid) -> impl Iterator<Item = OsString> {
    let descriptors = fs::read_dir(proc_file(pid, "fd")).into_iter().flatten().flatten();
    descriptors
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new("/dev/fuse")))
        .map(|fd| fd.file_name())
}

/// The number behind `fuse_connection:` of an fdinfo file.
fn connection(fdinfo: &str) -> Option<u32> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?;
    line.trim().parse().ok()
}

/// Whether a process runs this program, or one of its name.
fn is_ovlfuse(pid: Pid) -> bool {
    let name = fs::read_to_string(proc_file(pid, "comm")).unwrap_or_default();
    name.trim_end() == "ovlfuse" || runs_this_program(pid).unwrap_or(false)
}

fn runs_this_program(pid: Pid) -> io::Result<bool> {
    let its = fs::metadata(proc_file(pid, "exe"))?;
    let ours = fs::metadata("/proc/self/exe")?;
    Ok((its.dev(), its.ino()) == (ours.dev(), ours.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_is_read_from_fdinfo() {
        assert_eq!(connection("pos:\t0\nino:\t90\nfuse_connection:\t39\n"), Some(39));
        assert_eq!(connection("pos:\t0\nflags:\t02100002\n"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = rustix::process::getpid();
        assert!(processes().any(|pid| pid == own));
        assert!(runs_this_program(own).unwrap());
        assert_eq!(serves(own, u32::MAX), Serves::No);
    }

    #[test]
    fn the_end_of_a_process_is_waited_for() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let daemon = Daemon::find(Pid::from_child(&child)).unwrap();
        assert!(!wait_for_any(&[&daemon], Instant::now()));
        drop(child.stdin.take());
        assert!(wait_for_any(&[&daemon], Instant::now() + PATIENCE));
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_ovlfuse_mount_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for (path, part) in [
            (dir.path(), "is not a mount point"),
            (Path::new("/proc"), "is a mount of type proc"),
            (&dir.path().join("a/b"), "No such file"),
        ] {
            let error = run(path).unwrap_err();
            assert_eq!(error.failure, Failure::Unmount);
            assert!(error.message.contains(part), "{error}");
        }
    }
}
