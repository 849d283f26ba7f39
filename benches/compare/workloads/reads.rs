//! Names, attributes and small files of the tree, read only.
//!
//! "first" is right after mounting, "again" is the same once more. Storms resolve names relative to a
//! descriptor of the root, so that the path to the mount point costs nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::pick;
use crate::Result;
use crate::layers::{Layers, SMALL_BYTES, visit};
use crate::scene::{Access, Scene};

/// Storms over the tree are this many times `--files` long.
const STORM_FACTOR: usize = 3;
/// The random order of names.
pub const SEED: u64 = 1;

/// find with stat of the whole tree.
pub fn walk(scene: &mut Scene) -> Result<()> {
    walk_tree(scene, Access::Writable)
}

/// [`walk`] without upper.
pub fn walk_ro(scene: &mut Scene) -> Result<()> {
    walk_tree(scene, Access::ReadOnly)
}

fn walk_tree(scene: &mut Scene, access: Access) -> Result<()> {
    let ops = scene.layers.listing()?.all.len();
    let view = scene.tree(access)?;
    for part in ["first", "again"] {
        let seen = scene.time(&view, part, ops, count_below)?;
        if seen != ops {
            return Err(format!("{part} walk saw {seen} names, not {ops}").into());
        }
    }
    view.close()
}

/// Walks everything below `root`; how many names there are.
pub fn count_below(root: &Path) -> Result<usize> {
    let mut seen = 0;
    visit(root, |_, _| seen += 1)?;
    Ok(seen)
}

/// lstat of existing names.
pub fn stat(scene: &mut Scene) -> Result<()> {
    let names = pick(&scene.layers.listing()?.all, storm_length(scene), SEED);
    storm(scene, Access::Writable, &names, stat_all)
}

/// lstat of missing names, spread over the tree's folders.
pub fn miss(scene: &mut Scene) -> Result<()> {
    let folders = pick(&scene.layers.listing()?.folders, usize::MAX, SEED);
    let names = missing_names(&folders, storm_length(scene));
    storm(scene, Access::Writable, &names, miss_all)
}

/// Open, read 4 KiB, close.
pub fn open(scene: &mut Scene) -> Result<()> {
    let names = pick(&scene.layers.listing()?.files, storm_length(scene), SEED);
    storm(scene, Access::Writable, &names, read_all)
}

/// [`open`] without upper.
pub fn open_ro(scene: &mut Scene) -> Result<()> {
    let names = pick(&scene.layers.listing()?.files, storm_length(scene), SEED);
    storm(scene, Access::ReadOnly, &names, read_all)
}

fn storm_length(scene: &Scene) -> usize {
    scene.args.files * STORM_FACTOR
}

fn storm(
    scene: &mut Scene,
    access: Access,
    names: &[PathBuf],
    work: fn(&Path, &[PathBuf]) -> Result<()>,
) -> Result<()> {
    let view = scene.tree(access)?;
    for part in ["first", "again"] {
        scene.time(&view, part, names.len(), |root| work(root, names))?;
    }
    view.close()
}

/// Reads the whole file `path`; its bytes.
pub fn read_whole(path: &Path) -> Result<usize> {
    let mut file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut block = [0; 8 * SMALL_BYTES];
    let mut total_bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(total_bytes),
            bytes => total_bytes += bytes,
        }
    }
}

/// Stats every name below `root`.
pub fn stat_all(root: &Path, names: &[PathBuf]) -> Result<()> {
    let root = File::open(root)?;
    for name in names {
        statat(&root, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| format!("{}: {e}", name.display()))?;
    }
    Ok(())
}

/// Stats every name below `root`, none of which may exist.
pub fn miss_all(root: &Path, names: &[PathBuf]) -> Result<()> {
    let root = File::open(root)?;
    for name in names {
        match statat(&root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(format!("{}: {error}", name.display()).into()),
            Ok(_) => return Err(format!("{} exists", name.display()).into()),
        }
    }
    Ok(())
}

/// Names that are in none of `folders`, taken in turn.
pub fn missing_names(folders: &[PathBuf], count: usize) -> Vec<PathBuf> {
    (0..count)
        .zip(folders.iter().cycle())
        .map(|(i, folder)| folder.join(format!("missing-{i}")))
        .collect()
}

/// The folders of every stack of layers.
pub fn stack_folders() -> Vec<PathBuf> {
    let names = Layers::stack_names();
    let mut folders: Vec<_> = names.iter().filter_map(|n| n.parent()).collect();
    folders.sort();
    folders.dedup();
    folders.into_iter().map(Path::to_owned).collect()
}

fn read_all(root: &Path, names: &[PathBuf]) -> Result<()> {
    let root = File::open(root)?;
    let mut buffer = [0; SMALL_BYTES];
    for name in names {
        let file = openat(&root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| format!("{}: {e}", name.display()))?;
        if rustix::io::read(&file, &mut buffer)? == 0 {
            return Err(format!("{} is empty", name.display()).into());
        }
    }
    Ok(())
}
