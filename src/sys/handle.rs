//! File handles: name_to_handle_at(2), open_by_handle_at(2), and the UUID of a
//! file system.
#![allow(unsafe_code)]

use super::{At, Errno, Result, c_string, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `MAX_HANDLE_SZ` of linux/exportfs.h: the most bytes a handle has.
pub const MAX_HANDLE_SIZE: usize = 128;

/// A file handle: what open_by_handle_at(2) finds the object by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The type the file system gave it.
    pub kind: i32,
    /// The bytes the file system gave it, at most [`MAX_HANDLE_SIZE`].
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; MAX_HANDLE_SIZE],
}

/// The handle of `at`.
///
/// # Errors
/// `EOPNOTSUPP` when the file system has no handles, and the others of
/// name_to_handle_at(2).
pub fn encode(at: At<'_>) -> Result<Handle> {
    let name = c_string(at.name)?;
    let mut raw = RawHandle {
        handle_bytes: MAX_HANDLE_SIZE as u32,
        handle_type: 0,
        f_handle: [0; MAX_HANDLE_SIZE],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `raw` has the room that `handle_bytes` announces; all pointers
    // live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            at.dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    })?;
    let bytes = raw.f_handle.get(..raw.handle_bytes as usize).ok_or(Errno::OVERFLOW)?;
    Ok(Handle { kind: raw.handle_type, bytes: bytes.to_vec() })
}

/// Opens the object that `handle` names on the file system of `mount`, with `O_PATH`.
///
/// # Errors
/// `EPERM` without `CAP_DAC_READ_SEARCH`, `ESTALE` when the object is gone,
/// and the others of open_by_handle_at(2).
pub fn open(mount: BorrowedFd<'_>, handle: &Handle) -> Result<OwnedFd> {
    let mut raw = RawHandle {
        handle_bytes: handle.bytes.len() as u32,
        handle_type: handle.kind,
        f_handle: [0; MAX_HANDLE_SIZE],
    };
    let room = raw.f_handle.get_mut(..handle.bytes.len()).ok_or(Errno::INVAL)?;
    room.copy_from_slice(&handle.bytes);
    // SAFETY: `raw` is a valid file handle structure that lives through the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The UUID of the file system that `fd` (not `O_PATH`) lies on, all zeros if it has none.
pub fn file_system_uuid(fd: BorrowedFd<'_>) -> [u8; 16] {
    generic_uuid(fd).or_else(|| btrfs_uuid(fd)).unwrap_or_default()
}

fn generic_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    /// `struct fsuuid2` of linux/fs.h.
    #[repr(C)]
    struct FsUuid2 {
        len: u8,
        uuid: [u8; 16],
    }
    /// `FS_IOC_GETFSUUID` of linux/fs.h: `_IOR(0x15, 0, struct fsuuid2)`.
    const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;
    let mut out = FsUuid2 { len: 0, uuid: [0; 16] };
    // SAFETY: the kernel writes one `struct fsuuid2` to `out`.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFSUUID as _, &raw mut out) };
    (ret == 0 && out.len == 16).then_some(out.uuid)
}

/// btrfs does not answer the generic question.
fn btrfs_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    /// `struct btrfs_ioctl_fs_info_args` of linux/btrfs.h, 1024 bytes.
    #[repr(C)]
    struct FsInfo {
        max_id: u64,
        num_devices: u64,
        fsid: [u8; 16],
        rest: [u64; 124],
    }
    /// `BTRFS_IOC_FS_INFO` of linux/btrfs.h: `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`.
    const BTRFS_IOC_FS_INFO: libc::c_ulong = 0x8400_941f;
    let mut out = FsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: the kernel writes one `struct btrfs_ioctl_fs_info_args` to `out`,
    // which has its size.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_IOC_FS_INFO as _, &raw mut out) };
    (ret == 0).then_some(out.fsid)
}
