//! Detaching a directory from the lower layers, so that it can be renamed
//! without a redirect (`redirect_dir=copy`).
//!
//! From the bottom up: whatever a directory shows is copied up under its
//! present name, then the directory is marked opaque, and its whiteouts go.
//! After every system call upper and lowers show what they showed before, so
//! an error or a crash on the way leaves the tree right under its old name,
//! and requests go on in it meanwhile.

use super::Fs;
use super::copy_up::OpenedUp;
use super::lookup::Child;
use super::node::Node;
use crate::config::RedirectDir;
use crate::format::OverlayName;
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result};
use crate::union::LayerId;
use crate::union::listing::Listing;
use rustix::fs::AtFlags;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Files with several names that were copied up, by the inode number they showed before.
type Links<'a> = HashMap<u64, Child<'a>>;

/// A directory on the way down.
struct Level<'a> {
    node: Arc<Node>,
    /// Keeps the node while it is worked on.
    _held: Option<Child<'a>>,
    /// What is still to be copied up in it.
    todo: Vec<Vec<u8>>,
}

impl Fs {
    /// Whether directories with lower parts are copied up whole when they are renamed.
    pub(super) fn detaches(&self) -> bool {
        self.redirects == RedirectDir::Copy
    }

    /// Makes `node`, if it is a directory, one of upper alone, with everything below it.
    ///
    /// # Errors
    /// `EXDEV` where something may not be copied up, so that the caller's own copy is the way
    /// left; `ENOSPC` and the others of copy-up and of marking a directory.
    pub(super) fn detach(&self, node: &Arc<Node>) -> Result<()> {
        if node.kind != Kind::Dir || node.is_pure_upper() {
            return Ok(());
        }
        match self.detach_tree(node) {
            Err(Errno::PERM | Errno::ACCESS | Errno::OVERFLOW) => Err(Errno::XDEV),
            done => done,
        }
    }

    fn detach_tree(&self, node: &Arc<Node>) -> Result<()> {
        let todo = self.names_to_bring(node)?;
        let mut links = Links::new();
        let mut levels = vec![Level { node: Arc::clone(node), _held: None, todo }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.todo.pop() else {
                self.cut_off(&level.node)?;
                levels.pop();
                continue;
            };
            let below = self.bring(&level.node, &name, &mut links)?;
            levels.extend(below);
        }
        Ok(())
    }

    /// The visible names in `dir`; what is in upper may have parts below as well.
    fn names_to_bring(&self, dir: &Arc<Node>) -> Result<Vec<Vec<u8>>> {
        let _names = dir.dir()?.lock.read();
        self.with_listing(dir, |listing| listing.after(0).map(|i| i.name.to_vec()).collect())
    }

    /// Copies up `name` in `parent`; gives it back if it is a directory that is not upper's alone.
    fn bring<'a>(
        &'a self,
        parent: &Arc<Node>,
        name: &[u8],
        links: &mut Links<'a>,
    ) -> Result<Option<Level<'a>>> {
        let child = {
            let _names = parent.dir()?.lock.read();
            self.child(parent, name)
        };
        let child = match child {
            // Removed meanwhile.
            Err(Errno::NOENT) => return Ok(None),
            found => found?,
        };
        let ino = child.node.ino();
        let may_join = child.node.kind != Kind::Dir && !child.node.in_upper();
        let linked = may_join && self.node_attr(&child.node)?.nlink > 1;
        if linked
            && let Some(first) = links.get(&ino)
            && self.join_link((parent, name), &child.node, &first.node)?
        {
            return Ok(None);
        }
        match self.copy_up(&child.node, u64::MAX) {
            Err(_) if child.node.link().is_none() => return Ok(None),
            done => done?,
        }
        if child.node.is_indexed() {
            let _names = parent.dir()?.lock.write();
            self.link_up(&child.node, &child.node.place.write(), parent, name)?;
            return Ok(None);
        }
        if linked {
            // The names that come after are joined to the last copy.
            links.insert(ino, child);
            return Ok(None);
        }
        if child.node.kind != Kind::Dir || child.node.is_pure_upper() {
            return Ok(None);
        }
        let todo = self.names_to_bring(&child.node)?;
        Ok(Some(Level { node: Arc::clone(&child.node), _held: Some(child), todo }))
    }

    /// Cuts off the lower parts of the directory `node`, which no longer show.
    fn cut_off(&self, node: &Arc<Node>) -> Result<()> {
        let dir = node.dir()?;
        let upper = self.upper()?;
        let _names = dir.lock.write();
        self.check_all_in_upper(node)?;
        let fd = self.dir_fd(node, LayerId::UPPER)?;
        self.on(node, |at, _| {
            let stat = sys::stat::stat(at)?;
            let opened_up = OpenedUp::new(at, &stat)?;
            upper.mark(at, OverlayName::Opaque, b"y")?;
            self.forget_lowers(node)?;
            node.set_borrows_ino();
            self.drop_redirect(at)?;
            remove_whiteouts(fd.as_fd())?;
            drop(opened_up);
            sys::node::set_times(at, SetTime::To(stat.atime), SetTime::To(stat.mtime))
        })?;
        self.attributes_changed(node);
        Ok(())
    }

    /// Removes a redirect that an opaque directory has from an earlier rename.
    fn drop_redirect(&self, at: At<'_>) -> Result<()> {
        if !self.follows_redirects() {
            return Ok(());
        }
        match self.upper()?.unmark(at, OverlayName::Redirect) {
            Err(Errno::NODATA) => Ok(()),
            done => done,
        }
    }

    /// Notes that upper's directory `node`, whose lock the caller holds, is opaque now.
    ///
    /// # Errors
    /// `ENOTDIR` for other nodes.
    pub(super) fn forget_lowers(&self, node: &Node) -> Result<()> {
        let dir = node.dir()?;
        dir.stack.iter().for_each(|lower| self.dirs.remove((node.id, lower.layer)));
        dir.stack.cut_off();
        dir.relist(Listing::keep_upper);
        Ok(())
    }

    /// Checks that nothing in the directory `node`, whose lock the caller holds, needs a lower
    /// layer: this is what stands between a defect and lost data.
    fn check_all_in_upper(&self, node: &Arc<Node>) -> Result<()> {
        let subdirs = self.with_listing(node, |listing| {
            let all = listing.after(0).all(|item| item.top.is_upper());
            let subdirs = listing.after(0).filter(|item| item.dtype == libc::DT_DIR);
            all.then(|| subdirs.map(|item| item.name.to_vec()).collect::<Vec<_>>())
        })?;
        for name in subdirs.ok_or(Errno::XDEV)? {
            if !self.child(node, &name)?.node.is_pure_upper() {
                return Err(Errno::XDEV);
            }
        }
        Ok(())
    }
}

/// Removes the whiteouts from the upper directory `dir`, where they hide nothing any more.
fn remove_whiteouts(dir: BorrowedFd<'_>) -> Result<()> {
    sys::list::for_each(dir, |entry| {
        let suspect = matches!(entry.dtype, libc::DT_CHR | libc::DT_UNKNOWN);
        if !suspect || !sys::stat::stat(At::new(dir, entry.name))?.is_char_zero() {
            return Ok(());
        }
        rustix::fs::unlinkat(dir, entry.name, AtFlags::empty())
    })
}
