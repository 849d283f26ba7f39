//! What a name in a directory resolves to: asks the layers, from the top down,
//! and lets [`union::lookup`](crate::union::lookup) decide.

use super::Fs;
use super::index::Indexed;
use super::metacopy::Data;
use super::node::{Dir, LowerDir, Node};
use crate::format::{Namespace, Redirect};
use crate::layer::facts::{self, Found, Reading};
use crate::sys::{At, Errno, Kind, Result, Stat};
use crate::union::LayerId;
use crate::union::lookup::{Facts, Lookup, Refused, Then};
use crate::union::path::LayerPath;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

/// An object of the merged view, before it has a node.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The topmost layer that holds it.
    pub layer: LayerId,
    /// Its attributes there.
    pub stat: Stat,
    /// For a directory: the lower directories merged in it.
    pub stack: Vec<LowerDir>,
    /// The topmost part of it in a lower layer.
    pub lower: Option<Part>,
    /// For a metadata-only file: where its data is.
    pub data: Option<Data>,
}

/// What an object has in one layer.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    layer: LayerId,
    /// Its real inode number.
    ino: u64,
    /// Its real link count.
    pub nlink: u32,
}

/// Where the layers below the present one are asked.
enum Base<'a> {
    /// In the directories merged in the parent, under this name.
    Parent {
        slots: &'a [LowerDir],
        /// The layers that are known to list the name; `None`: any may.
        only: Option<Vec<u16>>,
        name: Vec<u8>,
    },
    /// Under this path from their roots.
    Root(Vec<u8>),
}

/// What a layer holds at a path.
struct Walked {
    found: Found,
    /// Something on the way there hides the layers below.
    hidden: bool,
    /// The path in the layers below, where directories on the way there may have moved.
    below: Vec<u8>,
}

impl Walked {
    fn nothing(hidden: bool, below: Vec<u8>) -> Self {
        let found = Found { facts: Facts::Absent, stat: None, xwhiteouts: false };
        Self { found, hidden, below }
    }
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Metacopy | Refused::Redirect => Errno::PERM,
            Refused::NoData => Errno::IO,
        }
    }
}

impl Fs {
    /// Resolves `name` in `parent`, whose lock the caller holds; `None` when
    /// nothing is visible under it.
    ///
    /// # Errors
    /// `ENAMETOOLONG`; `EPERM`, `EIO` and `EINVAL` for marks that may not be
    /// followed; those of the layers' file systems.
    pub(super) fn resolve(&self, parent: &Node, name: &[u8]) -> Result<Option<Resolved>> {
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let dir = parent.dir()?;
        let (mut ask_upper, mut only) = (parent.in_upper(), None);
        if let Some(listing) = &*dir.listing.read() {
            let Some(known) = listing.get(name).filter(|k| k.visible) else { return Ok(None) };
            let layers = known.stack.map_or_else(|| vec![known.top.0], <[u16]>::to_vec);
            ask_upper &= layers.contains(&LayerId::UPPER.0);
            only = Some(layers);
        }
        let base = Base::Parent { slots: &dir.stack, only, name: name.to_vec() };
        self.resolve_in(parent, name, ask_upper, base)
    }

