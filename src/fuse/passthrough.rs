//! Passthrough: the kernel reads files of the layers itself, without READ.
//!
//! Only for mounts without an upper. What the kernel is handed it writes to as well, whatever the
//! descriptor was opened for, and after a copy-up it would be the lower layer's.
//!
//! All opens of a file that overlap in time must be alike and share one backing, or fail with `EIO`
//! (`fs/fuse/iomode.c: fuse_file_io_open`). The kernel lets go of a backing before it sends RELEASE.

use dashmap::DashMap;
use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use std::os::fd::AsFd;

/// How files that are open were opened, by node id.
#[derive(Debug, Default)]
pub struct Backings {
    open: DashMap<u64, Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None`: the kernel would not have the file, it sends READs.
    backing: Option<BackingId>,
    opens: usize,
}

impl Backings {
    /// Answers OPEN of node `id`, which `file` reads and `handle` names from now on.
    pub fn opened(&self, id: u64, file: impl AsFd, handle: u64, reply: ReplyOpen) {
        let mut shared = self.open.entry(id).or_insert_with(|| {
            let backing = reply.open_backing(file);
            let backing = backing.inspect_err(|e| log::debug!("node {id} is not passed on: {e}"));
            Shared { backing: backing.ok(), opens: 0 }
        });
        shared.opens += 1;
        let handle = FileHandle(handle);
        match &shared.backing {
            Some(backing) => reply.opened_passthrough(handle, FopenFlags::empty(), backing),
            None => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    /// Notes RELEASE of node `id`.
    pub fn released(&self, id: u64) {
        if let Some(mut shared) = self.open.get_mut(&id) {
            shared.opens -= 1;
        }
        self.open.remove_if(&id, |_, shared| shared.opens == 0);
    }
}
