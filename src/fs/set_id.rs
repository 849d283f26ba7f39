//! Changes with the rights of who asks for them, so that set-id bits go where the caller's own call
//! would take them.

use super::node::Node;
use super::{Caller, Fs};
use crate::layer::owners::Owners;
use crate::sys::identity::{self, Privilege};
use crate::sys::{self, At, Errno, Result, Stat};
use crate::union::LayerId;
use rustix::fs::{Gid, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Both set-id bits of a mode.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

impl Fs {
    /// Changes the data of `node`, open as `fd`, by `change`, so that set-id bits go where they
    /// would for the caller's own call. The kernel leaves them to us, and must learn of it.
    pub(super) fn change_data<T>(
        &self,
        node: &Node,
        fd: &OwnedFd,
        caller: Caller,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.drop_stored_set_id(fd, caller)? {
            self.attributes_changed(node);
        }
        if !has_set_id(fd)? {
            return change();
        }
        let done = with_rights_of(caller, change).or_else(|failed| {
            drop_set_id(fd, Owners::REAL, caller)?;
            Err(failed)
        });
        self.attributes_changed(node);
        done
    }

    /// Takes set-id bits that are stored in an attribute from the file of upper `fd`; whether it
    /// had some. Others go with the change itself.
    pub(super) fn drop_stored_set_id(&self, fd: &OwnedFd, caller: Caller) -> Result<bool> {
        let owners = self.owners(LayerId::UPPER);
        if !owners.are_stored() || owners.stat(At::fd(fd.as_fd()))?.mode & SET_ID == 0 {
            return Ok(false);
        }
        drop_set_id(fd, owners, caller).map(|()| true)
    }

    /// Makes a change with the rights of `caller`, so that set-gid is cleared where it would be
    /// natively. The kernel has allowed it; to who owns the object by a capability only it is not
    /// refused.
    pub(super) fn as_caller_if_allowed(
        &self,
        caller: Caller,
        at: At<'_>,
        change: impl Fn(At<'_>) -> Result<()>,
    ) -> Result<()> {
        let done = match with_rights_of(caller, || change(at)) {
            // The name is where the caller cannot go: in the index, or no longer.
            Err(Errno::ACCESS) => {
                let open = || sys::node::open(at, OFlags::PATH | OFlags::NOFOLLOW);
                let object = self.with_descriptors(open)?;
                with_rights_of(caller, || change(At::fd(object.as_fd())))
            }
            done => done,
        };
        match done {
            Err(Errno::PERM | Errno::ACCESS) => change(at),
            done => done,
        }
    }
}

/// Runs `f` with the rights of `caller` and no others, so that the file system
/// below clears set-id bits where it would for the caller's own call.
pub(super) fn with_rights_of<T>(caller: Caller, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match identity::may_chown() {
        true => identity::as_user(caller.uid, caller.gid, Privilege::Caller { pid: caller.pid }, f),
        false => f(),
    }
}

/// Takes set-id bits from the file `fd` as a change of its data by `caller` would: the kernel's
/// overlayfs does so before it tries, and may fail then (`fs/overlayfs/file.c: ovl_fallocate`).
fn drop_set_id(fd: &OwnedFd, owners: Owners, caller: Caller) -> Result<()> {
    if caller.uid == 0 && identity::is_initial_admin() {
        return Ok(());
    }
    take_set_id(fd, owners, caller)
}

/// Takes them from the file `fd` as it is done for a caller without `CAP_FSETID`.
pub(super) fn take_set_id(fd: &OwnedFd, owners: Owners, caller: Caller) -> Result<()> {
    let at = At::fd(fd.as_fd());
    let Stat { mode, gid, .. } = owners.stat(at)?;
    let in_group =
        || caller.gid == gid || identity::groups_of(caller.pid).contains(&Gid::from_raw(gid));
    let kept = match mode & libc::S_IXGRP == 0 && in_group() {
        true => mode & libc::S_ISGID,
        false => 0,
    };
    if mode & SET_ID == kept {
        return Ok(());
    }
    owners.chmod(at, mode & 0o1777 | kept)
}

/// Whether the open file `fd` has set-id bits.
pub(super) fn has_set_id(fd: &OwnedFd) -> Result<bool> {
    Ok(rustix::fs::fstat(fd)?.st_mode & SET_ID != 0)
}
