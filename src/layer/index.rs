//! `work/index`, opened and checked at mount (`fs/overlayfs/super.c: ovl_get_indexdir`).
//!
//! It holds a link of every lower hard link that was copied up, named after the
//! lower file's handle, and takes the place of `work/work`. It belongs to one
//! upper over one lower layer.

use super::open::FileSystem;
use super::work::{make_dir, remove_tree};
use super::{Lower, origin};
use crate::error::{Failure, MountError};
use crate::format::index::{Nlink, origin_in};
use crate::format::origin::Origin;
use crate::format::{Namespace, OverlayName};
use crate::sys::{self, At, Errno, Kind, Result, identity, xattr};
use rustix::fs::AtFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What an index belongs to.
pub struct Owner<'a> {
    /// The work directory that was given, and its path.
    pub work: (BorrowedFd<'a>, &'a Path),
    /// The root of upper, and its path.
    pub upper: (BorrowedFd<'a>, &'a Path),
    /// The lower layers, topmost first.
    pub lowers: &'a [Lower],
    /// The file systems of all layers.
    pub file_systems: &'a [Option<FileSystem>],
    /// The namespace of overlay's attributes.
    pub namespace: Namespace,
}

/// Opens the index of `owner`, without what a crash left in it; makes it when it is missing.
/// `None` where files have no handles to name its entries after, as in the kernel.
///
/// # Errors
/// It belongs to other layers, or holds what is no entry.
pub fn open(owner: &Owner<'_>) -> std::result::Result<Option<OwnedFd>, MountError> {
    if !identity::may_chown() {
        let what = "option 'index=on' needs root, or a user namespace: an ordinary user cannot \
                    keep link counts on files without permissions";
        return Err(MountError::new(Failure::Usage, what));
    }
    let (upper, work) = (owner.upper.1.display(), owner.work.1.display());
    let handles = owner.handles().map_err(|e| {
        let what = format!("cannot make a file handle of the layers of {upper}: {e}");
        MountError::new(Failure::Layer, what)
    })?;
    let Some((lower, of_upper)) = handles else {
        log::warn!(
            "the layers of {upper} have no file handles of their own; going on with index=off"
        );
        return Ok(None);
    };
    let fail = |e| {
        let what = format!("cannot prepare {work}/index: {e}; repair it, or mount with index=off");
        MountError::new(Failure::Work, what)
    };
    if !owner.belongs(owner.upper.0, OverlayName::Origin, &lower).map_err(fail)? {
        let what = format!(
            "upper layer {upper} was used over another topmost lower layer; mount it over that one, or with index=off"
        );
        return Err(MountError::new(Failure::Layer, what));
    }
    let dir = match make_dir(owner.work.0, b"index") {
        Err(Errno::EXIST) => sys::node::open_dir_path(owner.work.0, b"index"),
        made => made,
    };
    let dir = dir.map_err(fail)?;
    if !owner.belongs(dir.as_fd(), OverlayName::Upper, &of_upper).map_err(fail)? {
        let what = format!(
            "{work}/index belongs to another upper layer than {upper}; give a work directory of its own"
        );
        return Err(MountError::new(Failure::Work, what));
    }
    owner.clean(dir.as_fd())?;
    Ok(Some(dir))
}

/// What an entry is good for.
enum Verdict {
    Good,
    /// Nothing leads to it any more.
    Useless,
    /// It is no entry that overlayfs makes.
    Foreign,
}

