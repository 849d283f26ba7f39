//! Listings: READDIR and READDIRPLUS, and the memory they may take.
//!
//! There are no directory handles: a listing is the directory's index, whose
//! offsets stay valid while it lives (see [`union::listing`](crate::union::listing)).

use super::node::Node;
use super::paths::DirFd;
use super::{Entry, Fs};
use crate::format::dot_wh;
use crate::layer::facts;
use crate::sys::{self, At, Errno, Kind, Result, list};
use crate::union::LayerId;
use crate::union::listing::{LayerEntry, Listing};
use parking_lot::RwLockWriteGuard;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Layers from which an index pays for lookups.
const LAYERS_FOR_INDEX: usize = 4;
/// Layers asked for names, all lookups in a directory together, before it gets its index: listing a
/// layer costs about as much as asking it twice, or more often where it holds many names.
const ASKED_BEFORE_INDEX: usize = 32;
/// Names fetched from a listing at once.
const BATCH: usize = 128;

/// One entry of a listing.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its `DT_*` type.
    pub dtype: u32,
    /// Its inode number.
    pub ino: u64,
    /// The offset that continues behind it.
    pub offset: u64,
    /// For READDIRPLUS, its entry, which carries one lookup; `None` for `.`,
    /// `..`, and what cannot be looked up.
    pub entry: Option<Entry>,
}

/// Takes the entries of a listing.
pub trait Sink {
    /// Whether an entry with a name of `len` bytes still fits.
    fn fits(&self, len: usize) -> bool;
    /// Takes an entry that fits.
    fn push(&mut self, item: Item<'_>);
}

/// A name fetched from a listing.
struct Fetched {
    name: Vec<u8>,
    dtype: u8,
    offset: u64,
}

impl Fs {
    /// Lists the directory `id` from behind `offset` into `sink` until that is
    /// full; with `plus` every entry is looked up as well.
    ///
    /// # Errors
    /// `ENOTDIR`, and those of reading the layers' directories.
    pub fn readdir(&self, id: u64, offset: u64, plus: bool, sink: &mut dyn Sink) -> Result<()> {
        let node = self.nodes.get(id)?;
        let dir = node.dir()?;
        if offset == 0 {
            self.drop_impure(&node);
        }
        let _names = dir.lock.read();
        node.check_not_replaced()?;
        let mut offset = offset;
        if !self.list_dots(&node, &mut offset, sink) {
            return Ok(());
        }
        loop {
            let batch = self.with_listing(&node, |listing| fetch(listing, offset))?;
            let Some(last) = batch.last() else {
                self.listings.finished(node.id);
                return Ok(());
            };
            offset = last.offset;
            for item in &batch {
                if !sink.fits(item.name.len()) {
                    return Ok(());
                }
                self.list_one(&node, item, plus, sink)?;
            }
        }
    }

    /// Lists `.` and `..`; whether they fitted.
    fn list_dots(&self, node: &Node, offset: &mut u64, sink: &mut dyn Sink) -> bool {
        let parent_ino = node.link().map_or(node.ino(), |l| l.parent.ino());
        for (own, name, ino) in [(1, &b"."[..], node.ino()), (2, b"..", parent_ino)] {
            if *offset >= own {
                continue;
            }
            if !sink.fits(name.len()) {
                return false;
            }
            let dtype = Kind::Dir.dirent_type();
            sink.push(Item { name, dtype, ino, offset: own, entry: None });
            *offset = own;
        }
        true
    }

    fn list_one(
        &self,
        node: &Arc<Node>,
        item: &Fetched,
        plus: bool,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let entry = match self.lookup_locked(node, &item.name) {
            Ok(Some(entry)) => Some(entry),
            Ok(None) => return Ok(()),
            // Whoever opens it gets the error; the rest can be listed.
            Err(e) => {
                log::debug!("{} is listed without attributes: {e}", item.name.escape_ascii());
                None
            }
        };
        let ino = entry.as_ref().map_or(u64::MAX, |e| e.attr.ino);
        let dtype = entry.as_ref().map_or(u32::from(item.dtype), |e| e.attr.kind().dirent_type());
        let (entry, unused) = if plus { (entry, None) } else { (None, entry) };
        if let Some(unused) = unused {
            self.forget(unused.id, 1);
        }
        sink.push(Item { name: &item.name, dtype, ino, offset: item.offset, entry });
        Ok(())
    }

    /// Builds the index of a directory of many layers after a few lookups in it; of very many, before
    /// the first.
    pub(super) fn index_if_busy(&self, node: &Arc<Node>) {
        let Ok(dir) = node.dir() else { return };
        let layers = dir.stack.len();
        let lookups = ASKED_BEFORE_INDEX / layers.max(1);
        if layers < LAYERS_FOR_INDEX
            || dir.misses.fetch_add(1, Ordering::Relaxed) as usize != lookups
        {
            return;
        }
        if let Err(e) = self.with_listing(node, |_| ()) {
            log::debug!("node {} gets no index: {e}", node.id);
        }
    }

