//! Whiteouts that container tools unpacked into upper: `.wh.NAME` and
//! `.wh..wh..opq` (see [`dot_wh`]).
//!
//! Reading honours them where they stand. Before the first change of names in a
//! directory they become the kernel's marks there, so that everything that
//! changes names needs to know those only, and what is changed is the kernel's
//! format. The kernel's mark comes first and hides the same, so that a crash in
//! between changes nothing in the view.

use super::Fs;
use super::node::Node;
use crate::format::{OverlayName, dot_wh};
use crate::layer::Upper;
use crate::sys::node::SetTime;
use crate::sys::{self, At, Errno, Kind, Result};
use crate::union::LayerId;
use parking_lot::RwLockWriteGuard;
use rustix::fs::AtFlags;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

impl Fs {
    /// Locks the names of the directory `node` for a change; from then on its
    /// upper directory, if there is one, has whiteouts of the kernel's only.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`; where there were others, those of making whiteouts.
    pub(super) fn lock_names<'a>(&self, node: &'a Node) -> Result<RwLockWriteGuard<'a, ()>> {
        let dir = node.dir()?;
        let names = dir.lock.write();
        node.check_not_replaced()?;
        if self.dot_wh && node.in_upper() && !dir.settled.load(Ordering::Relaxed) {
            let fd = self.dir_fd(node, LayerId::UPPER)?;
            match settle(self.upper()?, fd.as_fd()) {
                // What may not be listed keeps them: they hide the same.
                Err(Errno::ACCESS) => {}
                settled => {
                    settled?;
                    node.settle();
                }
            }
        }
        Ok(names)
    }

    /// Checks that something new may be called `name`.
    ///
    /// # Errors
    /// `EINVAL` for a name that would count as a whiteout at the next mount.
    pub(super) fn check_new_name(&self, name: &[u8]) -> Result<()> {
        match self.dot_wh && dot_wh::is_mark(name) {
            true => Err(Errno::INVAL),
            false => Ok(()),
        }
    }
}

/// Replaces the `.wh.` names in the upper directory `dir` by what the kernel has for them.
fn settle(upper: &Upper, dir: BorrowedFd<'_>) -> Result<()> {
    let mut marks = Vec::new();
    sys::list::for_each(dir, |entry| {
        if dot_wh::is_mark(entry.name) {
            marks.push(entry.name.to_vec());
        }
        Ok(())
    })?;
    if marks.is_empty() {
        return Ok(());
    }
    let before = sys::stat::stat(At::fd(dir))?;
    for mark in &marks {
        if mark == dot_wh::OPAQUE {
            upper.mark(At::fd(dir), OverlayName::Opaque, b"y")?;
        } else if let Some(name) = dot_wh::hidden_by(mark) {
            hide_below(upper, At::new(dir, name))?;
        }
        match rustix::fs::unlinkat(dir, mark.as_slice(), AtFlags::empty()) {
            // Nobody unpacks such a thing: what it may hold is not ours to remove.
            Err(Errno::ISDIR) => {}
            done => done?,
        }
    }
    // What was asked for may still fail, and then the directory has not changed.
    sys::node::set_times(At::fd(dir), SetTime::To(before.atime), SetTime::To(before.mtime))
}

/// Hides what is below upper under the name at `at`, whatever upper has there.
fn hide_below(upper: &Upper, at: At<'_>) -> Result<()> {
    match upper.work.whiteout(at) {
        Err(Errno::EXIST) if sys::stat::stat(at)?.kind() == Kind::Dir => {
            upper.mark(at, OverlayName::Opaque, b"y")
        }
        Err(Errno::EXIST) => Ok(()),
        done => done,
    }
}
