//! The extended attributes of one object, as a user of the mount sees them.

use std::ffi::CString;

use super::Result;
use super::stack::{Part, Stack};
use crate::format::Namespace;
use crate::sys::{self, At, xattr};

/// A name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The label of SELinux, which belongs to the machine and not to the layer.
pub const SELINUX: &[u8] = b"security.selinux";

/// The attributes of `part` in the order of their names; overlay's own are left out, and escaped
/// ones have their name.
pub fn xattrs(stack: &Stack, part: &Part) -> Result<Vec<Xattr>> {
    stack.at(part, |at| read(at, stack.style().namespace))
}

fn read(at: At<'_>, namespace: Namespace) -> sys::Result<Vec<Xattr>> {
    let mut found = Vec::new();
    for stored in xattr::list(at)?.split(|&byte| byte == 0) {
        let shown = namespace.unescape(stored).filter(|name| !name.is_empty() && name != SELINUX);
        let Some(shown) = shown else { continue };
        let name = CString::new(stored).map_err(|_| sys::Errno::INVAL)?;
        // It may be gone since it was listed.
        if let Some(value) = xattr::get(at, &name)? {
            found.push((shown, value));
        }
    }
    found.sort();
    Ok(found)
}
