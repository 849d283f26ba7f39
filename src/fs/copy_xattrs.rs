//! Owner and extended attributes of a copy.

use crate::format::acl;
use crate::layer::Upper;
use crate::sys::{self, At, Errno, Result, Stat, xattr};
use std::ffi::CStr;

/// Copies owner and extended attributes; with stored owners the mode as well.
pub(super) fn copy_owner_and_xattrs(
    upper: &Upper,
    from: At<'_>,
    to: At<'_>,
    stat: &Stat,
) -> Result<()> {
    if upper.owners.are_stored() {
        copy_xattrs(upper, from, to)?;
        return upper.owners.store(to, stat);
    }
    let own = sys::stat::stat(to)?;
    if (own.uid, own.gid) != (stat.uid, stat.gid) {
        sys::node::chown(to, Some(stat.uid), Some(stat.gid))?;
    }
    copy_xattrs(upper, from, to)
}

/// Copies all extended attributes that are not overlay's own
/// (`fs/overlayfs/copy_up.c: ovl_copy_xattr`).
fn copy_xattrs(upper: &Upper, from: At<'_>, to: At<'_>) -> Result<()> {
    let names = xattr::list(from)?;
    for name in names.split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let bytes = name.to_bytes();
        // An ACL is part of the mode.
        let stored = upper.owners.is_own(bytes)
            || upper.owners.are_stored() && bytes.starts_with(acl::PREFIX);
        if upper.namespace.is_own(bytes) || is_set_by_policy(bytes) || stored {
            continue;
        }
        let Some(value) = xattr::get(from, name)? else { continue };
        match xattr::set(to, name, &value, 0) {
            Err(Errno::OPNOTSUPP) if !must_copy(name.to_bytes()) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Gives the copy `to` its mode, unless that is stored.
pub(super) fn copy_mode(upper: &Upper, to: At<'_>, mode: u32) -> Result<()> {
    match upper.owners.are_stored() {
        true => Ok(()),
        false => sys::node::chmod(to, mode),
    }
}

/// Labels that the security module gives a new file itself; it refuses their copy.
fn is_set_by_policy(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"security.SMACK64" | b"security.evm" | b"security.ima")
}

fn must_copy(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(acl::PREFIX)
}
