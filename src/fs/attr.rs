//! Attributes: GETATTR, SETATTR, READLINK, STATFS.

use super::node::{Kept, Node};
use super::set_id::{has_set_id, with_rights_of};
use super::{Caller, Fs};
use crate::sys::node::SetTime;
use crate::sys::{self, At, Kind, Result, Stat};
use crate::union::LayerId;
use rustix::fs::OFlags;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What SETATTR is to change.
#[derive(Debug, Clone, Copy)]
pub struct Changes {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: SetTime,
    /// New modification time.
    pub mtime: SetTime,
    /// The open file it is done through, if any.
    pub handle: Option<u64>,
}

impl Changes {
    /// Whether they are none.
    fn is_empty(&self) -> bool {
        let Self { mode, uid, gid, size, atime, mtime, .. } = self;
        mode.or(*uid).or(*gid).is_none() && size.is_none() && [*atime, *mtime] == [SetTime::Omit; 2]
    }
}

/// File system statistics, as statvfs(3) gives them.
pub type Statfs = rustix::fs::StatVfs;

impl Fs {
    /// The attributes of node `id`.
    ///
    /// # Errors
    /// `ESTALE`, and those of statx(2).
    pub fn getattr(&self, id: u64) -> Result<Stat> {
        let node = self.nodes.get(id)?;
        self.node_attr(&node)
    }

    /// The attributes of `node` as the merged view shows them.
    pub(super) fn node_attr(&self, node: &Node) -> Result<Stat> {
        let place = node.place.read();
        let kept_stat = |kept: &Kept| self.owners(node.layer()).stat(At::fd(kept.fd.as_fd()));
        let stat = match &*place {
            Some(gone) => match &gone.kept {
                // What is kept may still have its name in a lower layer.
                Some(kept) if node.is_removed() => Stat { nlink: 0, ..kept_stat(kept)? },
                Some(kept) => kept_stat(kept)?,
                None => gone.stat.ok_or(sys::Errno::STALE)?,
            },
            None => self.at_place(node, &place, |at, layer| self.stat_at(node, at, layer))?,
        };
        Ok(self.shown(node, stat))
    }

    /// Changes attributes of node `id` and returns the new ones.
    ///
    /// # Errors
    /// `EROFS`, those of copy-up, and those of chmod(2), chown(2), truncate(2)
    /// and utimensat(2).
    pub fn setattr(&self, id: u64, changes: Changes, caller: Caller) -> Result<Stat> {
        let node = self.nodes.get(id)?;
        self.check_setattr(&node, &changes)?;
        let cuts = self.copy_up_cuts(&node, changes.size)?;
        match changes.size {
            Some(size) => self.copy_up(&node, size)?,
            None => self.copy_up_metadata(&node)?,
        }
        if let Some(size) = changes.size {
            self.truncate(&node, size, (changes.handle, cuts), caller)?;
        }
        // Nothing in a directory is copied up meanwhile: its times of before would be put back,
        // and those in between be reported.
        let _entries = node.dir().ok().map(|dir| dir.lock.read());
        self.on_at_rest(&node, |at, _| {
            self.set_permissions(at, &changes, caller)?;
            if changes.atime != SetTime::Omit || changes.mtime != SetTime::Omit {
                sys::node::set_times(at, changes.atime, changes.mtime)?;
            }
            Ok(())
        })?;
        if changes.is_empty() {
            self.drop_passed_set_id(&node, caller)?;
        }
        self.node_attr(&node)
    }

    /// Changes owner and mode of `at` in upper.
    fn set_permissions(&self, at: At<'_>, changes: &Changes, caller: Caller) -> Result<()> {
        let Changes { mode, uid, gid, .. } = *changes;
        let (owners, chowns) = (self.owners(LayerId::UPPER), uid.is_some() || gid.is_some());
        if owners.are_stored() && (chowns || mode.is_some()) {
            return owners.change(at, (uid, gid), mode);
        }
        if chowns {
            self.as_caller_if_allowed(caller, at, |at| sys::node::chown(at, uid, gid))?;
        }
        mode.map_or(Ok(()), |mode| sys::node::chmod(at, mode))
    }

    /// Whether copying up the first `size` bytes of `node` makes it shorter: only its times then
    /// tell that it is truncated.
    fn copy_up_cuts(&self, node: &Node, size: Option<u64>) -> Result<bool> {
        match size {
            Some(size) if !node.is_whole_in_upper() => Ok(self.node_attr(node)?.size > size),
            _ => Ok(false),
        }
    }

    fn truncate(
        &self,
        node: &Arc<Node>,
        size: u64,
        (handle, cuts): (Option<u64>, bool),
        caller: Caller,
    ) -> Result<()> {
        if let Some(file) = handle.and_then(|h| self.open_files.get(&h).map(|f| Arc::clone(&f)))
            && file.writable()
        {
            let fd = self.backing(&file)?;
            self.drop_stored_set_id(&fd, caller)?;
            return with_rights_of(caller, || rustix::fs::ftruncate(&fd, size));
        }
        let fd =
            self.on(node, |at, _| self.with_descriptors(|| sys::node::open(at, OFlags::WRONLY)))?;
        self.drop_stored_set_id(&fd, caller)?;
        let cut = || match cuts {
            true => rustix::fs::ftruncate(&fd, size),
            false => sys::node::truncate(fd.as_fd(), size),
        };
        if has_set_id(&fd)? { with_rights_of(caller, cut) } else { cut() }
    }

    /// The target of the symbolic link `id`.
    ///
    /// # Errors
    /// `EINVAL` for other objects.
    pub fn readlink(&self, id: u64) -> Result<Vec<u8>> {
        let node = self.nodes.get(id)?;
        if node.kind != Kind::Symlink {
            return Err(sys::Errno::INVAL);
        }
        self.on(&node, |at, _| sys::node::read_link(at))
    }

    /// Statistics of the file system that is written to (without one, of the topmost layer's).
    ///
    /// # Errors
    /// Those of fstatvfs(2).
    pub fn statfs(&self) -> Result<Statfs> {
        let lowers = self.layers.lowers.iter().chain(&self.layers.data).map(|l| l.root());
        let mut roots = self.layers.upper.iter().map(|u| u.root()).chain(lowers);
        let top = roots.next().ok_or(sys::Errno::IO)?;
        let mut stat = rustix::fs::fstatvfs(top)?;
        for root in roots {
            stat.f_namemax = stat.f_namemax.max(rustix::fs::fstatvfs(root)?.f_namemax);
        }
        Ok(stat)
    }
}
