//! The request of `ovlfuse refresh` to the daemon of a mount: an ioctl(2) of our own.
#![allow(unsafe_code)]

use super::Result;
use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};
use std::os::fd::BorrowedFd;

/// Its number, which the kernel passes on.
pub const REQUEST: Opcode = opcode::none(b'O', 0x72);

/// Sends it to the mount whose root is open as `root`; returns when it is done.
///
/// # Errors
/// `EPERM` for users that may not; `ENOTTY` and others for what is no root of such a mount.
pub fn refresh(root: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: it passes nothing.
    unsafe { ioctl(root, NoArg::<REQUEST>::new()) }
}
