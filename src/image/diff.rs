//! What a layer changes, as a list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::stack::{Object, Stack};
use super::{Result, Style, changes, object, split};

/// How something was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is new.
    Added,
    /// It was there before, and is another one, or has other attributes or content.
    Changed,
    /// It is gone.
    Deleted,
}

/// What `folders[0]` changes of the union of the others (topmost first), by absolute path.
///
/// A directory in which something is changed counts as changed.
///
/// # Errors
/// What cannot be read, and metadata-only files.
pub fn list(folders: &[PathBuf], style: Style) -> Result<BTreeMap<Vec<u8>, Kind>> {
    let stack = Stack::open(folders, style)?;
    let mut found = BTreeMap::new();
    changes::walk(&stack, |change| {
        let kind = match (change.now, change.before) {
            (Some(_), None) => Kind::Added,
            (Some(now), Some(before)) if is_same_dir(&stack, now, before)? => return Ok(()),
            (Some(_), Some(_)) => Kind::Changed,
            (None, Some(_)) => Kind::Deleted,
            (None, None) => return Ok(()),
        };
        let path = [b"/", change.path].concat();
        let mut above = split(&path).0;
        while !above.is_empty() && !found.contains_key(above) {
            found.insert(above.to_vec(), Kind::Changed);
            above = split(above).0;
        }
        found.insert(path, kind);
        Ok(())
    })?;
    Ok(found)
}

/// Whether both are directories with the same attributes.
fn is_same_dir(stack: &Stack, now: &Object, before: &Object) -> Result<bool> {
    let attributes = |of: &Object| (of.stat.mode, of.stat.uid, of.stat.gid, of.stat.mtime);
    let same = now.is_dir() && before.is_dir() && attributes(now) == attributes(before);
    Ok(same && object::xattrs(stack, &now.place)? == object::xattrs(stack, &before.place)?)
}
