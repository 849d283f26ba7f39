//! Layer folders on top of each other, and what a name is in them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Result, Style, failed, join, path_of, refused, split};
use crate::error::{Failure, MountError};
use crate::format::{Redirect, dot_wh};
use crate::layer::facts::{self, Reading};
use crate::layer::owners::Owners;
use crate::sys::{self, At, Errno, Kind, Stat};
use crate::union::LayerId;
use crate::union::lookup::{Facts, Lookup, Rules, Then};

/// The folders, topmost first.
pub struct Stack {
    layers: Vec<(PathBuf, OwnedFd)>,
    style: Style,
}

/// A directory of one layer.
#[derive(Debug, Clone)]
pub struct Part {
    /// Index in the stack.
    pub layer: usize,
    /// Below the layer's root; empty for the root.
    pub path: Vec<u8>,
}

/// What a name is.
pub enum Seen {
    /// No layer says anything.
    Nothing,
    /// A layer hides it from those below.
    Whiteout,
    /// It is there.
    Object(Object),
}

/// Something in the stack.
pub struct Object {
    /// Where its attributes, and its data, are.
    pub place: Part,
    /// Its attributes.
    pub stat: Stat,
    /// Of a directory: all that it is made of, topmost first.
    pub parts: Vec<Part>,
    /// Of a directory: the topmost part hides those below it.
    pub opaque: bool,
    /// Of a directory: a redirect says where the parts below are.
    pub redirected: bool,
    /// Of a directory: a layer below the topmost hides those below itself.
    pub cut: bool,
}

impl Stack {
    /// Opens `folders`, topmost first.
    pub fn open(folders: &[PathBuf], style: Style) -> Result<Self> {
        let layers = folders.iter().map(|path| Ok((path.clone(), open_folder(path)?)));
        Ok(Self::of(layers.collect::<Result<_>>()?, style))
    }

    /// The stack of these folders, topmost first.
    pub fn of(layers: Vec<(PathBuf, OwnedFd)>, style: Style) -> Self {
        Self { layers, style }
    }

