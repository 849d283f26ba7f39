//! Opening objects and changing their attributes by directory descriptor and name.
#![allow(unsafe_code)]

use super::{At, Errno, Result, Time, c_string, check};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const SYS_FCHMODAT2: libc::c_long = 452;

/// The longest relative path that is given to openat2(2) at once: `PATH_MAX`
/// less the final NUL and some room.
const CHUNK: usize = 4000;

/// Opens the directory `path` (components separated by `/`; empty for `root`
/// itself) below `root` with `O_PATH`. Neither a symbolic link nor `..` is followed.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP` (a symbolic link in `path`), `EMFILE`…
pub fn open_dir_path(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_dir_as(root, path, OFlags::PATH)
}

/// [`open_dir_path`] with `access` (`O_PATH`, or `O_RDONLY` to list the directory) for the last one.
pub(super) fn open_dir_as(root: BorrowedFd<'_>, path: &[u8], access: OFlags) -> Result<OwnedFd> {
    let mut rest = path;
    let mut dir: Option<OwnedFd> = None;
    loop {
        let (head, tail) = split_chunk(rest);
        let from = dir.as_ref().map_or(root, |fd| std::os::fd::AsFd::as_fd(fd));
        let name: &[u8] = if head.is_empty() { b"." } else { head };
        let access = if tail.is_empty() { access } else { OFlags::PATH };
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = open_beneath(from, name, flags)?;
        if tail.is_empty() {
            return Ok(next);
        }
        rest = tail;
        dir = Some(next);
    }
}

/// Splits `path` before the last component that no longer fits in [`CHUNK`] bytes.
fn split_chunk(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= CHUNK {
        return (path, b"");
    }
    let cut = path[..CHUNK].iter().rposition(|&b| b == b'/').unwrap_or(CHUNK);
    (&path[..cut], &path[cut + 1..])
}

/// openat2(2) that stays below `dir` on its mount and follows no link; openat(2) with
/// `O_NOFOLLOW` where a sandbox forbids openat2.
fn open_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            // The kernel asks to retry when a rename elsewhere raced with the walk.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => return rustix::fs::openat(dir, path, flags, Mode::empty()),
            done => return done,
        }
    }
}

/// Opens the regular file or directory `at`; `flags` without `O_CREAT`.
///
/// # Errors
/// Those of openat(2); `ELOOP` for a symbolic link.
pub fn open(at: At<'_>, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    if at.is_fd() {
        return rustix::fs::open(at.proc_path()?, flags, Mode::empty());
    }
    rustix::fs::openat(at.dir, at.name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// Sets the permission bits of `at` (not a symbolic link) to `mode & 0o7777`.
///
/// # Errors
/// Those of fchmodat2(2).
pub fn chmod(at: At<'_>, mode: u32) -> Result<()> {
    let mode = mode & 0o7777;
    let name = c_string(at.name)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the name lives through the call and is only read.
    let done = check(unsafe {
        libc::syscall(SYS_FCHMODAT2, at.dir.as_raw_fd(), name.as_ptr(), mode, flags)
    });
    match done {
        Err(Errno::NOSYS) => chmod_by_path(at, mode),
        done => done.map(|_| ()),
    }
}

/// chmod for kernels before 6.6, through procfs: the object is opened first,
/// so that a symbolic link put in its place is not followed.
fn chmod_by_path(at: At<'_>, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    if at.is_fd() {
        return rustix::fs::chmod(at.proc_path()?, mode);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(at.dir, at.name, flags, Mode::empty())?;
    rustix::fs::chmod(At::fd(std::os::fd::AsFd::as_fd(&fd)).proc_path()?, mode)
}

/// Changes owner and group of `at`; `None` leaves one as it is.
///
/// # Errors
/// Those of fchownat(2).
pub fn chown(at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::chownat(at.dir, at.name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
}

/// Cuts or extends the open regular file `fd` to `size` bytes as truncate(2)
/// does: unlike with ftruncate(2) a file of that size keeps its times.
///
/// # Errors
/// Those of truncate(2).
pub fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    let path = At::fd(fd).proc_path()?;
    let size = i64::try_from(size).map_err(|_| Errno::FBIG)?;
    // SAFETY: the path lives through the call and is only read.
    check(unsafe { libc::truncate64(path.as_ptr(), size) }.into()).map(|_| ())
}

/// A new value for one of the two times that utimensat(2) sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The current time.
    Now,
    /// This time.
    To(Time),
}

impl SetTime {
    fn timespec(self) -> Timespec {
        match self {
            Self::Omit => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            Self::Now => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
            Self::To(t) => Timespec { tv_sec: t.secs, tv_nsec: t.nanos.into() },
        }
    }
}

/// Sets the access and modification times of `at`.
///
/// # Errors
/// Those of utimensat(2).
pub fn set_times(at: At<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let times = Timestamps { last_access: atime.timespec(), last_modification: mtime.timespec() };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::utimensat(at.dir, at.name, &times, flags)
}

/// The target of the symbolic link `at`.
///
/// # Errors
/// Those of readlinkat(2).
pub fn read_link(at: At<'_>) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(at.dir, at.name, Vec::with_capacity(256))
        .map(std::ffi::CString::into_bytes)
}

/// Makes the node `name` of type and permissions `mode` (the umask applies),
/// with the packed device number `rdev`.
///
/// # Errors
/// Those of mknodat(2).
pub fn make_node(at: At<'_>, mode: u32, rdev: u32) -> Result<()> {
    let name = c_string(at.name)?;
    // The kernel takes the 32-bit packing of `new_encode_dev`, which `Stat::rdev` has.
    // SAFETY: the name lives through the call and is only read.
    check(unsafe {
        libc::syscall(libc::SYS_mknodat, at.dir.as_raw_fd(), name.as_ptr(), mode, rdev)
    })
    .map(|_| ())
}

/// Gives the unnamed (`O_TMPFILE`) or unlinked file `fd` the name `to`.
///
/// # Errors
/// Those of linkat(2).
pub fn link_fd(fd: BorrowedFd<'_>, to: At<'_>) -> Result<()> {
    let path = At::fd(fd).proc_path()?;
    rustix::fs::linkat(rustix::fs::CWD, path, to.dir, to.name, AtFlags::SYMLINK_FOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_between_components() {
        let component = [b'a'; 255];
        let path = vec![component.as_slice(); 40].join(&b'/');
        let (mut rest, mut parts) = (path.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (head, tail) = split_chunk(rest);
            assert!(head.len() <= CHUNK);
            parts.push(head);
            rest = tail;
        }
        assert!(parts.len() > 1);
        assert_eq!(parts.join(&b'/'), path);
    }
}
