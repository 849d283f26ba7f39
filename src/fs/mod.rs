//! The file system: state, locks, and one method per request.
//!
//! [`Fs`] knows nothing of FUSE's wire format; [`crate::fuse`] unpacks a request,
//! calls one method and sends what it returns, so everything here can be run
//! without a mount.
//!
//! # Locks
//! In this order; a thread holds no lock over a blocking system call except
//! those of the directory and inode it changes (2 to 4), and that of a file whose
//! content it gives to the kernel ([`content`] says why nobody is waited for).
//! 1. `Topology::renames`: renames of directories, and renames between directories
//! 2. the copy-up latch of a node
//! 3. `Dir::lock`: ancestors before descendants; two unrelated ones only under 1
//! 4. `Node::place`: two by ascending id
//! 5. `OpenFile::backing`
//! 6. short ones, never two of a kind: `Dir::listing` (long only while it is
//!    built), `Dir::children`, `Node::links`, tables, caches
//!
//! # Descriptors
//! Layer roots belong to [`Layers`], directories to the [`FdCache`], open files
//! to their [`file::OpenFile`] (as what the kernel holds of them,
//! [`passthrough::Passed`]), unlinked objects to their node's
//! [`node::Gone`]. When the process runs out, [`Fs::with_descriptors`] closes
//! what can be opened again.

pub mod attr;
pub mod budget;
pub mod content;
pub mod copy_up;
pub mod copy_xattrs;
pub mod create;
pub mod detach;
pub mod direct;
pub mod file;
pub mod index;
pub mod link;
pub mod lookup;
pub mod metacopy;
pub mod node;
pub mod node_flags;
pub mod node_table;
pub mod origin;
pub mod passthrough;
pub mod paths;
pub mod protect;
pub mod readdir;
pub mod redirect;
pub mod refresh;
pub mod remove;
pub mod rename;
pub mod resolve;
pub mod set_id;
pub mod settle;
pub mod xattr;

use crate::config::{Config, Fsync, RedirectDir};
use crate::error::{Failure, MountError};
use crate::layer::fds::FdCache;
use crate::layer::open::Layers;
use crate::layer::owners::Owners;
use crate::layer::{Lower, Upper};
use crate::sys::{Errno, Kind, Result, Stat, identity};
use crate::union::LayerId;
use crate::union::ino::InoMap;
use crate::union::path::LayerPath;
use dashmap::DashMap;
use node::{LowerDir, Names, Node, ROOT_ID};
use node_table::NodeTable;
use parking_lot::Mutex;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// The thread, as this process sees it; 0 when it does not.
    pub pid: u32,
}

/// An object as LOOKUP and the creating requests answer it. Carries one lookup.
#[derive(Debug)]
pub struct Entry {
    /// Its node id.
    pub id: u64,
    /// Its attributes, as the merged view shows them.
    pub attr: Stat,
}

/// Nodes of files with several links, by file system and inode number.
type HardLinks = hashbrown::HashMap<(u16, u64), Weak<Node>>;

