//! Opening the layers of a mount: checks, the work directory, what upper can do.
//!
//! Everything that can be wrong with the layers is found here, before anything
//! is mounted, and told in one sentence.

use super::overlap::{self, Apart, Member};
use super::owners::Owners;
use super::work::{Abilities, Work, make_empty_dir, remove_tree};
use super::{Lower, Upper, facts, index, instance};
use crate::config::{Config, Fsync, MAX_LOWERS, Uuid};
use crate::error::{Failure, MountError};
use crate::format::{Namespace, OverlayName};
use crate::sys::{self, At, Errno, Stat, handle, identity, xattr};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, MountError>;

/// The open layers of a mount.
#[derive(Debug)]
pub struct Layers {
    /// The writable layer, if there is one.
    pub upper: Option<Upper>,
    /// The lower layers, topmost first.
    pub lowers: Vec<Lower>,
    /// The lower layers that hold nothing but data, topmost first.
    pub data: Vec<Lower>,
    /// The namespace of overlay's attributes.
    pub namespace: Namespace,
    /// The file systems the layers lie on; index 0 is upper's, `None` without one.
    pub file_systems: Vec<Option<FileSystem>>,
}

/// A file system that layers lie on.
#[derive(Debug)]
pub struct FileSystem {
    dev: (u32, u32),
    /// Its UUID, zeros when it has none.
    pub uuid: [u8; 16],
    /// A directory on it, open for reading, for handles to be opened by.
    pub anchor: OwnedFd,
}

/// A directory given on the command line, opened.
struct Opened<'a> {
    path: &'a Path,
    /// `O_RDONLY`, on the mount the user sees.
    fd: OwnedFd,
    stat: Stat,
}

/// Opens and checks the layers of `config`.
///
/// # Errors
/// A [`MountError`] that names the layer; nothing is changed then.
pub fn open(config: &Config) -> Result<Layers> {
    check_numbers(config)?;
    let namespace = match config.userxattr || !identity::is_initial_admin() {
        true => Namespace::User,
        false => Namespace::Trusted,
    };
    let lowers: Vec<_> = config
        .lowers
        .iter()
        .chain(&config.data_lowers)
        .map(|path| open_dir(path, "lower layer", Failure::Layer))
        .collect::<Result<_>>()?;
    let upper = match &config.upper {
        Some(upper) => Some(open_dir(&upper.dir, "upper layer", Failure::Layer)?),
        None => None,
    };
    let mut apart = Apart::default();
    if let Some(layer) = &upper {
        apart.add(member("upper layer", layer))?;
    }
    for layer in &lowers {
        apart.add(member("lower layer", layer))?;
    }
    let work_path = config.upper.as_ref().map(work_path).transpose()?;
    let (work, made) = match (&upper, &work_path, &config.upper) {
        (Some(upper), Some(path), Some(given)) => {
            let made = given.work.is_none() && make_work(path, upper)?;
            (Some(open_work(path, upper)?), made)
        }
        _ => (None, false),
    };
    let checked = work.iter().try_for_each(|work| apart.add(member("work directory", work)));
    let layers = checked.and_then(|()| open_checked(config, namespace, lowers, upper, work));
    if let (Err(_), true, Some(path)) = (&layers, made, &work_path) {
        remove_made(path);
    }
    layers
}

fn open_checked(
    config: &Config,
    namespace: Namespace,
    lowers: Vec<Opened<'_>>,
    upper: Option<Opened<'_>>,
    work: Option<Opened<'_>>,
) -> Result<Layers> {
    let mut file_systems = Vec::new();
    match &upper {
        Some(upper) => file_system_of(upper, &mut file_systems).map(|_| ())?,
        None => file_systems.push(None),
    }
    let mut lowers = lowers
        .into_iter()
        .map(|lower| finish_lower(lower, config, namespace, &mut file_systems))
        .collect::<Result<Vec<_>>>()?;
    let data = lowers.split_off(config.lowers.len());
    if config.uuid == Uuid::Off {
        forget_uuid(&mut file_systems);
    }
    let upper = match (upper, work) {
        (Some(upper), Some(work)) => {
            overlap::check_mountpoint(&config.mountpoint, &member("upper layer", &upper))?;
            Some(finish_upper((upper, work), namespace, config, (&lowers, &file_systems))?)
        }
        _ => None,
    };
    Ok(Layers { upper, lowers, data, namespace, file_systems })
}

