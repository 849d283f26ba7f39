//! Nodes: what the kernel knows by a node id.
//!
//! A node is an object of the merged view. It keeps the names it is linked
//! under and the layer its attributes and data come from, never a descriptor
//! (unless it is unlinked) and never a path.
//!
//! **Life.** A node lives in the table while the kernel counts lookups on it.
//! The last FORGET marks it dead under its `links` lock, then takes it out of
//! the table and of its parents' `children`; whoever meets a dead node treats
//! it as missing.

use super::file::OpenFile;
use super::node_flags::INDEXED;
use super::passthrough::Mapped;
use crate::sys::{Errno, Kind, Result, Stat};
use crate::union::LayerId;
use crate::union::listing::Listing;
use crate::union::path::LayerPath;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, RwLock};
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The node id of the root (`FUSE_ROOT_ID`).
pub const ROOT_ID: u64 = 1;

/// In place of a number of lookups: the node is out of the tables, or about to be.
const DEAD: u32 = u32::MAX;

/// So many lookups that they are no longer counted: the node stays until the mount ends.
const IMMORTAL: u32 = u32::MAX - 1;

/// One object of the merged view. There are millions: every byte counts.
#[derive(Debug)]
pub struct Node {
    /// The id the kernel knows it by; never used twice.
    pub id: u64,
    /// Its type, immutable.
    pub kind: Kind,
    /// The inode number shown.
    ino: AtomicU64,
    /// The layer it is in (or was, before it was removed); changed to upper, never back.
    layer: AtomicU16,
    /// See [`node_flags`](super::node_flags).
    pub(super) flags: AtomicU8,
    /// Lookups the kernel counts, or [`DEAD`]; changed under the lock of `links`.
    lookups: AtomicU32,
    /// The inode's own lock: shared while a system call goes by the node's
    /// name, exclusive while its name or layer changes. What is left of an
    /// object that has no name any more.
    pub place: RwLock<Option<Box<Gone>>>,
    /// Short lock: names, open files.
    links: Mutex<Links>,
    /// What directories have beside.
    dir: Option<Box<Dir>>,
}

/// An object without a name.
#[derive(Debug)]
pub struct Gone {
    /// Its attributes when it lost its last name; `None` when another node has taken that name,
    /// which the kernel is to look up again.
    pub stat: Option<Stat>,
    /// The directory its last name was in.
    pub parent: Arc<Node>,
    /// A descriptor of it, if there was reason to keep one.
    pub kept: Option<Kept>,
}

/// A descriptor of an object without a name.
#[derive(Debug)]
pub struct Kept {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// One more reference while this is one of a bounded number.
    pub counted: Option<Arc<()>>,
}

/// A name in a directory.
#[derive(Debug, Clone)]
pub struct Link {
    /// The directory.
    pub parent: Arc<Node>,
    /// The name.
    pub name: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Links {
    first: Option<Link>,
    /// Boxed, because most nodes have neither.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Further hard links.
    links: Vec<Link>,
    opens: Vec<Arc<OpenFile>>,
    /// The name of its entry in `work/index`.
    index: Option<Box<[u8]>>,
    /// In what way it may be mapped since the kernel was handed it.
    mapped: Mapped,
}

impl Links {
    /// Gives the memory of the rarer part back when it holds nothing.
    fn drop_empty(&mut self) {
        let empty = |m: &More| {
            let unmapped = m.mapped == Mapped::Never;
            m.links.is_empty() && m.opens.is_empty() && m.index.is_none() && unmapped
        };
        if self.more.as_deref().is_some_and(empty) {
            self.more = None;
        }
    }
}

/// The part of a node that only directories have.
#[derive(Debug)]
pub struct Dir {
    /// The directory's own lock: exclusive while its names change, shared while they are looked at.
    pub lock: RwLock<()>,
    /// The lower directories that are merged in it, from the top.
    pub stack: Stack,
    /// The merged listing, once it was needed; changed under `lock` only.
    pub listing: RwLock<Option<Listing>>,
    /// Names looked up while there was no listing.
    pub misses: AtomicU32,
    /// `overlay.impure` is known to be set on the upper directory.
    pub impure: AtomicBool,
    /// It is known not to be.
    pub not_impure: AtomicBool,
    /// The upper directory is known to hold no `.wh.` names.
    pub settled: AtomicBool,
    /// Short lock: the known nodes by name.
    children: Mutex<HashTable<Child>>,
}

/// The lower directories merged in a directory: always the same, until it is cut off from all.
#[derive(Debug)]
pub struct Stack {
    lowers: Box<[LowerDir]>,
    cut_off: AtomicBool,
}

impl Stack {
    /// Leaves the directory to upper alone; its lock is held exclusively.
    pub fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Release);
    }
}