    fn resolve_in<'a>(
        &self,
        parent: &'a Node,
        name: &[u8],
        ask_upper: bool,
        mut base: Base<'a>,
    ) -> Result<Option<Resolved>> {
        let mut lookup = Lookup::new(self.rules());
        let mut result = None;
        let mut then = Then::Next;
        if ask_upper {
            let found = self.gather_upper(parent, name, self.more_below(&base, 1))?;
            then = take(&mut lookup, &mut result, LayerId::UPPER, found, LayerPath::default)?;
        }
        let mut next_layer = 1;
        while then != Then::Stop {
            if let Then::Redirected(redirect) = then {
                base = redirected(parent.dir()?, base, redirect);
            } else if let (true, Base::Parent { only, .. }) = (lookup.lacks_data(), &mut base) {
                // A listing knows of a file where its name shows, not where its data is.
                *only = None;
            }
            let Some(layer) = next_layer_of(&base, next_layer, self.layers.lowers.len()) else {
                break;
            };
            next_layer = layer.0 + 1;
            // Before anybody looks where a mark leads that is not to be followed.
            lookup.check_followed()?;
            let reading = self.reading(layer, self.more_below(&base, next_layer));
            let reading = Reading { dirs_only: lookup.found_dir(), ..reading };
            let walked = match &base {
                Base::Parent { name, .. } => {
                    let found = self.gather_lower(parent, layer, name, reading)?;
                    Walked { found, hidden: false, below: Vec::new() }
                }
                Base::Root(path) => self.gather_path(layer, path, reading)?,
            };
            then = take(&mut lookup, &mut result, layer, walked.found, || path_in(&base, layer))?;
            if walked.hidden && !matches!(then, Then::Redirected(Redirect::Absolute(_))) {
                then = Then::Stop;
            }
            if let Base::Root(path) = &mut base {
                *path = walked.below;
            }
        }
        let in_data_layers = lookup.finish()?;
        if let (true, Some(object), Base::Root(path)) = (in_data_layers, &mut result, base) {
            object.data = Some(Data::in_data_layers(LayerPath::new(&path)));
        }
        Ok(result)
    }

    fn gather_upper(&self, parent: &Node, name: &[u8], more_below: bool) -> Result<Found> {
        let dir = self.dir_fd(parent, LayerId::UPPER)?;
        let none_beside = parent.dir()?.settled.load(Ordering::Relaxed);
        let reading = Reading { none_beside, ..self.reading(LayerId::UPPER, more_below) };
        facts::gather(At::new(dir.as_fd(), name), reading)
    }

    pub(super) fn gather_lower(
        &self,
        parent: &Node,
        layer: LayerId,
        name: &[u8],
        reading: Reading,
    ) -> Result<Found> {
        let dir = self.dir_fd(parent, layer)?;
        facts::gather(At::new(dir.as_fd(), name), reading)
    }

    /// How `layer` is read to see whether it holds something, of whatever kind.
    pub(super) fn glance(&self, layer: LayerId) -> Reading {
        Reading { dirs_only: true, ..self.reading(layer, false) }
    }

    /// Gathers what `layer` holds at `path` (`fs/overlayfs/namei.c: ovl_lookup_layer`).
    fn gather_path(&self, layer: LayerId, path: &[u8], reading: Reading) -> Result<Walked> {
        let root = self.lower(layer)?.root();
        let (mut below, mut hidden) = (Vec::new(), false);
        let mut here: Option<OwnedFd> = None;
        let mut rest = path;
        while let Some(end) = rest.iter().position(|&b| b == b'/') {
            let name = &rest[..end];
            let dir = here.as_ref().map_or(root, AsFd::as_fd);
            let way = Reading { dirs_only: true, ..reading };
            match facts::gather(At::new(dir, name), way)?.facts {
                Facts::Dir { opaque, redirect } => {
                    hidden &= !matches!(redirect, Some(Redirect::Absolute(_)));
                    hidden |= opaque;
                    below = moved_to(&below, name, redirect);
                }
                Facts::Absent => return Ok(Walked::nothing(hidden, Self::join(&below, rest))),
                Facts::Whiteout | Facts::NonDir { .. } | Facts::Metacopy { .. } => {
                    return Ok(Walked::nothing(true, below));
                }
            }
            here = Some(self.with_descriptors(|| crate::sys::node::open_dir_path(dir, name))?);
            rest = &rest[end + 1..];
        }
        let dir = here.as_ref().map_or(root, AsFd::as_fd);
        let found = facts::gather(At::new(dir, rest), reading)?;
        Ok(Walked { found, hidden, below: Self::join(&below, rest) })
    }

    fn reading(&self, layer: LayerId, more_below: bool) -> Reading {
        let owners = self.owners(layer);
        let metacopy = self.metacopy || !self.layers.data.is_empty();
        let namespace = self.layers.namespace;
        let dot_wh = self.dot_wh;
        Reading {
            namespace,
            dot_wh,
            none_beside: false,
            more_below,
            metacopy,
            dirs_only: false,
            owners,
        }
    }

    /// Whether marks of a directory matter: a layer follows, whether it has the
    /// name or not. Where redirects are followed any lower layer may.
    fn more_below(&self, base: &Base<'_>, next_layer: u16) -> bool {
        match base {
            Base::Parent { slots, .. } if !self.follows_redirects() => {
                slots.last().is_some_and(|slot| slot.layer.0 >= next_layer)
            }
            _ => usize::from(next_layer) <= self.layers.lowers.len(),
        }
    }

    /// The inode number that an object shows, which stays its own when it is copied up.
    pub(super) fn ino_of(
        &self,
        parent: &Node,
        name: &[u8],
        object: &Resolved,
        indexed: Option<&Indexed>,
    ) -> Result<u64> {
        let is_dir = object.stat.kind() == Kind::Dir;
        if let Some(lower) = object.lower.filter(|part| is_dir || part.nlink == 1) {
            return Ok(self.shown_ino(lower.layer, lower.ino));
        }
        if object.layer.is_upper() && !is_dir && self.layers.namespace == Namespace::Trusted {
            let dir = self.dir_fd(parent, LayerId::UPPER)?;
            if let Some(ino) = self.origin_ino(At::new(dir.as_fd(), name), indexed.is_some())? {
                return Ok(ino);
            }
        }
        // Without privileges the other names could not find the lower file's number again.
        if let Some(indexed) = indexed
            && (object.layer.is_upper() || self.layers.namespace == Namespace::User)
        {
            return Ok(self.shown_ino(LayerId::UPPER, indexed.stat.ino));
        }
        Ok(self.shown_ino(object.layer, object.stat.ino))
    }

    /// Whether anything is visible under `name` in the layers below upper.
    ///
    /// # Errors
    /// Those of [`Self::resolve`].
    pub(super) fn visible_below(&self, parent: &Node, name: &[u8]) -> Result<bool> {
        let dir = parent.dir()?;
        if dir.stack.is_empty() {
            return Ok(false);
        }
        if let Some(listing) = &*dir.listing.read() {
            return Ok(listing.get(name).is_some_and(|known| known.below));
        }
        for slot in dir.stack.iter() {
            match self.gather_lower(parent, slot.layer, name, self.glance(slot.layer))?.facts {
                Facts::Absent => {}
                Facts::Whiteout => return Ok(false),
                Facts::Dir { .. } | Facts::NonDir { .. } | Facts::Metacopy { .. } => {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Hands what `layer` holds to the lookup, and adds it to the result if it belongs there.
fn take(
    lookup: &mut Lookup,
    result: &mut Option<Resolved>,
    layer: LayerId,
    found: Found,
    path: impl FnOnce() -> LayerPath,
) -> Result<Then> {
    let holds_data = matches!(found.facts, Facts::NonDir { .. });
    let step = lookup.visit(layer, found.facts)?;
    let Some(stat) = found.stat.filter(|_| step.take) else { return Ok(step.then) };
    let object = result.get_or_insert_with(|| Resolved {
        layer,
        stat,
        stack: Vec::new(),
        lower: None,
        data: None,
    });
    if layer.is_upper() {
        return Ok(step.then);
    }
    object.lower.get_or_insert(Part { layer, ino: stat.ino, nlink: stat.nlink });
    if stat.kind() == Kind::Dir {
        object.stack.push(LowerDir { layer, path: path(), xwhiteouts: found.xwhiteouts });
    } else if holds_data && object.layer != layer {
        object.data = Some(Data::at(layer, path(), stat.blocks));
    }
    Ok(step.then)
}

/// The next layer at or after `from` that is asked.
fn next_layer_of(base: &Base<'_>, from: u16, lowers: usize) -> Option<LayerId> {
    match base {
        Base::Parent { only: Some(layers), .. } => {
            layers.iter().find(|&&layer| layer >= from).map(|&layer| LayerId(layer))
        }
        Base::Parent { slots, .. } => {
            slots.get(slots.partition_point(|slot| slot.layer.0 < from)).map(|slot| slot.layer)
        }
        Base::Root(_) => (usize::from(from) <= lowers).then_some(LayerId(from)),
    }
}

/// The path that is asked for in `layer`.
fn path_in(base: &Base<'_>, layer: LayerId) -> LayerPath {
    match base {
        Base::Parent { slots, name, .. } => {
            let slot = slots.iter().find(|slot| slot.layer == layer);
            slot.map_or_else(|| LayerPath::new(name), |slot| slot.path.child(name))
        }
        Base::Root(path) => LayerPath::new(path),
    }
}

/// Where the layers below a redirect are asked.
fn redirected<'a>(parent: &'a Dir, base: Base<'a>, redirect: Redirect) -> Base<'a> {
    match (redirect, base) {
        (Redirect::Absolute(path), _) => Base::Root(path),
        (Redirect::Sibling(name), Base::Parent { .. }) => {
            Base::Parent { slots: &parent.stack, only: None, name }
        }
        (Redirect::Sibling(name), Base::Root(path)) => {
            let parent = path.iter().rposition(|&b| b == b'/').map_or(&b""[..], |i| &path[..i]);
            Base::Root(Fs::join(parent, &name))
        }
    }
}

/// The path, in the layers below, of the directory `name` in `parent` with this redirect.
fn moved_to(parent: &[u8], name: &[u8], redirect: Option<Redirect>) -> Vec<u8> {
    match redirect {
        Some(Redirect::Absolute(path)) => path,
        Some(Redirect::Sibling(name)) => Fs::join(parent, &name),
        None => Fs::join(parent, name),
    }
}