fn check_numbers(config: &Config) -> Result<()> {
    let n = config.lowers.len() + config.data_lowers.len();
    if config.lowers.is_empty() {
        let what = "no lower layer was given; name at least one directory to read from";
        return Err(MountError::new(Failure::Layer, what));
    }
    if n > MAX_LOWERS {
        let what = format!("{n} lower layers were given, {MAX_LOWERS} is the most; merge some");
        return Err(MountError::new(Failure::Layer, what));
    }
    Ok(())
}

fn open_dir<'a>(path: &'a Path, role: &str, failure: Failure) -> Result<Opened<'a>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = path.display();
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
        let what = match e {
            Errno::NOENT => format!("{role} {shown} does not exist; create it or correct the path"),
            Errno::NOTDIR => format!("{role} {shown} is not a directory"),
            Errno::ACCESS => format!("{role} {shown} may not be read; change its permissions"),
            Errno::MFILE => format!(
                "{role} {shown} cannot be opened: a layer takes a descriptor, and the limit is reached; raise it (ulimit -n)"
            ),
            e => format!("cannot open {role} {shown}: {e}"),
        };
        MountError::new(failure, what)
    })?;
    let stat = sys::stat::stat(At::fd(fd.as_fd()))
        .map_err(|e| MountError::new(failure, format!("cannot examine {role} {shown}: {e}")))?;
    Ok(Opened { path, fd, stat })
}

/// The work directory that was asked for, or the default: a hidden sibling of upper.
fn work_path(upper: &crate::config::Upper) -> Result<PathBuf> {
    if let Some(work) = &upper.work {
        return Ok(work.clone());
    }
    let shown = upper.dir.display();
    let real = upper.dir.canonicalize().map_err(|e| {
        MountError::new(Failure::Layer, format!("cannot resolve upper layer {shown}: {e}"))
    })?;
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        let what = format!(
            "upper layer {shown} has no parent directory to hold a work directory; give one with --work"
        );
        return Err(MountError::new(Failure::Work, what));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".ovlfuse-work");
    Ok(parent.join(hidden))
}

/// Makes the default work directory; whether it was missing.
fn make_work(path: &Path, upper: &Opened<'_>) -> Result<bool> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => {
            let (shown, upper) = (path.display(), upper.path.display());
            let what = format!(
                "cannot make the work directory {shown}: {e}; give one on the file system of {upper} with --work"
            );
            Err(MountError::new(Failure::Work, what))
        }
    }
}

/// Takes a work directory away that was made for a mount that failed.
fn remove_made(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let removed = rustix::fs::open(parent, flags, Mode::empty())
        .and_then(|dir| remove_tree(dir.as_fd(), name.as_bytes()));
    if let Err(e) = removed {
        log::warn!("the new work directory {} is left behind: {e}", path.display());
    }
}

fn open_work<'a>(path: &'a Path, upper: &Opened<'_>) -> Result<Opened<'a>> {
    let (shown, upper_shown) = (path.display(), upper.path.display());
    let work = open_dir(path, "work directory", Failure::Work)?;
    if work.stat.dev != upper.stat.dev || work.stat.mnt_id != upper.stat.mnt_id {
        let what = format!(
            "work directory {shown} is not on the same mount as upper layer {upper_shown}; choose one that is"
        );
        return Err(MountError::new(Failure::Work, what));
    }
    Ok(work)
}

/// The index of the file system of `dir`, which is added when it is new.
fn file_system_of(dir: &Opened<'_>, known: &mut Vec<Option<FileSystem>>) -> Result<u16> {
    let dev = dir.stat.dev;
    if let Some(i) = known.iter().position(|fs| fs.as_ref().is_some_and(|fs| fs.dev == dev)) {
        return Ok(i as u16);
    }
    let anchor = rustix::io::fcntl_dupfd_cloexec(&dir.fd, 3).map_err(|e| {
        MountError::new(Failure::Internal, format!("cannot duplicate a descriptor: {e}"))
    })?;
    let uuid = handle::file_system_uuid(anchor.as_fd());
    known.push(Some(FileSystem { dev, uuid, anchor }));
    Ok(known.len() as u16 - 1)
}