impl Owner<'_> {
    /// The handles of the topmost lower root and of upper's root, as attributes keep them;
    /// `None` where handles do not tell files apart (`fs/overlayfs/super.c: ovl_get_fsid`).
    fn handles(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let uuid = |fs: u16| self.file_systems.get(usize::from(fs))?.as_ref().map(|fs| fs.uuid);
        let mut used: Vec<u16> = self.lowers.iter().map(|lower| lower.fs).collect();
        used.sort_unstable();
        used.dedup();
        let mut uuids: Vec<_> = used.iter().map(|&fs| uuid(fs)).collect();
        uuids.sort_unstable();
        uuids.dedup();
        if uuids.len() < used.len() {
            return Ok(None);
        }
        let encode = |root, fs| match origin::encode(At::fd(root), uuid(fs).unwrap_or_default()) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::OVERFLOW) => Ok(None),
            done => done.map(Some),
        };
        let mut top = None;
        for lower in self.lowers.iter().rev() {
            let Some(handle) = encode(lower.root(), lower.fs)? else { return Ok(None) };
            top = handle.encode();
        }
        let upper = encode(self.upper.0, 0)?.and_then(|handle| handle.encode_upper());
        Ok(top.zip(upper))
    }

    /// Whether the directory `dir` belongs to what has the handle `handle`, which it says from
    /// now on if it said nothing (`fs/overlayfs/namei.c: ovl_verify_origin_xattr`).
    fn belongs(&self, dir: BorrowedFd<'_>, name: OverlayName, handle: &[u8]) -> Result<bool> {
        let name = name.full(self.namespace);
        match xattr::get(At::fd(dir), name)? {
            Some(known) if !known.is_empty() => Ok(known == handle),
            _ => xattr::set(At::fd(dir), name, handle, 0).map(|()| true),
        }
    }

    /// Removes what was built and not finished, and entries that are of no use any more
    /// (`fs/overlayfs/readdir.c: ovl_indexdir_cleanup`).
    fn clean(&self, dir: BorrowedFd<'_>) -> std::result::Result<(), MountError> {
        let work = self.work.1.display();
        let mut names = Vec::new();
        let listed = sys::list::for_each(dir, |entry| {
            names.push(entry.name.to_vec());
            Ok(())
        });
        let fail = |shown: &dyn std::fmt::Display, what: &dyn std::fmt::Display| {
            let what = format!("{work}/index{shown}: {what}; remove it, or mount with index=off");
            MountError::new(Failure::Work, what)
        };
        listed.map_err(|e| fail(&"", &e))?;
        for name in &names {
            let shown = format!("/{}", name.escape_ascii());
            let removed = match name.starts_with(b"#") {
                true => remove_tree(dir, name),
                false => match self.judge(At::new(dir, name)).map_err(|e| fail(&shown, &e))? {
                    Verdict::Good => continue,
                    Verdict::Foreign => return Err(fail(&shown, &"no index entry")),
                    Verdict::Useless => {
                        log::warn!("{work}/index{shown} is of no use any more and removed");
                        rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::empty())
                    }
                },
            };
            removed.map_err(|e| fail(&shown, &e))?;
        }
        Ok(())
    }

    /// Examines one entry (`fs/overlayfs/namei.c: ovl_verify_index`), and counts its links from
    /// upper again where a crash left them counted from the lower file.
    fn judge(&self, at: At<'_>) -> Result<Verdict> {
        let value = origin_in(at.name);
        let Some((value, origin)) = value.and_then(|v| Origin::decode(&v).map(|o| (v, o))) else {
            return Ok(Verdict::Foreign);
        };
        let stat = sys::stat::stat(at)?;
        // Made for `nfs_export`.
        if stat.kind() == Kind::Dir || stat.is_char_zero() {
            return Ok(Verdict::Good);
        }
        match xattr::get(at, OverlayName::Origin.full(self.namespace))? {
            None => return Ok(Verdict::Foreign),
            Some(own) if own.is_empty() => return Ok(Verdict::Foreign),
            Some(own) if own != value => return Ok(Verdict::Useless),
            Some(_) => {}
        }
        let nlink_name = OverlayName::Nlink.full(self.namespace);
        let nlink = xattr::get(at, nlink_name)?.and_then(|v| Nlink::decode(&v));
        let relative = matches!(nlink, Some(Nlink::Lower(_)));
        // Without privileges handles cannot be opened.
        let ask = self.namespace == Namespace::Trusted && (stat.nlink == 1 || relative);
        let lower = if ask { origin::find(origin, self.file_systems)? } else { None };
        let links = match (nlink, lower) {
            (_, None) if ask => 0,
            (Some(Nlink::Upper(more)), _) => i64::from(stat.nlink) + more,
            (Some(Nlink::Lower(more)), Some((_, lower))) => i64::from(lower.nlink) + more,
            (Some(Nlink::Lower(_)), None) => return Ok(Verdict::Good),
            (None, _) => 0,
        };
        if stat.nlink == 1 && links <= 0 {
            return Ok(Verdict::Useless);
        }
        if relative && links > 0 {
            let again = Nlink::Upper(links - i64::from(stat.nlink));
            xattr::set(at, nlink_name, &again.encode(), 0)?;
        }
        Ok(Verdict::Good)
    }
}