impl std::ops::Deref for Stack {
    type Target = [LowerDir];

    fn deref(&self) -> &[LowerDir] {
        if self.cut_off.load(Ordering::Acquire) { &[] } else { &self.lowers }
    }
}

/// One directory of a lower layer.
#[derive(Debug, Clone)]
pub struct LowerDir {
    /// The layer.
    pub layer: LayerId,
    /// Its path from the layer's root.
    pub path: LayerPath,
    /// It may hold whiteouts in attribute form.
    pub xwhiteouts: bool,
}

#[derive(Debug)]
struct Child {
    hash: u64,
    node: Arc<Node>,
}

impl Child {
    /// Whether this is a live node called `name` in the directory `parent`.
    fn is(&self, hash: u64, parent: u64, name: &[u8]) -> bool {
        self.hash == hash && self.node.is_alive() && self.node.has_link(parent, name)
    }
}

impl Node {
    /// A new node with one lookup, not in any table yet. `stack` makes it a directory.
    pub fn new(
        id: u64,
        kind: Kind,
        ino: u64,
        layer: LayerId,
        link: Option<Link>,
        stack: Option<Vec<LowerDir>>,
    ) -> Self {
        Self {
            id,
            kind,
            ino: AtomicU64::new(ino),
            layer: AtomicU16::new(layer.0),
            flags: AtomicU8::new(0),
            lookups: AtomicU32::new(1),
            place: RwLock::new(None),
            links: Mutex::new(Links { first: link, more: None }),
            dir: stack.map(|stack| Box::new(Dir::new(stack))),
        }
    }

    /// The inode number shown.
    pub fn ino(&self) -> u64 {
        self.ino.load(Ordering::Relaxed)
    }

    /// Shows another inode number from now on (a lower hard link that was broken).
    pub fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    /// Whether the object is (or was, before it was removed) in upper.
    pub fn in_upper(&self) -> bool {
        self.layer().is_upper()
    }

    /// The layer the object is in (or was, before it was removed).
    pub fn layer(&self) -> LayerId {
        LayerId(self.layer.load(Ordering::Acquire))
    }

    /// Notes that the object is in upper now, under its name; `place` is the guard's content.
    pub fn move_to_upper(&self, place: &mut Option<Box<Gone>>) {
        *place = None;
        self.set_in_upper();
    }

    /// Notes that the object is in upper now; its place is locked.
    pub fn set_in_upper(&self) {
        self.layer.store(LayerId::UPPER.0, Ordering::Release);
        // The bit had another meaning before.
        self.take_cache_outdated();
    }