fn member<'a>(role: &'a str, dir: &'a Opened<'_>) -> Member<'a> {
    Member { role, path: dir.path, fd: dir.fd.as_fd(), stat: &dir.stat }
}

fn finish_lower(
    lower: Opened<'_>,
    config: &Config,
    namespace: Namespace,
    file_systems: &mut Vec<Option<FileSystem>>,
) -> Result<Lower> {
    let fs = file_system_of(&lower, file_systems)?;
    let root = match sys::mounts::private_read_only(lower.fd.as_fd()) {
        Ok(private) => private,
        Err(e) => {
            log::debug!("{}: no private mount ({e})", lower.path.display());
            overlap::check_mountpoint(&config.mountpoint, &member("lower layer", &lower))?;
            lower.fd
        }
    };
    let at = At::new(root.as_fd(), b".");
    let read = || {
        let opaque = facts::opaque_value(at, namespace)?;
        Ok((opaque == Some(b'x'), Owners::of_lower(at, config.stored)?))
    };
    let (root_xwhiteouts, owners) = read().map_err(|e: Errno| {
        let what = format!("cannot read attributes of lower layer {}: {e}", lower.path.display());
        MountError::new(Failure::Layer, what)
    })?;
    Ok(Lower { root, fs, root_xwhiteouts, owners })
}

fn finish_upper(
    (upper, work): (Opened<'_>, Opened<'_>),
    namespace: Namespace,
    config: &Config,
    (lowers, file_systems): (&[Lower], &[Option<FileSystem>]),
) -> Result<Upper> {
    lock(&upper, "upper layer", Failure::Layer)?;
    lock(&work, "work directory", Failure::Work)?;
    let dir = prepare_work(&work, config.fsync)?;
    let abilities = probe(&upper, dir.as_fd(), namespace)?;
    let owners =
        Owners::of_upper(At::new(upper.fd.as_fd(), b"."), config.stored).map_err(|e| {
            let what = format!(
                "cannot store owners in attributes of upper layer {} ({e}); leave the option 'xattr_permissions' out, or try its other value",
                upper.path.display()
            );
            MountError::new(Failure::Upper, what)
        })?;
    let owner = index::Owner {
        work: (work.fd.as_fd(), work.path),
        upper: (upper.fd.as_fd(), upper.path),
        lowers,
        file_systems,
        namespace,
    };
    let index = if config.index { index::open(&owner)? } else { None };
    let has_index = index.is_some();
    let work_dir = Work::new(index.unwrap_or(dir), abilities);
    let finished =
        Upper { root: upper.fd, work: work_dir, namespace, has_index, owners, work_lock: work.fd };
    if let Err(e) = instance::identify(&finished, config.uuid) {
        log::warn!("upper layer {} gets no identifier: {e}", upper.path.display());
    }
    Ok(finished)
}

/// `uuid=off`: origins are those of the only file system there is.
fn forget_uuid(file_systems: &mut [Option<FileSystem>]) {
    match file_systems {
        [Some(only)] => only.uuid = [0; 16],
        _ => log::warn!("uuid=off needs all layers on one file system; going on as with uuid=null"),
    }
}

/// Takes an exclusive lock that lasts as long as the descriptor.
fn lock(dir: &Opened<'_>, role: &str, failure: Failure) -> Result<()> {
    let shown = dir.path.display();
    match rustix::fs::flock(&dir.fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN) => {
            let what = format!("{role} {shown} is in use by another mount; unmount that first");
            Err(MountError::new(failure, what))
        }
        // A file system without locks cannot tell.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => Ok(()),
        Err(e) => Err(MountError::new(failure, format!("cannot lock {role} {shown}: {e}"))),
    }
}

