//! A folder that appears whole or not at all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags};

use super::{Result, failed, refused};
use crate::format::acl;
use crate::layer::work::remove_tree;
use crate::sys::{At, Errno, xattr};

/// A new folder, under another name beside its place until it is [`Place::put`] there.
pub struct Place {
    parent: OwnedFd,
    /// What it is called now, until it got its place.
    temporary: Option<Vec<u8>>,
    target: PathBuf,
    name: Vec<u8>,
    root: OwnedFd,
}

impl Place {
    /// A folder with `mode` that is to become `target`, which must not exist.
    pub fn new(target: &Path, mode: u32) -> Result<Self> {
        let shown = target.display();
        let Some(name) = target.file_name() else {
            return Err(refused(format!("{shown} is no name for a new folder")));
        };
        if target.symlink_metadata().is_ok() {
            return Err(refused(format!("{shown} exists; name a folder that does not")));
        }
        let above = target.parent().filter(|path| !path.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent =
            rustix::fs::open(above, flags, Mode::empty()).map_err(|errno| failed(above, errno))?;
        let name = name.as_encoded_bytes().to_vec();
        let temporary = temporary_name();
        let made =
            rustix::fs::mkdirat(&parent, &temporary, Mode::from_raw_mode(mode)).and_then(|()| {
                rustix::fs::openat(&parent, &temporary, flags | OFlags::NOFOLLOW, Mode::empty())
            });
        let root = made.map_err(|errno| failed(target, errno))?;
        let place =
            Self { parent, temporary: Some(temporary), target: target.to_owned(), name, root };
        // What is made in it shall not get an ACL that the parent hands down.
        match xattr::remove(At::fd(place.root()), acl::DEFAULT) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(place),
            Err(errno) => Err(failed(target, errno)),
        }
    }

    /// The folder.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where it will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Syncs it and gives it its name.
    pub fn put(mut self) -> Result<()> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let renamed = rustix::fs::syncfs(&self.root).and_then(|()| {
            let (from, flags) = (temporary.as_slice(), RenameFlags::NOREPLACE);
            rustix::fs::renameat_with(&self.parent, from, &self.parent, self.name.as_slice(), flags)
        });
        renamed.and_then(|()| rustix::fs::fsync(&self.parent)).map_err(|errno| {
            self.temporary = Some(temporary);
            failed(&self.target, errno)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = self.temporary.take()
            && let Err(error) = remove_tree(self.parent.as_fd(), &name)
            && error != Errno::NOENT
        {
            log::warn!("{} cannot be removed: {error}", super::path_of(&name).display());
        }
    }
}

/// A name that nobody else has.
fn temporary_name() -> Vec<u8> {
    let mut random = [0u8; 8];
    // Without randomness the process id and the clock remain.
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        random = (now.map_or(0, |now| now.as_nanos() as u64) ^ u64::from(std::process::id()))
            .to_le_bytes();
    }
    format!(".ovlfuse-{:016x}", u64::from_le_bytes(random)).into_bytes()
}
