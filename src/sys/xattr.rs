//! Extended attributes by directory descriptor and name.
//!
//! Uses getxattrat(2) and its siblings (Linux 6.13), and a path through
//! /proc/self/fd where the kernel does not have them. A symbolic link is never
//! followed.
#![allow(unsafe_code)]

use super::{At, Errno, Result, c_string, check};
use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest value, and the largest list of names, that Linux allows.
pub const MAX_SIZE: usize = 65536;

/// `XATTR_CREATE`: fail with `EEXIST` when the attribute exists.
pub const CREATE: u32 = libc::XATTR_CREATE as u32;

const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// Set once the kernel has said that it lacks the `*xattrat` calls.
static NO_XATTRAT: AtomicBool = AtomicBool::new(false);

/// `struct xattr_args` of linux/xattr.h.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Runs `at_form` unless the kernel lacks it or `at` is a descriptor (which
/// `*xattrat` refuses when it is `O_PATH`), else `path_form`, which is told
/// whether to follow the last link of its path (that of procfs to the object).
fn either(
    at: At<'_>,
    at_form: impl FnOnce(&CStr) -> libc::c_long,
    path_form: impl FnOnce(&CStr, bool) -> libc::c_long,
) -> Result<usize> {
    if !at.is_fd() && !NO_XATTRAT.load(Ordering::Relaxed) {
        match with_c_str(at.name, at_form)? {
            Err(Errno::NOSYS) => NO_XATTRAT.store(true, Ordering::Relaxed),
            done => return done,
        }
    }
    let path = at.proc_path()?;
    check(path_form(&path, at.is_fd()))
}

/// Calls `f` with `name` as a C string, without an allocation when it is short.
fn with_c_str(name: &[u8], f: impl FnOnce(&CStr) -> libc::c_long) -> Result<Result<usize>> {
    let mut buf = [0u8; 256];
    if name.len() < buf.len() {
        buf[..name.len()].copy_from_slice(name);
        let name = CStr::from_bytes_with_nul(&buf[..=name.len()]).map_err(|_| Errno::INVAL)?;
        return Ok(check(f(name)));
    }
    Ok(check(f(&c_string(name)?)))
}

/// Reads attribute `name` into `buf`; an empty `buf` asks for the size.
/// Returns the number of bytes.
///
/// # Errors
/// Those of getxattr(2): `ENODATA`, `ERANGE`, `EOPNOTSUPP`…
pub fn get_into(at: At<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    let (value, size) = (buf.as_mut_ptr(), buf.len());
    either(
        at,
        |path| {
            let args = XattrArgs { value: value as u64, size: size as u32, flags: 0 };
            // SAFETY: the pointers live through the call; the kernel writes at
            // most `size` bytes to `value`.
            unsafe {
                libc::syscall(
                    SYS_GETXATTRAT,
                    at.dir.as_raw_fd(),
                    path.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    name.as_ptr(),
                    &raw const args,
                    size_of::<XattrArgs>(),
                )
            }
        },
        |path, follow| {
            // SAFETY: as above.
            unsafe {
                let call = if follow { libc::getxattr } else { libc::lgetxattr };
                call(path.as_ptr(), name.as_ptr(), value.cast(), size) as libc::c_long
            }
        },
    )
}

/// The value of attribute `name`, or `None` when the object has none (also
/// when its file system knows no attributes of that name).
///
/// # Errors
/// Those of getxattr(2) other than `ENODATA` and `EOPNOTSUPP`.
pub fn get(at: At<'_>, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut small = [0u8; 256];
    match get_into(at, name, &mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut big = vec![0u8; MAX_SIZE];
    match get_into(at, name, &mut big) {
        Ok(len) => {
            big.truncate(len);
            Ok(Some(big))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets attribute `name` to `value`; `flags` are those of setxattr(2).
///
/// # Errors
/// Those of setxattr(2).
pub fn set(at: At<'_>, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
    either(
        at,
        |path| {
            let args = XattrArgs { value: value.as_ptr() as u64, size: value.len() as u32, flags };
            // SAFETY: the pointers live through the call and are only read.
            unsafe {
                libc::syscall(
                    SYS_SETXATTRAT,
                    at.dir.as_raw_fd(),
                    path.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    name.as_ptr(),
                    &raw const args,
                    size_of::<XattrArgs>(),
                )
            }
        },
        |path, follow| {
            let (data, len) = (value.as_ptr().cast(), value.len());
            // SAFETY: as above.
            unsafe {
                let call = if follow { libc::setxattr } else { libc::lsetxattr };
                call(path.as_ptr(), name.as_ptr(), data, len, flags as i32) as libc::c_long
            }
        },
    )
    .map(|_| ())
}

/// The names of all attributes, each ended by a NUL byte.
///
/// # Errors
/// Those of listxattr(2); a file system without attributes gives an empty list.
pub fn list(at: At<'_>) -> Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match list_into(at, &mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut big = vec![0u8; MAX_SIZE];
    let len = list_into(at, &mut big)?;
    big.truncate(len);
    Ok(big)
}

fn list_into(at: At<'_>, buf: &mut [u8]) -> Result<usize> {
    let (data, size) = (buf.as_mut_ptr(), buf.len());
    either(
        at,
        // SAFETY: the kernel writes at most `size` bytes to `data`.
        |path| unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                at.dir.as_raw_fd(),
                path.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                data,
                size,
            )
        },
        // SAFETY: as above.
        |path, follow| unsafe {
            let call = if follow { libc::listxattr } else { libc::llistxattr };
            call(path.as_ptr(), data.cast(), size) as libc::c_long
        },
    )
}

/// Removes attribute `name`.
///
/// # Errors
/// Those of removexattr(2).
pub fn remove(at: At<'_>, name: &CStr) -> Result<()> {
    either(
        at,
        // SAFETY: the pointers live through the call and are only read.
        |path| unsafe {
            libc::syscall(
                SYS_REMOVEXATTRAT,
                at.dir.as_raw_fd(),
                path.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
            )
        },
        // SAFETY: as above.
        |path, follow| unsafe {
            let call = if follow { libc::removexattr } else { libc::lremovexattr };
            call(path.as_ptr(), name.as_ptr()) as libc::c_long
        },
    )
    .map(|_| ())
}
