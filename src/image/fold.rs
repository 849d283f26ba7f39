//! Several layers as one: over whatever layers it is mounted, the folded layer shows what they show.

use std::collections::{HashMap, btree_set};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::place::Place;
use super::stack::{Object, Part, Seen, Stack};
use super::{Result, Style, join, path_of, refused, split};
use crate::format::{Namespace, OverlayName};
use crate::sys::node::SetTime;
use crate::sys::{self, At, Kind, Stat, xattr};

/// A directory of the walk.
struct Dir {
    path: Vec<u8>,
    parts: Vec<Part>,
    /// It, or one above it, hides all that is below.
    hides: bool,
    names: btree_set::IntoIter<Vec<u8>>,
    stat: Stat,
}

struct Fold<'a> {
    stack: &'a Stack,
    place: &'a Place,
    /// Files with several names: layer, device and inode number to the first one.
    links: HashMap<(usize, (u32, u32), u64), Vec<u8>>,
}

/// Folds `folders`, topmost first, into the new folder `to`.
///
/// # Errors
/// What cannot be read or written, redirects and metadata-only files; nothing is left then.
pub fn fold(folders: &[PathBuf], to: &Path, style: Style) -> Result<()> {
    let stack = Stack::open(folders, style)?;
    stack.check_outside(to)?;
    let place = Place::new(to, 0o700)?;
    Fold { stack: &stack, place: &place, links: HashMap::new() }.run()?;
    place.put()
}

impl Fold<'_> {
    fn run(&mut self) -> Result<()> {
        let roots = self.stack.roots(0);
        let root = Part { layer: 0, path: Vec::new() };
        let stat = self.stack.at(&root, sys::stat::stat)?;
        let mut open = vec![self.directory(Vec::new(), roots, false, stat)?];
        while let Some(dir) = open.last_mut() {
            let Some(name) = dir.names.next() else {
                if let Some(dir) = open.pop() {
                    self.finish(&dir)?;
                }
                continue;
            };
            let path = join(&dir.path, &name);
            match self.stack.lookup(&dir.parts, &name)? {
                Seen::Nothing => {}
                Seen::Whiteout if dir.hides => {}
                Seen::Whiteout => {
                    self.to(&path, |at| sys::node::make_node(at, Kind::Char.mode_bits(), 0))?
                }
                Seen::Object(object) if object.is_dir() => {
                    let opaque = self.make_directory(&path, &object, dir.hides)?;
                    let below =
                        self.directory(path, object.parts, dir.hides || opaque, object.stat)?;
                    open.push(below);
                }
                Seen::Object(object) => self.copy(&path, &object)?,
            }
        }
        Ok(())
    }

    fn directory(&self, path: Vec<u8>, parts: Vec<Part>, hides: bool, stat: Stat) -> Result<Dir> {
        let names = self.stack.names(&parts)?.into_iter();
        Ok(Dir { path, parts, hides, names, stat })
    }

    /// Makes a directory for the owner alone; whether it hides all that is below.
    fn make_directory(&self, path: &[u8], object: &Object, hidden: bool) -> Result<bool> {
        if object.redirected {
            let shown = self.stack.shown(&object.place);
            return Err(refused(format!(
                "{} was renamed (redirect_dir=on), which cannot be folded: mount the layers and copy \
                 the merged tree",
                shown.display()
            )));
        }
        self.to(path, |at| rustix::fs::mkdirat(at.dir, at.name, Mode::RWXU))?;
        let opaque = object.cut || object.opaque;
        if opaque && !hidden {
            let name = OverlayName::Opaque.full(self.namespace());
            self.to(path, |at| xattr::set(at, name, b"y", 0))?;
        }
        Ok(opaque)
    }

    fn namespace(&self) -> Namespace {
        self.stack.style().namespace
    }

    /// Copies what is no directory, or links it where it has another name already.
    fn copy(&mut self, path: &[u8], object: &Object) -> Result<()> {
        let (stat, from) = (&object.stat, &object.place);
        let key = (stat.nlink > 1).then_some((from.layer, stat.dev, stat.ino));
        if let Some(first) = key.and_then(|key| self.links.get(&key)) {
            let (above, name) = split(first);
            let linked = sys::node::open_dir_path(self.place.root(), above);
            let linked = linked.map_err(|errno| super::failed(path_of(first), errno))?;
            return self.to(path, |at| {
                rustix::fs::linkat(&linked, name, at.dir, at.name, AtFlags::empty())
            });
        }
        match stat.kind() {
            Kind::File => self.copy_file(path, from, stat)?,
            Kind::Symlink => {
                let target = self.stack.at(from, sys::node::read_link)?;
                self.to(path, |at| rustix::fs::symlinkat(target.as_slice(), at.dir, at.name))?;
            }
            kind => {
                self.to(path, |at| sys::node::make_node(at, kind.mode_bits() | 0o600, stat.rdev))?
            }
        }
        self.dress(path, from, stat)?;
        if let Some(key) = key {
            self.links.insert(key, path.to_vec());
        }
        Ok(())
    }

    fn copy_file(&self, path: &[u8], from: &Part, stat: &Stat) -> Result<()> {
        let source: OwnedFd = self.stack.at(from, |at| sys::node::open(at, OFlags::RDONLY))?;
        self.to(path, |at| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(at.dir, at.name, flags, Mode::RUSR | Mode::WUSR)?;
            sys::data::copy(source.as_fd(), target.as_fd(), stat.size, true)
        })
    }

    /// A directory gets its attributes when all that is in it is there.
    fn finish(&self, dir: &Dir) -> Result<()> {
        match dir.parts.first() {
            Some(part) => self.dress(&dir.path, part, &dir.stat),
            None => Ok(()),
        }
    }

    /// Owner, extended attributes (as stored, but overlay's own), mode and times of `from`.
    fn dress(&self, path: &[u8], from: &Part, stat: &Stat) -> Result<()> {
        let namespace = self.namespace();
        let stored = self.stack.at(from, |at| stored_xattrs(at, namespace))?;
        self.to(path, |at| {
            let own = sys::stat::stat(at)?;
            if (own.uid, own.gid) != (stat.uid, stat.gid) {
                sys::node::chown(at, Some(stat.uid), Some(stat.gid))?;
            }
            for (name, value) in &stored {
                xattr::set(at, name, value, 0)?;
            }
            if stat.kind() != Kind::Symlink {
                sys::node::chmod(at, stat.mode & 0o7777)?;
            }
            sys::node::set_times(at, SetTime::To(stat.atime), SetTime::To(stat.mtime))
        })
    }

    /// Calls `f` with the place of `path` in the new layer.
    fn to<T>(&self, path: &[u8], f: impl FnOnce(At<'_>) -> sys::Result<T>) -> Result<T> {
        let (above, name) = split(path);
        let dir = sys::node::open_dir_path(self.place.root(), above);
        let done = dir.and_then(|dir| f(At::new(dir.as_fd(), name)));
        done.map_err(|errno| super::failed(self.place.target().join(path_of(path)), errno))
    }
}

fn stored_xattrs(
    at: At<'_>,
    namespace: Namespace,
) -> sys::Result<Vec<(std::ffi::CString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(at)?.split(|&byte| byte == 0) {
        if name.is_empty() || namespace.is_own(name) {
            continue;
        }
        let name = std::ffi::CString::new(name).map_err(|_| sys::Errno::INVAL)?;
        if let Some(value) = xattr::get(at, &name)? {
            found.push((name, value));
        }
    }
    Ok(found)
}
