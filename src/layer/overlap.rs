//! Layers that lie in one another.
//!
//! A change of upper that shows up in a lower at once would make every cache
//! lie; the kernel refuses most such stacks with `ELOOP`.

use crate::error::{Failure, MountError};
use crate::sys::{At, Result, Stat, stat};
use rustix::fs::{Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What identifies a directory: its device and inode number.
type Id = ((u32, u32), u64);

/// How directories are opened that are only looked at.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One directory that takes part in a mount.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// What it is to the mount, for the error: "lower layer", "work directory"…
    pub role: &'a str,
    /// Its path, for the error.
    pub path: &'a Path,
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
    /// Its attributes.
    pub stat: &'a Stat,
}

/// Directories of which none is another one or lies in it.
#[derive(Debug, Default)]
pub struct Apart<'a> {
    members: HashMap<Id, Member<'a>>,
    /// The directories above, each with a member that lies in it.
    above: HashMap<Id, Member<'a>>,
    /// Those whose own ancestors were looked at, by the mount they were seen on.
    seen: HashSet<(u64, Id)>,
}

impl<'a> Apart<'a> {
    /// Adds `member`.
    ///
    /// # Errors
    /// [`Failure::Layer`], or [`Failure::Work`] where a work directory is concerned, with both paths
    /// of two that are not apart.
    pub fn add(&mut self, member: Member<'a>) -> std::result::Result<(), MountError> {
        let id = id_of(member.stat);
        if let Some(other) = self.members.get(&id) {
            return Err(overlap(&member, "is the same directory as", other));
        }
        if let Some(inner) = self.above.get(&id) {
            return Err(overlap(inner, "lies inside", &member));
        }
        if let Some(outer) = self.find_outer(member).map_err(|e| unreadable(&member, e))? {
            return Err(overlap(&member, "lies inside", &outer));
        }
        self.members.insert(id, member);
        Ok(())
    }

    /// The member among the ancestors of `inner`, if there is one.
    fn find_outer(&mut self, inner: Member<'a>) -> Result<Option<Member<'a>>> {
        let mut here: Option<OwnedFd> = None;
        let mut id = id_of(inner.stat);
        loop {
            let from = here.as_ref().map_or(inner.fd, |fd| fd.as_fd());
            let parent = rustix::fs::openat(from, c"..", PLACE, Mode::empty())?;
            let found = stat::stat(At::fd(parent.as_fd()))?;
            let parent_id = id_of(&found);
            // What is mounted in a directory is not in it.
            if parent_id == id || found.mnt_id != inner.stat.mnt_id {
                return Ok(None);
            }
            if let Some(outer) = self.members.get(&parent_id) {
                return Ok(Some(*outer));
            }
            self.above.insert(parent_id, inner);
            if !self.seen.insert((found.mnt_id, parent_id)) {
                return Ok(None);
            }
            (here, id) = (Some(parent), parent_id);
        }
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
    // One that cannot be opened is reported by whoever mounts.
    let Ok(fd) = rustix::fs::open(mountpoint, PLACE, Mode::empty()) else { return Ok(()) };
    let stat = &stat::stat(At::fd(fd.as_fd())).map_err(|e| unreadable(layer, e))?;
    let inner = Member { role: "mount point", path: mountpoint, fd: fd.as_fd(), stat };
    let members = HashMap::from([(id_of(layer.stat), *layer)]);
    let mut layer_alone = Apart { members, ..Apart::default() };
    match layer_alone.find_outer(inner).map_err(|e| unreadable(layer, e))? {
        None => Ok(()),
        Some(layer) => {
            let (inner, role, outer) = (mountpoint.display(), layer.role, layer.path.display());
            let what =
                format!("mount point {inner} lies inside {role} {outer}; choose one outside");
            Err(MountError::new(Failure::Mountpoint, what))
        }
    }
}

fn id_of(stat: &Stat) -> Id {
    (stat.dev, stat.ino)
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
