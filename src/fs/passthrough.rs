//! Files that the kernel reads and writes itself (FUSE passthrough), which only root of the machine
//! can let it do.
//!
//! **Which.** On a mount without an upper all, if it is asked for. Beside one those whose data is in
//! upper, when they are opened for writing and nobody else has them open: of a lower file the kernel
//! would go on with that after a copy-up. What is open of a file at one time is alike, or the kernel
//! refuses it (`fs/fuse/iomode.c: fuse_file_io_open`); the first decides.
//!
//! **Mappings.** A mapping of such a file holds what was handed over, and outlives RELEASE unseen. So a
//! file that was opened in a way that can be mapped stays one of them until the kernel forgets it,
//! which it does not before the mapping is gone: cached pages beside the mapping would be older than the file.
//! Nor does the kernel notice that a mapping changed the times: of these files it keeps no attributes
//! ([`Fs::attributes_last`]).
//!
//! **The cache** holds nothing of such a file: what it had is dropped by each opening, and pages are
//! read to it (posix_fadvise(2)) only through files that can be mapped.
//!
//! **Rights.** The kernel writes with root's, after it has asked the mode it knows whether this writer
//! takes set-id bits away. If so it says so, in a way ([`Fs::drop_passed_set_id`]).
//!
//! **`O_APPEND`** is the backing file's for ever. fcntl(2) can take it from the client's, so
//! that such a file is written by the daemon: it does not begin this, and where others did, it only
//! maps what the kernel was handed.

use super::direct::Cache;
use super::file::{How, OpenFile};
use super::node::Node;
use super::set_id::take_set_id;
use super::{Caller, Fs, Notify};
use crate::sys::{Errno, Result};
use crate::union::LayerId;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// A file that the kernel was handed.
#[derive(Debug)]
pub struct Passed {
    /// What the kernel calls it.
    pub id: u32,
    kernel: Weak<dyn Notify>,
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.take_back(self.id);
        }
    }
}

impl OpenFile {
    /// What the kernel was handed, if it reads and writes the file itself.
    pub(super) fn passed(&self) -> Option<&Arc<Passed>> {
        match &self.cache {
            Cache::Passed { file, .. } => Some(file),
            _ => None,
        }
    }
}

impl Fs {
    /// Allows files to be handed to the kernel: it was agreed upon.
    pub fn allow_passthrough(&self) {
        self.passthrough.store(true, Ordering::Relaxed);
    }

    /// Hands the file `node`, whose data was opened as `fd` and `how` says, to the kernel, if it is
    /// one of those and nobody has it open.
    pub(super) fn hand_over(
        &self,
        node: &Node,
        fd: &OwnedFd,
        in_upper: bool,
        how: How,
    ) -> Option<Arc<Passed>> {
        let written = in_upper && how.writes() && !how.appends();
        let passes = self.passthrough.load(Ordering::Relaxed) && (written || self.is_read_only());
        if !passes || node.passed().is_some() || node.an_open().is_some() {
            return None;
        }
        let kernel = self.notify.get()?;
        match kernel.hand_over(fd.as_fd()) {
            Ok(id) => Some(Arc::new(Passed { id, kernel: Arc::downgrade(kernel) })),
            Err(e) => {
                log::debug!("node {} is not passed on: {e}", node.id);
                // No file of upper can be.
                if matches!(e, Errno::LOOP | Errno::PERM | Errno::OPNOTSUPP) && in_upper {
                    self.passthrough.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Whether a file that is opened as `how` says, and passed, stays so until it is forgotten.
    pub(super) fn is_passed_for_good(&self, how: How) -> bool {
        how.access() != OFlags::WRONLY && !self.is_read_only()
    }

    /// Whether the attributes that are now told of node `id` stay true until the kernel learns
    /// otherwise.
    pub fn attributes_last(&self, id: u64) -> bool {
        !self.unseen.load(Ordering::Acquire)
            || !self.nodes.get(id).is_ok_and(|node| node.passed().is_some())
    }

    /// Takes set-id bits from `node` as a write by `caller` would, if the kernel may be about to write
    /// for it: it sends an empty SETATTR first, as it does for chown(2) of nothing.
    pub(super) fn drop_passed_set_id(&self, node: &Node, caller: Caller) -> Result<()> {
        let written = |f: &Arc<OpenFile>| f.passed().is_some() && f.how.writes();
        let Some(file) = node.opens().into_iter().find(written) else { return Ok(()) };
        take_set_id(&*self.backing(&file)?, self.owners(LayerId::UPPER), caller)
    }
}
