//! The files of the layers: opening and probing them, descriptors of their
//! directories, facts about their entries, the work directory.
//!
//! A [`Lower`] can only be read; whatever changes files takes an [`Upper`], so
//! that writing to a lower layer does not compile. Where the kernel allows it
//! a lower is reached through a private read-only mount as well.
//!
//! **Descriptors.** A layer owns the `O_PATH` descriptor of its root for as
//! long as the mount lives. [`fds::FdCache`] owns the other directory
//! descriptors and lends them as `Arc`s.

pub mod facts;
pub mod fds;
pub mod index;
pub mod instance;
pub mod open;
pub mod origin;
pub mod overlap;
pub mod owners;
pub mod work;

use crate::format::{Namespace, OverlayName};
use crate::sys::{At, Result, xattr};
use owners::Owners;
use rustix::fs::FlockOperation;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use work::Work;

/// A layer that is only read.
#[derive(Debug)]
pub struct Lower {
    root: OwnedFd,
    /// Index of its file system among those of the mount; 0 is upper's.
    pub fs: u16,
    /// Directories may hold whiteouts in attribute form at its root.
    pub root_xwhiteouts: bool,
    /// Where its owners and modes are.
    pub owners: Owners,
}

impl Lower {
    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The writable layer.
#[derive(Debug)]
pub struct Upper {
    root: OwnedFd,
    /// Where objects are built before they get their place.
    pub work: Work,
    /// The namespace of overlay's attributes.
    pub namespace: Namespace,
    /// The work directory is `work/index`, and keeps a link of every lower hard link that was copied up.
    pub has_index: bool,
    /// Where its owners and modes are.
    pub owners: Owners,
    /// The work directory that was given, locked while mounted (as `root` is).
    work_lock: OwnedFd,
}

impl Upper {
    /// Its root directory, open for reading.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Lets others use the layer and its work directory.
    pub fn unlock(&self) {
        for dir in [&self.root, &self.work_lock] {
            if let Err(e) = rustix::fs::flock(dir, FlockOperation::Unlock) {
                log::debug!("a lock stays until the end: {e}");
            }
        }
    }

    /// Brings all that is on its file system to the disk.
    ///
    /// # Errors
    /// Those of syncfs(2).
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root)
    }

    /// Sets one of overlay's own attributes on `at`.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn mark(&self, at: At<'_>, name: OverlayName, value: &[u8]) -> Result<()> {
        xattr::set(at, name.full(self.namespace), value, 0)
    }

    /// Removes one of overlay's own attributes from `at`.
    ///
    /// # Errors
    /// `ENODATA`, and the others of removexattr(2).
    pub fn unmark(&self, at: At<'_>, name: OverlayName) -> Result<()> {
        xattr::remove(at, name.full(self.namespace))
    }

    /// Whether `at` carries one of overlay's own attributes.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn is_marked(&self, at: At<'_>, name: OverlayName) -> Result<bool> {
        Ok(xattr::get(at, name.full(self.namespace))?.is_some())
    }
}
