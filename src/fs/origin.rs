//! Where an object of upper was copied up from.

use super::Fs;
use super::node::Node;
use crate::format::origin::Origin;
use crate::format::{Namespace, OverlayName};
use crate::layer::origin;
use crate::sys::{self, At, Result, stat, xattr};
use crate::union::LayerId;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Fs {
    /// The inode number that the origin of the upper object `at` shows, if it can be found and
    /// still names one file, or all names of it are those of an `indexed` one.
    pub(super) fn origin_ino(&self, at: At<'_>, indexed: bool) -> Result<Option<u64>> {
        let name = OverlayName::Origin.full(self.layers.namespace);
        let Some(origin) = xattr::get(at, name)?.and_then(|v| Origin::decode(&v)) else {
            return Ok(None);
        };
        match origin::find(origin, &self.layers.file_systems) {
            Ok(Some((fs, stat))) if stat.nlink == 1 || indexed => {
                Ok(Some(self.ino_map.show(fs, stat.ino)))
            }
            // A handle that does not open is no origin (`ovl_check_origin_fh`).
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// The value of the origin attribute for the lower object `lower` of `layer`:
    /// its handle, or nothing where nobody could open one (`ovl_encode_real_fh`).
    pub(super) fn origin_value(&self, layer: LayerId, lower: At<'_>) -> Vec<u8> {
        match self.layers.namespace {
            Namespace::User => Vec::new(),
            Namespace::Trusted => self.handle_value(layer, lower).unwrap_or_default(),
        }
    }

    /// The handle of the lower object `lower` of `layer` as attributes keep it, if it has one.
    pub(super) fn handle_value(&self, layer: LayerId, lower: At<'_>) -> Option<Vec<u8>> {
        let fs = usize::from(self.lower(layer).ok()?.fs);
        let uuid = self.layers.file_systems.get(fs)?.as_ref().map_or([0; 16], |fs| fs.uuid);
        origin::encode(lower, uuid).ok()?.encode()
    }

    /// Marks the upper directory of `dir` as one with children that have an origin.
    pub(super) fn set_impure(&self, dir: &Node) -> Result<()> {
        let own = dir.dir()?;
        if own.impure.load(Ordering::Relaxed) {
            return Ok(());
        }
        own.not_impure.store(false, Ordering::Relaxed);
        let upper = self.upper()?;
        // Not through `on`: the caller may hold the lock on the place of what lies in it.
        let fd = self.dir_fd(dir, LayerId::UPPER)?;
        let at = At::fd(fd.as_fd());
        if !upper.is_marked(at, OverlayName::Impure)? {
            upper.mark(at, OverlayName::Impure, b"y")?;
        }
        own.impure.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the mark of [`Self::set_impure`] from a directory of upper alone that holds nothing with
    /// another inode number than its own, as the kernel does when it begins to list one
    /// (`fs/overlayfs/readdir.c: ovl_dir_read_impure`). What cannot be removed is left: it only costs
    /// time.
    pub(super) fn drop_impure(&self, node: &Arc<Node>) {
        match self.try_drop_impure(node) {
            Ok(false) => {}
            Ok(true) => self.attributes_changed(node),
            Err(e) => log::debug!("node {} stays impure: {e}", node.id),
        }
    }

    /// Whether the mark was there, and went.
    fn try_drop_impure(&self, node: &Arc<Node>) -> Result<bool> {
        let dir = node.dir()?;
        let may_be = || !dir.not_impure.load(Ordering::Relaxed) && dir.stack.is_empty();
        if !may_be() || !node.in_upper() || !self.numbers_are_mapped() || node.is_removed() {
            return Ok(false);
        }
        let upper = self.upper()?;
        // Nobody moves anything here meanwhile.
        let _names = dir.lock.write();
        let fd = self.dir_fd(node, LayerId::UPPER)?;
        let at = At::fd(fd.as_fd());
        let marked = upper.is_marked(at, OverlayName::Impure)?;
        if marked && self.holds_other_numbers(node, fd.as_fd())? {
            return Ok(false);
        }
        if marked {
            upper.unmark(at, OverlayName::Impure)?;
            dir.impure.store(false, Ordering::Relaxed);
        }
        dir.not_impure.store(true, Ordering::Relaxed);
        Ok(marked)
    }

    /// Whether the kernel's listings show the numbers of origins: of layers on several file systems
    /// only with `xino=on`.
    fn numbers_are_mapped(&self) -> bool {
        self.fixed_lowers || self.ino_map.is_identity()
    }

    /// Whether the directory `node`, which is `fd` in upper alone, holds something with another inode
    /// number than upper's. The caller holds its lock.
    fn holds_other_numbers(&self, node: &Arc<Node>, fd: BorrowedFd<'_>) -> Result<bool> {
        let mut other = false;
        sys::list::for_each(fd, |entry| {
            if other {
                return Ok(());
            }
            if let Some(found) = self.lookup_locked(node, entry.name)? {
                other = found.attr.ino != self.shown_ino(LayerId::UPPER, entry.ino);
                self.forget(found.id, 1);
            }
            Ok(())
        })?;
        Ok(other)
    }

    /// Gives a merged upper directory that lacks one the origin of its topmost
    /// lower directory, as the kernel does when it looks one up (`ovl_fix_origin`).
    /// What cannot be written is left: the mark only keeps inode numbers. Whether
    /// anything was written.
    pub(super) fn fix_origin(&self, parent: &Node, node: &Node) -> bool {
        let Some(lower) = node.dir().ok().and_then(|d| d.stack.first()) else { return false };
        if !node.in_upper() || self.layers.upper.is_none() {
            return false;
        }
        let fixed = (|| -> Result<bool> {
            let upper = self.upper()?;
            let missing = self.on(node, |at, _| Ok(!upper.is_marked(at, OverlayName::Origin)?))?;
            if !missing {
                return Ok(false);
            }
            let fd = self.dir_fd(node, lower.layer)?;
            let value = self.origin_value(lower.layer, At::fd(fd.as_fd()));
            self.on(node, |at, _| upper.mark(at, OverlayName::Origin, &value))?;
            self.set_impure(parent)?;
            Ok(true)
        })();
        fixed.unwrap_or_else(|e| {
            log::debug!("no origin set on node {}: {e}", node.id);
            false
        })
    }

    /// Whether `node`, which is at `at` in upper, shows the inode number of its origin.
    pub(super) fn shows_other_ino(&self, node: &Node, at: At<'_>) -> Result<bool> {
        Ok(self.shown_ino(LayerId::UPPER, stat::stat(at)?.ino) != node.ino())
    }
}
