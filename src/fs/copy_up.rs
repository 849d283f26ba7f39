//! Copy-up: bringing a lower object to upper before its first change.
//!
//! The copy is built complete in the work directory and then linked or renamed
//! into its place, so that whoever looks (also after a crash) sees the lower
//! object or the whole copy. Data is copied under the node's own latch alone;
//! the parent's lock is taken for the installation only.

use super::Fs;
use super::copy_xattrs::{copy_mode, copy_owner_and_xattrs};
use super::metacopy::Data;
use super::node::{Kept, Link, Node};
use crate::config::Fsync;
use crate::format::index::{Nlink, entry_name};
use crate::format::{Namespace, OverlayName};
use crate::layer::Upper;
use crate::layer::work::Temp;
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result, Stat, identity};
use crate::union::LayerId;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Bytes of data whose copy may take so long that others should not wait for it.
const LONG_COPY: u64 = 1 << 20;

/// Bytes of data that are copied by one call or two.
const SMALL_FILE: u64 = 64 << 10;

/// Type and mode of what stands for a special file whose type is stored.
pub(super) const PLACEHOLDER: u32 = libc::S_IFREG | 0o600;

/// What of a regular file is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// All but the data.
    Metadata,
    /// The first so many bytes of the data as well.
    Data(u64),
}

impl Need {
    /// The bytes of data to be copied of a file with `size`.
    fn bytes(self, size: u64) -> u64 {
        match self {
            Self::Metadata => 0,
            Self::Data(keep) => keep.min(size),
        }
    }
}

/// The copy, before it has its place: a regular file has a descriptor, all but
/// an unnamed file a name in the work directory.
struct Copy<'a> {
    file: Option<OwnedFd>,
    temp: Option<Temp<'a>>,
}

impl Copy<'_> {
    fn at(&self) -> Result<At<'_>> {
        match (&self.file, &self.temp) {
            (Some(fd), _) => Ok(At::fd(fd.as_fd())),
            (None, Some(temp)) => Ok(temp.at()),
            (None, None) => Err(Errno::IO),
        }
    }
}

/// A node that somebody copies up, or is about to use for that reason: while
/// this lives it is kept when it loses its name.
pub(super) struct Busy<'a> {
    fs: &'a Fs,
    id: u64,
    latch: Arc<Mutex<()>>,
}

impl Busy<'_> {
    /// Waits until nobody else copies.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.latch.lock()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        // The map and this hold the latch; anyone else still waits for it.
        self.fs.copying.remove_if(&self.id, |_, latch| Arc::strong_count(latch) <= 2);
    }
}

/// What is copied, and where from.
struct Source {
    layer: LayerId,
    link: Link,
    stat: Stat,
    /// Its handle, if the copy gets an index entry.
    index: Option<Vec<u8>>,
}

impl Source {
    /// Whether the object keeps its inode number when it is copied up: without an index a lower
    /// file with several names gets a copy for each (`fs/overlayfs/inode.c: ovl_getattr`).
    fn has_lasting_origin(&self) -> bool {
        self.index.is_some() || self.stat.kind() == Kind::Dir || self.stat.nlink == 1
    }
}

impl Fs {
    /// Makes sure that `node` is in upper, with at least the first `keep` bytes
    /// of its data (the rest is about to be cut off).
    ///
    /// # Errors
    /// `EROFS`; `EEXIST` for a removed object, `ENOENT` where its directory is
    /// gone too, as the kernel has it;
    /// `EOVERFLOW` for an owner without a mapping; `ENOSPC`… Nothing has
    /// changed then, except that ancestors may be in upper.
    pub(super) fn copy_up(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        self.copy_up_needed(node, None, Need::Data(keep))?;
        match node.lacks_data() {
            true => self.copy_data(node, keep),
            false => Ok(()),
        }
    }

    /// Makes sure that `node` is in upper, with its data unless that may stay below.
    ///
    /// # Errors
    /// As [`Self::copy_up`]; `ENOENT` for data that is in none of the data-only layers.
    pub(super) fn copy_up_metadata(&self, node: &Arc<Node>) -> Result<()> {
        self.copy_up_metadata_as(node, None)
    }

    /// [`Self::copy_up_metadata`] for a change of the name `wanted` (without one: any), which is
    /// the one that an indexed file gets in upper.
    pub(super) fn copy_up_metadata_as(&self, node: &Arc<Node>, wanted: Option<Link>) -> Result<()> {
        self.upper()?;
        if node.lacks_data()
            && let Err(e) = self.find_data(node)
            // Somebody may just have copied it.
            && node.lacks_data()
        {
            return Err(e);
        }
        let need = if self.metacopy { Need::Metadata } else { Need::Data(u64::MAX) };
        self.copy_up_needed(node, wanted, need)
    }

