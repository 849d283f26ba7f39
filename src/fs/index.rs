//! `index=on`: the names of a lower file stay names of one file when it is copied up
//! (`fs/overlayfs/copy_up.c: ovl_do_copy_up`, `ovl_link_up`; `fs/overlayfs/util.c: ovl_nlink_start`).
//!
//! The copy lies in `work/index`, under a name made of the lower file's handle, by which every
//! lower name finds it. It is linked to a name in upper before that name is changed. How many
//! names the union has stands in the `nlink` attribute, relative to upper's own count, so that a
//! call that changes both by one link or unlink is done at once. All of it happens under the lock
//! on the node's `place`.

use super::Fs;
use super::node::{Gone, Link, Node};
use super::resolve::Resolved;
use crate::format::index::{Nlink, entry_name};
use crate::format::{Namespace, OverlayName};
use crate::sys::node::{SetTime, set_times};
use crate::sys::{At, Errno, Kind, Result, Stat, stat, xattr};
use crate::union::LayerId;
use crate::union::lookup::Facts;
use rustix::fs::AtFlags;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An entry of the index.
pub(super) struct Indexed {
    /// Its name.
    pub name: Vec<u8>,
    /// The attributes of the file.
    pub stat: Stat,
    /// It holds metadata only.
    pub lacks_data: bool,
}

