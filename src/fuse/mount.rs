//! Mounting and unmounting: mount(2) where it is allowed (root, or inside a
//! user namespace), else with the help of fusermount3.

use crate::config::{Config, MountFlags};
use crate::error::{Failure, MountError};
use crate::sys::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags as Flags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::{CString, OsStr, OsString};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, MountError>;

/// The longest source shown in the mount table.
const MAX_SOURCE: usize = 200;

/// Mounts `config` on its mount point; the descriptor of `/dev/fuse` that serves it.
///
/// # Errors
/// [`Failure::Fuse`], [`Failure::Fusermount`] and [`Failure::Mountpoint`], with the remedy.
pub fn mount(config: &Config) -> Result<OwnedFd> {
    let device = open_device()?;
    match mount_directly(config, &device) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => {
            drop(device);
            mount_by_helper(config)
        }
        Err(e) => {
            let what = format!("cannot mount on {}: {e}", config.mountpoint.display());
            Err(MountError::new(Failure::Mountpoint, what))
        }
    }
}

fn open_device() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|e| {
        let what = match e {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                "/dev/fuse does not exist; load the fuse module (modprobe fuse) or pass the device into the container".into()
            }
            Errno::ACCESS | Errno::PERM => {
                "/dev/fuse may not be opened; ask the administrator for mode 0666 on it".into()
            }
            e => format!("cannot open /dev/fuse: {e}"),
        };
        MountError::new(Failure::Fuse, what)
    })
}

fn mount_directly(config: &Config, device: &OwnedFd) -> std::result::Result<(), Errno> {
    let flags = &config.mount;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
        device.as_raw_fd()
    );
    // Who may mount directly may let others in: it takes nobody's permission.
    if flags.allow_other.unwrap_or(true) {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let kind = [b"fuse.", flags.subtype.as_bytes()].concat();
    let source = source(config);
    rustix::mount::mount(
        source.as_os_str(),
        &config.mountpoint,
        OsStr::from_bytes(&kind),
        kernel_flags(config),
        &*data,
    )
}

fn kernel_flags(config: &Config) -> Flags {
    let MountFlags { dev, suid, exec, atime, .. } = config.mount;
    let mut flags = Flags::empty();
    flags.set(Flags::RDONLY, is_read_only(config));
    flags.set(Flags::NODEV, !dev);
    flags.set(Flags::NOSUID, !suid);
    flags.set(Flags::NOEXEC, !exec);
    flags.set(Flags::NOATIME, !atime);
    flags
}

fn is_read_only(config: &Config) -> bool {
    config.mount.read_only || config.upper.is_none()
}

/// What the mount table shows as the source: the name asked for, or the layers
/// from the bottom up.
fn source(config: &Config) -> OsString {
    if let Some(name) = &config.mount.fsname {
        return name.clone();
    }
    let upper = config.upper.as_ref().map(|u| &u.dir);
    let layers: Vec<_> = config.lowers.iter().rev().chain(upper).collect();
    let all: Vec<_> = layers.iter().map(|p| p.as_os_str().as_bytes()).collect();
    let all = all.join(&b':');
    if all.len() <= MAX_SOURCE {
        return OsString::from_vec(all);
    }
    let top = layers.last().map(|p| p.display().to_string()).unwrap_or_default();
    format!("{} layers under {top}", layers.len() - 1).into()
}

/// Mounts through the set-uid program fusermount3, which sends the descriptor back.
fn mount_by_helper(config: &Config) -> Result<OwnedFd> {
    let fail = |what: String| MountError::new(Failure::Fusermount, what);
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::empty(),
        None,
    )
    .map_err(|e| fail(format!("cannot make a socket for fusermount3: {e}")))?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)
        .map_err(|e| fail(format!("cannot prepare a socket for fusermount3: {e}")))?;
    let child = Command::new("fusermount3")
        .arg("-o")
        .arg(helper_options(config))
        .arg("--")
        .arg(&config.mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            fail("fusermount3 is not installed; install the package fuse3, or mount as root or inside a user namespace".into())
        }
        _ => fail(format!("cannot run fusermount3: {e}")),
    })?;
    drop(theirs);
    let device = receive_descriptor(&ours);
    let output =
        child.wait_with_output().map_err(|e| fail(format!("cannot wait for fusermount3: {e}")))?;
    device.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("fusermount3: ");
        fail(format!("fusermount3 refused to mount on {}: {said}", config.mountpoint.display()))
    })
}

fn helper_options(config: &Config) -> OsString {
    let MountFlags { exec, atime, allow_other, subtype, .. } = &config.mount;
    let mut options = vec![b"default_permissions".to_vec()];
    options.push([b"fsname=", &*escaped(source(config).as_bytes())].concat());
    options.push([b"subtype=", &*escaped(subtype.as_bytes())].concat());
    let plain = [
        (is_read_only(config), "ro"),
        (!exec, "noexec"),
        (!atime, "noatime"),
        (*allow_other == Some(true), "allow_other"),
    ];
    options.extend(plain.iter().filter(|(on, _)| *on).map(|(_, name)| name.as_bytes().to_vec()));
    OsString::from_vec(options.join(&b','))
}

/// Escapes what separates options.
fn escaped(value: &[u8]) -> Vec<u8> {
    value
        .iter()
        .flat_map(|&b| match b {
            b',' | b'\\' => vec![b'\\', b],
            b => vec![b],
        })
        .collect()
}

/// The descriptor that the helper sends, if it does.
fn receive_descriptor(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    crate::sys::data::retry(|| {
        rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Takes a mount away that was made but cannot be served.
pub fn undo(mountpoint: &Path) {
    let lazily = rustix::mount::unmount(mountpoint, UnmountFlags::DETACH);
    if lazily == Err(Errno::PERM) {
        let helper = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(mountpoint).status();
        if !helper.is_ok_and(|s| s.success()) {
            log::warn!("{} stays mounted and answers nothing; unmount it", mountpoint.display());
        }
    }
}

/// Checks that `mountpoint` is a directory that can be mounted on.
///
/// # Errors
/// [`Failure::Mountpoint`].
pub fn check_mountpoint(mountpoint: &Path) -> Result<()> {
    let shown = mountpoint.display();
    let fail = |what: String| Err(MountError::new(Failure::Mountpoint, what));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(mountpoint, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => {
            return fail(format!("mount point {shown} does not exist; create the directory first"));
        }
        Err(Errno::NOTDIR) => return fail(format!("mount point {shown} is not a directory")),
        Err(Errno::NOTCONN) => {
            return fail(format!(
                "mount point {shown} holds a mount whose daemon is gone; unmount it first (fusermount3 -u {shown})"
            ));
        }
        // A directory that may not be listed can still be mounted on.
        Err(Errno::ACCESS) => return Ok(()),
        Err(e) => return fail(format!("cannot open mount point {shown}: {e}")),
    };
    let first_entry = crate::sys::list::for_each(dir.as_fd(), |_| Err(Errno::CANCELED));
    if first_entry == Err(Errno::CANCELED) {
        log::warn!("mount point {shown} is not empty; what it holds is hidden while mounted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_separators_are_escaped() {
        assert_eq!(escaped(br"a,b\c"), br"a\,b\\c");
    }
}