    /// Notes that the object, if it is a directory, holds no `.wh.` names in upper.
    pub fn settle(&self) {
        if let Some(dir) = &self.dir {
            dir.settled.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the object has the index entry `name` from now on; the caller has the lock on
    /// `place`, or the only reference.
    pub fn set_index(&self, name: Vec<u8>) {
        self.links.lock().more.get_or_insert_default().index = Some(name.into());
        self.flags.fetch_or(INDEXED, Ordering::Release);
    }

    /// Notes that the index entry is gone; the caller has the lock on `place`.
    pub fn drop_index(&self) {
        self.flags.fetch_and(!INDEXED, Ordering::Release);
        let mut links = self.links.lock();
        if let Some(more) = links.more.as_mut() {
            more.index = None;
        }
        links.drop_empty();
    }

    /// The name of the object's index entry, if it has one.
    pub fn index(&self) -> Option<Box<[u8]>> {
        match self.is_indexed() {
            true => self.links.lock().more.as_ref()?.index.clone(),
            false => None,
        }
    }

    /// Whether the object is in upper with all that belongs to it.
    pub fn is_whole_in_upper(&self) -> bool {
        self.in_upper() && !self.lacks_data()
    }

    /// Whether another node has taken its name.
    pub fn is_replaced(&self) -> bool {
        self.place.read().as_ref().is_some_and(|gone| gone.stat.is_none())
    }

    /// Checks that the directory is still what its name means.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn check_not_replaced(&self) -> Result<()> {
        match self.is_removed() && self.is_replaced() {
            true => Err(Errno::STALE),
            false => Ok(()),
        }
    }

    /// The directory part.
    ///
    /// # Errors
    /// `ENOTDIR` for other nodes.
    pub fn dir(&self) -> Result<&Dir> {
        self.dir.as_deref().ok_or(Errno::NOTDIR)
    }

    /// Whether this is a directory that shows more than one layer.
    pub fn is_merged(&self) -> bool {
        self.dir.as_ref().is_some_and(|d| d.stack.len() + usize::from(self.in_upper()) > 1)
    }

    /// Whether this is a directory of upper with nothing below it.
    pub fn is_pure_upper(&self) -> bool {
        self.in_upper() && self.dir.as_ref().is_some_and(|d| d.stack.is_empty())
    }

    /// One more lookup; `false` when the node is dead.
    pub fn grab(&self) -> bool {
        let _links = self.links.lock();
        let lookups = self.lookups.load(Ordering::Relaxed);
        if lookups < IMMORTAL {
            self.lookups.store(lookups + 1, Ordering::Relaxed);
        }
        lookups != DEAD
    }

    /// `n` lookups fewer. When none is left (and no child) the node is dead, and the result
    /// holds the names to be taken out of the parents.
    pub fn forget(&self, n: u64) -> Option<Vec<Link>> {
        // A directory stays while children of it are known: their paths lead through it.
        let children = self.dir.as_ref().map(|dir| dir.children.lock());
        let has_children = children.as_ref().is_some_and(|c| !c.is_empty());
        let mut links = self.links.lock();
        let lookups = self.lookups.load(Ordering::Relaxed);
        if lookups >= IMMORTAL || self.id == ROOT_ID {
            return None;
        }
        let left = u64::from(lookups).saturating_sub(n) as u32;
        let dies = left == 0 && !has_children;
        self.lookups.store(if dies { DEAD } else { left }, Ordering::Relaxed);
        if !dies {
            return None;
        }
        let more = links.more.take().map(|m| m.links).unwrap_or_default();
        Some(links.first.take().into_iter().chain(more).collect())
    }

    /// The directory that it is kept for, once it has no name.
    fn take_parent(&mut self) -> Option<Arc<Self>> {
        self.place.get_mut().take().map(|gone| gone.parent)
    }

    /// One of its names; `None` for the root and for what has no name any more.
    pub fn link(&self) -> Option<Link> {
        self.links.lock().first.clone()
    }

    /// The name of a directory on the way to an object.
    ///
    /// # Errors
    /// `ENOENT` when it was removed, `ESTALE` when it is to be looked up again.
    pub fn link_on_path(&self) -> Result<Link> {
        let removed = |gone: &Option<Box<Gone>>| gone.as_ref().is_none_or(|g| g.stat.is_some());
        self.link().ok_or_else(|| match self.place.try_read() {
            Some(gone) if removed(&gone) => Errno::NOENT,
            // Replaced, or just being removed or replaced.
            _ => Errno::STALE,
        })
    }

    /// Whether the node is still in the tables.
    fn is_alive(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) != DEAD
    }

