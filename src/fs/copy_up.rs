//! Copy-up: bringing a lower object to upper before its first change.
//!
//! The copy is built complete in the work directory and then linked or renamed
//! into its place, so that whoever looks (also after a crash) sees the lower
//! object or the whole copy. Data is copied under the node's own latch alone;
//! the parent's lock is taken for the installation only.

use super::Fs;
use super::node::{Link, Node};
use crate::config::Fsync;
use crate::format::{Namespace, OverlayName};
use crate::layer::Upper;
use crate::layer::work::Temp;
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result, Stat, identity, xattr};
use crate::union::LayerId;
use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The copy, before it has its place.
enum Copy<'a> {
    /// An unnamed file.
    Unnamed(OwnedFd),
    /// An object in the work directory.
    Named(Temp<'a>),
}

impl Copy<'_> {
    fn at(&self) -> At<'_> {
        match self {
            Self::Unnamed(fd) => At::fd(fd.as_fd()),
            Self::Named(temp) => temp.at(),
        }
    }
}

/// What is copied, and where from.
struct Source {
    layer: LayerId,
    link: Link,
    stat: Stat,
}

impl Fs {
    /// Makes sure that `node` is in upper, with at least the first `keep` bytes
    /// of its data (the rest is about to be cut off).
    ///
    /// # Errors
    /// `EROFS`; `EEXIST` for a removed object, as the kernel has it;
    /// `EOVERFLOW` for an owner without a mapping; `ENOSPC`… Nothing has
    /// changed then, except that ancestors may be in upper.
    pub(super) fn copy_up(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        self.upper()?;
        if node.in_upper() {
            return Ok(());
        }
        let mut missing = vec![Arc::clone(node)];
        let mut link = node.link().ok_or(Errno::EXIST)?;
        while !link.parent.in_upper() {
            missing.push(Arc::clone(&link.parent));
            link = link.parent.link().ok_or(Errno::NOENT)?;
        }
        while let Some(next) = missing.pop() {
            self.copy_up_one(&next, keep)?;
        }
        Ok(())
    }

    /// Copies up `node`, whose parent is in upper.
    fn copy_up_one(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        let latch = Arc::clone(&self.copying.entry(node.id).or_default());
        let held = latch.lock();
        let done = match node.in_upper() {
            true => Ok(()),
            false => self.copy_and_install(node, keep),
        };
        drop(held);
        // The map and this thread hold the latch; anyone else still waits for it.
        self.copying.remove_if(&node.id, |_, l| Arc::strong_count(l) <= 2);
        done
    }

    fn copy_and_install(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        let upper = self.upper()?;
        let link = node.link().ok_or(Errno::EXIST)?;
        let (copy, source) = self.on(node, |at, layer| {
            let stat = sys::stat::stat(at)?;
            if self.overflow.covers(stat.uid, stat.gid) {
                return Err(Errno::OVERFLOW);
            }
            let source = Source { layer, link, stat };
            Ok((self.build(upper, at, &source, keep)?, source))
        })?;
        self.install(node, copy, &source)
    }