/// Tells the kernel what it cannot know: that something it caches is no longer true, and the like.
pub trait Notify: Send + Sync {
    /// The attributes of node `id` changed.
    fn attributes_changed(&self, id: u64);
    /// What node `id` holds changed (data, target or listing), and its attributes.
    fn content_changed(&self, id: u64);
    /// The data of node `id` begins with `data`; what is behind it is nobody's to know.
    fn content_is(&self, id: u64, data: &[u8]);
    /// `name` in the directory `parent` may mean something else now, or something at all.
    fn name_changed(&self, parent: u64, name: &[u8]);
    /// Hands `file` over to be read and written by the kernel; the id that OPEN is answered with.
    ///
    /// # Errors
    /// As [`sys::backing::open`](crate::sys::backing::open).
    fn hand_over(&self, file: BorrowedFd<'_>) -> Result<u32>;
    /// No further OPEN is answered with `id`.
    fn take_back(&self, id: u32);
}

/// The mounted union.
pub struct Fs {
    layers: Layers,
    ino_map: InoMap,
    nodes: NodeTable,
    names: Names,
    dirs: FdCache,
    /// The kernel may open files without asking: they are known by their nodes alone.
    no_open: bool,
    /// Files that are used without having been opened ([`file::NO_HANDLE`]).
    unopened: FdCache,
    topology: paths::Topology,
    /// Nodes being copied up, each with its latch.
    copying: DashMap<u64, Arc<Mutex<()>>>,
    /// Files of upper with several links, and with an index those of the lower layers.
    hard_links: Mutex<HardLinks>,
    /// How often an entry was added to the index.
    index_version: AtomicU64,
    open_files: DashMap<u64, Arc<file::OpenFile>>,
    next_handle: AtomicU64,
    /// One reference more for each descriptor that is kept in case a path descriptor is reopened.
    kept: Arc<()>,
    /// Nodes forgotten so far.
    forgotten: AtomicU64,
    listings: budget::Budget,
    redirects: RedirectDir,
    fixed_lowers: bool,
    /// Changes of metadata copy no data up.
    metacopy: bool,
    /// The data of nodes that lack it, by id.
    data: DashMap<u64, metacopy::Data>,
    dot_wh: bool,
    fsync: Fsync,
    /// Ids that stand for an owner without a mapping, if there can be any.
    overflow: identity::Overflow,
    /// Files may go past the kernel's page cache.
    bypass: AtomicBool,
    /// Files may be handed to the kernel.
    passthrough: AtomicBool,
    /// There may be files whose attributes the kernel changes unseen.
    unseen: AtomicBool,
    notify: OnceLock<Arc<dyn Notify>>,
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fs").field("nodes", &self.nodes.count()).finish_non_exhaustive()
    }
}

impl Fs {
    /// A union of `layers` as `config` asks for.
    ///
    /// # Errors
    /// A [`MountError`] when the root cannot be resolved.
    pub fn new(layers: Layers, config: &Config) -> std::result::Result<Self, MountError> {
        let used = layers.file_systems.iter().flatten().count();
        let ino_map = InoMap::new(layers.file_systems.len(), used);
        let root = root_node(&layers, ino_map).map_err(|e| {
            MountError::new(Failure::Layer, format!("cannot read the root of the layers: {e}"))
        })?;
        let fs = Self {
            redirects: config.redirect_dir.unwrap_or(redirect::default_of(layers.namespace)),
            fixed_lowers: config.fixed_lowers,
            metacopy: config.metacopy,
            data: DashMap::new(),
            nodes: NodeTable::new(root),
            ino_map,
            layers,
            names: Names::default(),
            dirs: FdCache::new(paths::cache_capacity()),
            no_open: config.no_open || config.upper.is_none(),
            unopened: FdCache::new(paths::cache_capacity()),
            topology: paths::Topology::default(),
            copying: DashMap::new(),
            hard_links: Mutex::default(),
            index_version: AtomicU64::new(0),
            open_files: DashMap::new(),
            next_handle: AtomicU64::new(1),
            kept: Arc::default(),
            forgotten: AtomicU64::new(0),
            listings: budget::Budget::new(config.index_bytes),
            dot_wh: config.dot_wh,
            fsync: config.fsync,
            overflow: identity::Overflow::read(),
            bypass: AtomicBool::new(false),
            passthrough: AtomicBool::new(false),
            unseen: AtomicBool::new(false),
            notify: OnceLock::new(),
        };
        Ok(fs)
    }

    /// Sets who tells the kernel of changes it cannot know of; only the first call counts.
    pub fn set_notify(&self, notify: Arc<dyn Notify>) {
        if self.notify.set(notify).is_err() {
            log::warn!("changes are already reported elsewhere");
        }
    }

    /// Whether nothing can be changed.
    pub fn is_read_only(&self) -> bool {
        self.layers.upper.is_none()
    }

    /// Whether the kernel may open files without asking.
    pub fn needs_no_open(&self) -> bool {
        self.no_open
    }

