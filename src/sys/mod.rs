//! Safe system calls; nothing here knows what an overlay is.
//!
//! The only folder in which `unsafe` is allowed. What rustix offers safely is
//! used from rustix directly by [`crate::layer`] and [`crate::fs`]; here is
//! the rest: calls rustix lacks, and calls that need care (no symlink is ever
//! followed, an object is addressed by directory descriptor and name).
//!
//! **Addressing.** [`At`] is a directory descriptor and one name in it. An
//! empty name means the object the descriptor itself refers to, so that one
//! set of functions serves linked objects and unlinked ones kept by a
//! descriptor.

pub mod backing;
pub mod data;
pub mod fileattr;
pub mod handle;
pub mod identity;
pub mod list;
pub mod memory;
pub mod mounts;
pub mod network;
pub mod node;
pub mod process;
pub mod refresh;
pub mod stat;
pub mod xattr;

pub use rustix::io::Errno;
pub use stat::{Kind, Stat, Time};

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// An object in a file system: `name` in the directory `dir`, or, when `name`
/// is empty, whatever `dir` refers to (it may then be an `O_PATH` descriptor
/// of anything).
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The directory, or the object itself.
    pub dir: BorrowedFd<'a>,
    /// One path component without `/`, or empty.
    pub name: &'a [u8],
}

impl<'a> At<'a> {
    /// `name` in `dir`.
    pub fn new(dir: BorrowedFd<'a>, name: &'a [u8]) -> Self {
        Self { dir, name }
    }

    /// The object `fd` refers to.
    pub fn fd(fd: BorrowedFd<'a>) -> Self {
        Self { dir: fd, name: b"" }
    }

    /// Whether the object is the descriptor itself.
    pub fn is_fd(&self) -> bool {
        self.name.is_empty()
    }

    /// A path through procfs that names the object for calls that have no
    /// `*at` form. Its last component must not be followed unless [`Self::is_fd`].
    fn proc_path(&self) -> Result<CString> {
        let fd = self.dir.as_raw_fd();
        let mut path = format!("/proc/self/fd/{fd}").into_bytes();
        if !self.is_fd() {
            path.push(b'/');
            path.extend_from_slice(self.name);
        }
        CString::new(path).map_err(|_| Errno::INVAL)
    }
}

/// Turns the return value of a raw `libc` call into a [`Result`].
fn check(ret: libc::c_long) -> Result<usize> {
    if ret >= 0 {
        return Ok(ret as usize);
    }
    let code = std::io::Error::last_os_error().raw_os_error();
    Err(Errno::from_raw_os_error(code.unwrap_or(libc::EIO)))
}

/// A C string of `bytes`; `EINVAL` if they hold a NUL.
fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}
