//! Files that `/dev/fuse` is handed, so that the kernel reads and writes them itself
//! (`include/uapi/linux/fuse.h`).
#![allow(unsafe_code)]

use super::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FUSE_DEV_IOC_BACKING_OPEN`.
const OPEN: Opcode = opcode::write::<BackingMap>(229, 1);
/// `FUSE_DEV_IOC_BACKING_CLOSE`.
const CLOSE: Opcode = opcode::write::<u32>(229, 2);

/// `struct fuse_backing_map`.
#[repr(C)]
#[derive(Debug)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

// SAFETY: the command takes a `struct fuse_backing_map` and only reads it.
unsafe impl Ioctl for BackingMap {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPEN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(id: IoctlOutput, _: *mut c_void) -> Result<u32> {
        Ok(id as u32)
    }
}

/// Hands the regular file `file` to the connection `device`; the id to name it by. The kernel will
/// use it with the rights that this thread has now.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the initial user namespace or before it was agreed upon,
/// `ELOOP` if the file lies on a file system that is itself stacked on others.
pub fn open(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<u32> {
    let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: as said at `BackingMap`, whose descriptor is open.
    unsafe { ioctl(device, map) }
}

/// Takes the name `id` back; who has the file open goes on with it.
///
/// # Errors
/// `ENOENT` if there is no such id.
pub fn close(device: BorrowedFd<'_>, id: u32) -> Result<()> {
    // SAFETY: the command takes a pointer to a number.
    unsafe { ioctl(device, Setter::<CLOSE, u32>::new(id)) }
}
