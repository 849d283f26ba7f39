//! Making objects: CREATE, MKNOD, MKDIR, SYMLINK.
//!
//! Where nothing stands in upper the object is made in its place, under the
//! caller's identity and umask, and the file system below applies its own
//! rules. Over a whiteout it is made in the work directory and moved into
//! place at once; what it inherits from its directory is then set by hand.

use super::copy_up::PLACEHOLDER;
use super::direct::Opened;
use super::node::{Link, Node};
use super::{Caller, Entry, Fs};
use crate::format::{OverlayName, acl};
use crate::layer::Upper;
use crate::layer::work::Temp;
use crate::sys::fileattr::Protection;
use crate::sys::identity::{self, Privilege};
use crate::sys::{self, At, Errno, Kind, Result, Stat, xattr};
use crate::union::LayerId;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// A regular file, opened with these `open(2)` flags.
    File(u32),
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A node of the type in the mode, with this packed device number.
    Node(u32),
}

/// A new object's name and permissions.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The directory's node id.
    pub parent: u64,
    /// The name.
    pub name: &'a [u8],
    /// Type and permission bits.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// The caller.
    pub caller: Caller,
}

impl Fs {
    /// Makes and opens a regular file; its entry and handle.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, those of open(2) and of copying up the directory.
    pub fn create(&self, new: New<'_>, flags: u32) -> Result<(Entry, Opened)> {
        let flags = if self.no_open { OFlags::RDWR.bits() } else { flags };
        let (entry, fd) = self.make(new, What::File(flags))?;
        let node = self.nodes.get(entry.id)?;
        let fd = fd.ok_or(Errno::IO)?;
        let opened =
            self.add_created(&node, flags, fd).inspect_err(|_| self.forget(entry.id, 1))?;
        Ok((entry, opened))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, those of mkdir(2) and of copying up the directory it lies in.
    pub fn mkdir(&self, new: New<'_>) -> Result<Entry> {
        self.make(new, What::Dir).map(|(entry, _)| entry)
    }

    /// Makes a symbolic link to `target`.
    ///
    /// # Errors
    /// As [`Self::mkdir`].
    pub fn symlink(&self, new: New<'_>, target: &[u8]) -> Result<Entry> {
        self.make(new, What::Symlink(target)).map(|(entry, _)| entry)
    }

    /// Makes a regular file, pipe, socket or device node with the packed number `rdev`.
    ///
    /// # Errors
    /// As [`Self::mkdir`]; `EPERM` for the device number of whiteouts.
    pub fn mknod(&self, new: New<'_>, rdev: u32) -> Result<Entry> {
        if Kind::from_mode(new.mode) == Some(Kind::Char) && rdev == 0 {
            return Err(Errno::PERM);
        }
        self.make(new, What::Node(rdev)).map(|(entry, _)| entry)
    }

    fn make(&self, new: New<'_>, what: What<'_>) -> Result<(Entry, Option<OwnedFd>)> {
        let upper = self.upper()?;
        let parent = self.nodes.get(new.parent)?;
        self.check_new_name(new.name)?;
        self.check_adding(&parent)?;
        self.copy_up(&parent, 0)?;
        let _names = self.lock_names(&parent)?;
        if self.names.find(&parent, new.name).is_some() {
            return Err(Errno::EXIST);
        }
        let parent_fd = self.dir_fd(&parent, LayerId::UPPER)?;
        let at = At::new(parent_fd.as_fd(), new.name);
        let fd = match upper.owners.are_stored() {
            true => self.make_stored(upper, at, new, what)?,
            false => self.make_real(upper, at, new, what)?,
        };
        let lowers_stay = self.fixed_lowers || self.makes_redirects() || self.has_index();
        if matches!(what, What::Dir) && parent.is_merged() && lowers_stay {
            self.spare_lookups(upper, at);
        }
        let entry = self.enter_made(&parent, new.name, at)?;
        Ok((entry, fd))
    }

    /// Makes the object, and lets the file system below give it its owner and mode.
    fn make_real(
        &self,
        upper: &Upper,
        at: At<'_>,
        new: New<'_>,
        what: What<'_>,
    ) -> Result<Option<OwnedFd>> {
        let made = self.with_descriptors(|| {
            as_caller(new.caller, || {
                identity::with_umask(new.umask, || make_at(at, new.mode, what))
            })
        });
        match made {
            Err(Errno::EXIST) if self.is_upper_whiteout(at)? => {
                self.make_over_whiteout(upper, at, new, what)
            }
            made => made,
        }
    }

    /// Makes the object in the work directory, as the daemon's own, and moves it into place once
    /// it has the attribute with its owner and mode.
    fn make_stored(
        &self,
        upper: &Upper,
        at: At<'_>,
        new: New<'_>,
        what: What<'_>,
    ) -> Result<Option<OwnedFd>> {
        let (stand_in, mode) = match what {
            What::Dir => (what, libc::S_IFDIR | new.mode & 0o7777),
            What::Symlink(_) => (what, libc::S_IFLNK | 0o777),
            What::File(_) => (what, libc::S_IFREG | new.mode & 0o7777),
            What::Node(_) => (What::Node(0), new.mode),
        };
        let real = if matches!(what, What::Dir) { 0o700 } else { PLACEHOLDER };
        let temp = upper.work.temp();
        let fd = self
            .with_descriptors(|| identity::with_umask(0, || make_at(temp.at(), real, stand_in)))?;
        let dir = upper.owners.stat(At::fd(at.dir))?;
        let inherits = dir.mode & libc::S_ISGID != 0;
        let set_gid = if inherits && matches!(what, What::Dir) { libc::S_ISGID } else { 0 };
        let made = sys::stat::stat(temp.at())?;
        let stat = Stat {
            uid: new.caller.uid,
            gid: if inherits { dir.gid } else { new.caller.gid },
            mode: mode & !new.umask | set_gid,
            rdev: if let What::Node(rdev) = what { rdev } else { 0 },
            ..made
        };
        upper.owners.store(temp.at(), &stat)?;
        match self.is_upper_whiteout(at)? {
            true => place_over_whiteout(upper, temp, at, matches!(what, What::Dir))?,
            false => temp.place(at)?,
        }
        Ok(fd)
    }

    /// Marks the new directory at `at` opaque, so that nothing is looked for
    /// below it (`fs/overlayfs/dir.c: ovl_create_upper`). It is right without.
    fn spare_lookups(&self, upper: &Upper, at: At<'_>) {
        if let Err(e) = upper.mark(at, OverlayName::Opaque, b"y") {
            log::debug!("{} is not marked opaque: {e}", at.name.escape_ascii());
        }
    }

    /// Makes the object in the work directory and puts it in the place of the whiteout at `at`.
    fn make_over_whiteout(
        &self,
        upper: &Upper,
        at: At<'_>,
        new: New<'_>,
        what: What<'_>,
    ) -> Result<Option<OwnedFd>> {
        let temp = upper.work.temp();
        let mode = new.mode & !0o7000 | 0o700;
        let fd = self.with_descriptors(|| {
            as_caller(new.caller, || identity::with_umask(0, || make_at(temp.at(), mode, what)))
        })?;
        if !matches!(what, What::Symlink(_)) {
            inherit(At::fd(at.dir), temp.at(), new, matches!(what, What::Dir))?;
        } else if let Some(gid) = inherited_group(At::fd(at.dir))? {
            sys::node::chown(temp.at(), None, Some(gid))?;
        }
        place_over_whiteout(upper, temp, at, matches!(what, What::Dir))?;
        Ok(fd)
    }

    /// Enters the object that was just made at `at` as `name`.
    fn enter_made(&self, parent: &Arc<Node>, name: &[u8], at: At<'_>) -> Result<Entry> {
        let stat = self.owners(LayerId::UPPER).stat(at)?;
        let kind = stat.kind();
        parent.dir()?.relist(|list| list.set_upper(name, kind.dirent_type() as u8, false));
        let link = Link { parent: Arc::clone(parent), name: name.into() };
        let ino = self.shown_ino(LayerId::UPPER, stat.ino);
        let stack = (kind == Kind::Dir).then(Vec::new);
        let made =
            self.nodes.make(|id| Node::new(id, kind, ino, LayerId::UPPER, Some(link), stack));
        made.settle();
        made.learn_protection(Protection::default());
        let node = made.enter();
        match self.names.enter_new(&node) {
            None => Ok(Entry { id: node.id, attr: self.shown(&node, stat) }),
            Some(existing) => {
                self.nodes.remove(node.id);
                self.entry(existing)
            }
        }
    }

    /// Whether a whiteout stands at `at` in upper.
    pub(super) fn is_upper_whiteout(&self, at: At<'_>) -> Result<bool> {
        match sys::stat::stat(at) {
            Ok(stat) => crate::layer::facts::is_whiteout(at, &stat, self.layers.namespace),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Moves `temp` into the place of the whiteout at `at`; a directory is marked
/// opaque, since something lies below.
pub(super) fn place_over_whiteout(
    upper: &Upper,
    temp: Temp<'_>,
    at: At<'_>,
    is_dir: bool,
) -> Result<()> {
    if !is_dir {
        return temp.replace(at);
    }
    upper.mark(temp.at(), OverlayName::Opaque, b"y")?;
    temp.exchange(at)
}

/// Runs `f` as the owner of what it makes. Without the right to act for others
/// the daemon's own user is the only one.
pub(super) fn as_caller<T>(caller: Caller, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if identity::may_chown() {
        return identity::as_user(caller.uid, caller.gid, Privilege::Keep, f);
    }
    match caller.uid == rustix::process::geteuid().as_raw() {
        true => f(),
        false => Err(Errno::PERM),
    }
}

fn make_at(at: At<'_>, mode: u32, what: What<'_>) -> Result<Option<OwnedFd>> {
    match what {
        What::File(flags) => {
            let access = OFlags::from_bits_retain(flags) & OFlags::ACCMODE;
            let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(mode & 0o7777);
            return rustix::fs::openat(at.dir, at.name, flags, mode).map(Some);
        }
        What::Dir => rustix::fs::mkdirat(at.dir, at.name, Mode::from_raw_mode(mode & 0o7777)),
        What::Symlink(target) => rustix::fs::symlinkat(target, at.dir, at.name),
        What::Node(rdev) => sys::node::make_node(at, mode, rdev),
    }
    .map(|()| None)
}

/// Gives the object at `at`, made in the work directory, what it would have got
/// in the directory `parent`: the group of a set-gid directory, its default
/// ACL, the umask without one (`fs/overlayfs/dir.c: ovl_create_over_whiteout`).
fn inherit(parent: At<'_>, at: At<'_>, new: New<'_>, is_dir: bool) -> Result<()> {
    let default = xattr::get(parent, acl::DEFAULT)?;
    let inherited = default.as_deref().and_then(|d| acl::inherit(d, new.mode));
    let mut mode = new.mode & !new.umask;
    if let Some(inherited) = &inherited {
        mode = inherited.mode;
    }
    if let Some(gid) = inherited_group(parent)? {
        sys::node::chown(at, None, Some(gid))?;
        if is_dir {
            mode |= libc::S_ISGID;
        }
    }
    sys::node::chmod(at, mode)?;
    if let Some(access) = inherited.and_then(|i| i.access) {
        xattr::set(at, acl::ACCESS, &access, 0)?;
    }
    match default {
        Some(default) if is_dir => xattr::set(at, acl::DEFAULT, &default, 0),
        _ => Ok(()),
    }
}

/// The group that a new object in `parent` gets instead of its maker's.
fn inherited_group(parent: At<'_>) -> Result<Option<u32>> {
    let stat = sys::stat::stat(parent)?;
    Ok((stat.mode & libc::S_ISGID != 0).then_some(stat.gid))
}
