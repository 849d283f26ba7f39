//! The memory that listings may take: the least recently used go first.
//!
//! A listing that is dropped is built again when it is needed, but offsets in
//! the old one then mean nothing: one that somebody is reading is kept for a
//! while, even beyond the budget.

use super::node::Node;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A reader that has not come back for this long has lost interest.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many times over listings that are being read may exceed the budget.
const OVERDRAFT: usize = 4;
/// Listings that are looked at to find one that can go.
const LOOKS: usize = 16;

/// Keeps count of all listings. Its lock is short.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    listings: LruCache<u64, Use>,
    bytes: usize,
}

#[derive(Debug)]
struct Use {
    node: Weak<Node>,
    bytes: usize,
    at: Instant,
    being_read: bool,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Mutex::new(Kept { listings: LruCache::unbounded(), bytes: 0 }) }
    }

    /// Notes that the listing of `node` takes `bytes` and is used now; the
    /// directories whose listings have to go.
    pub fn used(&self, node: &Arc<Node>, bytes: usize) -> Vec<Arc<Node>> {
        let mut kept = self.kept.lock();
        let now = Instant::now();
        let entry = Use { node: Arc::downgrade(node), bytes, at: now, being_read: true };
        let before = kept.listings.put(node.id, entry).map_or(0, |old| old.bytes);
        kept.bytes = kept.bytes + bytes - before;
        let mut evicted = Vec::new();
        for _ in 0..LOOKS {
            if kept.bytes <= self.limit || kept.listings.len() < 2 {
                break;
            }
            let Some((id, oldest)) = kept.listings.pop_lru() else { break };
            let wanted = oldest.being_read && now - oldest.at < PATIENCE;
            if id == node.id || wanted && kept.bytes < self.limit * OVERDRAFT {
                kept.listings.put(id, oldest);
                continue;
            }
            kept.bytes -= oldest.bytes;
            evicted.extend(oldest.node.upgrade());
        }
        evicted
    }

    /// Notes that a reader of the listing of the node `id` has come to its end.
    pub fn finished(&self, id: u64) {
        if let Some(entry) = self.kept.lock().listings.peek_mut(&id) {
            entry.being_read = false;
        }
    }

    /// Notes that the node `id` is gone, and its listing with it.
    pub fn forget(&self, id: u64) {
        let mut kept = self.kept.lock();
        if let Some(entry) = kept.listings.pop(&id) {
            kept.bytes -= entry.bytes;
        }
    }
}
