//! What the layers below one that is being unpacked say of its directories.
//!
//! An archive may have `a/b` without `a`: the directory is then that of the layers below, and what
//! is made in its place must not show it with another owner or mode. (containerd and umoci do so.)

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::object::{self, Xattr};
use super::place::Place;
use super::stack::{Object, Part, Seen, Stack};
use super::{Result, Style, failed, split};
use crate::format::Namespace;
use crate::sys::{self, Stat};

/// The layers of an image, up to the one that is being unpacked.
pub struct Below<'a> {
    place: &'a Place,
    /// Folders in the place, topmost first: that layer, and those below that it does not hide.
    names: Vec<&'a str>,
    style: &'a Style,
    /// Opened when it is needed first, which is never for most images.
    stack: Option<Stack>,
}

impl<'a> Below<'a> {
    /// The layers `names`, topmost first, of which the first is being unpacked.
    pub fn new(place: &'a Place, names: Vec<&'a str>, style: &'a Style) -> Self {
        Self { place, names, style, stack: None }
    }

    /// Makes the folder of the layer that is to be unpacked.
    pub fn new_folder(&self) -> Result<OwnedFd> {
        let name = self.names.first().copied().unwrap_or_default();
        rustix::fs::mkdirat(self.place.root(), name, Mode::RWXU)
            .map_err(|errno| failed(self.place.target().join(name), errno))?;
        Ok(self.folder(name)?.1)
    }

    /// The namespace of overlay's attributes in it.
    pub fn namespace(&self) -> Namespace {
        self.style.namespace
    }

    /// The attributes of the directory `path` in the layers below, where they have one that the
    /// topmost layer does not hide.
    pub fn directory(&mut self, path: &[u8]) -> Result<Option<(Stat, Vec<Xattr>)>> {
        if self.names.len() < 2 {
            return Ok(None);
        }
        let stack = match self.stack.take() {
            Some(stack) => stack,
            None => self.open()?,
        };
        let found = find(&stack, path);
        self.stack = Some(stack);
        found
    }

    fn open(&self) -> Result<Stack> {
        let layers = self.names.iter().map(|name| self.folder(name)).collect::<Result<_>>()?;
        Ok(Stack::of(layers, self.style.clone()))
    }

    fn folder(&self, name: &str) -> Result<(PathBuf, OwnedFd)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let shown = self.place.target().join(name);
        match rustix::fs::openat(self.place.root(), name, flags, Mode::empty()) {
            Ok(fd) => Ok((shown, fd)),
            Err(errno) => Err(failed(shown, errno)),
        }
    }
}

fn find(stack: &Stack, path: &[u8]) -> Result<Option<(Stat, Vec<Xattr>)>> {
    let (above, name) = split(path);
    let place = if path.is_empty() {
        stack.roots(1).into_iter().next()
    } else {
        let mut parts = stack.directory(0, above)?;
        parts.retain(|part| part.layer > 0);
        match stack.lookup(&parts, name)? {
            Seen::Object(Object { place, parts, .. }) if !parts.is_empty() => Some(place),
            Seen::Object(_) | Seen::Nothing | Seen::Whiteout => None,
        }
    };
    place.map(|place| attributes(stack, &place)).transpose()
}

fn attributes(stack: &Stack, place: &Part) -> Result<(Stat, Vec<Xattr>)> {
    Ok((stack.at(place, sys::stat::stat)?, object::xattrs(stack, place)?))
}
