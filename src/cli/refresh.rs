//! `ovlfuse refresh`: asks the daemon of a mount to look at its layers again.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Failure, MountError};
use crate::sys::refresh;

/// Returns when the mount at `mountpoint` shows what its layers hold now.
///
/// # Errors
/// [`Failure::Mountpoint`] when it is no ovlfuse mount, or another user's.
pub fn run(mountpoint: &Path) -> Result<(), MountError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let done = rustix::fs::open(mountpoint, flags, Mode::empty())
        .and_then(|root| refresh::refresh(root.as_fd()));
    let name = mountpoint.display();
    let message = match done {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => format!("{name} may be refreshed by who mounted it and by root only"),
        // What file systems say to requests that they do not know.
        Err(Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
            format!("{name} is not where ovlfuse has mounted: give the mount point itself")
        }
        Err(error) => format!("{name} cannot be refreshed: {error}"),
    };
    Err(MountError::new(Failure::Mountpoint, message))
}