    fn copy_up_needed(&self, node: &Arc<Node>, wanted: Option<Link>, need: Need) -> Result<()> {
        self.upper()?;
        if node.in_upper() {
            return Ok(());
        }
        let mut missing = vec![Arc::clone(node)];
        let Some(mut link) = wanted.clone().or_else(|| node.link()) else {
            return match self.no_open && node.kind == Kind::File {
                true => self.copy_up_unnamed(node),
                false => Err(self.copy_up_removed(node)),
            };
        };
        while !link.parent.in_upper() {
            missing.push(Arc::clone(&link.parent));
            link = link.parent.link_on_path()?;
        }
        while let Some(next) = missing.pop() {
            self.copy_up_one(&next, wanted.as_ref(), need)?;
        }
        Ok(())
    }

    /// Why the removed object `node` cannot be copied up. The kernel finds out when it puts the
    /// copy in its place, so its directory becomes impure.
    fn copy_up_removed(&self, node: &Node) -> Errno {
        if node.is_replaced() {
            return Errno::STALE;
        }
        let Some(parent) = node.place.read().as_ref().map(|gone| Arc::clone(&gone.parent)) else {
            return Errno::EXIST;
        };
        match parent.is_removed() {
            true => Errno::NOENT,
            false => self.set_impure(&parent).err().unwrap_or(Errno::EXIST),
        }
    }

    /// Copies up the removed file `node` without giving it a name again: it may have been opened for
    /// writing before it was removed.
    fn copy_up_unnamed(&self, node: &Node) -> Result<()> {
        let upper = self.upper()?;
        let busy = self.busy(node);
        let _held = busy.lock();
        if node.in_upper() {
            return Ok(());
        }
        let (stat, metadata) =
            self.on(node, |at, layer| Ok((self.owners(layer).stat(at)?, self.open_lower(at)?)))?;
        let copy = self.copy_file(upper, node, &metadata, &stat, Need::Data(u64::MAX))?;
        let to = copy.at()?;
        copy_owner_and_xattrs(upper, At::fd(metadata.as_fd()), to, &stat)?;
        copy_mode(upper, to, stat.mode)?;
        sys::node::set_times(to, SetTime::To(stat.atime), SetTime::To(stat.mtime))?;
        let mut place = node.place.write();
        let gone = place.as_mut().ok_or(Errno::STALE)?;
        gone.kept = copy.file.map(|fd| Kept { fd: Arc::new(fd), counted: None });
        self.drop_data(node);
        node.set_in_upper();
        Ok(())
    }

    /// Whether a change of the node `id` may wait for long: it is being copied
    /// up, has much data to be copied, or is a directory that is renamed by copying it.
    pub fn copies_long(&self, id: u64) -> bool {
        let Ok(node) = self.nodes.get(id) else { return false };
        if node.kind == Kind::Dir && self.detaches() && !node.is_pure_upper() {
            return true;
        }
        if node.kind != Kind::File || node.is_whole_in_upper() || self.is_read_only() {
            return false;
        }
        self.copying.contains_key(&id)
            || self.node_attr(&node).is_ok_and(|stat| stat.size >= LONG_COPY)
    }

    /// Whether the node `id` is being copied up.
    pub fn is_copying(&self, id: u64) -> bool {
        self.copying.contains_key(&id)
    }

    /// Waits until nobody copies up what is called `name` in `parent`, so that
    /// who opened it first gets it before it is moved or removed.
    pub(super) fn wait_for_copy(&self, parent: &Node, name: &[u8]) {
        let node = self.names.find(parent, name);
        let latch = node.and_then(|n| self.copying.get(&n.id).map(|l| Arc::clone(&l)));
        if let Some(latch) = latch {
            drop(latch.lock());
        }
    }

    /// The id of the node called `name` in the directory `parent`, if it is known.
    pub fn known_child(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let parent = self.nodes.get(parent).ok()?;
        self.names.find(&parent, name).map(|node| node.id)
    }

    /// Copies up `node`, whose parent is in upper.
    fn copy_up_one(&self, node: &Arc<Node>, wanted: Option<&Link>, need: Need) -> Result<()> {
        let busy = self.busy(node);
        let _held = busy.lock();
        match node.in_upper() {
            true => Ok(()),
            false => self.copy_and_install(node, wanted, need),
        }
    }