/// Empties and opens `work/work`, or makes it.
fn prepare_work(work: &Opened<'_>, fsync: Fsync) -> Result<OwnedFd> {
    let shown = work.path.display();
    let fail =
        |e| MountError::new(Failure::Work, format!("cannot prepare work directory {shown}: {e}"));
    refuse_incompatible(work)?;
    let dir = make_empty_dir(work.fd.as_fd(), b"work").map_err(fail)?;
    if fsync == Fsync::Volatile {
        let path = ["work/incompat", "work/incompat/volatile", "work/incompat/volatile/dirty"];
        for dir in path {
            rustix::fs::mkdirat(&work.fd, dir, Mode::from_raw_mode(0o700)).map_err(fail)?;
        }
    }
    Ok(dir)
}

/// Refuses a work directory that holds marks of features unknown here, or of a
/// volatile mount whose upper may have lost data (`fs/overlayfs/super.c`).
fn refuse_incompatible(work: &Opened<'_>) -> Result<()> {
    let shown = work.path.join("work/incompat");
    let shown = shown.display();
    let open = || sys::node::open_dir_path(work.fd.as_fd(), b"work/incompat");
    let dir = match open() {
        // The kernel leaves `work/work` without permissions, which stops an ordinary user.
        Err(Errno::ACCESS) => {
            sys::node::chmod(At::new(work.fd.as_fd(), b"work"), 0o700).and_then(|()| open())
        }
        opened => opened,
    };
    let dir = match dir {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(MountError::new(Failure::Work, format!("cannot open {shown}: {e}"))),
    };
    let mut found = None;
    let listed = sys::list::for_each(dir.as_fd(), |entry| {
        found = Some(entry.name.to_vec());
        Ok(())
    });
    if let Err(e) = listed {
        return Err(MountError::new(Failure::Work, format!("cannot read {shown}: {e}")));
    }
    let Some(name) = found else { return Ok(()) };
    let what = match name.as_slice() {
        b"volatile" => format!(
            "the upper layer was last mounted volatile and may have lost data; check it and remove {shown}/volatile to use it all the same"
        ),
        name => format!("{shown}/{} marks a feature that is not supported", name.escape_ascii()),
    };
    Err(MountError::new(Failure::Work, what))
}

/// Finds out what the file system of upper can do, by doing it in the work directory. One that is
/// full is taken to be able to.
fn probe(upper: &Opened<'_>, work: BorrowedFd<'_>, namespace: Namespace) -> Result<Abilities> {
    let shown = upper.path.display();
    let refuse = |cannot: &str, lost: &str, e: Errno| {
        let what = format!(
            "the file system of upper layer {shown} {cannot} ({e}): {lost} would not work; use an upper on ext4, xfs, btrfs or a recent tmpfs"
        );
        MountError::new(Failure::Upper, what)
    };
    let whiteout = || {
        sys::node::make_node(At::new(work, b"#probe"), libc::S_IFCHR, 0)?;
        rustix::fs::unlinkat(work, c"#probe", AtFlags::empty())
    };
    unless_full(whiteout()).map_err(|e| {
        refuse(
            "cannot hold whiteouts (character device 0:0)",
            "removing and renaming files of lower layers",
            e,
        )
    })?;
    let mark = || {
        let (at, opaque) = (At::new(work, b"."), OverlayName::Opaque.full(namespace));
        xattr::set(at, opaque, b"y", 0)?;
        xattr::remove(at, opaque)
    };
    unless_full(mark()).map_err(|e| {
        refuse("cannot hold extended attributes", "opaque directories and copied-up attributes", e)
    })?;
    Ok(Abilities { tmpfile: unless_full(try_tmpfile(work)).is_ok() })
}

/// Whether something works, or would if there were room.
fn unless_full(tried: sys::Result<()>) -> sys::Result<()> {
    match tried {
        Err(Errno::NOSPC | Errno::DQUOT) => Ok(()),
        done => done,
    }
}

fn try_tmpfile(work: BorrowedFd<'_>) -> sys::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(work, c".", flags, Mode::from_raw_mode(0o600))
        .and_then(|fd| sys::node::link_fd(fd.as_fd(), At::new(work, b"#tmpfile")))
        .and_then(|()| rustix::fs::unlinkat(work, c"#tmpfile", AtFlags::empty()))
}
