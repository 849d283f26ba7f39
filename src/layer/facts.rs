//! What one layer holds under a name: the input of [`union::lookup`](crate::union::lookup).

use super::owners::Owners;
use crate::format::{Namespace, OverlayName, Redirect, dot_wh, protattr};
use crate::sys::fileattr::Protection;
use crate::sys::{self, At, Errno, Kind, Result, Stat, xattr};
use crate::union::lookup::Facts;

/// How a layer is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The namespace of overlay's attributes.
    pub namespace: Namespace,
    /// `.wh.` names count as whiteouts.
    pub dot_wh: bool,
    /// None of them stands beside what is read.
    pub none_beside: bool,
    /// A layer follows below, so that opaque marks and redirects of directories matter.
    pub more_below: bool,
    /// Metadata-only files are followed, so that their redirects matter.
    pub metacopy: bool,
    /// What is no directory ends the search, whatever its attributes say.
    pub dirs_only: bool,
    /// Where owners and modes are.
    pub owners: Owners,
}

/// What was found under a name.
#[derive(Debug)]
pub struct Found {
    /// For the decision.
    pub facts: Facts,
    /// The object's attributes, unless it is absent or a whiteout.
    pub stat: Option<Stat>,
    /// The directory may hold whiteouts in attribute form (`opaque=x`).
    pub xwhiteouts: bool,
}

impl Found {
    fn nothing(facts: Facts) -> Self {
        Self { facts, stat: None, xwhiteouts: false }
    }
}

/// Gathers what the layer holds at `at`.
///
/// # Errors
/// What stat(2) and getxattr(2) give; a name that the layer cannot hold counts
/// as absent. `EINVAL` for a redirect that overlayfs does not write.
pub fn gather(at: At<'_>, reading: Reading) -> Result<Found> {
    if reading.dot_wh && dot_wh::is_mark(at.name) {
        return Ok(Found::nothing(Facts::Absent));
    }
    let stat = match sys::stat::stat(at) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NAMETOOLONG) => return absent(at, reading),
        Err(e) => return Err(e),
    };
    if is_whiteout(at, &stat, reading.namespace)? {
        return Ok(Found::nothing(Facts::Whiteout));
    }
    let stat = reading.owners.shown(at, stat)?;
    if stat.kind() == Kind::Dir {
        return gather_dir(at, stat, reading);
    }
    let regular = stat.kind() == Kind::File;
    // Its blocks do not tell: data that is half copied may fill the file.
    let facts = match regular && !reading.dirs_only && has_metacopy(at, reading.namespace)? {
        true if reading.metacopy => {
            Facts::Metacopy { redirect: redirect_of(at, reading.namespace)? }
        }
        true => Facts::Metacopy { redirect: None },
        false => Facts::NonDir { regular },
    };
    Ok(Found { facts, stat: Some(stat), xwhiteouts: false })
}

fn absent(at: At<'_>, reading: Reading) -> Result<Found> {
    let hidden = hidden_by_dot_wh(at, reading)?;
    Ok(Found::nothing(if hidden { Facts::Whiteout } else { Facts::Absent }))
}

fn gather_dir(at: At<'_>, stat: Stat, reading: Reading) -> Result<Found> {
    let mut found = Found {
        facts: Facts::Dir { opaque: false, redirect: None },
        stat: Some(stat),
        xwhiteouts: false,
    };
    if !reading.more_below {
        return Ok(found);
    }
    let opaque = opaque_value(at, reading.namespace)?;
    found.xwhiteouts = opaque == Some(b'x');
    // A `.wh.` whiteout beside the directory hides what is below, not the directory.
    let opaque = opaque == Some(b'y')
        || reading.dot_wh && has_opaque_mark(at)?
        || hidden_by_dot_wh(at, reading)?;
    let redirect = if opaque { None } else { redirect_of(at, reading.namespace)? };
    found.facts = Facts::Dir { opaque, redirect };
    Ok(found)
}

/// Whether the object at `at` with the attributes `stat` is a whiteout of the kernel's
/// (`fs/overlayfs/util.c: ovl_path_is_whiteout`).
///
/// # Errors
/// Those of getxattr(2).
pub fn is_whiteout(at: At<'_>, stat: &Stat, namespace: Namespace) -> Result<bool> {
    if stat.is_char_zero() {
        return Ok(true);
    }
    if stat.kind() != Kind::File || stat.size != 0 {
        return Ok(false);
    }
    Ok(readable_xattr(at, OverlayName::Whiteout, namespace)?.is_some())
}

/// The one-byte value of the opaque attribute.
///
/// # Errors
/// Those of getxattr(2).
pub fn opaque_value(at: At<'_>, namespace: Namespace) -> Result<Option<u8>> {
    let value = readable_xattr(at, OverlayName::Opaque, namespace)?;
    Ok(value.filter(|v| v.len() == 1).map(|v| v[0]))
}

/// The redirect of the directory or metadata-only file at `at`.
///
/// # Errors
/// Those of getxattr(2); `EINVAL` for a value that overlayfs does not write.
pub fn redirect_of(at: At<'_>, namespace: Namespace) -> Result<Option<Redirect>> {
    match readable_xattr(at, OverlayName::Redirect, namespace)? {
        Some(value) => Redirect::parse(&value).map(Some).map_err(|_| Errno::INVAL),
        None => Ok(None),
    }
}

/// What the upper object at `at` forbids.
///
/// # Errors
/// Those of getxattr(2).
pub fn protection(at: At<'_>, namespace: Namespace) -> Result<Protection> {
    let value = readable_xattr(at, OverlayName::Protattr, namespace)?;
    let (append, immutable) = value.map_or((false, false), |value| protattr::decode(&value));
    Ok(Protection { append, immutable })
}

fn has_metacopy(at: At<'_>, namespace: Namespace) -> Result<bool> {
    match readable_xattr(at, OverlayName::Metacopy, namespace)? {
        None => Ok(false),
        // `struct ovl_metacopy`, whose first four bytes are there unless it is empty; what they say
        // matters for fs-verity only.
        Some(v) if (1..4).contains(&v.len()) => Err(Errno::IO),
        Some(_) => Ok(true),
    }
}

/// Reads one of overlay's attributes; one that may not be read (`user.` on a
/// file without read permission) counts as missing, as in the kernel.
fn readable_xattr(at: At<'_>, name: OverlayName, namespace: Namespace) -> Result<Option<Vec<u8>>> {
    match xattr::get(at, name.full(namespace)) {
        Err(Errno::ACCESS | Errno::PERM) => Ok(None),
        done => done,
    }
}

fn hidden_by_dot_wh(at: At<'_>, reading: Reading) -> Result<bool> {
    if !reading.dot_wh || reading.none_beside || at.is_fd() {
        return Ok(false);
    }
    match dot_wh::whiteout_of(at.name) {
        Some(name) => exists(At::new(at.dir, &name)),
        None => Ok(false),
    }
}

fn has_opaque_mark(dir: At<'_>) -> Result<bool> {
    let path = [dir.name, b"/", dot_wh::OPAQUE].concat();
    exists(At::new(dir.dir, &path))
}

fn exists(at: At<'_>) -> Result<bool> {
    match sys::stat::stat(at) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(e) => Err(e),
    }
}
