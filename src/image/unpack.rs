//! One layer archive to one layer folder with the kernel's whiteouts.
//!
//! Every object is reached by the descriptor of its directory, which is opened below the folder
//! without following a symbolic link, and is made anew: nothing in an archive can lead out of the
//! folder, or write through what an earlier entry made. Directories get their attributes at the
//! end, so that what they forbid, and hand down, does not concern the unpacking.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ::tar::EntryType;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::below::Below;
use super::import::Budget;
use super::object::{SELINUX, Xattr};
use super::tar::{Archive, Entry};
use super::{Result, join, path_of, refused, split};
use crate::error::MountError;
use crate::format::{Namespace, OverlayName, dot_wh};
use crate::layer::work::remove_tree;
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Stat, Time, xattr};

/// Zeros of this length become a hole.
const PIECE: usize = 64 << 10;

/// What could not be kept, over all layers.
#[derive(Debug, Default)]
pub struct Lost {
    /// Objects that belong to who imports instead of another owner.
    pub owners: u64,
    /// Device nodes that were left out.
    pub devices: u64,
    /// Extended attributes that were left out.
    pub xattrs: u64,
}

/// A layer folder that is being filled.
pub struct Folder<'a> {
    root: BorrowedFd<'a>,
    below: Below<'a>,
    namespace: Namespace,
    /// Owners can be given away.
    owners: bool,
    budget: &'a mut Budget,
    lost: &'a mut Lost,
    /// What directories get at the end.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// The directory that was used last.
    recent: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// All layers below are hidden.
    opaque: bool,
}

/// The attributes of an object.
struct Attributes {
    /// User and group; `None`: nobody said, who imports.
    owner: Option<(u64, u64)>,
    mode: u32,
    mtime: Option<Time>,
    xattrs: Vec<Xattr>,
}

impl Attributes {
    fn of(entry: Entry) -> Self {
        let Entry { uid, gid, mode, mtime, xattrs, .. } = entry;
        Self { owner: Some((uid, gid)), mode, mtime: Some(mtime), xattrs }
    }

    /// Those of another directory.
    fn like(stat: &Stat, xattrs: Vec<Xattr>) -> Self {
        let owner = Some((stat.uid.into(), stat.gid.into()));
        Self { owner, mode: stat.mode & 0o7777, mtime: Some(stat.mtime), xattrs }
    }

    /// Of a directory that has no entry of its own, and is in no layer below.
    fn implied() -> Self {
        Self { owner: None, mode: 0o755, mtime: None, xattrs: Vec::new() }
    }
}

/// The result of a step, without the name of the entry.
type Step<T> = std::result::Result<T, Wrong>;

/// What is wrong with an entry.
enum Wrong {
    Errno(Errno),
    Words(String),
}

impl From<Errno> for Wrong {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::Errno(Errno::from_raw_os_error(code)),
            None => Self::Words(error.to_string()),
        }
    }
}

fn wrong<T>(what: &str) -> Step<T> {
    Err(Wrong::Words(what.to_owned()))
}

impl<'a> Folder<'a> {
    /// Fills the empty folder `root`, which is the topmost of `below`.
    pub fn new(
        root: BorrowedFd<'a>,
        below: Below<'a>,
        budget: &'a mut Budget,
        lost: &'a mut Lost,
    ) -> Self {
        let directories = BTreeMap::from([(Vec::new(), Attributes::implied())]);
        let owners = sys::identity::may_chown();
        Self {
            root,
            namespace: below.namespace(),
            below,
            owners,
            budget,
            lost,
            directories,
            recent: None,
            opaque: false,
        }
    }

    /// Unpacks `archive`; whether all layers below are hidden.
    pub fn fill(mut self, archive: &mut Archive<impl Read>) -> Result<bool> {
        while let Some(entry) = archive.next().map_err(|error| refused(error.to_string()))? {
            let path = entry.path.clone();
            self.entry(entry, archive).map_err(|wrong| at_entry(&path, wrong))?;
        }
        self.finish()?;
        Ok(self.opaque)
    }