    /// Builds the copy of the object at `from`, complete but for its place.
    fn build<'a>(
        &self,
        upper: &'a Upper,
        from: At<'_>,
        source: &Source,
        keep: u64,
    ) -> Result<Copy<'a>> {
        let stat = &source.stat;
        let copy = match stat.kind() {
            Kind::File => self.build_file(upper, from, stat, keep)?,
            kind => {
                let temp = upper.work.temp();
                let to = temp.at();
                match kind {
                    Kind::Dir => {
                        rustix::fs::mkdirat(to.dir, to.name, Mode::from_raw_mode(0o700))?;
                    }
                    Kind::Symlink => {
                        let target = sys::node::read_link(from)?;
                        rustix::fs::symlinkat(target, to.dir, to.name)?;
                    }
                    _ => sys::node::make_node(to, kind.mode_bits() | 0o600, stat.rdev)?,
                }
                Copy::Named(temp)
            }
        };
        self.copy_attributes(upper, from, copy.at(), stat)?;
        if has_lasting_origin(stat) {
            let value = self.origin_value(source.layer, from);
            set_optional(upper, copy.at(), stat.kind(), &value)?;
        }
        sys::node::set_times(copy.at(), SetTime::To(stat.atime), SetTime::To(stat.mtime))?;
        self.sync_copy(&copy, stat, keep)?;
        Ok(copy)
    }

    fn build_file<'a>(
        &self,
        upper: &'a Upper,
        from: At<'_>,
        stat: &Stat,
        keep: u64,
    ) -> Result<Copy<'a>> {
        let data = self.open_lower(from)?;
        let (copy, to) = if upper.work.abilities.tmpfile {
            let fd = self.with_descriptors(|| upper.work.unnamed_file())?;
            (Copy::Unnamed(fd), None)
        } else {
            let temp = upper.work.temp();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let to = temp.at();
            let fd = rustix::fs::openat(to.dir, to.name, flags, Mode::from_raw_mode(0o600))?;
            (Copy::Named(temp), Some(fd))
        };
        let fd = match (&copy, &to) {
            (Copy::Unnamed(fd), _) | (_, Some(fd)) => fd,
            (Copy::Named(_), None) => return Err(Errno::IO),
        };
        sys::data::copy(data.as_fd(), fd.as_fd(), stat.size.min(keep), keep >= stat.size)?;
        Ok(copy)
    }

    /// Syncs what would lose data in a crash: a copied file's content.
    fn sync_copy(&self, copy: &Copy<'_>, stat: &Stat, keep: u64) -> Result<()> {
        let has_data = stat.kind() == Kind::File && stat.size.min(keep) > 0;
        let wanted = match self.fsync {
            Fsync::Volatile => false,
            Fsync::Auto => has_data,
            Fsync::Strict => matches!(stat.kind(), Kind::File | Kind::Dir),
        };
        match copy {
            _ if !wanted => Ok(()),
            Copy::Unnamed(fd) => rustix::fs::fsync(fd),
            Copy::Named(temp) => rustix::fs::fsync(sys::node::open(temp.at(), OFlags::RDONLY)?),
        }
    }

    /// Copies owner, extended attributes and mode. In this order: chown(2)
    /// clears set-id bits and capabilities.
    pub(super) fn copy_attributes(
        &self,
        upper: &Upper,
        from: At<'_>,
        to: At<'_>,
        stat: &Stat,
    ) -> Result<()> {
        let own = sys::stat::stat(to)?;
        if (own.uid, own.gid) != (stat.uid, stat.gid) {
            sys::node::chown(to, Some(stat.uid), Some(stat.gid))?;
        }
        copy_xattrs(upper.namespace, from, to)?;
        if stat.kind() != Kind::Symlink {
            sys::node::chmod(to, self.mode_in_work(stat))?;
        }
        Ok(())
    }

    /// The mode a copy has until it is installed: without privileges, a
    /// directory must be writable to be moved.
    fn mode_in_work(&self, stat: &Stat) -> u32 {
        match needs_late_mode(stat) {
            true => stat.mode | 0o700,
            false => stat.mode,
        }
    }

    /// Gives the copy its place, unless the node was removed meanwhile.
    fn install(&self, node: &Arc<Node>, copy: Copy<'_>, source: &Source) -> Result<()> {
        let Link { parent, name } = &source.link;
        let dir = parent.dir()?;
        let _names = dir.lock.write();
        let mut place = node.place.write();
        if place.is_some() || !node.has_link(parent.id, name) {
            return Err(Errno::EXIST);
        }
        let parent_fd = self.dir_fd(parent, LayerId::UPPER)?;
        let to = At::new(parent_fd.as_fd(), name);
        if has_lasting_origin(&source.stat) {
            self.set_impure(parent)?;
        }
        let before = sys::stat::stat(At::fd(parent_fd.as_fd()))?;
        let upper_ino = match copy {
            Copy::Unnamed(fd) => {
                sys::node::link_fd(fd.as_fd(), to)?;
                sys::stat::stat(At::fd(fd.as_fd()))?.ino
            }
            Copy::Named(temp) => {
                let ino = sys::stat::stat(temp.at())?.ino;
                temp.place(to)?;
                ino
            }
        };
        if needs_late_mode(&source.stat) {
            sys::node::chmod(to, source.stat.mode)?;
        }
        node.move_to_upper(&mut place);
        drop(place);
        if !has_lasting_origin(&source.stat) {
            node.set_ino(self.shown_ino(LayerId::UPPER, upper_ino));
        }
        if let Some(listing) = &mut *dir.listing.write() {
            listing.set_upper(name, source.stat.kind().dirent_type() as u8, true);
        }
        let times = (SetTime::To(before.atime), SetTime::To(before.mtime));
        sys::node::set_times(At::fd(parent_fd.as_fd()), times.0, times.1)?;
        self.attributes_changed(node);
        self.attributes_changed(parent);
        Ok(())
    }

    /// Opens the regular file `at` of a lower layer for reading, without
    /// touching its access time where that is ours to decide.
    pub(super) fn open_lower(&self, at: At<'_>) -> Result<OwnedFd> {
        self.with_descriptors(|| match sys::node::open(at, OFlags::RDONLY | OFlags::NOATIME) {
            Err(Errno::PERM) => sys::node::open(at, OFlags::RDONLY),
            done => done,
        })
    }
}

/// Whether the object keeps its inode number when it is copied up: a lower file
/// with several names gets a copy for each (`fs/overlayfs/inode.c: ovl_getattr`).
fn has_lasting_origin(stat: &Stat) -> bool {
    stat.kind() == Kind::Dir || stat.nlink == 1
}

/// Whether a directory gets its final mode only in its place.
fn needs_late_mode(stat: &Stat) -> bool {
    stat.kind() == Kind::Dir && stat.mode & 0o300 != 0o300 && !identity::may_chown()
}

/// Sets the origin, where the object can carry it: `user.` attributes exist on
/// files and directories only.
fn set_optional(upper: &Upper, at: At<'_>, kind: Kind, value: &[u8]) -> Result<()> {
    if upper.namespace == Namespace::User && !matches!(kind, Kind::File | Kind::Dir) {
        return Ok(());
    }
    match upper.mark(at, OverlayName::Origin, value) {
        // As in `ovl_set_origin_fh`: it only keeps inode numbers.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC) => Ok(()),
        done => done,
    }
}

/// Copies all extended attributes that are not overlay's own
/// (`fs/overlayfs/copy_up.c: ovl_copy_xattr`).
fn copy_xattrs(namespace: Namespace, from: At<'_>, to: At<'_>) -> Result<()> {
    let names = xattr::list(from)?;
    for name in names.split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if namespace.is_own(name.to_bytes()) || is_set_by_policy(name.to_bytes()) {
            continue;
        }
        let Some(value) = xattr::get(from, name)? else { continue };
        match xattr::set(to, name, &value, 0) {
            Err(Errno::OPNOTSUPP) if !must_copy(name.to_bytes()) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Labels that the security module gives a new file itself; it refuses their copy.
fn is_set_by_policy(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"security.SMACK64" | b"security.evm" | b"security.ima")
}

fn must_copy(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_")
}
