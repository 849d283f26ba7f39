//! LOOKUP and FORGET: names to nodes and back.

use super::node::{Link, Node};
use super::resolve::Resolved;
use super::{Entry, Fs};
use crate::sys::{self, Errno, Kind, Result, Stat};
use crate::union::LayerId;
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
        self.index_if_busy(&parent);
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
        let node = match self.names.grab(parent, name) {
            Some(known) => known,
            None => {
                let entry = self.lookup_locked(parent, name)?.ok_or(Errno::NOENT)?;
                self.nodes.get(entry.id)?
            }
        };
        Ok(Child { fs: self, node })
    }

    /// Gives a resolved object a node and counts one lookup on it.
    pub(super) fn enter(&self, parent: &Arc<Node>, name: &[u8], object: Resolved) -> Result<Entry> {
        let (stat, layer) = (object.stat, object.layer);
        let link = Link { parent: Arc::clone(parent), name: name.into() };
        let ino = self.ino_of(parent, name, &object)?;
        let shared = is_shared(&object);
        let stack = (stat.kind() == Kind::Dir).then_some(object.stack);
        let made = || {
            let id = self.nodes.next_id();
            let node = Arc::new(Node::new(id, stat.kind(), ino, layer, Some(link.clone()), stack));
            if !layer.is_upper() {
                node.learn_protection(stat.protection);
            }
            self.nodes.insert(Arc::clone(&node));
            node
        };
        let node = match shared {
            true => self.hard_link_node(stat.ino, made),
            false => made(),
        };
        self.revive(&node);
        if let Some(existing) = self.names.link(&node, link) {
            self.forget(node.id, 1);
            return self.entry(existing);
        }
        if node.is_merged() && self.fix_origin(parent, &node) {
            self.attributes_changed(parent);
            return self.entry(node);
        }
        Ok(Entry { id: node.id, attr: self.shown(&node, stat) })
    }

    /// The node of the upper file `ino`, which has several names: the one that
    /// is known under another of them, with one more lookup, or else `made`.
    /// The lock makes sure that there is only one.
    fn hard_link_node(&self, ino: u64, made: impl FnOnce() -> Arc<Node>) -> Arc<Node> {
        let mut links = self.hard_links.lock();
        let known = links.get(&ino).and_then(Weak::upgrade);
        let known = known.filter(|node| !node.is_removed() && node.grab());
        known.unwrap_or_else(|| {
            let node = made();
            insert_weak(&mut links, ino, &node);
            node
        })
    }

    /// A file that lost its last known name has one again.
    fn revive(&self, node: &Node) {
        if node.kind != Kind::Dir && node.link().is_none() {
            let mut place = node.place.write();
            if place.is_some() {
                node.move_to_upper(&mut place);
            }
        }
    }

    /// Notes that `node` is the upper file `ino`, which has several links.
    pub(super) fn note_hard_link(&self, ino: u64, node: &Arc<Node>) {
        insert_weak(&mut self.hard_links.lock(), ino, node);
    }

    /// Drops `n` lookups of the node `id`.
    pub fn forget(&self, id: u64, n: u64) {
        let Ok(node) = self.nodes.get(id) else { return };
        let mut dying = vec![(node, n)];
        while let Some((node, n)) = dying.pop() {
            let Some(links) = node.forget(n) else { continue };
            self.drop_node(&node);
            for link in links {
                self.names.leave(&node, &link.parent, &link.name);
                // It may have been kept for this child alone.
                dying.push((link.parent, 0));
            }
        }
    }

    /// Takes a dead node out of the tables, and closes what was kept for it.
    fn drop_node(&self, node: &Node) {
        self.nodes.remove(node.id);
        if let Ok(dir) = node.dir() {
            self.listings.forget(node.id);
            self.dirs.remove((node.id, LayerId::UPPER));
            dir.stack.iter().for_each(|lower| self.dirs.remove((node.id, lower.layer)));
        } else if self.is_read_only() {
            self.readers.remove((node.id, node.layer()));
        }
        if self.forgotten.fetch_add(1, Ordering::Relaxed) % TRIM_AFTER == TRIM_AFTER - 1 {
            sys::memory::trim();
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

/// Enters a node, and makes room by dropping dead ones first.
fn insert_weak(links: &mut hashbrown::HashMap<u64, Weak<Node>>, ino: u64, node: &Arc<Node>) {
    if links.len() == links.capacity() {
        links.retain(|_, node| node.strong_count() > 0);
    }
    links.insert(ino, Arc::downgrade(node));
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
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        self.fs.forget(self.node.id, 1);
    }
}
