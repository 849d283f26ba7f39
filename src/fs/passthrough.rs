//! Files that the kernel reads and writes itself (FUSE passthrough), which only root of the machine
//! can let it do.
//!
//! **Which.** Those whose data is in upper, or all of a mount without one, but for files with set-id
//! bits and small ones that are only read. What the kernel was handed it reads and writes for all who open the file, until nobody has
//! it open any more: of a lower file it would go on with that after a copy-up. So all that is open
//! of a file at one time is alike (`fs/fuse/iomode.c: fuse_file_io_open`); the first decides.
//!
//! **Rights.** The kernel writes with the rights of the thread that handed the file over: root's if
//! root was the first to open it, for writing; else without `CAP_FSETID`, so that the file system below
//! takes set-id bits away that the file was given since. Where others have it open for writing
//! beside root it keeps no such bits at all ([`Fs::drop_set_id_at_risk`]).
//!
//! **Attributes.** The kernel notes that write(2) changed them, but neither that a mapping did nor
//! that the mode lost set-id bits. While that can happen none are to be kept ([`Fs::attributes_last`]).

use super::direct::Cache;
use super::file::{How, OpenFile};
use super::node::Node;
use super::set_id::{SET_ID, has_set_id};
use super::{Fs, Notify};
use crate::sys::{Errno, identity};
use crate::union::LayerId;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// The most bytes that are better read through the cache, by one READ: after each opening for
/// reading that the kernel serves itself, stat(2) asks for the access time again.
const SMALL: i64 = 128 << 10;

/// A file that the kernel was handed, until the last who opened it has closed it.
#[derive(Debug)]
pub struct Passed {
    /// What the kernel calls it.
    pub id: u32,
    /// It is written with root's rights.
    as_root: bool,
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
    fn is_passed(&self) -> bool {
        matches!(self.cache, Cache::Passed(_))
    }

    /// Whether what others than root write is written with root's rights.
    pub(super) fn borrows_rights(&self) -> bool {
        let as_root = matches!(&self.cache, Cache::Passed(passed) if passed.as_root);
        as_root && self.writable() && !self.how.by_root
    }

    /// Whether the kernel may change attributes through it that it does not know.
    pub(super) fn changes_unseen(&self) -> bool {
        self.is_passed() && self.writable()
    }
}

impl Fs {
    /// Allows files to be handed to the kernel: it was agreed upon. It would not take away set-id
    /// bits that are stored in an attribute.
    pub fn allow_passthrough(&self) {
        let real = !self.owners(LayerId::UPPER).are_stored();
        self.passthrough.store(real, Ordering::Relaxed);
    }

    /// Hands the file `node`, whose data was opened as `fd`, to the kernel, if it is one of those
    /// and nobody else has it open.
    pub(super) fn hand_over(
        &self,
        node: &Node,
        fd: &OwnedFd,
        in_upper: bool,
        how: How,
    ) -> Option<Arc<Passed>> {
        let passes = in_upper || self.is_read_only();
        if !passes || !self.passthrough.load(Ordering::Relaxed) || node.an_open().is_some() {
            return None;
        }
        let kernel = self.notify.get()?;
        let stat = rustix::fs::fstat(fd).ok()?;
        let cached = in_upper && !how.writes() && stat.st_size <= SMALL;
        if cached || stat.st_mode & SET_ID != 0 {
            return None;
        }
        let as_root = how.by_root && how.writes();
        let hand_over = || kernel.hand_over(fd.as_fd());
        match if as_root { hand_over() } else { identity::without_fsetid(hand_over) } {
            Ok(id) => Some(Arc::new(Passed { id, as_root, kernel: Arc::downgrade(kernel) })),
            Err(e) => {
                log::debug!("node {} is not passed on: {e}", node.id);
                // No file of this file system can be.
                if matches!(e, Errno::LOOP | Errno::PERM | Errno::OPNOTSUPP) && in_upper {
                    self.passthrough.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Notes that the kernel may change attributes unseen through `file`, which was just opened: what
    /// it was told of them before is not to be kept either.
    pub(super) fn begin_unseen(&self, file: &OpenFile) {
        self.unseen.fetch_add(1, Ordering::AcqRel);
        // They may have been given since it was handed over.
        let has_bits = || file.descriptor().is_none_or(|fd| has_set_id(&fd).unwrap_or(true));
        if file.how.access() == OFlags::RDWR || has_bits() {
            self.attributes_changed(&file.node);
        }
    }

    /// Notes that such a file was closed.
    pub(super) fn end_unseen(&self) {
        self.unseen.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the attributes with `mode` that are now told of node `id` stay true until the kernel
    /// learns otherwise.
    pub fn attributes_last(&self, id: u64, mode: u32) -> bool {
        if self.unseen.load(Ordering::Acquire) == 0 {
            return true;
        }
        let Ok(node) = self.nodes.get(id) else { return true };
        let set_id = mode & SET_ID != 0;
        let changes =
            |f: &Arc<OpenFile>| f.changes_unseen() && (set_id || f.how.access() == OFlags::RDWR);
        !node.opens().iter().any(changes)
    }
}
