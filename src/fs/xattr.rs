//! Extended attributes, with overlay's own hidden and everybody else's escaped.

use super::node::Node;
use super::{Caller, Fs};
use crate::format::{Namespace, acl};
use crate::sys::{At, Errno, Result, xattr};
use crate::union::LayerId;
use std::ffi::CString;

/// The most bytes of an attribute's name (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

impl Fs {
    /// The value of attribute `name` of node `id`.
    ///
    /// # Errors
    /// `ENODATA`, and the others of getxattr(2).
    pub fn getxattr(&self, id: u64, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.nodes.get(id)?;
        let name = self.stored(name)?;
        if self.is_hidden(&node, name.to_bytes()) {
            return Err(Errno::NODATA);
        }
        self.on(&node, |at, _| {
            let mut small = [0u8; 256];
            match xattr::get_into(at, &name, &mut small) {
                Ok(len) => Ok(small[..len].to_vec()),
                Err(Errno::RANGE) => xattr::get(at, &name)?.ok_or(Errno::NODATA),
                // The kernel would make it the result of every permission check.
                Err(Errno::OPNOTSUPP) if is_acl(name.to_bytes()) => Err(Errno::NODATA),
                Err(e) => Err(e),
            }
        })
    }

    /// The names of the attributes of node `id`, each ended by a NUL byte, for root or another caller;
    /// and the length of the list with overlay's own, for which the kernel wants room
    /// (`fs/overlayfs/xattrs.c: ovl_listxattr`).
    ///
    /// # Errors
    /// Those of listxattr(2).
    pub fn listxattr(&self, id: u64, by_root: bool) -> Result<(Vec<u8>, usize)> {
        let node = self.nodes.get(id)?;
        let stored = self.on(&node, |at, _| xattr::list(at))?;
        let mut shown = Vec::with_capacity(stored.len());
        for name in stored.split(|&b| b == 0).filter(|n| !n.is_empty()) {
            // `trusted.` is listed for CAP_SYS_ADMIN only; requests carry no more than the uid.
            if name.starts_with(b"trusted.") && !by_root || self.is_hidden(&node, name) {
                continue;
            }
            if let Some(name) = self.layers.namespace.unescape(name) {
                shown.extend_from_slice(&name);
                shown.push(0);
            }
        }
        Ok((shown, stored.len()))
    }

    /// Sets attribute `name` of node `id`; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, those of setxattr(2) and of copy-up.
    pub fn setxattr(
        &self,
        id: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
        caller: Caller,
    ) -> Result<()> {
        let node = self.nodes.get(id)?;
        self.check_unprotected(&node)?;
        let stored = self.stored(name)?;
        self.check_settable(&node, name)?;
        self.copy_up_metadata(&node)?;
        self.on_at_rest(&node, |at, _| {
            let set = |at: At<'_>| xattr::set(at, &stored, value, flags);
            if is_acl(name) { self.as_caller_if_allowed(caller, at, set) } else { set(at) }
        })
    }

    /// Removes attribute `name` of node `id`.
    ///
    /// # Errors
    /// `ENODATA` (without copy-up), those of removexattr(2) and of copy-up.
    pub fn removexattr(&self, id: u64, name: &[u8], caller: Caller) -> Result<()> {
        self.upper()?;
        let node = self.nodes.get(id)?;
        self.check_unprotected(&node)?;
        let stored = self.stored(name)?;
        self.check_settable(&node, name)?;
        if !node.in_upper() {
            self.on(&node, |at, _| xattr::get_into(at, &stored, &mut []).map(|_| ()))?;
        }
        self.copy_up_metadata(&node)?;
        self.on_at_rest(&node, |at, _| {
            let remove = |at: At<'_>| xattr::remove(at, &stored);
            if is_acl(name) { self.as_caller_if_allowed(caller, at, remove) } else { remove(at) }
        })
    }

    /// Whether the attribute `name` says who owns `node`, which is shown elsewhere.
    fn is_hidden(&self, node: &Node, name: &[u8]) -> bool {
        [LayerId::UPPER, node.layer()].iter().any(|&layer| self.owners(layer).is_own(name))
    }

    /// Checks that nobody gives a file another owner or mode by attributes, where those are stored.
    fn check_settable(&self, node: &Node, name: &[u8]) -> Result<()> {
        if self.is_hidden(node, name) {
            return Err(Errno::PERM);
        }
        match self.owners(LayerId::UPPER).are_stored() && is_acl(name) {
            true => Err(Errno::OPNOTSUPP),
            false => Ok(()),
        }
    }

    /// How the name that a user of the mount gives is stored; `EOPNOTSUPP` for one that is too
    /// long then (`fs/overlayfs/xattrs.c: ovl_xattr_escape_name`).
    fn stored(&self, name: &[u8]) -> Result<CString> {
        let namespace: Namespace = self.layers.namespace;
        if name == namespace.prefix() {
            return Err(Errno::INVAL);
        }
        let stored = namespace.escape(name);
        if stored.len() > NAME_MAX && stored.len() > name.len() {
            return Err(Errno::OPNOTSUPP);
        }
        CString::new(stored).map_err(|_| Errno::INVAL)
    }
}

fn is_acl(name: &[u8]) -> bool {
    name.starts_with(acl::PREFIX)
}
