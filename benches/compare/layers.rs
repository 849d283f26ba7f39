//! The layers that are measured: made once per run of the bench, each part when first needed.
//!
//! The tree for walk, stat, miss and open is two layers, so that there are merged directories:
//! a base (a sample shaped like a root tree, or `--tree`) and an update, which replaces one file in
//! every tenth directory and adds no name. So a walk of the base alone, natively, sees the same names.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::workloads::programs::{git, run};

/// Bytes of a small file.
pub const SMALL_BYTES: usize = 4096;
/// Folders of a sample tree, and names in each.
const SAMPLE_FOLDERS: usize = 1000;
const SAMPLE_NAMES: usize = 15;
/// Every how many folders the update replaces a file.
const UPDATE_EVERY: usize = 10;
/// Names that a stack of layers shows together, over how many folders.
const STACK_FILES: usize = 1000;
const STACK_FOLDERS: usize = 10;
/// C files, and headers that each includes.
pub const SOURCES: usize = 20;
const HEADERS: usize = 200;
/// Files of one folder where memory is measured.
const FOLDER_FILES: usize = 1000;

/// Where the layers are and what they hold.
#[derive(Debug)]
pub struct Layers {
    base: PathBuf,
    tree: Option<PathBuf>,
    files: usize,
    big_bytes: usize,
    inodes: usize,
    listing: OnceCell<Listing>,
}

/// What the tree holds, as paths relative to its root.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every name, directories too.
    pub all: Vec<PathBuf>,
    /// Directories.
    pub folders: Vec<PathBuf>,
    /// Regular files that this user may read.
    pub files: Vec<PathBuf>,
}

/// A part of the layer that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// No file of a lower layer is needed.
    Nothing,
    /// `storm/`: small files.
    Storm,
    /// `folders/`: a tree of small files.
    Folders,
    /// `big/file`.
    Big,
    /// `repository/`: small files in git.
    Repository,
    /// `python/`: the standard library of the python that is installed.
    Python,
    /// `sources/`: C files and the headers they all include.
    Sources,
}

impl Part {
    /// Its folder's name in the layer.
    pub fn folder(self) -> &'static str {
        match self {
            Part::Nothing => "nothing",
            Part::Storm => "storm",
            Part::Folders => "folders",
            Part::Big => "big",
            Part::Repository => "repository",
            Part::Python => "python",
            Part::Sources => "sources",
        }
    }
}

impl Layers {
    /// Layers below `base`, none of them made yet.
    pub fn new(base: &Path, args: &Args) -> Result<Layers> {
        let tree = args.tree.as_ref();
        let tree = tree.map(|dir| fs::canonicalize(dir).map_err(|e| named(dir, &e)));
        Ok(Layers {
            base: base.join("layers"),
            tree: tree.transpose()?,
            files: args.files.max(1),
            big_bytes: args.size_mib.max(1) << 20,
            inodes: args.inodes.max(1),
            listing: OnceCell::new(),
        })
    }

    /// The layers of the tree, bottom to top.
    pub fn tree(&self) -> Result<Vec<PathBuf>> {
        let base = match &self.tree {
            Some(dir) => dir.clone(),
            None => self.once("tree", make_sample)?,
        };
        let update = self.once("update", |dir| make_update(&base, &self.listing()?.files, dir))?;
        Ok(vec![base, update])
    }

    /// What [`Layers::tree`] holds.
    pub fn listing(&self) -> Result<&Listing> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let root = match &self.tree {
            Some(dir) => dir.clone(),
            None => self.once("tree", make_sample)?,
        };
        let listing = list(&root)?;
        Ok(self.listing.get_or_init(|| listing))
    }

    /// The layer that is written to, with `part` in it.
    pub fn written(&self, part: Part) -> Result<PathBuf> {
        let layer = self.base.join("written");
        fs::create_dir_all(&layer)?;
        let inside = Path::new("written").join(part.folder());
        self.once(&inside, |dir| match part {
            Part::Nothing => Ok(()),
            Part::Storm => (0..self.files).try_for_each(|i| small_file(&dir.join(name(i)))),
            Part::Folders => make_folders(dir, self.files),
            Part::Big => big_file(&dir.join("file"), self.big_bytes),
            Part::Repository => make_repository(dir, self.files),
            Part::Python => make_python(dir),
            Part::Sources => make_sources(dir),
        })?;
        Ok(layer)
    }

    /// A layer with nothing in it.
    pub fn empty(&self) -> Result<PathBuf> {
        self.once("empty", |_| Ok(()))
    }

    /// `count` layers with the same folders in each; together they always show the same names.
    pub fn stack(&self, count: usize) -> Result<Vec<PathBuf>> {
        let dir = self.once(format!("stack-{count}"), |dir| make_stack(dir, count))?;
        Ok((0..count).map(|i| dir.join(i.to_string())).collect())
    }

    /// The names of every stack, relative to its root.
    pub fn stack_names() -> Vec<PathBuf> {
        (0..STACK_FILES).map(stack_name).collect()
    }

    /// A layer of empty files, for the daemon's memory.
    pub fn many(&self) -> Result<PathBuf> {
        self.once("many", |dir| {
            for i in 0..self.inodes {
                let folder = dir.join(format!("d{}", i / FOLDER_FILES));
                if i % FOLDER_FILES == 0 {
                    fs::create_dir(&folder)?;
                }
                File::create(folder.join(name(i)))?;
            }
            Ok(())
        })
    }

    /// Makes a folder under its final name only when `make` has filled it.
    fn once(
        &self,
        name: impl AsRef<Path>,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.base.join(name);
        if !folder.exists() {
            let draft = folder.with_extension("draft");
            fs::create_dir_all(&draft)?;
            make(&draft)?;
            fs::rename(&draft, &folder)?;
        }
        Ok(folder)
    }
}