    /// Lets go of the kernel, and lets others use the upper layer: there will be no more requests.
    pub fn retire(&mut self) {
        drop(self.notify.take());
        self.layers.upper.iter().for_each(Upper::unlock);
    }

    /// Brings all that was changed to the disk, as the kernel does when an overlay is unmounted
    /// (`fs/overlayfs/super.c: ovl_sync_fs`).
    ///
    /// # Errors
    /// Those of syncfs(2).
    pub fn sync(&self) -> Result<()> {
        match &self.layers.upper {
            Some(upper) if self.fsync != Fsync::Volatile => upper.sync(),
            _ => Ok(()),
        }
    }

    /// The writable layer.
    ///
    /// # Errors
    /// `EROFS` when there is none.
    fn upper(&self) -> Result<&Upper> {
        self.layers.upper.as_ref().ok_or(Errno::ROFS)
    }

    /// The lower layer `id`; the data-only ones are counted behind the others.
    ///
    /// # Errors
    /// `EIO` when there is none (a bug).
    fn lower(&self, id: LayerId) -> Result<&Lower> {
        let i = usize::from(id.0).checked_sub(1).ok_or(Errno::IO)?;
        let Layers { lowers, data, .. } = &self.layers;
        lowers.get(i).or_else(|| data.get(i - lowers.len())).ok_or(Errno::IO)
    }

    /// Where owners and modes of `layer` are.
    fn owners(&self, layer: LayerId) -> Owners {
        match layer.is_upper() {
            true => self.layers.upper.as_ref().map_or(Owners::REAL, |upper| upper.owners),
            false => self.lower(layer).map_or(Owners::REAL, |lower| lower.owners),
        }
    }

    /// The inode number shown for inode `ino` of `layer`.
    fn shown_ino(&self, layer: LayerId, ino: u64) -> u64 {
        let fs = if layer.is_upper() { 0 } else { self.lower(layer).map_or(0, |l| l.fs) };
        self.ino_map.show(fs, ino)
    }

    /// Tells the kernel that the attributes of `node` changed behind its back.
    fn attributes_changed(&self, node: &Node) {
        if let Some(notify) = self.notify.get() {
            notify.attributes_changed(node.id);
        }
    }

    /// Tells the kernel that the listing of the directory `node` changed behind its back.
    fn listing_changed(&self, node: &Node) {
        if let Some(notify) = self.notify.get() {
            notify.content_changed(node.id);
        }
    }

    /// Runs `open`; when descriptors have run out, closes what can be opened
    /// again and tries once more.
    ///
    /// # Errors
    /// Those of `open`.
    fn with_descriptors<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.dirs.shrink();
                self.unopened.shrink();
                self.close_idle_files();
                open()
            }
            done => done,
        }
    }
}

/// The root: every layer's root, merged.
fn root_node(layers: &Layers, ino_map: InoMap) -> Result<Node> {
    let stack: Vec<_> = layers
        .lowers
        .iter()
        .zip(1..)
        .map(|(lower, i)| LowerDir {
            layer: LayerId(i),
            path: LayerPath::default(),
            xwhiteouts: lower.root_xwhiteouts,
        })
        .collect();
    // Unlike other merged directories the root shows the topmost layer's number (`ovl_get_root`).
    let (layer, fs, top) = match (&layers.upper, layers.lowers.first()) {
        (Some(upper), _) => (LayerId::UPPER, 0, upper.root()),
        (None, Some(lower)) => (LayerId(1), lower.fs, lower.root()),
        (None, None) => return Err(Errno::IO),
    };
    let stat = crate::sys::stat::stat(crate::sys::At::new(top, b"."))?;
    let ino = ino_map.show(fs, stat.ino);
    let root = Node::new(ROOT_ID, Kind::Dir, ino, layer, None, Some(stack));
    // Nor is `overlay.protattr` read on it.
    root.learn_protection(stat.protection);
    Ok(root)
}
