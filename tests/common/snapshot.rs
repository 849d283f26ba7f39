//! A whole tree as comparable values.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Stat};

use super::dirents;
use super::tree::Tree;

/// What a snapshot holds beside what it always holds.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Change times: for layers that must not have been touched at all.
    pub ctime: bool,
    /// Skip inode numbers: for trees that are equal but not the same.
    pub without_inodes: bool,
    /// Skip times: for trees that two runs made.
    pub without_times: bool,
    /// Let `..` have the number of the parent in the layer below, as the kernel's overlayfs
    /// does for a directory that only one lower layer has.
    pub any_dotdot: bool,
    /// Read without touching access times; only for layers, whose owner one is.
    pub noatime: bool,
}

/// Per path (escaped, relative, the root as `.`): field name to value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl Snapshot {
    /// Type, mode, owner, size, links, device, times, target, content, xattrs and inode of
    /// everything below `root`. Panics where a `d_ino` or `d_type` is not what stat says.
    #[track_caller]
    pub fn of(root: &Path, options: Options) -> Self {
        let mut walk = Walk {
            root,
            options,
            entries: BTreeMap::new(),
            groups: HashMap::new(),
            wrong: Vec::new(),
        };
        walk.entry(root);
        let mut todo = vec![root.to_path_buf()];
        while let Some(directory) = todo.pop() {
            todo.extend(walk.directory(&directory));
        }
        assert!(walk.wrong.is_empty(), "entries that stat contradicts:\n{}", walk.wrong.join("\n"));
        let mut snapshot = Self { entries: walk.entries };
        for paths in walk.groups.into_values() {
            snapshot.mark_links(&paths);
        }
        snapshot
    }

    fn mark_links(&mut self, paths: &[String]) {
        let first = paths.iter().min().expect("a group is not empty").clone();
        for path in paths.iter().filter(|_| paths.len() > 1) {
            if let Some(entry) = self.entries.get_mut(path) {
                entry.insert("same file as".into(), first.clone());
            }
        }
    }

    /// What differs between `self` and `other`, as text; `None` when they are equal.
    pub fn diff(&self, other: &Self) -> Option<String> {
        let mut text = String::new();
        let paths: std::collections::BTreeSet<&String> =
            self.entries.keys().chain(other.entries.keys()).collect();
        for path in paths {
            match (self.entries.get(path), other.entries.get(path)) {
                (Some(left), Some(right)) => diff_fields(path, left, right, &mut text),
                (Some(entry), None) => {
                    writeln!(text, "{path}: only in the first: {entry:?}").expect("a String")
                }
                (None, entry) => {
                    writeln!(text, "{path}: only in the second: {entry:?}").expect("a String")
                }
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// Panics with the differences unless both are equal.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        if let Some(difference) = self.diff(other) {
            let shown: Vec<&str> = difference.lines().take(60).collect();
            panic!("{what}: {} differences\n{}", difference.lines().count(), shown.join("\n"));
        }
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// One line per path; [`Snapshot::parse`] reads it back.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, fields) in &self.entries {
            text.push_str(path);
            for (name, value) in fields {
                write!(text, "\t{name}\t{value}").expect("a String");
            }
            text.push('\n');
        }
        text
    }

    /// Reads what [`Snapshot::to_text`] wrote.
    pub fn parse(text: &str) -> Self {
        let mut entries = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.split('\t').map(str::to_owned);
            let path = parts.next().expect("a path first");
            let mut fields = BTreeMap::new();
            while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                fields.insert(name, value);
            }
            entries.insert(path, fields);
        }
        Self { entries }
    }

    /// Applies `change` to the fields of every path (to leave out what two trees cannot share).
    pub fn map(mut self, mut change: impl FnMut(&str, &mut BTreeMap<String, String>)) -> Self {
        for (path, fields) in &mut self.entries {
            change(path, fields);
        }
        self
    }
}

fn diff_fields(
    path: &str,
    left: &BTreeMap<String, String>,
    right: &BTreeMap<String, String>,
    text: &mut String,
) {
    let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    for name in names {
        let (left, right) = (left.get(name), right.get(name));
        if left != right {
            let show = |value: Option<&String>| value.map_or("(absent)", String::as_str).to_owned();
            writeln!(text, "{path}: {name}: {} / {}", show(left), show(right)).expect("a String");
        }
    }
}