/// The name of file number `i`.
pub fn name(i: usize) -> String {
    format!("f{i:06}")
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn small_file(path: &Path) -> Result<()> {
    Ok(fs::write(path, [b'x'; SMALL_BYTES])?)
}

fn big_file(path: &Path, bytes: usize) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    file.flush()?;
    Ok(file.get_ref().sync_all()?)
}

/// 20 folders of small files.
fn make_folders(dir: &Path, files: usize) -> Result<()> {
    for i in 0..files {
        let folder = dir.join(format!("d{}", i % 20));
        fs::create_dir_all(&folder)?;
        small_file(&folder.join(name(i)))?;
    }
    Ok(())
}

fn make_repository(dir: &Path, files: usize) -> Result<()> {
    make_folders(dir, files)?;
    run(git(dir).args(["init", "--quiet"]))?;
    run(git(dir).args(["add", "--all"]))?;
    run(git(dir).args(["commit", "--quiet", "--message", "all"]))
}

/// The standard library without its tests, compiled; what is compiled stays valid in a copy.
fn make_python(dir: &Path) -> Result<()> {
    let ask = "import sysconfig; print(sysconfig.get_path('stdlib'), end='')";
    let out = Command::new("python3").args(["-c", ask]).output();
    let out = out.map_err(|e| format!("python3: {e}"))?;
    let library = PathBuf::from(OsString::from_vec(out.stdout));
    let mut outcome = Ok(());
    visit(&library, |path, facts| {
        let Ok(relative) = path.strip_prefix(&library) else { return };
        let left_out = relative.components().any(|part| {
            let part = part.as_os_str();
            ["test", "tests", "__pycache__", "site-packages", "dist-packages"]
                .iter()
                .any(|name| part == *name)
        });
        if !facts.is_file() || left_out || outcome.is_err() {
            return;
        }
        let copy = dir.join(relative);
        let folder = copy.parent().unwrap_or(dir);
        outcome = fs::create_dir_all(folder).and_then(|()| fs::copy(path, &copy)).map(drop);
    })?;
    outcome?;
    let compile = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"];
    run(Command::new("python3").args(compile).arg(dir))
}

fn make_sources(dir: &Path) -> Result<()> {
    for i in 0..HEADERS {
        let text = format!("#pragma once\nint f{i}(int);\nstruct s{i} {{ int a, b; }};\n");
        fs::write(dir.join(format!("h{i}.h")), text)?;
    }
    let includes: String = (0..HEADERS).map(|i| format!("#include \"h{i}.h\"\n")).collect();
    (0..SOURCES).try_for_each(|i| {
        let text = format!("{includes}int g{i}(int x) {{ return f{i}(x) + 1; }}\n");
        Ok(fs::write(dir.join(format!("{i}.c")), text)?)
    })
}

/// Three levels of folders with files of 300 bytes to 20 KiB and a symbolic link in each.
fn make_sample(dir: &Path) -> Result<()> {
    let sizes = [300, 4096, 1500, 20_000, 4096, 900];
    for i in 0..SAMPLE_FOLDERS {
        let path = format!("usr{}/lib{}/pkg{}", i % 10, i / 10 % 10, i / 100);
        let folder = dir.join(path);
        fs::create_dir_all(&folder)?;
        for j in 1..SAMPLE_NAMES {
            let bytes = sizes[(i + j) % sizes.len()];
            fs::write(folder.join(name(j)), vec![b'x'; bytes])?;
        }
        symlink(name(1), folder.join("link"))?;
    }
    Ok(())
}

/// Copies of the first file of every tenth folder.
fn make_update(base: &Path, files: &[PathBuf], dir: &Path) -> Result<()> {
    let mut last = None;
    let mut folders = 0;
    for file in files {
        if last == file.parent() {
            continue;
        }
        last = file.parent();
        folders += 1;
        if folders % UPDATE_EVERY == 1 {
            let copy = dir.join(file);
            if let Some(folder) = copy.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::copy(base.join(file), copy)?;
        }
    }
    Ok(())
}

/// File `i` of a stack.
fn stack_name(i: usize) -> PathBuf {
    Path::new(&format!("d{}", i % STACK_FOLDERS)).join(name(i))
}

fn make_stack(dir: &Path, count: usize) -> Result<()> {
    for layer in 0..count {
        for folder in 0..STACK_FOLDERS {
            fs::create_dir_all(dir.join(format!("{layer}/d{folder}")))?;
        }
    }
    // `i / STACK_FOLDERS`: each folder's files are spread over all layers.
    (0..STACK_FILES).try_for_each(|i| {
        let layer = dir.join((i / STACK_FOLDERS % count).to_string());
        small_file(&layer.join(stack_name(i)))
    })
}

fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    visit(root, |path, facts| {
        let Ok(relative) = path.strip_prefix(root) else {
            return;
        };
        if facts.is_dir() {
            listing.folders.push(relative.to_owned());
        } else if facts.is_file() && facts.size() > 0 && File::open(path).is_ok() {
            listing.files.push(relative.to_owned());
        }
        listing.all.push(relative.to_owned());
    })?;
    if listing.folders.is_empty() || listing.files.is_empty() {
        return Err(named(root, &"no folder or no readable file in it").into());
    }
    Ok(listing)
}

/// Calls `see` for everything below `root` (find with lstat), directory by directory.
pub fn visit(root: &Path, mut see: impl FnMut(&Path, &Metadata)) -> Result<()> {
    let mut ahead = vec![root.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| named(&folder, &e))? {
            let entry = entry?;
            let facts = entry.metadata()?;
            let path = entry.path();
            see(&path, &facts);
            if facts.is_dir() {
                ahead.push(path);
            }
        }
    }
    Ok(())
}
