//! The merged tree as root directory, with what a system expects to be mounted in it.
//!
//! What comes from the host is copied as a mount before the tree becomes the root, and attached
//! after it: so no symbolic link of a layer leads out of the tree.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, move_mount, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::system::sethostname;
use rustix::termios::isatty;

use super::RunRequest;
use super::args::{Net, Volume};
use crate::error::{Failure, MountError};
use crate::sys::{mounts, network};

type Result<T> = std::result::Result<T, MountError>;

/// Devices that the command may have.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links of `/dev`: name and target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Parts of `/proc` through which the machine's root, as whom we would write, changes the machine.
const OF_THE_MACHINE: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];

const NO_PROGRAMS: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Makes the remaining namespaces, and `tree` the root in them.
///
/// # Errors
/// What cannot be mounted, with its path.
pub fn enter(request: &RunRequest, tree: &Path, by_real_root: bool) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    flags.set(CloneFlags::CLONE_NEWNET, request.net == Net::None);
    unshare(flags).map_err(|error| failed("namespaces", error))?;
    if let Some(name) = &request.hostname {
        sethostname(name.as_encoded_bytes()).map_err(|error| failed("--hostname", error))?;
    }
    if request.net == Net::None {
        network::loopback_up().map_err(|error| failed("the loopback device", error))?;
    }
    let from_host = FromHost::take(request)?;
    let old_root = become_root(tree).map_err(|error| failed("the merged tree as root", error))?;
    // The kernel allows a proc and a sysfs only while others are seen, so the old root goes last.
    mount_system(request, by_real_root, &from_host)?;
    from_host.attach(request)?;
    leave(old_root).map_err(|error| failed("leaving the old root", error))?;
    chdir(&request.workdir)
        .map_err(|error| failed(format_args!("--workdir {}", request.workdir.display()), error))
}

fn failed(what: impl Display, error: impl Into<io::Error>) -> MountError {
    MountError::new(Failure::Internal, format!("{what}: {}", error.into()))
}

/// Mounts of the host, copied and not yet attached.
struct FromHost {
    devices: Vec<(&'static str, OwnedFd)>,
    console: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    resolv_conf: Option<OwnedFd>,
    volumes: Vec<OwnedFd>,
}

impl FromHost {
    fn take(request: &RunRequest) -> Result<Self> {
        let device = |name| {
            let path = Path::new("/dev").join(name);
            let copy = mounts::copy(&path, false).map_err(|error| failed(path.display(), error))?;
            Ok((name, copy))
        };
        let volume = |volume: &Volume| {
            mounts::copy(&volume.host, volume.read_only)
                .map_err(|error| failed(format_args!("--volume {}", volume.host.display()), error))
        };
        let optional = |path: &str, read_only| {
            mounts::copy(path.as_ref(), read_only)
                .inspect_err(|error| request.tell(format_args!("{path} is not shown: {error}")))
                .ok()
        };
        let shares_network = request.net == Net::Host;
        Ok(Self {
            devices: DEVICES.into_iter().map(device).collect::<Result<_>>()?,
            console: terminal().and_then(|path| mounts::copy(&path, false).ok()),
            sys: shares_network.then(|| optional("/sys", true)).flatten(),
            resolv_conf: shares_network.then(|| optional("/etc/resolv.conf", true)).flatten(),
            volumes: request.volumes.iter().map(volume).collect::<Result<_>>()?,
        })
    }

    /// Attaches what belongs to the system's own directories, which are mounted.
    fn attach_devices(&self) -> Result<()> {
        let console = self.console.iter().map(|console| ("console", console));
        let devices = self.devices.iter().map(|(name, copy)| (*name, copy)).chain(console);
        for (name, copy) in devices {
            attach(copy, &Path::new("/dev").join(name), Kind::File)?;
        }
        Ok(())
    }

