//! A directory tree under test: a layer, or the merged view.
//!
//! The methods are plain calls that panic with the path in the message. A test
//! that expects an error uses [`Tree::at`] with the call itself.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};

/// A directory and what one does in it.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

/// Names the call and the path of a failure.
trait Named<T> {
    fn named(self, call: &str, path: &Path) -> T;
}

impl<T, E: std::fmt::Display> Named<T> for Result<T, E> {
    #[track_caller]
    fn named(self, call: &str, path: &Path) -> T {
        self.unwrap_or_else(|error| panic!("{call} {}: {error}", path.display()))
    }
}

/// The place.
impl Tree {
    /// The tree at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its root directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The full path of `path` in it; the root for an empty path.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// The directory `path` as a tree of its own.
    pub fn sub(&self, path: impl AsRef<Path>) -> Self {
        Self::new(self.at(path))
    }
}

/// Building and changing.
impl Tree {
    /// Makes the directory `path` and the missing ones above it.
    #[track_caller]
    pub fn dir(&self, path: impl AsRef<Path>) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(&path).named("mkdir -p", &path);
        self
    }

    /// Makes the file `path` with `content`, and the missing directories above it.
    #[track_caller]
    pub fn file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        let full = self.at(&path);
        let parent = full.parent().expect("a path below the root");
        fs::create_dir_all(parent).named("mkdir -p", parent);
        fs::write(&full, content).named("write", &full);
        self
    }

    /// Opens `path` for writing, truncates it and writes `content`.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::write(&path, content).named("write", &path);
    }

    /// Appends `content` to `path`.
    #[track_caller]
    pub fn append(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let mut file = self.open(&path, OFlags::WRONLY | OFlags::APPEND);
        file.write_all(content.as_ref()).named("append to", &self.at(path));
    }

    /// Makes the one directory `path`.
    #[track_caller]
    pub fn mkdir(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        fs::create_dir(&path).named("mkdir", &path);
    }

    /// Removes the directory `path`.
    #[track_caller]
    pub fn rmdir(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        fs::remove_dir(&path).named("rmdir", &path);
    }

    /// Removes the name `path`.
    #[track_caller]
    pub fn unlink(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        fs::remove_file(&path).named("unlink", &path);
    }

    /// Removes `path` and everything below it.
    #[track_caller]
    pub fn remove_all(&self, path: impl AsRef<Path>) {
        let path = self.at(path);
        fs::remove_dir_all(&path).named("rm -r", &path);
    }

    /// Renames `from` to `to`, both in this tree.
    #[track_caller]
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        let from = self.at(from);
        fs::rename(&from, self.at(to)).named("rename", &from);
    }

    /// Gives the file `existing` the further name `new`.
    #[track_caller]
    pub fn link(&self, existing: impl AsRef<Path>, new: impl AsRef<Path>) -> &Self {
        let new = self.at(new);
        fs::hard_link(self.at(existing), &new).named("link", &new);
        self
    }

    /// Makes the symlink `path` to `target`.
    #[track_caller]
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> &Self {
        let path = self.at(path);
        symlink(target, &path).named("symlink", &path);
        self
    }

    /// Makes a node of type `kind` with `mode` and the device number `device`.
    #[track_caller]
    pub fn mknod(
        &self,
        path: impl AsRef<Path>,
        kind: FileType,
        mode: u32,
        device: (u32, u32),
    ) -> &Self {
        let path = self.at(path);
        let device = rustix::fs::makedev(device.0, device.1);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), device)
            .named("mknod", &path);
        self
    }

    /// Makes a named pipe with mode 0644.
    #[track_caller]
    pub fn fifo(&self, path: impl AsRef<Path>) -> &Self {
        self.mknod(path, FileType::Fifo, 0o644, (0, 0))
    }

    /// Makes a whiteout in a layer: a character device 0:0.
    #[track_caller]
    pub fn whiteout(&self, path: impl AsRef<Path>) -> &Self {
        self.mknod(path, FileType::CharacterDevice, 0, (0, 0))
    }

    /// Sets the mode of `path`.
    #[track_caller]
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) -> &Self {
        let path = self.at(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).named("chmod", &path);
        self
    }

    /// Sets owner and group of `path`, not following a symlink.
    #[track_caller]
    pub fn chown(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> &Self {
        let path = self.at(path);
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .named("chown", &path);
        self
    }

    /// Sets the modification time of `path` in seconds and nanoseconds, not following a symlink.
    #[track_caller]
    pub fn mtime(&self, path: impl AsRef<Path>, seconds: i64, nanoseconds: i64) -> &Self {
        let path = self.at(path);
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .named("utimensat", &path);
        self
    }

    /// Cuts or extends `path` to `size` bytes.
    #[track_caller]
    pub fn truncate(&self, path: impl AsRef<Path>, size: u64) {
        let path = self.at(path);
        let path_c = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path");
        super::sys::truncate(&path_c, size).named("truncate", &path);
    }

    /// Sets an extended attribute, not following a symlink.
    #[track_caller]
    pub fn set_xattr(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &Self {
        let path = self.at(path);
        rustix::fs::lsetxattr(&path, name.as_ref(), value.as_ref(), XattrFlags::empty())
            .named("setxattr", &path);
        self
    }

    /// Removes an extended attribute, not following a symlink.
    #[track_caller]
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: impl AsRef<[u8]>) {
        let path = self.at(path);
        rustix::fs::lremovexattr(&path, name.as_ref()).named("removexattr", &path);
    }

    /// Opens `path` with `flags` (created with 0644).
    #[track_caller]
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> File {
        let path = self.at(path);
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::open(&path, flags | OFlags::CLOEXEC, mode).named("open", &path).into()
    }
}