struct Walk<'a> {
    root: &'a Path,
    options: Options,
    entries: BTreeMap<String, BTreeMap<String, String>>,
    groups: HashMap<(u64, u64), Vec<String>>,
    wrong: Vec<String>,
}

impl Walk<'_> {
    /// Records what is in `directory` and gives the directories in it.
    #[track_caller]
    fn directory(&mut self, directory: &Path) -> Vec<PathBuf> {
        let mut below = Vec::new();
        let flags = if self.options.noatime { OFlags::NOATIME } else { OFlags::empty() };
        for entry in dirents::all(directory, flags) {
            let path = directory.join(&entry.name);
            if entry.name == ".." && (directory == self.root || self.options.any_dotdot) {
                continue;
            }
            let stat = rustix::fs::lstat(&path)
                .unwrap_or_else(|error| panic!("lstat {}: {error}", path.display()));
            let kind = FileType::from_raw_mode(stat.st_mode);
            if entry.ino != stat.st_ino || (entry.kind != kind && entry.kind != FileType::Unknown) {
                let shown = path.display();
                self.wrong.push(format!(
                    "{shown}: d_ino {} d_type {:?}, but {} {kind:?}",
                    entry.ino, entry.kind, stat.st_ino
                ));
            }
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            self.entry(&path);
            if kind == FileType::Directory {
                below.push(path);
            }
        }
        below
    }

    #[track_caller]
    fn entry(&mut self, path: &Path) {
        let name = path.strip_prefix(self.root).expect("below the root").as_os_str().as_bytes();
        let name = if name.is_empty() { ".".into() } else { name.escape_ascii().to_string() };
        let stat = rustix::fs::lstat(path)
            .unwrap_or_else(|error| panic!("lstat {}: {error}", path.display()));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.groups.entry((stat.st_dev, stat.st_ino)).or_default().push(name.clone());
        }
        let fields = self.fields(path, &stat);
        self.entries.insert(name, fields);
    }

    #[track_caller]
    fn fields(&self, path: &Path, stat: &Stat) -> BTreeMap<String, String> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let tree = Tree::new(path);
        let mut fields = BTreeMap::new();
        let mut set = |name: &str, value: String| fields.insert(name.to_owned(), value);
        set("type", format!("{kind:?}"));
        set("mode", format!("{:04o}", stat.st_mode & 0o7777));
        set("owner", format!("{}:{}", stat.st_uid, stat.st_gid));
        set("nlink", stat.st_nlink.to_string());
        if !self.options.without_inodes {
            set("ino", stat.st_ino.to_string());
        }
        if !self.options.without_times {
            set("mtime", format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec));
        }
        if self.options.ctime {
            set("ctime", format!("{}.{:09}", stat.st_ctime, stat.st_ctime_nsec));
        }
        match kind {
            FileType::RegularFile => {
                set("size", stat.st_size.to_string());
                set("content", content(path, self.options));
            }
            FileType::Symlink => {
                set("target", tree.target("").as_os_str().as_bytes().escape_ascii().to_string());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                set(
                    "device",
                    format!(
                        "{}:{}",
                        rustix::fs::major(stat.st_rdev),
                        rustix::fs::minor(stat.st_rdev)
                    ),
                );
            }
            _ => {}
        }
        for (name, value) in xattrs(path) {
            set(&format!("xattr {name}"), value);
        }
        fields
    }
}

/// Short content as it is, longer as a hash.
#[track_caller]
fn content(path: &Path, options: Options) -> String {
    let mut bytes = Vec::new();
    let flags = if options.noatime { OFlags::NOATIME } else { OFlags::empty() };
    let mut file = Tree::new(path).open("", OFlags::RDONLY | flags);
    file.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    if bytes.len() <= 48 {
        return bytes.escape_ascii().to_string();
    }
    format!("hash {:016x}", hash(&bytes))
}

/// FNV-1a over words, which a build without optimisation does in little time as well.
fn hash(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(23);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

/// Names and values of all xattrs of `path` itself.
#[track_caller]
fn xattrs(path: &Path) -> Vec<(String, String)> {
    let (directory, name) = (path.parent().expect("no root"), path.file_name().expect("a name"));
    let tree = Tree::new(directory);
    let names = tree.raw_xattr_names(name).into_iter();
    names
        .map(|xattr| {
            let value = tree.xattr(name, &xattr).expect("listed just now");
            (xattr.escape_ascii().to_string(), value.escape_ascii().to_string())
        })
        .collect()
}