    fn entry(&mut self, entry: Entry, content: &mut Archive<impl Read>) -> Step<()> {
        let path = clean(&entry.path)?;
        self.budget.entry(path.len())?;
        self.budget.check()?;
        let (above, name) = split(&path);
        if name.starts_with(dot_wh::PREFIX) {
            return self.mark(above, name);
        }
        if entry.kind == EntryType::Directory {
            self.make_directory(&path)?;
            let attributes = Attributes::of(entry);
            let kept: usize =
                attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            self.budget.memory(kept)?;
            self.directories.insert(path, attributes);
            return Ok(());
        }
        if path.is_empty() {
            return wrong("it takes the place of the layer itself");
        }
        let parent = self.directory(above)?;
        let at = At::new(parent.as_fd(), name);
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                self.clear(&path, at)?;
                self.file(at, entry, content)
            }
            EntryType::Link => self.link(&path, at, &entry.link),
            EntryType::Symlink => {
                self.clear(&path, at)?;
                rustix::fs::symlinkat(entry.link.as_slice(), at.dir, at.name)?;
                self.dress(at, entry, false)
            }
            EntryType::Char if entry.device == (0, 0) => self.whiteout(at),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.special(&path, at, entry),
            _ => wrong("entries of its type are not supported"),
        }
    }

    /// A name that says something about the layers below.
    fn mark(&mut self, above: &[u8], name: &[u8]) -> Step<()> {
        if name == dot_wh::OPAQUE {
            if above.is_empty() {
                self.opaque = true;
                return Ok(());
            }
            let directory = self.directory(above)?;
            return Ok(self.set_opaque(At::fd(directory.as_fd()))?);
        }
        match dot_wh::hidden_by(name) {
            Some(b"." | b"..") => wrong("it hides no name"),
            Some(hidden) => {
                let directory = self.directory(above)?;
                self.whiteout(At::new(directory.as_fd(), hidden))
            }
            None if name == dot_wh::PREFIX => wrong("it hides no name"),
            // What AUFS kept for itself.
            None => Ok(()),
        }
    }

    /// Hides what the layers below have at `at`, and nothing that this layer has there.
    fn whiteout(&mut self, at: At<'_>) -> Step<()> {
        match sys::stat::stat(at) {
            Ok(stat) if stat.kind() == Kind::Dir => Ok(self.set_opaque(at)?),
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Ok(sys::node::make_node(at, Kind::Char.mode_bits(), 0)?),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_opaque(&self, at: At<'_>) -> sys::Result<()> {
        xattr::set(at, OverlayName::Opaque.full(self.namespace), b"y", 0)
    }

    /// The directory `path`, made when missing.
    fn directory(&mut self, path: &[u8]) -> Step<Arc<OwnedFd>> {
        if let Some((recent, fd)) = &self.recent
            && recent == path
        {
            return Ok(fd.clone());
        }
        let fd = match sys::node::open_dir_path(self.root, path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let mut end = 0;
                while end < path.len() {
                    let rest = &path[end + 1..];
                    end = rest
                        .iter()
                        .position(|&byte| byte == b'/')
                        .map_or(path.len(), |at| end + 1 + at);
                    self.imply_directory(&path[..end])?;
                }
                sys::node::open_dir_path(self.root, path)
            }
            done => done,
        };
        match fd {
            Ok(fd) => {
                let fd = Arc::new(fd);
                self.recent = Some((path.to_vec(), fd.clone()));
                Ok(fd)
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                wrong("its path leads through what is no directory")
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a directory that has no entry of its own, where nothing or a whiteout is.
    fn imply_directory(&mut self, path: &[u8]) -> Step<()> {
        let (above, name) = split(path);
        let parent = sys::node::open_dir_path(self.root, above)?;
        let at = At::new(parent.as_fd(), name);
        match sys::stat::stat(at) {
            Ok(stat) if !stat.is_char_zero() => return Ok(()),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.budget.entry(path.len())?;
        self.new_directory(at)?;
        self.directories.insert(path.to_vec(), Attributes::implied());
        Ok(())
    }

    fn make_directory(&mut self, path: &[u8]) -> Step<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (above, name) = split(path);
        let parent = self.directory(above)?;
        let at = At::new(parent.as_fd(), name);
        match sys::stat::stat(at) {
            Ok(stat) if stat.kind() == Kind::Dir => return Ok(()),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.new_directory(at)?)
    }

    /// Makes a directory in place of whatever else there is. One in place of a whiteout is opaque.
    fn new_directory(&self, at: At<'_>) -> sys::Result<()> {
        let hidden = sys::stat::stat(at).is_ok_and(|stat| stat.is_char_zero());
        match rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::mkdirat(at.dir, at.name, Mode::RWXU)?;
        if hidden { self.set_opaque(at) } else { Ok(()) }
    }

    /// Removes what is at `at`, the place of `path`.
    fn clear(&mut self, path: &[u8], at: At<'_>) -> Step<()> {
        match rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.recent = None;
        self.directories.remove(path);
        let below = join(path, b"");
        while let Some((other, _)) = self.directories.range(below.clone()..).next()
            && other.starts_with(&below)
        {
            let other = other.clone();
            self.directories.remove(&other);
        }
        Ok(remove_tree(at.dir, at.name)?)
    }

    fn file(&mut self, at: At<'_>, entry: Entry, content: &mut Archive<impl Read>) -> Step<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(at.dir, at.name, flags, Mode::RUSR | Mode::WUSR)?;
        self.write(file.as_fd(), content, entry.size)?;
        self.dress(at, entry, true)
    }

    /// Writes the content; pieces of zeros become holes.
    fn write(&mut self, file: BorrowedFd<'_>, content: &mut impl Read, size: u64) -> Step<()> {
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        while offset < size {
            self.budget.check()?;
            let want = buffer.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
            let piece = &mut buffer[..want];
            content.read_exact(piece)?;
            if piece.iter().any(|&byte| byte != 0) {
                sys::data::write_all(file, piece, offset)?;
            }
            offset += want as u64;
        }
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    fn link(&mut self, path: &[u8], at: At<'_>, target: &[u8]) -> Step<()> {
        let target = clean(target)?;
        if target == path {
            return wrong("it is a link to itself");
        }
        let (above, name) = split(&target);
        let missing = || {
            format!(
                "it is a link to /{}, which is no file of this layer",
                path_of(&target).display()
            )
        };
        let dir =
            sys::node::open_dir_path(self.root, above).map_err(|_| Wrong::Words(missing()))?;
        let from = At::new(dir.as_fd(), name);
        let linkable = sys::stat::stat(from)
            .is_ok_and(|stat| stat.kind() != Kind::Dir && !stat.is_char_zero());
        if !linkable {
            return Err(Wrong::Words(missing()));
        }
        self.clear(path, at)?;
        Ok(rustix::fs::linkat(from.dir, from.name, at.dir, at.name, AtFlags::empty())?)
    }

    fn special(&mut self, path: &[u8], at: At<'_>, entry: Entry) -> Step<()> {
        let (kind, rdev) = match entry.kind {
            EntryType::Fifo => (Kind::Fifo, 0),
            EntryType::Block => (Kind::Block, packed(entry.device)?),
            _ => (Kind::Char, packed(entry.device)?),
        };
        self.clear(path, at)?;
        match sys::node::make_node(at, kind.mode_bits() | 0o600, rdev) {
            Err(Errno::PERM) => {
                self.lost.devices += 1;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
            Ok(()) => self.dress(at, entry, true),
        }
    }

    fn dress(&mut self, at: At<'_>, entry: Entry, has_mode: bool) -> Step<()> {
        self.apply(at, Attributes::of(entry), has_mode)
    }

    /// Owner before everything, as changing it clears set-id bits and capabilities; times last.
    fn apply(&mut self, at: At<'_>, attributes: Attributes, has_mode: bool) -> Step<()> {
        let mut mode = attributes.mode;
        if let Some((uid, gid)) = attributes.owner
            && !self.give(at, uid, gid)?
        {
            self.lost.owners += 1;
            // They would act for another owner than they were meant for.
            mode &= 0o1777;
        }
        let (acls, plain): (Vec<_>, Vec<_>) = attributes
            .xattrs
            .into_iter()
            .partition(|(name, _)| name.starts_with(b"system.posix_acl_"));
        self.set_xattrs(at, plain)?;
        if has_mode {
            sys::node::chmod(at, mode)?;
        }
        self.set_xattrs(at, acls)?;
        match attributes.mtime {
            Some(time) => Ok(sys::node::set_times(at, SetTime::To(time), SetTime::To(time))?),
            None => Ok(()),
        }
    }

    /// Gives the object to its owner; false where that is not allowed.
    fn give(&self, at: At<'_>, uid: u64, gid: u64) -> Step<bool> {
        if !self.owners {
            let (own, group) = (rustix::process::geteuid(), rustix::process::getegid());
            return Ok((uid, gid) == (own.as_raw().into(), group.as_raw().into()));
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Errno::INVAL);
        match id(uid).and_then(|uid| sys::node::chown(at, Some(uid), Some(id(gid)?))) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL) => Err(Wrong::Words(format!(
                "its owner {uid}:{gid} does not exist here; in a user namespace, map more ids \
                 (/etc/subuid, /etc/subgid)"
            ))),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Overlay's own names in an archive are somebody else's: they are stored escaped.
    fn set_xattrs(&mut self, at: At<'_>, xattrs: Vec<Xattr>) -> Step<()> {
        for (name, value) in xattrs.into_iter().filter(|(name, _)| name != SELINUX) {
            let stored = CString::new(self.namespace.escape(&name)).map_err(|_| Errno::INVAL)?;
            match xattr::set(at, &stored, &value, 0) {
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => self.lost.xattrs += 1,
                done => done?,
            }
        }
        Ok(())
    }

    /// Gives the directories their attributes, those below first.
    fn finish(&mut self) -> Result<()> {
        self.recent = None;
        while let Some((path, mut attributes)) = self.directories.pop_last() {
            if attributes.owner.is_none()
                && !self.opaque
                && let Some((stat, xattrs)) = self.below.directory(&path)?
            {
                attributes = Attributes::like(&stat, xattrs);
            }
            let dir = sys::node::open_dir_path(self.root, &path);
            let done = dir
                .map_err(Wrong::from)
                .and_then(|dir| self.apply(At::fd(dir.as_fd()), attributes, true));
            done.map_err(|wrong| at_entry(&path, wrong))?;
        }
        Ok(())
    }
}

/// A name as a path below the layer's root: a leading `/` means that root.
fn clean(name: &[u8]) -> Step<Vec<u8>> {
    if name.len() >= libc::PATH_MAX as usize {
        return wrong("its name is too long");
    }
    let parts = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<&[u8]> = parts.collect();
    if parts.iter().any(|part| *part == b".." || part.contains(&0)) {
        return wrong("its name leads out of the layer");
    }
    Ok(parts.join(&b'/'))
}

/// The 32-bit packing of `new_encode_dev`.
fn packed((major, minor): (u32, u32)) -> Step<u32> {
    match (major, minor) {
        (0..=0xfff, 0..=0xf_ffff) => Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)),
        _ => wrong("its device number is too large"),
    }
}

fn at_entry(path: &[u8], wrong: Wrong) -> MountError {
    let shown = path[..path.len().min(200)].escape_ascii();
    match wrong {
        Wrong::Errno(errno) => {
            refused(format!("its entry \"{shown}\" cannot be unpacked: {errno}"))
        }
        Wrong::Words(what) => refused(format!("its entry \"{shown}\" is refused: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root() {
        for (name, want) in [("./a//b/", "a/b"), ("/a", "a"), (".", ""), ("/", ""), ("...", "...")]
        {
            assert!(clean(name.as_bytes()).is_ok_and(|path| path == want.as_bytes()), "{name}");
        }
        for name in ["..", "a/../b", "/..", "a/..", "a\0b"] {
            assert!(clean(name.as_bytes()).is_err(), "{name}");
        }
        assert!(clean(&[b'a'; 5000]).is_err());
    }
}
