//! File attributes (chattr(1)), and what the immutable and append-only ones forbid.
//!
//! In upper these two are `overlay.protattr` only, so that the union itself can
//! still work on the object (`fs/overlayfs/util.c: ovl_set_protattr`). The
//! kernel enforces them in its VFS for file systems it knows; through FUSE it
//! does not learn of them, so that every request that changes something asks
//! here first. A lower object's come with its stat(2); an upper one's are read
//! at the first change and remembered in its node.

use super::Fs;
use super::attr::Changes;
use super::node::Node;
use crate::format::{OverlayName, protattr};
use crate::layer::{Upper, facts};
use crate::sys::fileattr::{FileAttr, Form, Protection};
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result};
use rustix::fs::{IFlags, OFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// The flags that copy-up keeps, beside what protects (`OVL_COPY_FS_FLAGS_MASK`).
const COPIED: u32 = IFlags::SYNC.bits() | IFlags::NOATIME.bits();

impl Fs {
    /// The file attributes of node `id`.
    ///
    /// # Errors
    /// `ENOTTY` where there are none, and those of opening it and ioctl(2).
    pub fn fileattr(&self, id: u64, form: Form) -> Result<FileAttr> {
        let node = self.nodes.get(id)?;
        check_kind(&node)?;
        let attr = self.on(&node, |at, _| self.read_fileattr(at, form))?;
        Ok(attr.protected(self.protection(&node)?))
    }

    /// Changes the file attributes of node `id`; the kernel has checked the caller's rights.
    ///
    /// # Errors
    /// `EROFS`, those of copy-up, of setxattr(2) and ioctl(2).
    pub fn set_fileattr(&self, id: u64, attr: FileAttr) -> Result<()> {
        let upper = self.upper()?;
        let node = self.nodes.get(id)?;
        check_kind(&node)?;
        self.copy_up_metadata(&node)?;
        let (before, wanted) = (self.protection(&node)?, attr.protection());
        self.on(&node, |at, _| {
            if before.any() || wanted.any() {
                mark_protected(upper, at, wanted)?;
                node.set_protection(wanted);
            }
            let open = || sys::node::open(at, OFlags::RDONLY);
            attr.unprotected().write(self.with_descriptors(open)?.as_fd())
        })?;
        self.attributes_changed(&node);
        Ok(())
    }

    fn read_fileattr(&self, at: At<'_>, form: Form) -> Result<FileAttr> {
        FileAttr::read(self.open_lower(at)?.as_fd(), form)
    }

    /// Gives the copy `to` the file attributes of the lower file or directory
    /// `from` (`fs/overlayfs/copy_up.c: ovl_copy_fileattr`); `files` are both,
    /// where they are open.
    pub(super) fn copy_fileattr(
        &self,
        upper: &Upper,
        (from, to): (At<'_>, At<'_>),
        files: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
        protection: Protection,
    ) -> Result<()> {
        if protection.any() {
            mark_protected(upper, to, protection)?;
        }
        let old = match files {
            Some((from, _)) => FileAttr::read(from, Form::Flags),
            None => self.read_fileattr(from, Form::Flags),
        };
        // A file system without any, or a directory that may not be read.
        let copied = old.map_or(0, |old| old.bits() & COPIED);
        if copied == 0 {
            return Ok(());
        }
        match files {
            Some((_, to)) => add_flags(to, copied),
            None => {
                let open = || sys::node::open(to, OFlags::RDONLY);
                add_flags(self.with_descriptors(open)?.as_fd(), copied)
            }
        }
    }

    /// What `node` forbids.
    ///
    /// # Errors
    /// Those of naming it and of getxattr(2).
    pub(super) fn protection(&self, node: &Node) -> Result<Protection> {
        if let Some(known) = node.protection() {
            return Ok(known);
        }
        let found = self.on(node, |at, _| facts::protection(at, self.layers.namespace))?;
        node.learn_protection(found);
        Ok(found)
    }

    /// Checks that attributes and names of `node` may be changed.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_unprotected(&self, node: &Node) -> Result<()> {
        refuse(self.protection(node)?.any())
    }

    /// Checks that a name may be added to the directory `dir`.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_adding(&self, dir: &Node) -> Result<()> {
        refuse(self.protection(dir)?.immutable)
    }

    /// Checks that the name `name` may be taken out of the directory `parent`
    /// (`fs/namei.c: may_delete`); the kernel has looked it up.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_removing(&self, parent: &Node, name: &[u8]) -> Result<()> {
        self.check_unprotected(parent)?;
        match self.names.find(parent, name) {
            Some(node) => self.check_unprotected(&node),
            None => Ok(()),
        }
    }

    /// Checks a rename of `from` to `to`, each a directory and a name.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_renaming(
        &self,
        from: (&Arc<Node>, &[u8]),
        to: (&Arc<Node>, &[u8]),
    ) -> Result<()> {
        self.check_removing(from.0, from.1)?;
        match self.names.find(to.0, to.1) {
            Some(_) => self.check_removing(to.0, to.1),
            None => self.check_adding(to.0),
        }
    }

    /// Checks that `node` may be opened with these flags (`fs/namei.c: may_open`).
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_opening(&self, node: &Node, flags: OFlags) -> Result<()> {
        let truncates = flags.contains(OFlags::TRUNC);
        if !truncates && flags & OFlags::ACCMODE == OFlags::RDONLY {
            return Ok(());
        }
        let protection = self.protection(node)?;
        let appends = flags.contains(OFlags::APPEND) && !truncates;
        refuse(protection.immutable || protection.append && !appends)
    }

    /// Checks that `node` may be changed so (`fs/attr.c: may_setattr`, `fs/open.c`).
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_setattr(&self, node: &Node, changes: &Changes) -> Result<()> {
        let protection = self.protection(node)?;
        let Changes { mode, uid, gid, size, atime, mtime, handle } = *changes;
        let touch = (atime, mtime) == (SetTime::Now, SetTime::Now);
        let times = (atime, mtime) != (SetTime::Omit, SetTime::Omit);
        let attributes = mode.is_some() || uid.is_some() || gid.is_some() || times && !touch;
        refuse(
            attributes && protection.any()
                || size.is_some() && protection.append
                // Who has opened it may go on, as with write(2).
                || (touch || size.is_some() && handle.is_none()) && protection.immutable,
        )
    }
}

/// Only these have file attributes; others' are asked of their drivers.
fn check_kind(node: &Node) -> Result<()> {
    match node.kind {
        Kind::File | Kind::Dir => Ok(()),
        _ => Err(Errno::NOTTY),
    }
}

pub(super) fn refuse(forbidden: bool) -> Result<()> {
    if forbidden { Err(Errno::PERM) } else { Ok(()) }
}

/// Stores what the upper object `at` forbids.
fn mark_protected(upper: &Upper, at: At<'_>, protection: Protection) -> Result<()> {
    if protection.any() {
        let value = protattr::encode(protection.append, protection.immutable);
        return upper.mark(at, OverlayName::Protattr, &value);
    }
    match upper.unmark(at, OverlayName::Protattr) {
        Err(Errno::NODATA) => Ok(()),
        done => done,
    }
}

/// Sets `bits` among the flags of `fd`, where its file system has flags.
fn add_flags(fd: BorrowedFd<'_>, bits: u32) -> Result<()> {
    let mut attr = match FileAttr::read(fd, Form::Flags) {
        // As in `ovl_copy_fileattr`.
        Err(Errno::NOTTY | Errno::INVAL) => return Ok(()),
        read => read?,
    };
    attr.set_bits(attr.bits() | bits);
    attr.write(fd)
}
