//! A bounded set of descriptors, the most recently used of their kind.
//!
//! Every name is resolved relative to a directory descriptor, and opening one
//! takes a path walk. Where the kernel does not say when files are opened and
//! closed, those that are read stay open here as well. Keyed by the node's id
//! (never reused) and the layer.
//!
//! **Lock.** One short mutex around the map; no system call is made under it,
//! except that a descriptor that falls out may be closed there.

use crate::union::LayerId;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Which object: its node's id, and the layer.
pub type Key = (u64, LayerId);

/// The open descriptors.
#[derive(Debug)]
pub struct FdCache {
    open: Mutex<LruCache<Key, Arc<OwnedFd>>>,
}

impl FdCache {
    /// Room for `capacity` descriptors, at least 8.
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity.max(8)).unwrap_or(NonZeroUsize::MIN);
        Self { open: Mutex::new(LruCache::new(capacity)) }
    }

    /// How many descriptors there is room for.
    pub fn capacity(&self) -> usize {
        self.open.lock().cap().get()
    }

    /// The descriptor of `key`, if it is open.
    pub fn get(&self, key: Key) -> Option<Arc<OwnedFd>> {
        self.open.lock().get(&key).cloned()
    }

    /// Keeps `fd` as the descriptor of `key`.
    pub fn insert(&self, key: Key, fd: Arc<OwnedFd>) {
        let dropped = self.open.lock().push(key, fd);
        drop(dropped);
    }

    /// Closes the descriptor of `key`, once nobody uses it any more.
    pub fn remove(&self, key: Key) {
        let dropped = self.open.lock().pop(&key);
        drop(dropped);
    }

    /// Closes all: what they were opened by may mean something else now.
    pub fn clear(&self) {
        self.open.lock().clear();
    }

    /// Closes the half that was used longest ago: the process has run out of descriptors.
    pub fn shrink(&self) {
        let mut open = self.open.lock();
        for _ in 0..open.len().div_ceil(2) {
            open.pop_lru();
        }
    }
}
