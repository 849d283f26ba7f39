//! Files that are read and written past the kernel's page cache.
//!
//! What is written through a descriptor that is for writing only is seldom read soon. So the kernel
//! hands it on as it comes, instead of copying it to the cache page by page first: a copy and the
//! memory are saved, and so are the WRITEs of their own for pages that are written in part, the READs
//! that fill those up later, and the GETXATTR before the first write.
//!
//! **The descriptors of a file that are open at the same time are all alike**, as the first of them.
//! No page can get into the cache, then, while the file is written past it, but by mmap(2); those the
//! kernel drops itself when they are written to (`fs/fuse/file.c: fuse_direct_io`).

use super::Fs;
use super::file::{NO_HANDLE, OpenFile};
use crate::sys::Result;
use rustix::fs::OFlags;

/// `O_DSYNC`: `OFlags::DSYNC` is more, both of it and `__O_SYNC`.
const DATA_SYNC: OFlags = OFlags::from_bits_retain(libc::O_DSYNC as u32);

/// A file that was just opened.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// What the kernel is to call it.
    pub handle: u64,
    /// It is read and written past the page cache.
    pub direct: bool,
}

impl Opened {
    /// The file that the kernel opened without asking.
    pub(super) const UNASKED: Self = Self { handle: NO_HANDLE, direct: false };
}

/// Whether a file opened with `flags` goes past the page cache, if `other` is open too.
pub(super) fn is_direct(flags: OFlags, other: Option<&OpenFile>) -> bool {
    other.map_or(flags & OFlags::ACCMODE == OFlags::WRONLY, OpenFile::is_direct)
}

impl Fs {
    /// Brings what was written with the open file's `flags` to the disk, if they ask for it. Of what
    /// goes through the cache the kernel sees to it, and sends FSYNC.
    pub(super) fn sync_written(&self, id: u64, handle: u64, flags: OFlags) -> Result<()> {
        if flags.contains(DATA_SYNC) && handle != NO_HANDLE && self.file(handle)?.is_direct() {
            return self.fsync(id, handle, !flags.contains(OFlags::SYNC));
        }
        Ok(())
    }
}
