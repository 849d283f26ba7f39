//! Files that the kernel reads and writes itself (FUSE passthrough), which only root of the machine
//! can let it do.
//!
//! **Which.** On a mount without an upper all, if it is asked for. Beside one those whose data is in
//! upper, when they are opened for writing, or are large, and nobody else has them open: of a lower file
//! the kernel would go on with that after a copy-up. What is open of a file at one time is alike, or the kernel
//! refuses it (`fs/fuse/iomode.c: fuse_file_io_open`); the first decides.
//!
//! **Mappings.** A mapping of such a file is one of upper's, and outlives RELEASE unseen. So a
//! file that was opened in a way that can be mapped is handed over by whoever opens it, until the kernel
//! forgets it, which it does not before the mapping is gone: cached pages beside the mapping would be
//! older than the file. Nor does the kernel notice that a mapping changed the times: of files that were
//! opened for both it keeps no attributes ([`Fs::attributes_last`]).
//!
//! **The cache** holds nothing of such a file that is read from it: what it had is dropped by each
//! opening, and pages are read to it (posix_fadvise(2)) only through files that can be mapped.
//!
//! **Rights.** The kernel writes with root's, after it has asked the mode it knows whether this writer
//! takes set-id bits away. If so it says so, in a way ([`Fs::drop_passed_set_id`]).
//!
//! **`O_APPEND` and `O_DIRECT`** are the backing file's for ever, but fcntl(2) can take them from the
//! client's. So a file that is opened with them does not begin this, and where others did, the kernel only
//! maps what it was handed, and asks the daemon for the rest.

use super::direct::Cache;
use super::file::{How, OpenFile};
use super::node::Node;
use super::set_id::take_set_id;
use super::{Caller, Fs, Notify};
use crate::sys::{Errno, Result, identity};
use crate::union::LayerId;
use rustix::fs::OFlags;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Bytes of a file from which it pays to hand it over to be read only: no READs, and no second copy of it
/// in memory. What it costs are two calls for each opening, and after each reading that the kernel asks for the
/// access time at the next stat(2), which would be felt with programs and their libraries.
const LARGE: i64 = 64 << 20;

/// In what way a file may be mapped that the kernel was handed, until it forgets the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mapped {
    /// In none: it was not handed over, or to be written with write(2) only.
    #[default]
    Never,
    /// Without `PROT_WRITE`.
    ToRead,
    /// With it too.
    ToWrite,
}

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
    /// Whether the kernel was handed it.
    fn is_passed(&self) -> bool {
        matches!(self.cache, Cache::Passed { .. })
    }
}

impl Fs {
    /// Allows files to be handed to the kernel: it was agreed upon.
    pub fn allow_passthrough(&self) {
        self.passthrough.store(true, Ordering::Relaxed);
    }

    /// Hands the file `node`, whose data is open as `fd`, in upper or not, to the kernel, if it is one
    /// of those for whoever opens it as `how` says.
    ///
    /// # Errors
    /// `ENOMEM` and the like, where it must be.
    pub(super) fn hand_over(
        &self,
        node: &Node,
        (fd, in_upper): (BorrowedFd<'_>, bool),
        how: How,
    ) -> Result<Option<Arc<Passed>>> {
        if !self.passthrough.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let must_be = node.mapped() != Mapped::Never;
        let pays = || how.writes() || rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size >= LARGE);
        let can_be = || !how.can_turn() && (self.is_read_only() || in_upper && pays());
        if !must_be && (node.an_open().is_some() || !can_be()) {
            return Ok(None);
        }
        let kernel = self.notify.get().ok_or(Errno::NOTCONN)?;
        match kernel.hand_over(fd) {
            Ok(id) => Ok(Some(Arc::new(Passed { id, kernel: Arc::downgrade(kernel) }))),
            Err(e) if must_be => Err(e),
            Err(e) => {
                log::debug!("node {} is not passed on: {e}", node.id);
                Ok(None)
            }
        }
    }

    /// In what way a file may be mapped by whoever opened it as `how` says, with this `cache`.
    pub(super) fn mapped_by(&self, how: How, cache: &Cache) -> Mapped {
        let passed = matches!(cache, Cache::Passed { .. }) && !self.is_read_only();
        match how.access() {
            OFlags::RDWR if passed => Mapped::ToWrite,
            OFlags::RDONLY if passed => Mapped::ToRead,
            _ => Mapped::Never,
        }
    }

    /// Whether the attributes that are now told of node `id` stay true until the kernel learns
    /// otherwise.
    pub fn attributes_last(&self, id: u64) -> bool {
        !self.unseen.load(Ordering::Acquire)
            || !self.nodes.get(id).is_ok_and(|node| node.mapped() == Mapped::ToWrite)
    }

    /// Takes set-id bits from `node` as a write by `caller` would, if the kernel may be about to write
    /// for it: it sends an empty SETATTR first, as it does for chown(2) of nothing, and for root too
    /// if there are capabilities to take.
    pub(super) fn drop_passed_set_id(&self, node: &Node, caller: Caller) -> Result<()> {
        let written = |f: &Arc<OpenFile>| f.is_passed() && f.how.writes();
        let Some(file) = node.opens().into_iter().find(written) else { return Ok(()) };
        if caller.uid == 0 && identity::may_keep_set_id(caller.pid) {
            return Ok(());
        }
        take_set_id(&*self.backing(&file)?, self.owners(LayerId::UPPER), caller)
    }
}
