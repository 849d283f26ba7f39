//! Hard links: LINK.

use super::copy_up::OpenedUp;
use super::create::place_over_whiteout;
use super::node::{Gone, Link, Node};
use super::{Entry, Fs};
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result};
use crate::union::LayerId;
use rustix::fs::AtFlags;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Fs {
    /// Gives the object `id` the further name `name` in the directory `parent`.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` for a directory, `EMLINK`, those of copy-up and of link(2).
    pub fn link(&self, id: u64, parent: u64, name: &[u8]) -> Result<Entry> {
        let upper = self.upper()?;
        let node = self.nodes.get(id)?;
        let parent = self.nodes.get(parent)?;
        if node.kind == Kind::Dir {
            return Err(Errno::PERM);
        }
        self.check_new_name(name)?;
        if !node.in_upper() && node.link().is_none() {
            return Err(if node.is_replaced() { Errno::STALE } else { Errno::NOENT });
        }
        self.check_adding(&parent)?;
        self.check_unprotected(&node)?;
        match node.link() {
            Some(_) => self.copy_up_metadata(&node)?,
            // Without a name no path leads to its data.
            None => self.copy_up(&node, u64::MAX)?,
        }
        self.copy_up(&parent, 0)?;
        // A path is stored below.
        let _paths = self.metacopy.then(|| self.topology.lock());
        let _names = self.lock_names(&parent)?;
        if self.names.find(&parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        if node.lacks_data() {
            self.set_redirect(&node, node.link().ok_or(Errno::NOENT)?, true)?;
        }
        let parent_fd = self.dir_fd(&parent, LayerId::UPPER)?;
        let to = At::new(parent_fd.as_fd(), name);
        let mut place = node.place.write();
        let stat = self.at_place(&node, &place, |from, _| {
            self.settle_links(&node)?;
            if !from.is_fd() && self.shows_other_ino(&node, from)? {
                self.set_impure(&parent)?;
            }
            match link_at(from, to) {
                Err(Errno::EXIST) if self.is_upper_whiteout(to)? => {
                    let temp = upper.work.temp();
                    link_at(from, temp.at())?;
                    place_over_whiteout(upper, temp, to, false)?;
                }
                done => done?,
            }
            self.stat_at(&node, from, LayerId::UPPER)
        })?;
        if place.is_some() {
            node.move_to_upper(&mut place);
        }
        drop(place);
        self.note_hard_link(stat.ino, &node);
        if !node.grab() {
            return Err(Errno::STALE);
        }
        let link = Link { parent: Arc::clone(&parent), name: name.into() };
        if self.names.link(&node, link).is_some() {
            log::error!("a new name of node {} was known already", node.id);
        }
        parent.dir()?.relist(|list| list.set_upper(name, node.kind.dirent_type() as u8, false));
        Ok(Entry { id: node.id, attr: self.shown(&node, stat) })
    }

    /// Makes the name `name` in `parent`, that of the lower file `node`, a name of the upper file
    /// `first`; whether it could. Who still asks for `node` is told that it is stale, whereupon the
    /// kernel looks the name up again. An open file stays what it is.
    ///
    /// # Errors
    /// Those of renameat2(2) and utimensat(2).
    pub(super) fn join_link(
        &self,
        (parent, name): (&Arc<Node>, &[u8]),
        node: &Arc<Node>,
        first: &Arc<Node>,
    ) -> Result<bool> {
        let dir = parent.dir()?;
        let _names = dir.lock.write();
        let temp = self.upper()?.work.temp();
        let linked = self.on(first, |from, _| {
            link_at(from, temp.at())?;
            sys::stat::stat(temp.at())
        });
        // Whatever prevents it (`EMLINK`, `ESTALE` for a removed file), a copy will do.
        let Ok(stat) = linked else { return Ok(false) };
        let mut place = node.place.write();
        let copying = self.copying.contains_key(&node.id);
        let opening = self.no_open || copying || !node.opens().is_empty();
        if opening || place.is_some() || node.in_upper() || !node.has_link(parent.id, name) {
            return Ok(false);
        }
        let parent_fd = self.dir_fd(parent, LayerId::UPPER)?;
        let at = At::fd(parent_fd.as_fd());
        let before = sys::stat::stat(at)?;
        let opened_up = OpenedUp::new(at, &before)?;
        temp.place(At::new(parent_fd.as_fd(), name))?;
        drop(opened_up);
        let gone = Gone { stat: None, parent: Arc::clone(parent), kept: None };
        *place = Some(Box::new(gone));
        drop(place);
        self.names.unlink(node, parent, name);
        self.note_hard_link(stat.ino, first);
        let link = Link { parent: Arc::clone(parent), name: name.into() };
        if self.names.link(first, link).is_some() {
            log::error!("a new name of node {} was known already", first.id);
        }
        dir.relist(|list| list.set_upper(name, node.kind.dirent_type() as u8, true));
        sys::node::set_times(at, SetTime::To(before.atime), SetTime::To(before.mtime))?;
        self.attributes_changed(node);
        self.attributes_changed(first);
        self.listing_changed(parent);
        Ok(true)
    }
}

/// link(2); an unlinked object is named through procfs.
fn link_at(from: At<'_>, to: At<'_>) -> Result<()> {
    if from.is_fd() {
        return sys::node::link_fd(from.dir, to);
    }
    rustix::fs::linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty())
}