/// Looking.
impl Tree {
    /// The whole content of `path`.
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = self.at(path);
        fs::read(&path).named("read", &path)
    }

    /// The content of `path` as text.
    #[track_caller]
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        String::from_utf8(self.read(path)).expect("text")
    }

    /// The attributes of `path`, not following a symlink.
    #[track_caller]
    pub fn stat(&self, path: impl AsRef<Path>) -> Stat {
        let path = self.at(path);
        rustix::fs::lstat(&path).named("lstat", &path)
    }

    /// The permission bits of `path`, set-id and sticky bits included.
    #[track_caller]
    pub fn mode(&self, path: impl AsRef<Path>) -> u32 {
        self.stat(path).st_mode & 0o7777
    }

    /// The inode number of `path`.
    #[track_caller]
    pub fn ino(&self, path: impl AsRef<Path>) -> u64 {
        self.stat(path).st_ino
    }

    /// The link count of `path`.
    #[track_caller]
    pub fn nlink(&self, path: impl AsRef<Path>) -> u64 {
        self.stat(path).st_nlink
    }

    /// Owner and group of `path`.
    #[track_caller]
    pub fn owner(&self, path: impl AsRef<Path>) -> (u32, u32) {
        let stat = self.stat(path);
        (stat.st_uid, stat.st_gid)
    }

    /// Modification time of `path`: seconds and nanoseconds.
    #[track_caller]
    pub fn mtime_of(&self, path: impl AsRef<Path>) -> (i64, i64) {
        let stat = self.stat(path);
        (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).expect("nanoseconds"))
    }

    /// Whether a name `path` is there, of whatever type.
    #[track_caller]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        let path = self.at(path);
        match rustix::fs::lstat(&path) {
            Ok(_) => true,
            Err(rustix::io::Errno::NOENT) => false,
            Err(error) => panic!("lstat {}: {error}", path.display()),
        }
    }

    /// Whether `path` is a whiteout in a layer.
    #[track_caller]
    pub fn is_whiteout(&self, path: impl AsRef<Path>) -> bool {
        let stat = self.stat(path);
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    }

    /// The target of the symlink `path`.
    #[track_caller]
    pub fn target(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.at(path);
        fs::read_link(&path).named("readlink", &path)
    }

    /// The names in the directory `path`, sorted, without `.` and `..`.
    #[track_caller]
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let path = self.at(path);
        let entries = fs::read_dir(&path).named("opendir", &path);
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry.named("readdir", &path).file_name().as_bytes().escape_ascii().to_string()
            })
            .collect();
        names.sort();
        names
    }

    /// The value of an extended attribute; `None` when it is not there.
    #[track_caller]
    pub fn xattr(&self, path: impl AsRef<Path>, name: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let path = self.at(path);
        let mut value = Vec::with_capacity(64 << 10);
        match rustix::fs::lgetxattr(
            &path,
            name.as_ref(),
            rustix::buffer::spare_capacity(&mut value),
        ) {
            Ok(_) => Some(value),
            Err(rustix::io::Errno::NODATA) => None,
            Err(error) => panic!("lgetxattr {}: {error}", path.display()),
        }
    }

    /// The names of the extended attributes of `path`, sorted and escaped.
    #[track_caller]
    pub fn xattr_names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let mut names: Vec<String> =
            self.raw_xattr_names(path).iter().map(|name| name.escape_ascii().to_string()).collect();
        names.sort();
        names
    }

    /// The names of the extended attributes of `path`, as listed.
    #[track_caller]
    pub fn raw_xattr_names(&self, path: impl AsRef<Path>) -> Vec<Vec<u8>> {
        let path = self.at(path);
        let mut list = Vec::with_capacity(64 << 10);
        rustix::fs::llistxattr(&path, rustix::buffer::spare_capacity(&mut list))
            .named("llistxattr", &path);
        list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// Every path below `path` of this tree, sorted; directories end in `/`.
    #[track_caller]
    pub fn walk(&self, path: impl AsRef<Path>) -> Vec<String> {
        let start = self.at(path);
        let mut found = Vec::new();
        let mut todo = vec![start.clone()];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(&directory).named("opendir", &directory) {
                let entry = entry.named("readdir", &directory);
                let path = entry.path();
                let name = path
                    .strip_prefix(&start)
                    .expect("below the start")
                    .as_os_str()
                    .to_owned()
                    .into_vec();
                let mut name = name.escape_ascii().to_string();
                if entry.file_type().named("d_type of", &path).is_dir() {
                    name.push('/');
                    todo.push(path);
                }
                found.push(name);
            }
        }
        found.sort();
        found
    }
}
