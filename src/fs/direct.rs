//! Files that are written past the kernel's page cache.
//!
//! Who makes a file's content anew, and opens it for nothing but that, does not read it. So the kernel
//! hands on what is written as it comes, instead of copying it to its cache page by page first: a copy
//! and the memory are saved, the WRITEs of their own for pages that are written in part, the READs
//! that fill those up later, and the GETXATTR before the first write.
//!
//! **The cache never keeps what is older than the file.** It is empty when such a file is opened, and all
//! that open it meanwhile go past the cache too. They can still fill it, by mmap(2) or splice(2), at the
//! very moment of a write, which kernels before Linux 6.19 do not notice: so the first who opens the
//! file after them makes the kernel drop what it has.
//!
//! **Nobody goes past the cache for long by accident.** close(2) does not wait for RELEASE, and whoever
//! opens the file right after it, perhaps to run it, would keep it so.

use super::Fs;
use super::file::{How, NO_HANDLE, OpenFile};
use super::node::Node;
use super::passthrough::{Mapped, Passed};
use crate::sys::Result;
use rustix::fs::OFlags;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a RELEASE that is on its way is looked for, and how long after each look.
const LOOKS: (usize, Duration) = (10, Duration::from_micros(20));

/// `O_DSYNC`: `OFlags::DSYNC` is more, both of it and `__O_SYNC`.
const DATA_SYNC: OFlags = OFlags::from_bits_retain(libc::O_DSYNC as u32);

/// What the kernel's page cache is to an open file.
#[derive(Debug, Clone)]
pub enum Cache {
    /// What is in it holds.
    Kept,
    /// What is in it is dropped first.
    Renewed,
    /// It is passed by.
    Bypassed,
    /// It is not used: the kernel reads and writes the file itself.
    Passed {
        /// What it was handed.
        file: Arc<Passed>,
        /// The kernel only maps it, and asks for the rest past the cache.
        asks: bool,
    },
}

/// A file that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// What the kernel is to call it.
    pub handle: u64,
    /// What the kernel is to do with its cache.
    pub cache: Cache,
}

impl OpenFile {
    fn is_bypassing(&self) -> bool {
        matches!(self.cache, Cache::Bypassed | Cache::Passed { asks: true, .. })
    }
}

impl Fs {
    /// Allows files to go past the kernel's page cache: this kernel can map them all the same.
    pub fn allow_bypass(&self) {
        self.bypass.store(true, Ordering::Relaxed);
    }

    /// What the cache is to the file `node`, opened as `how` says, if `other` is open too, and if it
    /// was handed to the kernel as `passed`.
    pub(super) fn cache(
        &self,
        node: &Node,
        how: How,
        passed: Option<&Arc<Passed>>,
        other: Option<&OpenFile>,
    ) -> Cache {
        let made_anew = how.empty && self.bypass.load(Ordering::Relaxed);
        let pass = |file| Cache::Passed { file: Arc::clone(file), asks: how.can_turn() };
        let plain = OFlags::ACCMODE | OFlags::APPEND | DATA_SYNC;
        match (other.map(|file| &file.cache), passed) {
            (Some(Cache::Passed { file, .. }), _) => pass(file),
            (Some(Cache::Bypassed), _) => {
                node.set_cache_outdated();
                Cache::Bypassed
            }
            (Some(_), _) => Cache::Kept,
            (None, Some(file)) => pass(file),
            (None, None) if made_anew && how.flags & plain == OFlags::WRONLY => Cache::Bypassed,
            (None, None) if node.take_cache_outdated() => Cache::Renewed,
            (None, None) => Cache::Kept,
        }
    }

    /// Waits a moment for those to be gone that have `node` open without the cache, if whoever opens it
    /// with `access` had better use it.
    pub(super) fn await_release(&self, node: &Node, access: OFlags) {
        let stays_passed =
            || access == OFlags::WRONLY || node.mapped() != Mapped::Never || self.is_read_only();
        let (looks, pause) = LOOKS;
        for _ in 0..looks {
            match node.an_open().as_ref().map(|file| &file.cache) {
                Some(Cache::Bypassed) => {}
                Some(Cache::Passed { .. }) if !stays_passed() => {}
                _ => return,
            }
            std::thread::sleep(pause);
        }
    }

    /// Brings what was written with the open file's `flags` to the disk, if they ask for it. Of what
    /// goes through the cache the kernel sees to it, and sends FSYNC.
    pub(super) fn sync_written(&self, id: u64, handle: u64, flags: OFlags) -> Result<()> {
        let bypasses = |handle| {
            let file = self.open_files.get(&handle);
            handle != NO_HANDLE && file.is_some_and(|file| file.is_bypassing())
        };
        if flags.contains(DATA_SYNC) && bypasses(handle) {
            return self.fsync(id, handle, !flags.contains(OFlags::SYNC));
        }
        Ok(())
    }
}
