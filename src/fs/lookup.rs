//! LOOKUP and FORGET: names to nodes and back.

use super::node::{Link, Node};
use super::resolve::Resolved;
use super::{Entry, Fs};
use crate::sys::{self, Errno, Kind, Result, Stat};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Nodes forgotten before their memory is given back to the system.
const TRIM_AFTER: u64 = 100_000;

impl Fs {
    /// Looks up `name` in the directory `parent`; `None` when there is nothing.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`, and those of [`Self::resolve`].
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Entry>> {
        let parent = self.nodes.get(parent)?;
        let dir = parent.dir()?;
        let _names = dir.lock.read();
        self.index_if_busy(&parent)?;
        self.lookup_locked(&parent, name)
    }

    /// [`Self::lookup`] for a caller that holds the directory's lock.
    pub(super) fn lookup_locked(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Entry>> {
        if let Some(node) = self.names.grab(parent, name) {
            return self.entry(node).map(Some);
        }
        match self.resolve(parent, name)? {
            Some(object) => self.enter(parent, name, object).map(Some),
            None => Ok(None),
        }
    }

    /// The entry of a node on which a lookup was counted already.
    pub(super) fn entry(&self, node: Arc<Node>) -> Result<Entry> {
        match self.node_attr(&node) {
            Ok(attr) => Ok(Entry { id: node.id, attr }),
            Err(e) => {
                self.forget(node.id, 1);
                Err(e)
            }
        }
    }

    /// The node called `name` in `parent`, without counting a lookup by the
    /// kernel: it lives as long as the `Arc`, and in the tables until
    /// [`Self::release`].
    ///
    /// # Errors
    /// `ENOENT` when there is nothing, and those of [`Self::resolve`].
    pub(super) fn child(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Child<'_>> {
        let entry = self.lookup_locked(parent, name)?.ok_or(Errno::NOENT)?;
        let node = self.nodes.get(entry.id)?;
        Ok(Child { fs: self, node, stat: entry.attr })
    }

    /// Gives a resolved object a node and counts one lookup on it.
    pub(super) fn enter(&self, parent: &Arc<Node>, name: &[u8], object: Resolved) -> Result<Entry> {
        let stat = object.stat;
        let link = Link { parent: Arc::clone(parent), name: name.into() };
        if let Some(node) = self.known_hard_link(&object) {
            let mut place = node.place.write();
            if place.is_some() {
                node.move_to_upper(&mut place);
            }
            self.names.link(&node, link);
            drop(place);
            return Ok(Entry { id: node.id, attr: self.shown(&node, stat) });
        }
        let ino = self.ino_of(parent, name, &object)?;
        let shared = is_shared(&object);
        let stack = (stat.kind() == Kind::Dir).then_some(object.stack);
        let id = self.nodes.next_id();
        let node = Arc::new(Node::new(id, stat.kind(), ino, object.layer, Some(link), stack));
        self.nodes.insert(Arc::clone(&node));
        if let Some(existing) = self.names.enter_new(&node) {
            self.nodes.remove(id);
            return self.entry(existing);
        }
        if shared {
            self.note_hard_link(stat.ino, &node);
        }
        if node.is_merged() {
            self.fix_origin(parent, &node);
        }
        Ok(Entry { id, attr: self.shown(&node, stat) })
    }

    /// The node of an upper file with several links, if another name of it is
    /// known; with one more lookup.
    fn known_hard_link(&self, object: &Resolved) -> Option<Arc<Node>> {
        if !is_shared(object) {
            return None;
        }
        let known = self.hard_links.lock().get(&object.stat.ino).and_then(Weak::upgrade);
        known.filter(|node| node.grab())
    }

    /// Notes that `node` is the upper file `ino`, which has several links.
    pub(super) fn note_hard_link(&self, ino: u64, node: &Arc<Node>) {
        let mut links = self.hard_links.lock();
        if links.len() == links.capacity() {
            links.retain(|_, node| node.strong_count() > 0);
        }
        links.insert(ino, Arc::downgrade(node));
    }

    /// Drops `n` lookups of the node `id`.
    pub fn forget(&self, id: u64, n: u64) {
        let Ok(node) = self.nodes.get(id) else { return };
        let Some(links) = node.forget(n) else { return };
        self.nodes.remove(id);
        if self.forgotten.fetch_add(1, Ordering::Relaxed) % TRIM_AFTER == TRIM_AFTER - 1 {
            sys::memory::trim();
        }
        if node.kind == Kind::Dir {
            self.listings.forget(id);
        }
        for link in links {
            self.names.leave(&node, &link.parent, &link.name);
        }
    }

    /// The attributes `stat` of `node` as the merged view shows them.
    pub(super) fn shown(&self, node: &Node, mut stat: Stat) -> Stat {
        stat.ino = node.ino();
        if node.is_merged() {
            // Nobody counts the subdirectories of all layers (`ovl_getattr`).
            stat.nlink = 1;
        }
        stat
    }
}

/// An upper file that other names may lead to as well.
fn is_shared(object: &Resolved) -> bool {
    object.layer.is_upper() && object.stat.kind() != Kind::Dir && object.stat.nlink > 1
}

/// A node that a request works on, held by one lookup that ends with it.
pub(super) struct Child<'a> {
    fs: &'a Fs,
    /// The node.
    pub node: Arc<Node>,
    /// Its attributes when it was found.
    pub stat: Stat,
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        self.fs.forget(self.node.id, 1);
    }
}
