//! The walk over what the topmost layer of a stack changes.

use std::collections::btree_set;

use super::Result;
use super::stack::{Object, Part, Seen, Stack};
use super::{failed, join, path_of, refused};
use crate::sys::Errno;

/// Something that the topmost layer says.
pub struct Change<'a> {
    /// From the root of the merged view, without a leading `/`.
    pub path: &'a [u8],
    /// What is there now; `None` when it is removed.
    pub now: Option<&'a Object>,
    /// What the layers below show there.
    pub before: Option<&'a Object>,
    /// The directory above hides all that is below it anyway.
    pub hidden: bool,
    /// Of a directory: it hides all that is below it, and nothing above it does so already.
    pub opaque: bool,
}

/// A directory of the walk.
struct Dir {
    path: Vec<u8>,
    /// What it is made of, the topmost layer's part first.
    parts: Vec<Part>,
    /// What it is made of in the layers below.
    before: Vec<Part>,
    /// Nothing of `before` is seen through it.
    hides: bool,
    /// It was moved here: all that is in it counts, from whatever layer.
    moved: bool,
    /// The names that are still to be visited.
    names: btree_set::IntoIter<Vec<u8>>,
}

/// Calls `visit` with every change of the topmost layer of `stack`: a directory before what is in
/// it, and names of a directory in the order of their bytes.
///
/// A directory that a redirect names is shown with all that is in it.
pub fn walk(stack: &Stack, mut visit: impl FnMut(Change<'_>) -> Result<()>) -> Result<()> {
    let root = Dir::new(stack, Vec::new(), stack.roots(0), stack.roots(1), false, false)?;
    let mut open = vec![root];
    while let Some(dir) = open.last_mut() {
        let Some(name) = dir.names.next() else {
            open.pop();
            continue;
        };
        let path = join(&dir.path, &name);
        let before = match stack.lookup(&dir.before, &name)? {
            Seen::Object(object) => Some(object),
            Seen::Nothing | Seen::Whiteout => None,
        };
        let change = Change {
            path: &path,
            now: None,
            before: before.as_ref(),
            hidden: dir.hides,
            opaque: false,
        };
        match stack.lookup(&dir.parts, &name)? {
            Seen::Object(now) if now.redirected && stack.is_single() => {
                let shown = stack.shown(&now.place);
                return Err(refused(format!(
                    "{} was moved here from a layer below (redirect_dir=on): name the layers below, too",
                    shown.display()
                )));
            }
            Seen::Object(now) => {
                let moved = dir.moved || now.redirected;
                let hides = dir.hides || now.opaque || now.redirected;
                visit(Change { now: Some(&now), opaque: hides && !dir.hides, ..change })?;
                if now.is_dir() {
                    let before = before.map_or_else(Vec::new, |object| object.parts);
                    let below = Dir::new(stack, path, now.parts, before, hides, moved)?;
                    open.push(below);
                }
            }
            Seen::Whiteout if !dir.hides => visit(change)?,
            Seen::Nothing | Seen::Whiteout if change.before.is_some() => visit(change)?,
            Seen::Nothing | Seen::Whiteout => {}
        }
    }
    Ok(())
}

impl Dir {
    fn new(
        stack: &Stack,
        path: Vec<u8>,
        parts: Vec<Part>,
        before: Vec<Part>,
        hides: bool,
        moved: bool,
    ) -> Result<Self> {
        let own = if moved { parts.as_slice() } else { parts.get(..1).unwrap_or_default() };
        let mut names = stack.names(own)?;
        if hides {
            names.extend(stack.names(&before)?);
        }
        if path.len() > libc::PATH_MAX as usize {
            return Err(failed(path_of(&path), Errno::NAMETOOLONG));
        }
        Ok(Self { path, parts, before, hides, moved, names: names.into_iter() })
    }
}
