//! From a node to a place that system calls can name: a directory descriptor
//! and a name.
//!
//! The one choke point: every call on an object of a layer gets its [`At`] here.

use super::node::{Gone, Link, Node};
use super::{Fs, ROOT_ID};
use crate::sys::{self, At, Errno, Result};
use crate::union::LayerId;
use parking_lot::{Mutex, MutexGuard};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Guards paths against renames of directories: a path that was built from
/// names is only trusted if no directory was renamed meanwhile.
#[derive(Debug, Default)]
pub struct Topology {
    /// Held while a directory is renamed, or a name moves between directories.
    renames: Mutex<()>,
    /// Even between renames of directories, odd during one.
    version: AtomicU64,
    /// Held while `version` is odd, and for nothing that waits for another lock.
    under_way: Mutex<()>,
}

impl Topology {
    /// Waits for the right to move names between directories.
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.renames.lock()
    }

    /// Marks the rename of a directory as under way until the guard goes;
    /// `_held` proves that the right was waited for.
    /// No other lock may be waited for meanwhile, and no path walked.
    pub fn changing<'a>(&'a self, _held: &MutexGuard<'_, ()>) -> Changing<'a> {
        let under_way = self.under_way.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        Changing { topology: self, _under_way: under_way }
    }

    /// Runs `walk` until no directory was renamed while it ran.
    fn stable<T>(&self, walk: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let done = walk();
                if self.version.load(Ordering::Acquire) == before {
                    return done;
                }
            } else {
                // A rename is under way: wait for it instead of spinning.
                drop(self.under_way.lock());
            }
        }
    }
}

/// A rename of a directory under way.
pub struct Changing<'a> {
    topology: &'a Topology,
    _under_way: MutexGuard<'a, ()>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.topology.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// How many directory descriptors to keep: a quarter of what the process may have.
pub fn cache_capacity() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (limit.unwrap_or(u64::MAX) / 4).clamp(16, 1024) as usize
}

/// A directory descriptor on loan.
pub enum DirFd<'a> {
    /// A layer's root.
    Root(BorrowedFd<'a>),
    /// From the cache.
    Cached(Arc<OwnedFd>),
}

impl AsFd for DirFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Cached(fd) => fd.as_fd(),
        }
    }
}

impl Fs {
    /// The directory that `node` has in `layer`.
    ///
    /// # Errors
    /// `ENOENT` when it has none there or was removed; those of openat2(2).
    pub(super) fn dir_fd(&self, node: &Node, layer: LayerId) -> Result<DirFd<'_>> {
        if node.id == ROOT_ID {
            return Ok(DirFd::Root(self.layer_root(layer)?));
        }
        let key = (node.id, layer);
        if let Some(fd) = self.dirs.get(key) {
            return Ok(DirFd::Cached(fd));
        }
        let fd = match layer.is_upper() {
            true => self.open_upper_dir(node)?,
            false => self.open_lower_dir(node, layer)?,
        };
        let fd = Arc::new(fd);
        self.dirs.insert(key, Arc::clone(&fd));
        Ok(DirFd::Cached(fd))
    }

    /// The root of `layer`.
    ///
    /// # Errors
    /// `EROFS` where there is no upper.
    pub(super) fn layer_root(&self, layer: LayerId) -> Result<BorrowedFd<'_>> {
        match layer.is_upper() {
            true => Ok(self.upper()?.root()),
            false => Ok(self.lower(layer)?.root()),
        }
    }

    /// Opens the directory of `node` in a lower layer, from that of its parent if that is open.
    fn open_lower_dir(&self, node: &Node, layer: LayerId) -> Result<OwnedFd> {
        let lower = node.dir()?.lower(layer).ok_or(Errno::NOENT)?;
        if let Some(Link { parent, .. }) = node.link()
            && let Some(fd) = self.dirs.get((parent.id, layer))
            && let Some(above) = parent.dir()?.lower(layer)
            && let Some(name) = lower.path.name_in(&above.path)
        {
            return self.with_descriptors(|| sys::node::open_dir_path(fd.as_fd(), name));
        }
        let (root, path) = (self.lower(layer)?.root(), lower.path.to_bytes());
        self.with_descriptors(|| sys::node::open_dir_path(root, &path))
    }

    /// Opens the upper directory of `node`, from the nearest open ancestor down.
    fn open_upper_dir(&self, node: &Node) -> Result<OwnedFd> {
        if !node.in_upper() {
            return Err(Errno::NOENT);
        }
        self.topology.stable(|| {
            let (base, path) = self.upper_path(node)?;
            self.with_descriptors(|| sys::node::open_dir_path(base.as_fd(), &path))
        })
    }

    /// The nearest ancestor of `node` whose upper directory is open, and the path from there.
    fn upper_path(&self, node: &Node) -> Result<(DirFd<'_>, Vec<u8>)> {
        let mut names = Vec::new();
        let mut link = node.link_on_path()?;
        let base = loop {
            names.push(link.name);
            let parent = link.parent;
            if parent.id == ROOT_ID {
                break DirFd::Root(self.upper()?.root());
            }
            if let Some(fd) = self.dirs.get((parent.id, LayerId::UPPER)) {
                break DirFd::Cached(fd);
            }
            link = parent.link_on_path()?;
        };
        names.reverse();
        Ok((base, names.join(&b'/')))
    }

    /// The path of `node` in the layer it lies in below upper, for a child called `name`.
    pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
        match path.is_empty() {
            true => name.to_vec(),
            false => [path, b"/", name].concat(),
        }
    }

    /// Calls `f` with where `node` is, and keeps it from being moved meanwhile.
    ///
    /// # Errors
    /// `ESTALE` for a removed object of which nothing is kept, those of
    /// [`Self::dir_fd`], and what `f` gives.
    pub(super) fn on<T>(
        &self,
        node: &Node,
        f: impl FnOnce(At<'_>, LayerId) -> Result<T>,
    ) -> Result<T> {
        let place = node.place.read();
        self.at_place(node, &place, f)
    }

    /// [`Self::on`] for a caller that holds the lock on `place` already.
    pub(super) fn at_place<T>(
        &self,
        node: &Node,
        place: &Option<Box<Gone>>,
        f: impl FnOnce(At<'_>, LayerId) -> Result<T>,
    ) -> Result<T> {
        if let Some(gone) = place {
            let kept = gone.kept.as_ref().ok_or(Errno::STALE)?;
            return f(At::fd(kept.fd.as_fd()), node.layer());
        }
        let layer = node.layer();
        // Whatever its names are, and whether they are in upper yet.
        if let Some(name) = node.index() {
            return f(At::new(self.upper()?.work.dir(), &name), layer);
        }
        match node.link() {
            Some(Link { parent, name }) => {
                let dir = self.dir_fd(&parent, layer)?;
                f(At::new(dir.as_fd(), &name), layer)
            }
            None if node.id == ROOT_ID => f(At::new(self.layer_root(layer)?, b"."), layer),
            None => Err(Errno::STALE),
        }
    }
}