    /// Calls `f` with the listing of the directory `node`, whose lock the caller
    /// holds; builds it first if it is missing. It stays while `f` runs.
    ///
    /// # Errors
    /// Those of reading the layers' directories.
    pub(super) fn with_listing<T>(
        &self,
        node: &Arc<Node>,
        f: impl FnOnce(&Listing) -> T,
    ) -> Result<T> {
        let dir = node.dir()?;
        let held = dir.listing.read();
        let held = match &*held {
            Some(_) => held,
            None => {
                drop(held);
                let mut slot = dir.listing.write();
                if slot.is_none() {
                    *slot = Some(self.build_listing(node)?);
                }
                RwLockWriteGuard::downgrade(slot)
            }
        };
        let listing = held.as_ref().ok_or(Errno::IO)?;
        let (result, bytes) = (f(listing), listing.bytes());
        drop(held);
        self.listing_used(node, bytes);
        Ok(result)
    }

    /// Counts the use of a listing, and drops others if memory runs out.
    fn listing_used(&self, node: &Arc<Node>, bytes: usize) {
        for other in self.listings.used(node, bytes) {
            // One that is in use just now is counted again by its user.
            if let Ok(dir) = other.dir()
                && let Some(mut slot) = dir.listing.try_write()
            {
                *slot = None;
                dir.misses.store(0, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn build_listing(&self, node: &Node) -> Result<Listing> {
        let dir = node.dir()?;
        let mut listing = Listing::default();
        if node.in_upper() {
            let fd = self.dir_fd(node, LayerId::UPPER)?;
            self.add_layer(&mut listing, LayerId::UPPER, (fd.as_fd(), b""), false)?;
        }
        let last = dir.stack.len().saturating_sub(1);
        for (i, slot) in dir.stack.iter().enumerate() {
            let xwhiteouts = slot.xwhiteouts && i != last;
            // Of many layers few hold what will be looked up: only theirs are worth a descriptor.
            let (from, path) = match dir.stack.len() < LAYERS_FOR_INDEX {
                true => (self.dir_fd(node, slot.layer)?, Vec::new()),
                false => (DirFd::Root(self.layer_root(slot.layer)?), slot.path.to_bytes()),
            };
            self.add_layer(&mut listing, slot.layer, (from.as_fd(), &path), xwhiteouts)?;
        }
        listing.shrink();
        Ok(listing)
    }

    /// Adds what `layer` holds in a directory, given as a descriptor and the path from there.
    fn add_layer(
        &self,
        listing: &mut Listing,
        layer: LayerId,
        (from, path): (BorrowedFd<'_>, &[u8]),
        xwhiteouts: bool,
    ) -> Result<()> {
        let fd = self.with_descriptors(|| list::open(from, path))?;
        let dot_wh = self.dot_wh;
        let mut hidden = Vec::new();
        list::for_each_of(fd.as_fd(), |entry| {
            if dot_wh && dot_wh::is_mark(entry.name) {
                hidden.extend(dot_wh::hidden_by(entry.name).map(<[u8]>::to_vec));
                return Ok(());
            }
            let at = At::new(fd.as_fd(), entry.name);
            let seen = self.examine(at, entry.dtype, xwhiteouts)?;
            if let Some((dtype, whiteout)) = seen {
                listing.add(layer, LayerEntry { name: entry.name, dtype, whiteout });
            }
            Ok(())
        })?;
        // These hide what is below, not what lies beside them in this layer.
        for name in &hidden {
            listing.add(layer, LayerEntry { name, dtype: libc::DT_CHR, whiteout: true });
        }
        Ok(())
    }

    /// The type of an entry, and whether it is a whiteout; `None` if it has vanished.
    fn examine(&self, at: At<'_>, dtype: u8, xwhiteouts: bool) -> Result<Option<(u8, bool)>> {
        let suspect = dtype == libc::DT_CHR || xwhiteouts && dtype == libc::DT_REG;
        if !suspect && dtype != libc::DT_UNKNOWN {
            return Ok(Some((dtype, false)));
        }
        let stat = match sys::stat::stat(at) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let whiteout = stat.is_char_zero()
            || xwhiteouts && facts::is_whiteout(at, &stat, self.layers.namespace)?;
        Ok(Some((stat.kind().dirent_type() as u8, whiteout)))
    }
}

/// The next names behind `offset`.
fn fetch(listing: &Listing, offset: u64) -> Vec<Fetched> {
    let fetched = listing.after(offset).take(BATCH).map(|item| Fetched {
        name: item.name.to_vec(),
        dtype: item.dtype,
        offset: item.offset,
    });
    fetched.collect()
}
