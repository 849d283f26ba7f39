//! The table of nodes by the id that the kernel knows them by.

use super::node::{Node, ROOT_ID, shrink};
use crate::sys::{Errno, Result};
use hashbrown::HashTable;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The nodes by id.
#[derive(Debug)]
pub struct NodeTable {
    shards: [RwLock<HashTable<Arc<Node>>>; SHARDS],
    next: AtomicU64,
}

const SHARDS: usize = 16;

impl NodeTable {
    /// A table that holds `root`.
    pub fn new(root: Arc<Node>) -> Self {
        let table = Self {
            shards: std::array::from_fn(|_| RwLock::new(HashTable::new())),
            next: AtomicU64::new(ROOT_ID + 1),
        };
        table.insert(root);
        table
    }

    /// An id that was never used.
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds `node`.
    pub fn insert(&self, node: Arc<Node>) {
        self.shard(node.id).write().insert_unique(hash_id(node.id), node, |n| hash_id(n.id));
    }

    /// The node `id`.
    ///
    /// # Errors
    /// `ESTALE` when there is none.
    pub fn get(&self, id: u64) -> Result<Arc<Node>> {
        let shard = self.shard(id).read();
        shard.find(hash_id(id), |n| n.id == id).cloned().ok_or(Errno::STALE)
    }

    /// Takes the node `id` out.
    pub fn remove(&self, id: u64) {
        let mut shard = self.shard(id).write();
        if let Ok(slot) = shard.find_entry(hash_id(id), |n| n.id == id) {
            slot.remove();
        }
        shrink(&mut shard, |n| hash_id(n.id));
    }

    /// How many nodes there are, the root included.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|s| s.read().len()).sum()
    }

    fn shard(&self, id: u64) -> &RwLock<HashTable<Arc<Node>>> {
        &self.shards[id as usize % SHARDS]
    }
}

/// Ids are consecutive: one multiplication spreads them well enough.
fn hash_id(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
