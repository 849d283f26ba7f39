//! LOOKUP and FORGET: names to nodes and back.

use super::index::Indexed;
use super::node::{Link, Node};
use super::node_table::NewNode;
use super::resolve::Resolved;
use super::{Entry, Fs, HardLinks};
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
        parent.check_not_replaced()?;
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
        let node = match self.shared_by(&object) {
            Some(key) => self.hard_link_node(key, &link, object)?,
            None => self.new_node(&link, object, None)?.enter(),
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
        if node.is_indexed() || node.layer() != layer {
            return self.entry(node);
        }
        Ok(Entry { id: node.id, attr: self.shown(&node, stat) })
    }

    /// A node for the object that `link` names.
    fn new_node(
        &self,
        link: &Link,
        object: Resolved,
        indexed: Option<Indexed>,
    ) -> Result<NewNode<'_>> {
        let ino = self.ino_of(&link.parent, &link.name, &object, indexed.as_ref())?;
        let kind = object.stat.kind();
        let data = match &indexed {
            Some(indexed) if !indexed.lacks_data => None,
            Some(_) if object.data.is_none() => {
                Some(self.data_at(link, object.layer, &object.stat)?)
            }
            _ => object.data,
        };
        let names_below = object.lower.map_or(1, |part| part.nlink);
        let stack = (kind == Kind::Dir).then_some(object.stack);
        let layer = if indexed.is_some() { LayerId::UPPER } else { object.layer };
        let node = self.nodes.make(|id| Node::new(id, kind, ino, layer, Some(link.clone()), stack));
        if !layer.is_upper() {
            node.learn_protection(object.stat.protection);
        }
        if let Some(indexed) = indexed {
            node.set_index(indexed.name);
        }
        if let Some(data) = data {
            self.note_data(&node, data.with_names(names_below));
        }
        Ok(node)
    }

    /// By what the node of `object` is found under its other names, if it can have some: an upper
    /// file, or a lower one that keeps its links.
    pub(super) fn shared_by(&self, object: &Resolved) -> Option<(u16, u64)> {
        let stat = &object.stat;
        let fs = match object.layer.is_upper() {
            true if stat.kind() != Kind::Dir && stat.nlink > 1 => 0,
            false if self.needs_index(stat) => self.lower(object.layer).ok()?.fs,
            _ => return None,
        };
        Some((fs, stat.ino))
    }

    /// The node of a file that has several names: the one that is known under another of them,
    /// with one more lookup, or else a new one. The lock makes sure that there is only one.
    fn hard_link_node(&self, key: (u16, u64), link: &Link, object: Resolved) -> Result<Arc<Node>> {
        if let Some(node) = known_link(&self.hard_links.lock(), key) {
            return Ok(node);
        }
        loop {
            let version = self.index_version();
            let indexed = self.find_indexed(&link.parent, &link.name, &object)?;
            let key = indexed.as_ref().map_or(key, |indexed| (0, indexed.stat.ino));
            let made = self.new_node(link, object.clone(), indexed)?;
            let mut links = self.hard_links.lock();
            let known = known_link(&links, key);
            // Else it was perhaps copied up, and forgotten, since we looked.
            if known.is_none() && version == self.index_version() {
                let node = made.enter();
                insert_weak(&mut links, key, &node);
                return Ok(node);
            }
            self.drop_data(&made);
            if let Some(node) = known {
                return Ok(node);
            }
        }
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
        insert_weak(&mut self.hard_links.lock(), (0, ino), node);
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
                if node.borrows_ino() {
                    self.listing_changed(&link.parent);
                }
                // It may have been kept for this child alone.
                dying.push((link.parent, 0));
            }
        }
    }

    /// Takes a dead node out of the tables, and closes what was kept for it.
    fn drop_node(&self, node: &Node) {
        self.nodes.remove(node.id);
        self.drop_data(node);
        if let Ok(dir) = node.dir() {
            self.listings.forget(node.id);
            self.dirs.remove((node.id, LayerId::UPPER));
            dir.stack.iter().for_each(|lower| self.dirs.remove((node.id, lower.layer)));
        } else if self.no_open {
            self.unopened.remove((node.id, node.layer()));
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
        if node.lacks_data() {
            stat.blocks = self.data_blocks(node, &stat);
        }
        stat
    }
}

/// The live node that is known by `key`, with one more lookup.
fn known_link(links: &HardLinks, key: (u16, u64)) -> Option<Arc<Node>> {
    let known = links.get(&key).and_then(Weak::upgrade);
    known.filter(|node| !node.is_removed() && node.grab())
}

/// Enters a node, and makes room by dropping dead ones first.
fn insert_weak(links: &mut HardLinks, key: (u16, u64), node: &Arc<Node>) {
    if links.len() == links.capacity() {
        links.retain(|_, node| node.strong_count() > 0);
    }
    links.insert(key, Arc::downgrade(node));
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
