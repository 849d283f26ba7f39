//! What the view shows otherwise than the layers have it: owners, link counts,
//! and how long the kernel may believe it. Every reply with attributes and
//! every id in a request passes here.

use crate::config::ViewOptions;
use crate::fs::Caller;
use crate::sys::{Errno, Kind, Result, Stat};
use fuser::Request;

/// `struct posix_acl_xattr_header`, and its entries: tag, permissions, id.
const ACL_HEADER: usize = 4;
const ACL_ENTRY: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

impl ViewOptions {
    /// `stat` as it is shown.
    pub(super) fn show(&self, stat: &Stat) -> Stat {
        let mut shown = *stat;
        shown.uid = self.uids.shown(stat.uid);
        shown.gid = self.gids.shown(stat.gid);
        if self.static_nlink && stat.kind() == Kind::Dir {
            shown.nlink = 1;
        }
        shown
    }

    /// Who sent `req`, with ids as on disk.
    pub(super) fn caller(&self, req: &Request) -> Caller {
        let (uid, gid) = (self.uids.stored_by(req.uid()), self.gids.stored_by(req.gid()));
        Caller { uid, gid, pid: req.pid() }
    }

    /// New owners, with ids as on disk.
    ///
    /// # Errors
    /// `EINVAL` where an id has no place on disk.
    pub(super) fn owners(
        &self,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(Option<u32>, Option<u32>)> {
        let stored = |id: Option<u32>, map: &crate::config::ids::IdMap| {
            id.map(|id| map.stored(id).ok_or(Errno::INVAL)).transpose()
        };
        Ok((stored(uid, &self.uids)?, stored(gid, &self.gids)?))
    }

    /// The value of attribute `name` as it is shown.
    pub(super) fn show_xattr(&self, name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
        for (group, id) in self.acl_ids(name, &mut value) {
            let map = if group { &self.gids } else { &self.uids };
            *id = map.shown(u32::from_le_bytes(*id)).to_le_bytes();
        }
        value
    }

    /// The value of attribute `name` as it is stored.
    ///
    /// # Errors
    /// `EINVAL` where an ACL names an id that has no place on disk.
    pub(super) fn stored_xattr(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let mut value = value.to_vec();
        for (group, id) in self.acl_ids(name, &mut value) {
            let map = if group { &self.gids } else { &self.uids };
            let stored = map.stored(u32::from_le_bytes(*id)).ok_or(Errno::INVAL)?;
            *id = stored.to_le_bytes();
        }
        Ok(value)
    }

    /// The ids in the ACL `value`, and whether each is a group's; none in other
    /// attributes and where nothing is mapped.
    fn acl_ids<'a>(
        &self,
        name: &[u8],
        value: &'a mut [u8],
    ) -> impl Iterator<Item = (bool, &'a mut [u8; 4])> {
        let mapped = !self.uids.ranges.is_empty() || !self.gids.ranges.is_empty();
        let is_acl = mapped && name.starts_with(b"system.posix_acl_");
        let entries = if is_acl { value.get_mut(ACL_HEADER..) } else { None };
        entries.unwrap_or_default().chunks_exact_mut(ACL_ENTRY).filter_map(|entry| {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let id = entry.last_chunk_mut::<4>()?;
            matches!(tag, ACL_USER | ACL_GROUP).then_some((tag == ACL_GROUP, id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::{IdMap, ranges};

    #[test]
    fn acls_are_translated_and_come_back() {
        let map = |list| IdMap { ranges: ranges(list).unwrap_or_default(), squash: None };
        let view =
            ViewOptions { uids: map("0:100:10"), gids: map("0:200:10"), ..Default::default() };
        let acl = |user: u8, group: u8| {
            let mut acl = vec![2, 0, 0, 0];
            acl.extend([1, 0, 7, 0, 255, 255, 255, 255]);
            acl.extend([2, 0, 7, 0, user, 0, 0, 0]);
            acl.extend([8, 0, 7, 0, group, 0, 0, 0]);
            acl
        };
        let name = b"system.posix_acl_access";
        assert_eq!(view.show_xattr(name, acl(3, 4)), acl(103, 204));
        assert_eq!(view.stored_xattr(name, &acl(103, 204)), Ok(acl(3, 4)));
        assert_eq!(view.stored_xattr(name, &acl(3, 204)), Err(Errno::INVAL));
        assert_eq!(view.show_xattr(b"user.a", acl(3, 4)), acl(3, 4));
    }
}