    /// Marks `node` as about to be copied up.
    pub(super) fn busy(&self, node: &Node) -> Busy<'_> {
        let latch = Arc::clone(&self.copying.entry(node.id).or_default());
        Busy { fs: self, id: node.id, latch }
    }

    fn copy_and_install(&self, node: &Arc<Node>, wanted: Option<&Link>, need: Need) -> Result<()> {
        let upper = self.upper()?;
        let wanted = wanted.filter(|link| node.has_link(link.parent.id, &link.name));
        let link = wanted.cloned().or_else(|| node.link()).ok_or(Errno::EXIST)?;
        let (source, file) = self.on(node, |at, layer| {
            let real = sys::stat::stat(at)?;
            let stat = self.owners(layer).shown(at, real)?;
            let has_mapping = || self.has_owner_with_mapping(at, real.kind());
            let is_real = (stat.uid, stat.gid) == (real.uid, real.gid);
            if is_real && self.overflow.covers(stat.uid, stat.gid, has_mapping) {
                return Err(Errno::OVERFLOW);
            }
            let open = || match need {
                Need::Metadata => {
                    self.with_descriptors(|| sys::node::open(at, OFlags::PATH | OFlags::NOFOLLOW))
                }
                Need::Data(_) => self.open_lower(at),
            };
            let file = (stat.kind() == Kind::File).then(open).transpose()?;
            let index = match self.needs_index(&stat) {
                true => Some(self.handle_value(layer, at).ok_or(Errno::OPNOTSUPP)?),
                false => None,
            };
            Ok((Source { layer, link, stat, index }, file))
        })?;
        let copy = match &file {
            // Nobody waits for the node while its data is copied.
            Some(file) => {
                let copy = self.copy_file(upper, node, file, &source.stat, need)?;
                self.complete(upper, At::fd(file.as_fd()), copy, &source)?
            }
            None => self.on(node, |at, _| {
                let copy = self.copy_other(upper, at, &source.stat)?;
                self.complete(upper, at, copy, &source)
            })?,
        };
        self.sync_copy(&copy, &source.stat, need)?;
        self.install(node, copy, &source, need)
    }

    /// A copy of what is needed of the regular file `node`, which is open as `file`.
    fn copy_file<'a>(
        &self,
        upper: &'a Upper,
        node: &Node,
        file: &OwnedFd,
        stat: &Stat,
        need: Need,
    ) -> Result<Copy<'a>> {
        match need {
            Need::Metadata => self.copy_without_data(upper, stat),
            Need::Data(keep) if node.lacks_data() => {
                self.copy_with_data(upper, &self.open_data(node)?, stat, keep)
            }
            Need::Data(keep) => self.copy_with_data(upper, file, stat, keep),
        }
    }

    /// A copy of the data of the regular file `data`.
    fn copy_with_data<'a>(
        &self,
        upper: &'a Upper,
        data: &OwnedFd,
        stat: &Stat,
        keep: u64,
    ) -> Result<Copy<'a>> {
        let (file, temp) = self.new_file(upper)?;
        let whole = keep >= stat.size;
        match whole && is_small_and_dense(stat) {
            true => sys::data::copy_dense(data.as_fd(), file.as_fd(), stat.size)?,
            false => sys::data::copy(data.as_fd(), file.as_fd(), stat.size.min(keep), whole)?,
        }
        Ok(Copy { file: Some(file), temp })
    }

    /// A copy of a regular file that says that its data is below.
    fn copy_without_data<'a>(&self, upper: &'a Upper, stat: &Stat) -> Result<Copy<'a>> {
        let (file, temp) = self.new_file(upper)?;
        rustix::fs::ftruncate(&file, stat.size)?;
        upper.mark(At::fd(file.as_fd()), OverlayName::Metacopy, b"")?;
        Ok(Copy { file: Some(file), temp })
    }

    /// A new regular file, with a name only where there must be one.
    fn new_file<'a>(&self, upper: &'a Upper) -> Result<(OwnedFd, Option<Temp<'a>>)> {
        if upper.work.abilities.tmpfile {
            return Ok((self.with_descriptors(|| upper.work.unnamed_file())?, None));
        }
        let temp = upper.work.temp();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let (to, mode) = (temp.at(), Mode::from_raw_mode(0o600));
        let file = self.with_descriptors(|| rustix::fs::openat(to.dir, to.name, flags, mode))?;
        Ok((file, Some(temp)))
    }

    /// A bare copy of the object at `from`, which is no regular file.
    fn copy_other<'a>(&self, upper: &'a Upper, from: At<'_>, stat: &Stat) -> Result<Copy<'a>> {
        let temp = upper.work.temp();
        let to = temp.at();
        match stat.kind() {
            Kind::Dir => rustix::fs::mkdirat(to.dir, to.name, Mode::from_raw_mode(0o700))?,
            Kind::Symlink => {
                rustix::fs::symlinkat(sys::node::read_link(from)?, to.dir, to.name)?;
            }
            _ if upper.owners.are_stored() => sys::node::make_node(to, PLACEHOLDER, 0)?,
            kind => sys::node::make_node(to, kind.mode_bits() | 0o600, stat.rdev)?,
        }
        Ok(Copy { file: None, temp: Some(temp) })
    }

    /// Gives the copy the attributes of the object at `from`. The order matters:
    /// chown(2) clears set-id bits and capabilities, and without privileges a
    /// mode that forbids writing forbids attributes as well.
    fn complete<'a>(
        &self,
        upper: &Upper,
        from: At<'_>,
        copy: Copy<'a>,
        source: &Source,
    ) -> Result<Copy<'a>> {
        let (to, stat) = (copy.at()?, &source.stat);
        copy_owner_and_xattrs(upper, from, to, stat)?;
        if matches!(stat.kind(), Kind::File | Kind::Dir) {
            let files = copy.file.as_ref().map(|file| (from.dir, file.as_fd()));
            self.copy_fileattr(upper, (from, to), files, stat.protection)?;
        }
        if let Some(handle) = &source.index {
            upper.mark(to, OverlayName::Origin, handle)?;
            // The entry will be its first link.
            let nlink = Nlink::Upper(i64::from(stat.nlink) - 1);
            upper.mark(to, OverlayName::Nlink, &nlink.encode())?;
        } else if source.has_lasting_origin() {
            set_origin(upper, to, stat.kind(), &self.origin_value(source.layer, from))?;
        }
        if stat.kind() != Kind::Symlink {
            let late = if needs_late_mode(stat) { 0o700 } else { 0 };
            copy_mode(upper, to, stat.mode | late)?;
        }
        sys::node::set_times(to, SetTime::To(stat.atime), SetTime::To(stat.mtime))?;
        Ok(copy)
    }

    /// Syncs what would lose data in a crash: a copied file's content.
    fn sync_copy(&self, copy: &Copy<'_>, stat: &Stat, need: Need) -> Result<()> {
        let has_data = stat.kind() == Kind::File && need.bytes(stat.size) > 0;
        let wanted = match self.fsync {
            Fsync::Volatile => false,
            Fsync::Auto => has_data,
            Fsync::Strict => matches!(stat.kind(), Kind::File | Kind::Dir),
        };
        match &copy.file {
            _ if !wanted => Ok(()),
            Some(file) => rustix::fs::fsync(file),
            None => {
                let at = copy.at()?;
                let open = || sys::node::open(at, OFlags::RDONLY);
                rustix::fs::fsync(self.with_descriptors(open)?)
            }
        }
    }

    /// Gives the copy its place, unless the node was removed meanwhile.
    fn install(&self, node: &Arc<Node>, copy: Copy<'_>, source: &Source, need: Need) -> Result<()> {
        let upper = self.upper()?;
        let Link { parent, name } = &source.link;
        let (dir, stat) = (parent.dir()?, &source.stat);
        let _names = dir.lock.write();
        let mut place = node.place.write();
        if place.is_some() || !node.has_link(parent.id, name) {
            return Err(Errno::EXIST);
        }
        let parent_fd = self.dir_fd(parent, LayerId::UPPER)?;
        let (at, to) = (At::fd(parent_fd.as_fd()), At::new(parent_fd.as_fd(), name));
        let before = sys::stat::stat(at)?;
        // Asked for where it is shown, or where the index leads to it.
        let upper_ino = match source.index.is_none() && source.has_lasting_origin() {
            true => 0,
            false => sys::stat::stat(copy.at()?)?.ino,
        };
        let left = match need {
            Need::Metadata => self.data_below(node, source)?,
            Need::Data(_) => None,
        };
        let opened_up = OpenedUp::new(at, &before)?;
        // Also where no origin is stored, as the kernel has it.
        self.set_impure(parent)?;
        let entry = source.index.as_deref().map(entry_name);
        let first = entry.as_ref().map_or(to, |entry| At::new(upper.work.dir(), entry));
        let placed = match (copy.temp, &copy.file) {
            (Some(temp), _) => temp.place(first),
            (None, Some(file)) => sys::node::link_fd(file.as_fd(), first),
            (None, None) => Err(Errno::IO),
        };
        if placed.is_err() {
            drop(opened_up);
            // Its mode may have been another for a moment.
            self.attributes_changed(parent);
            return placed;
        }
        if let Some(entry) = entry {
            node.set_index(entry);
            self.note_indexed(upper_ino, node);
        }
        match left {
            Some(data) => self.note_data(node, data),
            None if need != Need::Metadata => self.drop_data(node),
            None => {}
        }
        node.move_to_upper(&mut place);
        node.settle();
        if !source.has_lasting_origin() {
            node.set_ino(self.shown_ino(LayerId::UPPER, upper_ino));
        } else if self.layers.namespace == Namespace::User && stat.kind() != Kind::Dir {
            node.set_borrows_ino();
        }
        if let (Some(file), Need::Data(_)) = (copy.file.map(Arc::new), need) {
            node.opens().iter().for_each(|open| open.adopt(&file));
        }
        // The copy is there in any case; its name may have to wait for the next change.
        let linked = self.link_up(node, &place, parent, name);
        drop(opened_up);
        drop(place);
        if linked.is_ok() {
            dir.relist(|list| list.set_upper(name, stat.kind().dirent_type() as u8, true));
        }
        let done = restore_attributes(upper, to, stat, (at, &before));
        // Not before: the kernel would keep what it read in between.
        self.attributes_changed(node);
        match source.has_lasting_origin() {
            true => self.attributes_changed(parent),
            // The name now shows another inode number.
            false => self.listing_changed(parent),
        }
        linked.and(done)
    }

    /// Whether the object `at`, which shows the owner of those without a mapping in this user
    /// namespace, has one with it: `O_NOATIME` is for nobody else. Only files and directories tell.
    fn has_owner_with_mapping(&self, at: At<'_>, kind: Kind) -> bool {
        let open = || sys::node::open(at, OFlags::RDONLY | OFlags::NOATIME);
        let refused = |opened| matches!(opened, Err(Errno::PERM | Errno::ACCESS));
        !matches!(kind, Kind::File | Kind::Dir) || !refused(self.with_descriptors(open))
    }

    /// Where the data of `node` is, unless that is known already.
    fn data_below(&self, node: &Node, source: &Source) -> Result<Option<Data>> {
        if node.kind != Kind::File || node.lacks_data() {
            return Ok(None);
        }
        let Source { layer, link, stat, .. } = source;
        let data = self.data_at(link, *layer, stat)?;
        Ok(Some(data.with_names(stat.nlink)))
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

/// A file in which it does not pay to look for holes or for blocks that could be shared.
fn is_small_and_dense(stat: &Stat) -> bool {
    stat.size <= SMALL_FILE && stat.blocks * 512 >= stat.size
}

/// Gives the new copy `to` its final mode, and its directory `dir` the times it had `before`.
fn restore_attributes(
    upper: &Upper,
    to: At<'_>,
    stat: &Stat,
    (dir, before): (At<'_>, &Stat),
) -> Result<()> {
    if needs_late_mode(stat) {
        copy_mode(upper, to, stat.mode)?;
    }
    sys::node::set_times(dir, SetTime::To(before.atime), SetTime::To(before.mtime))
}

/// Whether a directory must have more permissions than it shall while it is
/// moved or changed.
fn needs_late_mode(stat: &Stat) -> bool {
    stat.kind() == Kind::Dir && stat.mode & 0o300 != 0o300 && !identity::may_chown()
}

/// A directory that is made writable for a moment: without privileges the copy
/// of what lies in a read-only directory could not be put there.
pub(super) struct OpenedUp<'a> {
    dir: At<'a>,
    mode: u32,
}

impl<'a> OpenedUp<'a> {
    pub(super) fn new(dir: At<'a>, stat: &Stat) -> Result<Option<Self>> {
        if !needs_late_mode(stat) {
            return Ok(None);
        }
        sys::node::chmod(dir, stat.mode | 0o700)?;
        Ok(Some(Self { dir, mode: stat.mode }))
    }
}

impl Drop for OpenedUp<'_> {
    fn drop(&mut self) {
        if let Err(e) = sys::node::chmod(self.dir, self.mode) {
            log::error!("a directory keeps more permissions than it had: {e}");
        }
    }
}

/// Sets the origin, where the object can carry it: `user.` attributes exist on
/// files and directories only.
fn set_origin(upper: &Upper, at: At<'_>, kind: Kind, value: &[u8]) -> Result<()> {
    if upper.namespace == Namespace::User && !matches!(kind, Kind::File | Kind::Dir) {
        return Ok(());
    }
    match upper.mark(at, OverlayName::Origin, value) {
        // As in `ovl_set_origin_fh`: it only keeps inode numbers.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC) => Ok(()),
        done => done,
    }
}
