//! Layers that lie in one another.
//!
//! A change of upper that shows up in a lower at once would make every cache
//! lie; the kernel refuses most such stacks with `ELOOP`.

use crate::error::{Failure, MountError};
use crate::sys::{At, Result, stat};
use rustix::fs::{Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What identifies a directory: its device and inode number.
type Id = ((u32, u32), u64);

/// One directory that takes part in a mount.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// What it is to the mount, for the error: "lower layer", "work directory"…
    pub role: &'a str,
    /// Its path, for the error.
    pub path: &'a Path,
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
}

/// Checks that no member is another one or lies in it.
///
/// # Errors
/// [`Failure::Layer`], or [`Failure::Work`] where a work directory is
/// concerned, with both paths.
pub fn check(members: &[Member<'_>]) -> std::result::Result<(), MountError> {
    let mut by_id: HashMap<Id, &Member<'_>> = HashMap::new();
    for member in members {
        let id = id_of(member.fd).map_err(|e| unreadable(member, e))?;
        if let Some(other) = by_id.insert(id, member) {
            return Err(overlap(member, "is the same directory as", other));
        }
    }
    // Directories whose ancestors have been looked at already.
    let mut seen = HashSet::new();
    for member in members {
        if let Some(outer) =
            find_outer(member, &by_id, &mut seen).map_err(|e| unreadable(member, e))?
        {
            return Err(overlap(member, "lies inside", outer));
        }
    }
    Ok(())
}

/// The member among the ancestors of `member`, if there is one.
fn find_outer<'m, 'a>(
    member: &Member<'_>,
    by_id: &HashMap<Id, &'m Member<'a>>,
    seen: &mut HashSet<Id>,
) -> Result<Option<&'m Member<'a>>> {
    let mut here: Option<OwnedFd> = None;
    let start = stat::stat(At::fd(member.fd))?;
    let mut id = (start.dev, start.ino);
    loop {
        let from = here.as_ref().map_or(member.fd, |fd| fd.as_fd());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(from, c"..", flags, Mode::empty())?;
        let found = stat::stat(At::fd(parent.as_fd()))?;
        let parent_id = (found.dev, found.ino);
        // What is mounted in a directory is not in it.
        if parent_id == id || found.mnt_id != start.mnt_id {
            return Ok(None);
        }
        if let Some(&outer) = by_id.get(&parent_id) {
            return Ok(Some(outer));
        }
        if !seen.insert(parent_id) {
            return Ok(None);
        }
        (here, id) = (Some(parent), parent_id);
    }
}

/// Checks that the mount point `mountpoint` does not lie inside `layer`, which
/// is reached through an ordinary mount: the daemon would find its own mount
/// there, and wait for itself.
///
/// # Errors
/// [`Failure::Mountpoint`] with both paths.
pub fn check_mountpoint(
    mountpoint: &Path,
    layer: &Member<'_>,
) -> std::result::Result<(), MountError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // One that cannot be opened is reported by whoever mounts.
    let Ok(fd) = rustix::fs::open(mountpoint, flags, Mode::empty()) else { return Ok(()) };
    let inner = Member { role: "mount point", path: mountpoint, fd: fd.as_fd() };
    let id = id_of(layer.fd).map_err(|e| unreadable(layer, e))?;
    let known = HashMap::from([(id, layer)]);
    match find_outer(&inner, &known, &mut HashSet::new()).map_err(|e| unreadable(layer, e))? {
        None => Ok(()),
        Some(layer) => {
            let (inner, role, outer) = (mountpoint.display(), layer.role, layer.path.display());
            let what =
                format!("mount point {inner} lies inside {role} {outer}; choose one outside");
            Err(MountError::new(Failure::Mountpoint, what))
        }
    }
}

fn id_of(fd: BorrowedFd<'_>) -> Result<Id> {
    stat::stat(At::fd(fd)).map(|s| (s.dev, s.ino))
}

fn overlap(a: &Member<'_>, how: &str, b: &Member<'_>) -> MountError {
    let work = [a, b].iter().any(|m| m.role.starts_with("work"));
    let failure = if work { Failure::Work } else { Failure::Layer };
    let (ra, pa, rb, pb) = (a.role, a.path.display(), b.role, b.path.display());
    let what = format!("{ra} {pa} {how} {rb} {pb}; use directories that do not contain each other");
    MountError::new(failure, what)
}

fn unreadable(member: &Member<'_>, e: crate::sys::Errno) -> MountError {
    let (role, path) = (member.role, member.path.display());
    MountError::new(Failure::Layer, format!("cannot examine {role} {path}: {e}"))
}
