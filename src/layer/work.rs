//! The work directory: `work/work`, where objects are built before a rename or
//! link gives them their place, so that nobody ever sees a half-made one.
//!
//! Nothing of value outlives a request here: the directory is emptied at every
//! mount. The one inode that all whiteouts share stays in it as `#N`, as the
//! kernel's does.

use crate::format::acl;
use crate::sys::{self, At, Errno, Kind, Result, identity, xattr};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::process::geteuid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the file system of upper can do, found out at mount.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// `O_TMPFILE`, and linking such a file.
    pub tmpfile: bool,
}

/// The open work directory.
#[derive(Debug)]
pub struct Work {
    dir: OwnedFd,
    /// What upper can do.
    pub abilities: Abilities,
    next: AtomicU64,
    /// The name of the whiteout that others are linked to; short lock, held
    /// over the one link(2) so that two threads do not make two.
    whiteout: Mutex<Shared>,
}

/// The whiteout that others are links to.
#[derive(Debug)]
enum Shared {
    /// There is none yet.
    Missing,
    /// Its name in the work directory.
    Named(Vec<u8>),
    /// Linking failed: from then on each whiteout is an inode of its own.
    Given,
}

/// An object in the work directory that is removed unless it got its place.
#[derive(Debug)]
pub struct Temp<'a> {
    work: &'a Work,
    name: Vec<u8>,
    keep: bool,
}

impl<'a> Temp<'a> {
    /// Where it is.
    pub fn at(&self) -> At<'_> {
        At::new(self.work.dir.as_fd(), &self.name)
    }

    /// Moves it to `to`, which must not exist.
    ///
    /// # Errors
    /// `EEXIST`, and the others of renameat2(2); it is then removed.
    pub fn place(mut self, to: At<'_>) -> Result<()> {
        self.work.rename(self.at(), to, RenameFlags::NOREPLACE)?;
        self.keep = true;
        Ok(())
    }

    /// Moves it to `to` in place of what is there (not a directory, unless both are).
    ///
    /// # Errors
    /// Those of renameat2(2); it is then removed.
    pub fn replace(mut self, to: At<'_>) -> Result<()> {
        self.work.rename(self.at(), to, RenameFlags::empty())?;
        self.keep = true;
        Ok(())
    }

    /// Swaps it with what is at `to`, and removes that with all it holds.
    ///
    /// # Errors
    /// Those of renameat2(2); it is then removed.
    pub fn exchange(self, to: At<'_>) -> Result<()> {
        self.work.rename(self.at(), to, RenameFlags::EXCHANGE)
    }

    /// Moves what is at `from` here, to be removed with all it holds.
    ///
    /// # Errors
    /// Those of renameat2(2).
    pub fn take(self, from: At<'_>) -> Result<()> {
        self.work.rename(from, self.at(), RenameFlags::NOREPLACE)
    }

    /// Leaves it where it is.
    fn keep(mut self) -> Vec<u8> {
        self.keep = true;
        std::mem::take(&mut self.name)
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.keep {
            let removed = remove_tree(self.work.dir.as_fd(), &self.name);
            report_leftover(removed, &self.name);
        }
    }
}

/// Work that is left behind costs space until the next mount, nothing else.
fn report_leftover(removed: Result<()>, name: &[u8]) {
    match removed {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => log::warn!("{} is left in the work directory: {e}", name.escape_ascii()),
    }
}

impl Work {
    /// Uses the open, empty directory `dir`.
    pub fn new(dir: OwnedFd, abilities: Abilities) -> Self {
        Self { dir, abilities, next: AtomicU64::new(1), whiteout: Mutex::new(Shared::Missing) }
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A name for a new object; what is made there is removed when the guard goes.
    pub fn temp(&self) -> Temp<'_> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Temp { work: self, name: format!("#{n:x}").into_bytes(), keep: false }
    }