impl Fs {
    /// The directory of the index, if there is one.
    fn index_dir(&self) -> Option<BorrowedFd<'_>> {
        self.layers.upper.as_ref().filter(|upper| upper.has_index).map(|upper| upper.work.dir())
    }

    /// Whether there is an index.
    pub(super) fn has_index(&self) -> bool {
        self.index_dir().is_some()
    }

    /// Whether a lower object with these attributes gets an entry when it is copied up
    /// (`ovl_need_index`). `user.` attributes exist on files and directories only.
    pub(super) fn needs_index(&self, stat: &Stat) -> bool {
        let can_be_marked = match self.layers.namespace {
            Namespace::Trusted => stat.kind() != Kind::Dir,
            Namespace::User => stat.kind() == Kind::File,
        };
        can_be_marked && stat.nlink > 1 && self.has_index()
    }

    /// The index entry of `object`, called `name` in `parent`, which has several links
    /// (`fs/overlayfs/namei.c: ovl_lookup_index`).
    ///
    /// # Errors
    /// `EIO` for an entry of another type.
    pub(super) fn find_indexed(
        &self,
        parent: &Node,
        name: &[u8],
        object: &Resolved,
    ) -> Result<Option<Indexed>> {
        let Some(index) = self.index_dir() else { return Ok(None) };
        let dir = self.dir_fd(parent, object.layer)?;
        let at = At::new(dir.as_fd(), name);
        let in_upper = object.layer.is_upper();
        let value = match in_upper {
            true => xattr::get(at, OverlayName::Origin.full(self.layers.namespace))?,
            false => self.handle_value(object.layer, at),
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
        let name = entry_name(&value);
        match stat::stat(At::new(index, &name)) {
            Ok(stat) if in_upper && stat.ino != object.stat.ino => Ok(None),
            Ok(stat) if stat.kind() != object.stat.kind() || stat.is_char_zero() => Err(Errno::IO),
            Ok(stat) => {
                let metacopy = OverlayName::Metacopy.full(self.layers.namespace);
                let lacks_data = xattr::get(At::new(index, &name), metacopy)?.is_some();
                match lacks_data && !self.metacopy {
                    true => Err(Errno::PERM),
                    false => Ok(Some(Indexed { name, stat, lacks_data })),
                }
            }
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The attributes of `node`, which is at `at` in `layer`; an indexed one has the links of the union.
    pub(super) fn stat_at(&self, node: &Node, at: At<'_>, layer: LayerId) -> Result<Stat> {
        let mut stat = self.owners(layer).stat(at)?;
        if node.is_indexed() {
            stat.nlink = self.union_nlink(at, &stat)?;
        }
        Ok(stat)
    }

    /// How many names the union has of the indexed file `at`: as many as upper where that is not
    /// known (`ovl_get_nlink`).
    fn union_nlink(&self, at: At<'_>, stat: &Stat) -> Result<u32> {
        let links = self.counted_links(at, stat)?.filter(|&links| links > 0);
        Ok(links.and_then(|links| u32::try_from(links).ok()).unwrap_or(stat.nlink))
    }

    /// What the `nlink` attribute of `at` says.
    fn counted_links(&self, at: At<'_>, stat: &Stat) -> Result<Option<i64>> {
        let value = xattr::get(at, OverlayName::Nlink.full(self.layers.namespace))?;
        match value.and_then(|value| Nlink::decode(&value)) {
            Some(Nlink::Upper(more)) => Ok(Some(i64::from(stat.nlink) + more)),
            // Those that a crash left were counted again at mount.
            Some(Nlink::Lower(_)) | None => Ok(None),
        }
    }

    /// Makes sure that `name` in `parent`, a name of `node`, is linked in upper, and that its links
    /// are counted from there, before either is changed. Nothing is done for a node that is not
    /// indexed. The caller has the locks on `parent`, which is in upper, and on `place`.
    ///
    /// # Errors
    /// Those of link(2) and setxattr(2); the name is then as it was.
    pub(super) fn link_up(
        &self,
        node: &Node,
        _place: &Option<Box<Gone>>,
        parent: &Arc<Node>,
        name: &[u8],
    ) -> Result<()> {
        let Some(entry) = node.index() else { return Ok(()) };
        let from = At::new(self.upper()?.work.dir(), &entry);
        let parent_fd = self.dir_fd(parent, LayerId::UPPER)?;
        let to = At::new(parent_fd.as_fd(), name);
        let stat = stat::stat(from)?;
        let links = self.union_nlink(from, &stat)?;
        match stat::stat(to) {
            Ok(own) if own.ino == stat.ino => return self.count_links(node, links),
            Ok(_) => return Err(Errno::EXIST),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        self.set_impure(parent)?;
        self.count_from_lower(from, links, (parent, name))?;
        let before = stat::stat(At::fd(to.dir))?;
        let linked = rustix::fs::linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty());
        linked.and(self.count_links(node, links))?;
        set_times(At::fd(to.dir), SetTime::To(before.atime), SetTime::To(before.mtime))?;
        parent.dir()?.relist(|list| list.set_upper(name, node.kind.dirent_type() as u8, true));
        Ok(())
    }

    /// Makes sure that the links of `node`, if it is indexed, are counted from upper, before a link
    /// is made there. The caller has the lock on `place`.
    pub(super) fn settle_links(&self, node: &Node) -> Result<()> {
        let Some(entry) = node.index() else { return Ok(()) };
        let at = At::new(self.upper()?.work.dir(), &entry);
        self.count_links(node, self.union_nlink(at, &stat::stat(at)?)?)
    }

    /// Stores that the union has `links` names of the indexed `node`, relative to what upper counts
    /// (`ovl_set_nlink_upper`).
    fn count_links(&self, node: &Node, links: u32) -> Result<()> {
        let Some(entry) = node.index() else { return Ok(()) };
        let upper = self.upper()?;
        let at = At::new(upper.work.dir(), &entry);
        let stat = stat::stat(at)?;
        if self.counted_links(at, &stat)? == Some(i64::from(links)) {
            return Ok(());
        }
        let value = Nlink::Upper(i64::from(links) - i64::from(stat.nlink)).encode();
        upper.mark(at, OverlayName::Nlink, &value)
    }

    /// Stores the same relative to the lower file, called `name` in `parent`, so that it holds
    /// whatever happens in upper. Without privileges nobody could find that file after a crash;
    /// a name too many may then be counted for ever, which keeps the entry, and nothing is lost.
    fn count_from_lower(
        &self,
        at: At<'_>,
        links: u32,
        (parent, name): (&Node, &[u8]),
    ) -> Result<()> {
        if self.layers.namespace == Namespace::User {
            return Ok(());
        }
        let Some(lower) = self.lower_nlink(parent, name)? else { return Ok(()) };
        let value = Nlink::Lower(i64::from(links) - i64::from(lower)).encode();
        self.upper()?.mark(at, OverlayName::Nlink, &value)
    }

    /// Copies up what is called `name` in `parent`, and about to be replaced, if it gets an index
    /// entry: its links cannot be counted before (`ovl_nlink_start`). It is known, because the
    /// kernel has looked it up.
    ///
    /// # Errors
    /// Those of [`Self::copy_up`].
    pub(super) fn copy_up_indexed(&self, parent: &Arc<Node>, name: &[u8]) -> Result<()> {
        if !self.has_index() {
            return Ok(());
        }
        let known = self.names.find(parent, name).filter(|node| node.kind != Kind::Dir);
        let Some(node) = known else { return Ok(()) };
        if node.in_upper() || !self.needs_index(&self.node_attr(&node)?) {
            return Ok(());
        }
        let link = Link { parent: Arc::clone(parent), name: name.into() };
        self.copy_up_metadata_as(&node, Some(link))
    }

    /// The number of links of the lower file called `name` in `parent`.
    fn lower_nlink(&self, parent: &Node, name: &[u8]) -> Result<Option<u32>> {
        for slot in parent.dir()?.stack.iter() {
            let found = self.gather_lower(parent, slot.layer, name, self.glance(slot.layer))?;
            if found.facts != Facts::Absent {
                return Ok(found.stat.map(|stat| stat.nlink));
            }
        }
        Ok(None)
    }

    /// Notes that the indexed `node` lost a name; whether that was its last one, with which its
    /// entry goes (`ovl_cleanup_index`).
    pub(super) fn lose_link(&self, node: &Node) -> bool {
        self.drop_entry(node).unwrap_or_else(|e| {
            log::error!("the index entry of node {} is left behind: {e}", node.id);
            false
        })
    }

    fn drop_entry(&self, node: &Node) -> Result<bool> {
        let Some(entry) = node.index() else { return Ok(true) };
        let dir = self.upper()?.work.dir();
        let stat = stat::stat(At::new(dir, &entry))?;
        let left = self.counted_links(At::new(dir, &entry), &stat)?;
        if left.is_none_or(|left| left > 0) {
            return Ok(false);
        }
        if stat.nlink > 1 {
            // Somebody added names to the lower file: those that are in upper count all the same.
            self.count_links(node, stat.nlink - 1)?;
            return Ok(false);
        }
        rustix::fs::unlinkat(dir, &*entry, AtFlags::empty())?;
        node.drop_index();
        Ok(true)
    }

    /// A number that changes whenever an entry was added.
    pub(super) fn index_version(&self) -> u64 {
        self.index_version.load(Ordering::Acquire)
    }

    /// Notes that `node` got an entry and is the upper file `ino` now.
    pub(super) fn note_indexed(&self, ino: u64, node: &Arc<Node>) {
        self.note_hard_link(ino, node);
        self.index_version.fetch_add(1, Ordering::AcqRel);
    }
}
