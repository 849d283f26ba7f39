//! Removing names: UNLINK and RMDIR.

use super::Fs;
use super::node::{Gone, Kept, Link, Node};
use crate::layer::work::check_only_whiteouts;
use crate::sys::{At, Errno, Kind, Result, Stat};
use crate::union::LayerId;
use rustix::fs::AtFlags;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Fs {
    /// Removes the name `name` of a non-directory from the directory `parent`.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EROFS`, those of unlink(2) and of making a whiteout.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        let parent = self.nodes.get(parent)?;
        self.check_removing(&parent, name)?;
        self.wait_for_copy(&parent, name);
        self.copy_up(&parent, 0)?;
        loop {
            let names = self.lock_names(&parent)?;
            let child = self.child(&parent, name)?;
            if child.node.kind == Kind::Dir {
                return Err(Errno::ISDIR);
            }
            let stat = self.node_attr(&child.node)?;
            if child.node.in_upper() || !self.needs_index(&stat) {
                return self.remove(&parent, name, &child.node, stat);
            }
            // Its links cannot be counted before (`ovl_nlink_start`).
            drop(names);
            let link = Link { parent: Arc::clone(&parent), name: name.into() };
            self.copy_up_metadata_as(&child.node, Some(link))?;
        }
    }

    /// Removes the directory `name`, which shows no entries, from the directory `parent`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, and as [`Self::unlink`].
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        let parent = self.nodes.get(parent)?;
        self.check_removing(&parent, name)?;
        if !parent.in_upper() {
            // A directory that is not empty copies nothing up.
            let _names = parent.dir()?.lock.read();
            let child = self.child(&parent, name)?;
            let _victims = child.node.dir()?.lock.read();
            self.check_empty(&child.node)?;
        }
        self.copy_up(&parent, 0)?;
        let _names = self.lock_names(&parent)?;
        let child = self.child(&parent, name)?;
        let _victims = self.lock_names(&child.node)?;
        self.check_empty(&child.node)?;
        let stat = self.node_attr(&child.node)?;
        self.remove(&parent, name, &child.node, stat)
    }

    /// Checks that the directory `node`, whose lock the caller holds, shows no entries.
    ///
    /// # Errors
    /// `ENOTEMPTY`, and those of listing it.
    pub(super) fn check_empty(&self, node: &Arc<Node>) -> Result<()> {
        match self.with_listing(node, |listing| listing.is_empty())? {
            true => Ok(()),
            false => Err(Errno::NOTEMPTY),
        }
    }

    /// Takes `name` out of upper, or puts a whiteout there if something below would show.
    fn remove(&self, parent: &Arc<Node>, name: &[u8], node: &Arc<Node>, stat: Stat) -> Result<()> {
        let mut place = node.place.write();
        self.link_up(node, &place, parent, name)?;
        let in_upper = node.in_upper();
        // What lies in a lower layer only takes a whiteout in any case.
        let below = !in_upper || self.visible_below(parent, name)?;
        let kept = self.keep(node, &place, stat)?;
        let upper = self.upper()?;
        let parent_fd = self.dir_fd(parent, LayerId::UPPER)?;
        let at = At::new(parent_fd.as_fd(), name);
        match (in_upper, below) {
            (false, _) => upper.work.whiteout(at)?,
            (true, true) => {
                if node.kind == Kind::Dir {
                    let dir = self.dir_fd(node, LayerId::UPPER)?;
                    check_only_whiteouts(dir.as_fd())?;
                }
                let replace = || upper.work.replace_by_whiteout(at, node.kind);
                self.retry_writable(at, node.kind, replace)?;
            }
            (true, false) if node.kind == Kind::Dir => self.remove_upper_dir(node, at)?,
            (true, false) => rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty())?,
        }
        parent.dir()?.relist(|list| list.remove(name));
        self.lose_name(parent, name, node, &mut place, stat, kept);
        Ok(())
    }

    /// Removes a directory of upper that holds whiteouts at most.
    fn remove_upper_dir(&self, node: &Node, at: At<'_>) -> Result<()> {
        match rustix::fs::unlinkat(at.dir, at.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let upper = self.upper()?;
                let dir = self.dir_fd(node, LayerId::UPPER)?;
                check_only_whiteouts(dir.as_fd())?;
                self.retry_writable(at, Kind::Dir, || upper.work.temp().take(at))
            }
            done => done,
        }
    }

    /// Runs `moving`; without privileges a directory must be writable to be
    /// moved, and is made so when that is what fails.
    pub(super) fn retry_writable(
        &self,
        at: At<'_>,
        kind: Kind,
        moving: impl Fn() -> Result<()>,
    ) -> Result<()> {
        match moving() {
            Err(Errno::ACCESS) if kind == Kind::Dir => {
                let mode = crate::sys::stat::stat(at)?.mode;
                crate::sys::node::chmod(at, 0o700)?;
                moving().or_else(|failed| crate::sys::node::chmod(at, mode).and(Err(failed)))
            }
            done => done,
        }
    }

    /// What to keep of `node` before it loses its last name.
    ///
    /// # Errors
    /// `EMFILE` for an open file of which nothing can be kept.
    pub(super) fn keep(
        &self,
        node: &Node,
        place: &Option<Box<Gone>>,
        stat: Stat,
    ) -> Result<Option<Kept>> {
        self.at_place(node, place, |at, _| self.descriptor_to_keep(node, at, &stat))
    }

    /// Notes that `node` lost its name `name` in `parent`.
    pub(super) fn lose_name(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        node: &Arc<Node>,
        place: &mut Option<Box<Gone>>,
        mut stat: Stat,
        kept: Option<Kept>,
    ) {
        // An indexed one is used by its entry while it has names, known ones or not.
        let indexed = node.is_indexed();
        if self.names.unlink(node, parent, name) || indexed && !self.lose_link(node) {
            if self.detaches() {
                // The kernel may know the name as that of a node that was joined to this one.
                self.attributes_changed(node);
            }
            return;
        }
        stat.nlink = match node.in_upper() && node.kind != Kind::Dir && !indexed {
            true => stat.nlink.saturating_sub(1),
            false => 0,
        };
        if node.kind == Kind::Dir {
            self.dirs.remove((node.id, LayerId::UPPER));
        }
        if stat.nlink == 0 {
            node.set_removed();
        }
        *place = Some(Box::new(Gone { stat: Some(stat), parent: Arc::clone(parent), kept }));
    }
}
