//! POSIX access control lists as extended attributes carry them
//! (`struct posix_acl_xattr_header` of linux/posix_acl_xattr.h).
//!
//! Needed where an object is made in `work` and moved into a directory with a
//! default ACL: the file system below then cannot apply it.

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;
const TAG_USER_OBJ: u16 = 0x01;
const TAG_GROUP_OBJ: u16 = 0x04;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// What the names of both attributes begin with.
pub const PREFIX: &[u8] = b"system.posix_acl_";
/// The attribute of the access ACL.
pub const ACCESS: &std::ffi::CStr = c"system.posix_acl_access";
/// The attribute of a directory's default ACL.
pub const DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";

/// What a new object gets from the default ACL of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// Its permission bits, set-id and sticky bits as asked for.
    pub mode: u32,
    /// Its access ACL, unless the permission bits say everything.
    pub access: Option<Vec<u8>>,
}

/// Applies the default ACL `acl` to an object created with `mode`
/// (`fs/posix_acl.c: posix_acl_create_masq`); `None` when `acl` is damaged.
pub fn inherit(acl: &[u8], mode: u32) -> Option<Inherited> {
    let (header, entries) = acl.split_at_checked(4)?;
    if header != VERSION.to_le_bytes() || !entries.len().is_multiple_of(ENTRY_LEN) {
        return None;
    }
    let tag_of = |e: &[u8]| u16::from_le_bytes([e[0], e[1]]);
    let has_mask = entries.chunks_exact(ENTRY_LEN).any(|e| tag_of(e) == TAG_MASK);
    let extended = entries.len() / ENTRY_LEN > 3;
    let mut access = acl.to_vec();
    let mut bits = 0;
    for entry in access[4..].chunks_exact_mut(ENTRY_LEN) {
        let shift = match tag_of(entry) {
            TAG_USER_OBJ => 6,
            TAG_MASK => 3,
            TAG_GROUP_OBJ if !has_mask => 3,
            TAG_OTHER => 0,
            _ => continue,
        };
        let perm = u16::from_le_bytes([entry[2], entry[3]]) & (mode >> shift) as u16 & 7;
        entry[2..4].copy_from_slice(&perm.to_le_bytes());
        bits |= u32::from(perm) << shift;
    }
    Some(Inherited { mode: mode & !0o777 | bits, access: extended.then_some(access) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, perm) in entries {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&perm.to_le_bytes());
            out.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        out
    }

    #[test]
    fn minimal_acl_becomes_a_mode() {
        let default = acl(&[(TAG_USER_OBJ, 7), (TAG_GROUP_OBJ, 5), (TAG_OTHER, 0)]);
        let got = inherit(&default, 0o100_666).unwrap();
        assert_eq!(got, Inherited { mode: 0o100_640, access: None });
    }

    #[test]
    fn with_a_mask_the_group_bits_are_the_masks() {
        let (user, mask) = (0x02, TAG_MASK);
        let entries = [(TAG_USER_OBJ, 7), (user, 7), (TAG_GROUP_OBJ, 5), (mask, 7), (TAG_OTHER, 5)];
        let got = inherit(&acl(&entries), 0o2640).unwrap();
        assert_eq!(got.mode, 0o2640);
        let want = [(TAG_USER_OBJ, 6), (user, 7), (TAG_GROUP_OBJ, 5), (mask, 4), (TAG_OTHER, 0)];
        assert_eq!(got.access, Some(acl(&want)));
    }

    #[test]
    fn damaged_acls_are_refused() {
        assert_eq!(inherit(b"", 0o644), None);
        assert_eq!(inherit(&[2, 0, 0, 0, 1], 0o644), None);
        assert_eq!(inherit(&[9, 0, 0, 0], 0o644), None);
    }
}
