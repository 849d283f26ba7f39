//! Reading a directory.

use super::node::open_dir_as;
use super::{Errno, Result};
use rustix::fs::{FileType, OFlags, RawDir};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a directory says of one entry.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    /// Its name; `.` and `..` are left out.
    pub name: &'a [u8],
    /// Its `DT_*` type, 0 when the file system does not tell.
    pub dtype: u8,
    /// Its inode number.
    pub ino: u64,
}

/// Opens the directory `path` below `dir` (any descriptor of a directory, `O_PATH` too; empty:
/// itself) for [`for_each_of`], as [`open_dir_path`](super::node::open_dir_path) does.
///
/// # Errors
/// Those of openat2(2).
pub fn open(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    match open_dir_as(dir, path, OFlags::RDONLY | OFlags::NOATIME) {
        Err(Errno::PERM) => open_dir_as(dir, path, OFlags::RDONLY),
        opened => opened,
    }
}

/// Calls `visit` for every entry of `dir` (any descriptor of a directory,
/// `O_PATH` too), until it fails.
///
/// # Errors
/// Those of openat(2), getdents64(2), and what `visit` gives.
pub fn for_each(dir: BorrowedFd<'_>, visit: impl FnMut(RawEntry<'_>) -> Result<()>) -> Result<()> {
    for_each_of(open(dir, b"")?.as_fd(), visit)
}

/// [`for_each`] for a directory that [`open`] opened.
///
/// # Errors
/// Those of getdents64(2), and what `visit` gives.
pub fn for_each_of(
    fd: BorrowedFd<'_>,
    mut visit: impl FnMut(RawEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut buf = Vec::with_capacity(64 << 10);
    let mut raw = RawDir::new(fd, buf.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            visit(RawEntry { name, dtype: dtype(entry.file_type()), ino: entry.ino() })?;
        }
    }
    Ok(())
}

fn dtype(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Unknown => libc::DT_UNKNOWN,
    }
}