    /// Refuses `target`, which is to be made, when it would be in one of the layers.
    pub fn check_outside(&self, target: &Path) -> Result<()> {
        let above = target.parent().filter(|path| !path.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let real = |path: &Path| {
            path.canonicalize().map_err(|error| refused(format!("{}: {error}", path.display())))
        };
        let real_above = real(above)?;
        for (layer, _) in &self.layers {
            if real_above.starts_with(real(layer)?) {
                return Err(refused(format!(
                    "{} lies in the layer {}; name a place outside of it",
                    target.display(),
                    layer.display()
                )));
            }
        }
        Ok(())
    }

    /// How its layers are read.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// Whether it is one layer alone.
    pub fn is_single(&self) -> bool {
        self.layers.len() == 1
    }

    /// The roots of the layers from `first` on, as the parts of one directory.
    pub fn roots(&self, first: usize) -> Vec<Part> {
        (first..self.layers.len()).map(|layer| Part { layer, path: Vec::new() }).collect()
    }

    /// The folder of the layer and the path in it, for messages.
    pub fn shown(&self, part: &Part) -> PathBuf {
        self.layers[part.layer].0.join(path_of(&part.path))
    }

    /// The error of a system call on `part`.
    pub fn failed(&self, part: &Part, errno: Errno) -> MountError {
        failed(self.shown(part), errno)
    }

    /// Calls `f` with the place of `part`.
    pub fn at<T>(&self, part: &Part, f: impl FnOnce(At<'_>) -> sys::Result<T>) -> Result<T> {
        let (dir, name) = split(&part.path);
        let root = self.layers[part.layer].1.as_fd();
        let done =
            sys::node::open_dir_path(root, dir).and_then(|dir| f(At::new(dir.as_fd(), name)));
        done.map_err(|errno| self.failed(part, errno))
    }

    /// The names that `parts` hold, or hide, in order.
    pub fn names(&self, parts: &[Part]) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for part in parts {
            let mut add = |name: &[u8]| {
                if !self.style.dot_wh || !dot_wh::is_mark(name) {
                    names.insert(name.to_vec());
                } else if let Some(hidden) = dot_wh::hidden_by(name) {
                    names.insert(hidden.to_vec());
                }
            };
            let root = self.layers[part.layer].1.as_fd();
            let dir = sys::node::open_dir_path(root, &part.path);
            let listed = dir.and_then(|dir| {
                sys::list::for_each(dir.as_fd(), |entry| {
                    add(entry.name);
                    Ok(())
                })
            });
            listed.map_err(|errno| self.failed(part, errno))?;
        }
        Ok(names)
    }

    /// What `name` is in the directory made of `parts`.
    pub fn lookup(&self, parts: &[Part], name: &[u8]) -> Result<Seen> {
        self.style.stop.check()?;
        let mut lookup = Lookup::new(Rules { redirects: true, ..Rules::default() });
        let mut name = name.to_vec();
        let mut seen = Seen::Nothing;
        for part in parts {
            let place = Part { layer: part.layer, path: join(&part.path, &name) };
            let found = self.gather(part, &name, &place)?;
            let whiteout = found.facts == Facts::Whiteout;
            let opaque = matches!(found.facts, Facts::Dir { opaque: true, .. });
            let step = lookup.visit(LayerId(part.layer as u16), found.facts);
            let step = step.map_err(|_| self.is_metacopy(&place))?;
            match (&mut seen, found.stat.filter(|_| step.take)) {
                (Seen::Object(object), Some(_)) => {
                    object.cut |= opaque;
                    object.parts.push(place);
                }
                (Seen::Object(object), None) => object.cut |= step.then == Then::Stop,
                (_, Some(stat)) => seen = Seen::Object(Object::new(place, stat, opaque)),
                (_, None) if whiteout => return Ok(Seen::Whiteout),
                (_, None) => {}
            }
            match step.then {
                Then::Next => continue,
                Then::Stop => break,
                Then::Redirected(redirect) => {
                    if let Seen::Object(object) = &mut seen {
                        object.redirected = true;
                    }
                    match redirect {
                        Redirect::Sibling(other) => name = other,
                        Redirect::Absolute(path) => {
                            let below = self.directory(part.layer + 1, &path)?;
                            if let Seen::Object(object) = &mut seen {
                                object.parts.extend(below);
                            }
                            break;
                        }
                    }
                }
            }
        }
        if let (Seen::Object(object), Err(_)) = (&seen, lookup.finish()) {
            return Err(self.is_metacopy(&object.place));
        }
        Ok(seen)
    }

    fn gather(&self, part: &Part, name: &[u8], place: &Part) -> Result<facts::Found> {
        let Style { namespace, dot_wh, .. } = self.style;
        let reading = Reading {
            namespace,
            dot_wh,
            none_beside: false,
            more_below: true,
            metacopy: false,
            dirs_only: false,
            owners: Owners::REAL,
        };
        let root = self.layers[part.layer].1.as_fd();
        let found = sys::node::open_dir_path(root, &part.path)
            .and_then(|dir| facts::gather(At::new(dir.as_fd(), name), reading));
        found.map_err(|errno| self.failed(place, errno))
    }

    /// What the directory `path` is made of in the layers from `first` on.
    pub fn directory(&self, first: usize, path: &[u8]) -> Result<Vec<Part>> {
        let mut parts = self.roots(first);
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            parts = match self.lookup(&parts, name)? {
                Seen::Object(object) => object.parts,
                Seen::Nothing | Seen::Whiteout => Vec::new(),
            };
        }
        Ok(parts)
    }

    fn is_metacopy(&self, place: &Part) -> MountError {
        let shown = self.shown(place);
        refused(format!(
            "{} holds metadata only (metacopy=on), which is not supported: mount the layers and copy \
             the file onto itself there",
            shown.display()
        ))
    }
}

impl Object {
    fn new(place: Part, stat: Stat, opaque: bool) -> Self {
        let parts = if stat.kind() == Kind::Dir { vec![place.clone()] } else { Vec::new() };
        Self { place, stat, parts, opaque, redirected: false, cut: false }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.stat.kind() == Kind::Dir
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        let what = format!("the layer {} cannot be opened: {errno}", path.display());
        MountError::new(Failure::Layer, what)
    })
}
