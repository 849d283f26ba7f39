//! A tree as values that two sides can share, with errors as values too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawMode, Stat, lgetxattr, llistxattr, openat};

use crate::calls::{error_name, lsattr, show_bytes, show_stat};
use crate::common::dirents;
use crate::script::escape;

type Fields = BTreeMap<String, String>;

/// What to look at.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// Inode numbers: for two views of the same layers on disk.
    pub inodes: bool,
    /// `st_blocks`.
    pub blocks: bool,
    /// Link counts of directories may be anything: other ones are copied up.
    pub any_dir_links: bool,
    /// A layer instead of a merged view: what need not be equal byte for byte is made so.
    pub layer: bool,
}

/// Per path (escaped, the root as `.`) its fields.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct View {
    entries: BTreeMap<String, Fields>,
}

impl View {
    /// Everything below `root`.
    pub fn of(root: &Path, look: Look) -> Self {
        let mut view = Self::default();
        let mut groups: HashMap<(u64, u64), Vec<String>> = HashMap::new();
        view.entries.insert(".".into(), fields(root, look).1);
        let mut todo = vec![root.to_path_buf()];
        while let Some(directory) = todo.pop() {
            let entries = match entries(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    view.set(&name_in(root, &directory), "listing", error_name(&error));
                    continue;
                }
            };
            for entry in entries {
                let path = directory.join(&entry.name);
                let name = name_in(root, &path);
                let (stat, mut found) = fields(&path, look);
                if let Some(stat) = stat {
                    let kind = FileType::from_raw_mode(RawMode::from(stat.st_mode));
                    if entry.ino != stat.st_ino || entry.kind != kind {
                        let ino = if entry.ino == stat.st_ino { "" } else { "d_ino" };
                        let wrong = format!("{ino} {:?}", entry.kind);
                        found.insert("wrong in listing".into(), wrong);
                    }
                    if kind.is_dir() {
                        todo.push(path);
                    }
                    groups.entry((stat.st_dev, stat.st_ino)).or_default().push(name.clone());
                }
                if view.entries.insert(name.clone(), found).is_some() {
                    view.set(&name, "listed", "twice".into());
                }
            }
        }
        for mut names in groups.into_values().filter(|names| names.len() > 1) {
            names.sort();
            for name in &names {
                view.set(name, "same inode as", names[0].clone());
            }
        }
        view
    }

    fn set(&mut self, path: &str, field: &str, value: String) {
        self.entries.entry(path.to_owned()).or_default().insert(field.to_owned(), value);
    }

    /// Lines on what differs; empty when nothing does.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        let paths: BTreeSet<&String> = self.entries.keys().chain(other.entries.keys()).collect();
        let mut found = Vec::new();
        for path in paths {
            let (Some(left), Some(right)) = (self.entries.get(path), other.entries.get(path))
            else {
                let show = |view: &Self| view.entries.get(path).map_or("absent".into(), summary);
                found.push(Difference::new((path, ""), "entry", show(self), show(other)));
                continue;
            };
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names.into_iter().filter(|name| left.get(*name) != right.get(*name)) {
                let show = |fields: &Fields| fields.get(name).map_or("absent", |v| v).to_owned();
                let kind = left.get("type").map_or("", String::as_str);
                found.push(Difference::new((path, kind), name, show(left), show(right)));
            }
        }
        found
    }
}

/// One field that differs.
pub struct Difference {
    /// Where.
    pub path: String,
    /// The type that the first view shows there.
    pub kind: String,
    /// Which field, `entry` for the whole.
    pub field: String,
    /// In the first view.
    pub left: String,
    /// In the second.
    pub right: String,
}

impl Difference {
    fn new((path, kind): (&str, &str), field: &str, left: String, right: String) -> Self {
        Self { path: path.to_owned(), kind: kind.to_owned(), field: field.to_owned(), left, right }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {} / {}", self.path, self.field, self.left, self.right)
    }
}

fn summary(fields: &Fields) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        write!(text, "{name}={value} ").expect("a String");
    }
    text.trim_end().to_owned()
}

fn name_in(root: &Path, path: &Path) -> String {
    let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes();
    if name.is_empty() { ".".into() } else { escape(name) }
}

fn entries(directory: &Path) -> io::Result<Vec<dirents::Entry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = openat(CWD, directory, flags, Mode::empty())?;
    let mut entries = Vec::new();
    loop {
        let batch = dirents::batch(&file, 32 << 10)?;
        if batch.is_empty() {
            break;
        }
        entries.extend(batch);
    }
    entries.retain(|entry| entry.name != "." && entry.name != "..");
    Ok(entries)
}

fn fields(path: &Path, look: Look) -> (Option<Stat>, Fields) {
    let mut fields = Fields::new();
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(error) => {
            fields.insert("stat".into(), error_name(&error.into()));
            return (None, fields);
        }
    };
    let kind = FileType::from_raw_mode(RawMode::from(stat.st_mode));
    if look.layer && kind.is_char_device() && stat.st_rdev == 0 {
        // Owner and times of a whiteout are nobody's business.
        fields.insert("whiteout".into(), stat.st_mode.to_string());
        return (Some(stat), fields);
    }
    for (index, word) in show_stat(&stat, look.blocks).split(' ').enumerate() {
        let positional = ["type", "mode", "owner"].get(index).map(|name| (*name, word));
        let (name, value) = positional.or_else(|| word.split_once('=')).expect("NAME=VALUE");
        if look.any_dir_links && kind.is_dir() && name == "nlink" {
            continue;
        }
        fields.insert(name.into(), value.into());
    }
    if look.inodes {
        fields.insert("ino".into(), stat.st_ino.to_string());
    }
    if kind.is_file() {
        let content = std::fs::read(path);
        fields.insert(
            "content".into(),
            content.map_or_else(|error| error_name(&error), |bytes| show_bytes(&bytes)),
        );
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path);
        fields.insert(
            "target".into(),
            target.map_or_else(|error| error_name(&error), |to| format!("{}", to.display())),
        );
    }
    if kind.is_file() || kind.is_dir() {
        let flags = std::fs::File::open(path).and_then(|file| lsattr(&file));
        fields.insert("attributes".into(), flags.unwrap_or_else(|error| error_name(&error)));
    }
    if let Err(error) = xattrs(path, look, &mut fields) {
        fields.insert("xattrs".into(), error_name(&error));
    }
    (Some(stat), fields)
}

fn xattrs(path: &Path, look: Look, fields: &mut Fields) -> io::Result<()> {
    let mut names = vec![0_u8; 1 << 16];
    let len = llistxattr(path, names.as_mut_slice())?;
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let got = lgetxattr(path, name, value.as_mut_slice());
        let mut shown =
            got.map_or_else(|error| error_name(&error.into()), |len| show_bytes(&value[..len]));
        if look.layer && name.ends_with(b".overlay.origin") {
            // A file handle names an inode, which no two layers share.
            shown = format!("{} bytes", got.unwrap_or(0));
        }
        fields.insert(format!("xattr {}", name.escape_ascii()), shown);
    }
    Ok(())
}