    /// A new unnamed file, for reading and writing.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn unnamed_file(&self) -> Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, c".", flags, Mode::from_raw_mode(0o600))
    }

    /// Makes a whiteout at `at`, which must not exist: a link to the one that all share, or a new
    /// one when there is none or it has too many links. Where links fail for another reason, that
    /// one itself takes the place, and whiteouts are no longer shared
    /// (`fs/overlayfs/dir.c: ovl_whiteout`).
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC` and the others of link(2), mknod(2) and renameat2(2).
    pub fn whiteout(&self, at: At<'_>) -> Result<()> {
        let mut shared = self.whiteout.lock();
        if let Shared::Named(name) = &*shared {
            match self.link(name, at) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(Errno::EXIST),
                Err(Errno::MLINK | Errno::NOENT) => {}
                Err(_) => {
                    self.rename(At::new(self.dir(), name), at, RenameFlags::NOREPLACE)?;
                    *shared = Shared::Given;
                    return Ok(());
                }
            }
        }
        let first = self.temp();
        sys::node::make_node(first.at(), libc::S_IFCHR, 0)?;
        if matches!(*shared, Shared::Given) {
            return first.place(at);
        }
        match self.link(&first.name, at) {
            Ok(()) => *shared = Shared::Named(first.keep()),
            Err(Errno::EXIST) => return Err(Errno::EXIST),
            Err(_) => {
                first.place(at)?;
                *shared = Shared::Given;
            }
        }
        Ok(())
    }

    /// Links what is here as `name` to `to`.
    fn link(&self, name: &[u8], to: At<'_>) -> Result<()> {
        rustix::fs::linkat(&self.dir, name, to.dir, to.name, AtFlags::empty())
    }

    /// Puts a whiteout in the place of what is at `at`, at once; a directory
    /// there goes with all it holds.
    ///
    /// # Errors
    /// Those of [`Self::whiteout`] and renameat2(2); nothing has then changed.
    pub fn replace_by_whiteout(&self, at: At<'_>, kind: Kind) -> Result<()> {
        let temp = self.temp();
        self.whiteout(temp.at())?;
        match kind {
            Kind::Dir => temp.exchange(at),
            _ => temp.replace(at),
        }
    }

    fn rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags) -> Result<()> {
        rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags)
    }
}

/// Makes the directory `name` in the work directory `parent`, for nobody but us, and opens it.
///
/// # Errors
/// `EEXIST`, and the others of mkdirat(2) and openat2(2).
pub fn make_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    close_to_others(parent, name)
}

/// [`make_dir`], but one that is there is emptied, and used again if it is ours: a full disk may
/// have no room for another.
///
/// # Errors
/// As [`make_dir`] and [`remove_tree`].
pub fn make_empty_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    match sys::stat::stat(At::new(parent, name)) {
        Ok(stat) if stat.kind() == Kind::Dir && stat.uid == geteuid().as_raw() => {
            empty(sys::node::open_dir_path(parent, name)?.as_fd())?;
            return close_to_others(parent, name);
        }
        Ok(_) => remove_tree(parent, name)?,
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    make_dir(parent, name)
}

/// Takes all rights to the directory `name` in `parent` from others, and opens it.
fn close_to_others(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    // What is built there must not inherit anything (`ovl_workdir_create`).
    for acl in [acl::DEFAULT, acl::ACCESS] {
        match xattr::remove(At::new(parent, name), acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    // The kernel's has mode 0; without privileges we could not use that.
    let mode = if identity::may_chown() { 0 } else { 0o700 };
    sys::node::chmod(At::new(parent, name), mode)?;
    sys::node::open_dir_path(parent, name)
}

/// Checks that the upper directory `dir`, which is about to be removed with all
/// it holds, holds nothing of value. The merged view has said so already; this
/// is what stands between a defect there and lost data.
///
/// # Errors
/// `ENOTEMPTY`, and those of reading the directory.
pub fn check_only_whiteouts(dir: BorrowedFd<'_>) -> Result<()> {
    sys::list::for_each(dir, |entry| {
        let at = At::new(dir, entry.name);
        match entry.dtype {
            libc::DT_CHR | libc::DT_UNKNOWN if sys::stat::stat(at)?.is_char_zero() => Ok(()),
            _ => Err(Errno::NOTEMPTY),
        }
    })
}

/// Removes `name` in `dir` with all it holds.
///
/// Subdirectories are first moved to its top, so that a tree of any depth takes no more
/// descriptors than a flat one.
///
/// # Errors
/// Those of unlinkat(2), renameat2(2) and getdents64(2); what could be removed is gone.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    empty(sys::node::open_dir_path(dir, name)?.as_fd())?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes all that the directory `top` holds.
fn empty(top: BorrowedFd<'_>) -> Result<()> {
    let mut subdirs = remove_files(top)?;
    let (mut moved, mut done) = (0..=u64::MAX, Ok(()));
    while let Some(subdir) = subdirs.pop() {
        done = done.and(remove_subdir(top, &subdir, &mut moved, &mut subdirs));
    }
    done
}

/// Removes the directory `name` in `top`, after its `subdirs` were moved there, as `numbers` say.
fn remove_subdir(
    top: BorrowedFd<'_>,
    name: &[u8],
    numbers: &mut impl Iterator<Item = u64>,
    subdirs: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let dir = sys::node::open_dir_path(top, name)?;
    for subdir in remove_files(dir.as_fd())? {
        let from = At::new(dir.as_fd(), &subdir);
        subdirs.push(match move_up(from, top, numbers) {
            // Without privileges a directory must be writable to be moved.
            Err(Errno::ACCESS) => {
                sys::node::chmod(from, 0o700)?;
                move_up(from, top, numbers)?
            }
            done => done?,
        });
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)
}

/// Moves `from` to `top`, under the first of `numbers` that is no name there; its name.
fn move_up(
    from: At<'_>,
    top: BorrowedFd<'_>,
    numbers: &mut impl Iterator<Item = u64>,
) -> Result<Vec<u8>> {
    for number in numbers {
        let name = format!("{number:x}").into_bytes();
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from.dir, from.name, top, name.as_slice(), flags) {
            Err(Errno::EXIST) => {}
            done => return done.map(|()| name),
        }
    }
    Err(Errno::EXIST)
}

/// Removes all files from `dir`; its subdirectories.
fn remove_files(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut subdirs = Vec::new();
    let mut remove = || {
        sys::list::for_each(dir, |entry| {
            match rustix::fs::unlinkat(dir, entry.name, AtFlags::empty()) {
                Err(Errno::ISDIR) => subdirs.push(entry.name.to_vec()),
                Err(Errno::NOENT) => {}
                done => return done,
            }
            Ok(())
        })
    };
    match remove() {
        // Without privileges a directory without permissions must be opened up first.
        Err(Errno::ACCESS) => {
            sys::node::chmod(At::fd(dir), 0o700)?;
            remove()?;
        }
        done => done?,
    }
    Ok(subdirs)
}
