//! Private copies of mounts.
#![allow(unsafe_code)]

use super::{Result, check};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A private, read-only copy of the mount of directory `dir`, rooted there: it
/// shows what lies on that file system, never what is mounted on top of it,
/// updates no access times where that may be asked for, refuses every change,
/// and opens no devices.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace of the mounts, `EINVAL`
/// when something is mounted below that a foreign namespace locked.
pub fn private_read_only(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let at_empty_path = OpenTreeFlags::from_bits_retain(libc::AT_EMPTY_PATH as u32);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | at_empty_path;
    let tree = rustix::mount::open_tree(dir, c"", flags)?;
    // The access time setting is a field of its own, replaced as a whole.
    let no_device = libc::MOUNT_ATTR_NODEV;
    let no_atime = (libc::MOUNT_ATTR_NOATIME | no_device, libc::MOUNT_ATTR__ATIME);
    // A user namespace may not change that of a mount it inherited.
    let root = libc::AT_EMPTY_PATH;
    set_attributes(&tree, root, no_atime)
        .or_else(|_| set_attributes(&tree, root, (no_device, 0)))?;
    Ok(tree)
}

/// A copy of what is seen at `path`, with all that is mounted below, attached nowhere yet;
/// `read_only`: it and all below refuse changes.
///
/// # Errors
/// `ENOENT`, and those of [`private_read_only`]; `ENOSYS` for `read_only` before Linux 5.12.
pub fn copy(path: &Path, read_only: bool) -> Result<OwnedFd> {
    let recursive = OpenTreeFlags::from_bits_retain(libc::AT_RECURSIVE as u32);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    if read_only {
        set_attributes(&tree, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, (0, 0))?;
    }
    Ok(tree)
}

/// Makes the mount `tree` read-only and private, and sets and clears further attributes; `at` says
/// whether those below it as well.
fn set_attributes(tree: &OwnedFd, at: libc::c_int, (set, clear): (u64, u64)) -> Result<()> {
    let attr = MountAttr {
        attr_set: libc::MOUNT_ATTR_RDONLY | set,
        attr_clr: clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: `attr` lives through the call and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            at,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(|_| ())
}