    /// Whether `name` in the directory `parent` is one of its names.
    pub fn has_link(&self, parent: u64, name: &[u8]) -> bool {
        let is = |l: &Link| l.parent.id == parent && *l.name == *name;
        let links = self.links.lock();
        links.first.as_ref().is_some_and(is)
            || links.more.as_ref().is_some_and(|m| m.links.iter().any(is))
    }

    /// Its names in the directory `parent`.
    pub fn names_in(&self, parent: u64) -> Vec<Box<[u8]>> {
        let links = self.links.lock();
        let more = links.more.iter().flat_map(|more| &more.links);
        let here = links.first.iter().chain(more).filter(|link| link.parent.id == parent);
        here.map(|link| link.name.clone()).collect()
    }

    /// Adds a name.
    fn add_link(&self, link: Link) {
        let mut links = self.links.lock();
        match links.first {
            None => links.first = Some(link),
            Some(_) => links.more.get_or_insert_default().links.push(link),
        }
    }

    /// Takes a name away; whether one is left.
    fn drop_link(&self, parent: u64, name: &[u8]) -> bool {
        let is = |l: &Link| l.parent.id == parent && *l.name == *name;
        let mut links = self.links.lock();
        let mut spare =
            links.more.as_mut().map(|m| std::mem::take(&mut m.links)).unwrap_or_default();
        if links.first.as_ref().is_some_and(is) {
            links.first = spare.pop();
        } else if let Some(at) = spare.iter().position(is) {
            spare.swap_remove(at);
        }
        if let (Some(more), false) = (links.more.as_mut(), spare.is_empty()) {
            more.links = spare;
        }
        links.first.is_some()
    }

    /// Notes the open file that `make` makes, if it does, knowing one of the others and in what way
    /// the file may be mapped, which can become more.
    pub fn add_open(
        &self,
        make: impl FnOnce(Option<&OpenFile>, &mut Mapped) -> Option<OpenFile>,
    ) -> Option<Arc<OpenFile>> {
        let mut links = self.links.lock();
        let More { opens, mapped, .. } = links.more.get_or_insert_default().as_mut();
        let file = make(opens.first().map(Arc::as_ref), mapped).map(Arc::new);
        opens.extend(file.clone());
        file
    }

    /// In what way the file may be mapped since the kernel was handed it.
    pub fn mapped(&self) -> Mapped {
        self.links.lock().more.as_ref().map_or(Mapped::Never, |more| more.mapped)
    }

    /// Forgets an open file.
    pub fn drop_open(&self, file: &Arc<OpenFile>) {
        let mut links = self.links.lock();
        if let Some(more) = links.more.as_mut() {
            more.opens.retain(|f| !Arc::ptr_eq(f, file));
        }
        links.drop_empty();
    }

    /// One of the open files.
    pub fn an_open(&self) -> Option<Arc<OpenFile>> {
        self.links.lock().more.as_ref().and_then(|more| more.opens.first().cloned())
    }

    /// The open files.
    pub fn opens(&self) -> Vec<Arc<OpenFile>> {
        self.links.lock().more.as_ref().map(|m| m.opens.clone()).unwrap_or_default()
    }
}

impl Drop for Node {
    /// A removed object keeps the directory it was in, which may be removed and have one to keep
    /// itself: one after the other, however many there are.
    fn drop(&mut self) {
        let mut above = self.take_parent();
        while let Some(node) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.take_parent());
        }
    }
}

impl Dir {
    fn new(stack: Vec<LowerDir>) -> Self {
        Self {
            lock: RwLock::new(()),
            stack: Stack { lowers: stack.into_boxed_slice(), cut_off: AtomicBool::new(false) },
            listing: RwLock::new(None),
            misses: AtomicU32::new(0),
            impure: AtomicBool::new(false),
            not_impure: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            children: Mutex::new(HashTable::new()),
        }
    }

