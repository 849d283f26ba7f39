//! The table of nodes by the id that the kernel knows them by.
//!
//! An id is a place in the table and how many nodes were made before: the place is used again once
//! its node is gone, the id is not. There may be millions: a node takes one pointer here.

use super::node::{Node, ROOT_ID};
use crate::sys::{Errno, Result};
use parking_lot::RwLock;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 16;
/// Places that are added at once.
const CHUNK: usize = 512;
/// Bits of an id that are the place.
const PLACE_BITS: u32 = 32;

/// The nodes by id.
#[derive(Debug)]
pub struct NodeTable {
    /// Place `p` is in the shard `p % SHARDS`; the locks are short.
    shards: [RwLock<Shard>; SHARDS],
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    chunks: Vec<Box<[Option<Arc<Node>>; CHUNK]>>,
    /// Places that were in use once and are not now.
    free: Vec<u32>,
    /// Places that were ever in use.
    used: u32,
}

impl Shard {
    fn reserve(&mut self) -> u32 {
        if let Some(place) = self.free.pop() {
            return place;
        }
        let place = self.used;
        self.used += 1;
        if place as usize / CHUNK == self.chunks.len() {
            self.chunks.push(Box::new(std::array::from_fn(|_| None)));
        }
        place
    }

    fn get(&self, place: u32) -> Option<&Arc<Node>> {
        self.chunks.get(place as usize / CHUNK)?[place as usize % CHUNK].as_ref()
    }

    fn slot(&mut self, place: u32) -> Option<&mut Option<Arc<Node>>> {
        Some(&mut self.chunks.get_mut(place as usize / CHUNK)?[place as usize % CHUNK])
    }

    fn release(&mut self, place: u32) {
        self.free.push(place);
        if self.free.len() == self.used as usize {
            *self = Self::default();
        }
    }
}

/// A node that has its place but is not in the table yet; dropping it gives the place back.
pub struct NewNode<'a> {
    table: &'a NodeTable,
    node: Arc<Node>,
    entered: bool,
}

impl NewNode<'_> {
    /// Puts the node into the table.
    pub fn enter(mut self) -> Arc<Node> {
        self.table.put(&self.node);
        self.entered = true;
        Arc::clone(&self.node)
    }
}

impl Deref for NewNode<'_> {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for NewNode<'_> {
    fn drop(&mut self) {
        if !self.entered {
            let (shard, place) = locate(self.node.id);
            self.table.shards[shard].write().release(place);
        }
    }
}

impl NodeTable {
    /// A table that holds `root`, whose id is [`ROOT_ID`].
    pub fn new(root: Node) -> Self {
        let table =
            Self { shards: std::array::from_fn(|_| RwLock::default()), made: AtomicU64::new(0) };
        // The first place of its shard is the root's.
        table.shards[locate(ROOT_ID).0].write().reserve();
        table.put(&Arc::new(root));
        table
    }

    /// The node that `make` makes with an id that was never used.
    pub fn make(&self, make: impl FnOnce(u64) -> Node) -> NewNode<'_> {
        let made = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let shard = made as usize % SHARDS;
        let place = self.shards[shard].write().reserve() as usize * SHARDS + shard;
        let node = Arc::new(make(made << PLACE_BITS | place as u64));
        NewNode { table: self, node, entered: false }
    }

    /// Puts `node` at its place, which was reserved.
    fn put(&self, node: &Arc<Node>) {
        let (shard, place) = locate(node.id);
        if let Some(slot) = self.shards[shard].write().slot(place) {
            *slot = Some(Arc::clone(node));
        }
    }

    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE` when there is none.
    pub fn get(&self, id: u64) -> Result<Arc<Node>> {
        let (shard, place) = locate(id);
        let shard = self.shards[shard].read();
        shard.get(place).filter(|node| node.id == id).cloned().ok_or(Errno::STALE)
    }

    /// Takes the node `id` out.
    pub fn remove(&self, id: u64) {
        let (shard, place) = locate(id);
        let mut shard = self.shards[shard].write();
        let removed = shard.slot(place).and_then(|slot| slot.take_if(|node| node.id == id));
        if removed.is_some() {
            shard.release(place);
        }
        // What goes with it is dropped without the lock.
        drop(shard);
    }

    /// How many nodes there are, the root included.
    pub fn count(&self) -> usize {
        let used = |shard: &RwLock<Shard>| {
            let shard = shard.read();
            shard.used as usize - shard.free.len()
        };
        self.shards.iter().map(used).sum()
    }
}

/// The shard of a node, and its place there.
fn locate(id: u64) -> (usize, u32) {
    let place = id as u32;
    (place as usize % SHARDS, place / SHARDS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kind;
    use crate::union::LayerId;

    fn node(id: u64) -> Node {
        Node::new(id, Kind::File, 7, LayerId::UPPER, None, None)
    }

    #[test]
    fn places_are_used_again_and_ids_are_not() {
        let table = NodeTable::new(node(ROOT_ID));
        let ids: Vec<u64> = (0..2000).map(|_| table.make(node).enter().id).collect();
        assert_eq!(table.count(), 2001);
        assert!(ids.iter().all(|&id| table.get(id).is_ok_and(|node| node.id == id)));
        ids.iter().for_each(|&id| table.remove(id));
        ids.iter().for_each(|&id| table.remove(id));
        assert_eq!(table.count(), 1);
        let again: Vec<u64> = (0..2000).map(|_| table.make(node).enter().id).collect();
        assert!(again.iter().all(|id| !ids.contains(id)));
        assert!(ids.iter().all(|&id| table.get(id).is_err()));
        let places = |ids: &[u64]| ids.iter().map(|&id| id as u32).max();
        assert!(places(&again) <= places(&ids));
        assert!(table.get(ROOT_ID).is_ok());
    }

    #[test]
    fn what_is_not_entered_gives_its_place_back() {
        let table = NodeTable::new(node(ROOT_ID));
        let id = table.make(node).id;
        assert_eq!((table.count(), table.get(id).is_err()), (1, true));
    }
}
