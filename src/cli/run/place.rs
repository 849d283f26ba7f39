//! The directory of one run: the mount point, and where changes are thrown away upper and work.
//!
//! Made, and removed again, inside the user namespace: only there may files be removed that belong
//! to the user's further ids.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, fs};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::super::{internal, say};
use super::RunRequest;
use crate::error::MountError;
use crate::layer::work::remove_tree;

/// The directory, removed when dropped.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    in_memory: bool,
}

impl Place {
    /// Makes the directory where the changes of `request` can be.
    ///
    /// # Errors
    /// It can be made nowhere.
    pub fn new(request: &RunRequest) -> Result<Self, MountError> {
        let disk_first = [env::var_os("TMPDIR"), Some("/var/tmp".into()), Some("/tmp".into())];
        let candidates = disk_first.into_iter().chain([env::var_os("XDG_RUNTIME_DIR")]).flatten();
        let made: Vec<Self> = candidates
            .map(PathBuf::from)
            .filter(|base| base.is_absolute())
            .filter_map(|base| Self::in_directory(&base).ok())
            .collect();
        let needs_upper = request.upper.is_none();
        let suits = |place: &Self| !needs_upper || place.can_be_upper(&request.config.lowers);
        let chosen = made.iter().position(suits);
        let mut made = made.into_iter();
        if let Some(chosen) = chosen.and_then(|index| made.nth(index)) {
            return Ok(chosen);
        }
        let Some(place) = made.next() else {
            let why = io::Error::other("no directory can be made in $TMPDIR, /var/tmp or /tmp");
            return Err(internal("the changes have no place", &why));
        };
        request.tell("no place on disk can hold the changes: they are kept in memory");
        place.use_memory().map_err(|error| internal("a tmpfs for the changes", &error))
    }

    fn in_directory(base: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ovlfuse-run-").tempdir_in(base)?;
        fs::create_dir(dir.path().join("root"))?;
        Ok(Self { dir: dir.keep(), in_memory: false })
    }

    /// Whether upper may lie here: with attributes, and not in a lower layer.
    fn can_be_upper(&self, lowers: &[PathBuf]) -> bool {
        let mark = rustix::fs::setxattr(&self.dir, "user.ovlfuse", b"y", XattrFlags::empty());
        let lies_in = |lower: &PathBuf| {
            let (Ok(outer), Ok(inner)) = (lower.canonicalize(), self.dir.canonicalize()) else {
                return false;
            };
            let dev = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
            inner.starts_with(&outer) && dev(&inner) == dev(&outer)
        };
        mark.is_ok() && !lowers.iter().any(lies_in)
    }

    /// Lays a tmpfs over the directory, seen in this mount namespace only.
    fn use_memory(mut self) -> io::Result<Self> {
        let flags = MountFlags::NODEV;
        mount("ovlfuse-run", &self.dir, "tmpfs", flags, Some(c"mode=0700"))?;
        self.in_memory = true;
        fs::create_dir(self.root())?;
        Ok(self)
    }

    /// The mount point.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The directory for changes that are thrown away.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    fn remove(&self) -> io::Result<()> {
        if self.in_memory {
            unmount(&self.dir, UnmountFlags::DETACH)?;
        }
        let (Some(parent), Some(name)) = (self.dir.parent(), self.dir.file_name()) else {
            return Ok(());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty())?;
        use std::os::fd::AsFd;
        use std::os::unix::ffi::OsStrExt;
        Ok(remove_tree(parent.as_fd(), name.as_bytes())?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            let shown = self.dir.display();
            say(format_args!("warning: {shown} is left behind: {error}"));
        }
    }
}

/// Makes the upper directory `dir` where it is missing, with the mode that the root of the topmost
/// lower layer has: upper's is the one that is seen.
pub fn make_upper(dir: &Path, lowers: &[PathBuf]) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    // A lower layer that cannot be looked at is reported by the mount.
    let lower = lowers.first().and_then(|lower| lower.metadata().ok());
    let mode = lower.map_or(0o755, |metadata| metadata.mode() & 0o7777);
    fs::set_permissions(dir, Permissions::from_mode(mode))
}