    /// The nodes that are known by a name in this directory, once for each.
    pub fn children(&self) -> Vec<Arc<Node>> {
        self.children.lock().iter().map(|child| Arc::clone(&child.node)).collect()
    }

    /// Changes the listing, if there is one; the caller holds `lock`.
    pub fn relist(&self, change: impl FnOnce(&mut Listing)) {
        if let Some(listing) = &mut *self.listing.write() {
            change(listing);
        }
    }

    /// The lower directory of `layer`, if it is merged here.
    pub fn lower(&self, layer: LayerId) -> Option<&LowerDir> {
        self.stack.iter().find(|d| d.layer == layer)
    }
}

/// Names of directories, shared by all operations on `children`.
#[derive(Debug, Default)]
pub struct Names {
    hasher: DefaultHashBuilder,
}

impl Names {
    /// The live node called `name` in `parent`, with one more lookup.
    pub fn grab(&self, parent: &Node, name: &[u8]) -> Option<Arc<Node>> {
        self.find(parent, name).filter(|node| node.grab())
    }

    /// The live node called `name` in `parent`, if it is known.
    pub fn find(&self, parent: &Node, name: &[u8]) -> Option<Arc<Node>> {
        let hash = self.hasher.hash_one(name);
        let children = parent.dir.as_ref()?.children.lock();
        children.find(hash, |c| c.is(hash, parent.id, name)).map(|c| Arc::clone(&c.node))
    }

    /// Adds the name `link` of `node`. When another live node has that name
    /// already, nothing changes and that one is returned, with one more lookup.
    pub fn link(&self, node: &Arc<Node>, link: Link) -> Option<Arc<Node>> {
        let parent = Arc::clone(&link.parent);
        let hash = self.hasher.hash_one(&*link.name);
        let mut children = parent.dir.as_ref()?.children.lock();
        if let Some(known) = children.find(hash, |c| c.is(hash, parent.id, &link.name)) {
            if Arc::ptr_eq(&known.node, node) {
                return None;
            }
            if known.node.grab() {
                return Some(Arc::clone(&known.node));
            }
        }
        if !node.has_link(parent.id, &link.name) {
            node.add_link(link);
        }
        children.insert_unique(hash, Child { hash, node: Arc::clone(node) }, |c| c.hash);
        None
    }

    /// Enters a node under the name it was made with, as [`Self::link`] does.
    pub fn enter_new(&self, node: &Arc<Node>) -> Option<Arc<Node>> {
        self.link(node, node.link()?)
    }

    /// Takes the name away from `node`; whether it has another one.
    pub fn unlink(&self, node: &Arc<Node>, parent: &Node, name: &[u8]) -> bool {
        self.leave(node, parent, name);
        node.drop_link(parent.id, name)
    }

    /// Takes `node` out of the children of `parent`.
    pub fn leave(&self, node: &Arc<Node>, parent: &Node, name: &[u8]) {
        let hash = self.hasher.hash_one(name);
        let Some(dir) = &parent.dir else { return };
        let mut children = dir.children.lock();
        let same = |c: &Child| c.hash == hash && Arc::ptr_eq(&c.node, node);
        if let Ok(slot) = children.find_entry(hash, same) {
            slot.remove();
        }
        shrink(&mut children, |c| c.hash);
    }
}

/// Gives memory back once a table is mostly empty.
pub(super) fn shrink<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to_fit(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_small() {
        assert!(size_of::<Node>() <= 88, "{} bytes", size_of::<Node>());
    }

    #[test]
    fn removed_directories_of_any_depth_are_dropped() {
        let dir = |id| Arc::new(Node::new(id, Kind::Dir, id, LayerId::UPPER, None, Some(vec![])));
        let mut node = dir(2);
        for id in 3..200_000 {
            let below = dir(id);
            *below.place.write() = Some(Box::new(Gone { stat: None, parent: node, kept: None }));
            node = below;
        }
        drop(node);
    }
}
