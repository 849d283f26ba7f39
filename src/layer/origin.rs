//! File handles of lower objects: made, and found again.

use super::open::FileSystem;
use crate::format::origin::Origin;
use crate::sys::{At, Errno, Result, Stat, handle, stat};
use std::os::fd::AsFd;

/// The origin that names the object at `at`, on a file system with this UUID.
///
/// # Errors
/// `EOPNOTSUPP` where there are no file handles, and the others of name_to_handle_at(2).
pub fn encode(at: At<'_>, uuid: [u8; 16]) -> Result<Origin> {
    let handle = handle::encode(at)?;
    let kind = u8::try_from(handle.kind).map_err(|_| Errno::OPNOTSUPP)?;
    Ok(Origin { uuid, kind, handle: handle.bytes })
}

/// The attributes of what `origin` names, with the index of its file system; `None` when there
/// is no such object any more (`fs/overlayfs/namei.c: ovl_check_origin_fh`).
///
/// # Errors
/// `EPERM` without `CAP_DAC_READ_SEARCH`, and the others of open_by_handle_at(2).
pub fn find(origin: Origin, among: &[Option<FileSystem>]) -> Result<Option<(u16, Stat)>> {
    let handle = handle::Handle { kind: origin.kind.into(), bytes: origin.handle };
    for (i, fs) in among.iter().enumerate() {
        let Some(fs) = fs.as_ref().filter(|fs| fs.uuid == origin.uuid) else { continue };
        match handle::open(fs.anchor.as_fd(), &handle) {
            Ok(fd) => return stat::stat(At::fd(fd.as_fd())).map(|stat| Some((i as u16, stat))),
            Err(Errno::STALE) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}
