//! Hard links: LINK.

use super::create::place_over_whiteout;
use super::node::Link;
use super::{Entry, Fs};
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
            return Err(Errno::NOENT);
        }
        self.check_adding(&parent)?;
        self.check_unprotected(&node)?;
        self.copy_up_metadata(&node)?;
        self.copy_up(&parent, 0)?;
        // A path is stored below.
        let _paths = self.metacopy.then(|| self.topology.lock());
        let _names = self.lock_names(&parent)?;
        if self.names.find(&parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        if node.lacks_data() {
            self.set_redirect(&node, true)?;
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
            self.stat_at(&node, from)
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
        if let Some(listing) = &mut *parent.dir()?.listing.write() {
            listing.set_upper(name, node.kind.dirent_type() as u8, false);
        }
        Ok(Entry { id: node.id, attr: self.shown(&node, stat) })
    }
}

/// link(2); an unlinked object is named through procfs.
fn link_at(from: At<'_>, to: At<'_>) -> Result<()> {
    if from.is_fd() {
        return sys::node::link_fd(from.dir, to);
    }
    rustix::fs::linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty())
}