    fn attach(&self, request: &RunRequest) -> Result<()> {
        if let Some(copy) = &self.resolv_conf
            && let Err(error) = attach(copy, Path::new("/etc/resolv.conf"), Kind::File)
        {
            request.tell(error);
        }
        for (volume, copy) in request.volumes.iter().zip(&self.volumes) {
            let kind = rustix::fs::fstat(copy)
                .map(|stat| match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                    rustix::fs::FileType::Directory => Kind::Directory,
                    _ => Kind::File,
                })
                .map_err(|error| failed(volume.host.display(), error))?;
            attach(copy, &volume.inside, kind)?;
        }
        Ok(())
    }
}

/// The terminal among the standard descriptors.
fn terminal() -> Option<PathBuf> {
    let number = [stdin(), stdout(), stderr()].iter().position(isatty)?;
    fs::read_link(format!("/proc/self/fd/{number}")).ok()
}

/// What is mounted, and so what it is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

/// Attaches `copy` at `path`, which is made when missing.
fn attach(copy: &OwnedFd, path: &Path, kind: Kind) -> Result<()> {
    let shown = path.display();
    make(path, kind).map_err(|error| failed(format_args!("{shown} cannot be made"), error))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(copy, c"", CWD, path, flags)
        .map_err(|error| failed(format_args!("{shown} cannot be mounted on"), error))
}

fn make(path: &Path, kind: Kind) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let dir = if kind == Kind::Directory { Some(path) } else { path.parent() };
    if let Some(dir) = dir {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    if kind == Kind::File {
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    }
    Ok(())
}

/// Makes `tree` the root directory; gives the old one, which lies over it until [`leave`].
fn become_root(tree: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old_root = rustix::fs::open("/", flags, Mode::empty())?;
    chdir(tree)?;
    pivot_root(".", ".")?;
    chdir("/")?;
    Ok(old_root)
}

/// Unmounts the old root with all that is below, and forgets it.
fn leave(old_root: OwnedFd) -> io::Result<()> {
    fchdir(&old_root)?;
    drop(old_root);
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

/// `/proc`, `/sys`, `/dev` and `/tmp`.
fn mount_system(request: &RunRequest, by_real_root: bool, from_host: &FromHost) -> Result<()> {
    mount_new("proc", "/proc", NO_PROGRAMS, "")?;
    if by_real_root {
        for path in OF_THE_MACHINE.map(Path::new).into_iter().filter(|path| path.exists()) {
            let copy = mounts::copy(path, true).map_err(|error| failed(path.display(), error))?;
            attach(&copy, path, Kind::File)?;
        }
    }
    match &from_host.sys {
        Some(sys) => attach(sys, Path::new("/sys"), Kind::Directory)?,
        None => {
            if let Err(error) = mount_new("sysfs", "/sys", NO_PROGRAMS | MountFlags::RDONLY, "") {
                request.tell(error);
            }
        }
    }
    mount_new("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777")?;
    mount_new("tmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755")?;
    from_host.attach_devices()?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let terminals = "newinstance,ptmxmode=0666,mode=0620";
    // Group 5 is tty, where there is more than one group.
    mount_new("devpts", "/dev/pts", flags, &format!("{terminals},gid=5"))
        .or_else(|_| mount_new("devpts", "/dev/pts", flags, terminals))?;
    mount_new("tmpfs", "/dev/shm", NO_PROGRAMS, "mode=1777")?;
    for (name, target) in LINKS {
        let link = Path::new("/dev").join(name);
        symlink(target, &link).map_err(|error| failed(link.display(), error))?;
    }
    Ok(())
}

/// Mounts a new file system of type `kind` on `path`, which is made when missing.
fn mount_new(kind: &str, path: &str, flags: MountFlags, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).map_err(|error| failed(path, error))?;
    make(path.as_ref(), Kind::Directory)
        .and_then(|()| Ok(mount(kind, path, kind, flags, Some(options.as_c_str()))?))
        .map_err(|error| failed(format_args!("{path} cannot be mounted"), error))
}
