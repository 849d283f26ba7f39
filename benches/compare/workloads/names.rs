//! Storms that change names and attributes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Result;
use crate::layers::{Part, SMALL_BYTES, name};
use crate::scene::{Scene, View};

/// Copy-up storms are that much shorter: each file is synced, a millisecond or more.
const COPY_UP_SHARE: usize = 4;

/// Creates files of 4 KiB.
pub fn create(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Nothing)?;
    let paths = new_paths(scene, &view)?;
    scene.time(&view, "", paths.len(), |_| create_all(&paths))?;
    view.close()
}

/// Appends to files that were just created.
pub fn append(scene: &mut Scene) -> Result<()> {
    upper_storm(scene, |path| {
        let mut file = OpenOptions::new().append(true).open(path)?;
        Ok(file.write_all(&[b'y'; 100])?)
    })
}

/// Renames files that were just created.
pub fn rename(scene: &mut Scene) -> Result<()> {
    upper_storm(scene, |path| Ok(fs::rename(path, path.with_extension("new"))?))
}

/// Unlinks files that were just created.
pub fn unlink(scene: &mut Scene) -> Result<()> {
    upper_storm(scene, |path| Ok(fs::remove_file(path)?))
}

/// Makes folders.
pub fn mkdir(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Nothing)?;
    let paths = new_paths(scene, &view)?;
    scene.time(&view, "", paths.len(), |_| {
        paths.iter().try_for_each(|path| Ok(fs::create_dir(path)?))
    })?;
    view.close()
}

/// What `tar -x` does for an archive of small files, 20 to a folder.
pub fn untar(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Nothing)?;
    let root = new_folder(&view)?;
    let files = scene.args.files;
    let data = [b'z'; 16 * 1024];
    scene.time(&view, "", files, |_| {
        for i in 0..files {
            let folder = root.join(format!("d{}", i / 20));
            if i % 20 == 0 {
                fs::create_dir(&folder)?;
            }
            // From 0.5 to 16 KiB.
            let size_bytes = 512 * (i * 7 % 32 + 1);
            extract(&folder.join(name(i)), &data[..size_bytes])?;
        }
        Ok(())
    })?;
    view.close()
}

fn extract(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(data)?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000))?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    fchown(&file, Some(uid.as_raw()), Some(gid.as_raw()))?;
    Ok(file.set_permissions(Permissions::from_mode(0o640))?)
}

/// chmod of a lower layer's files.
pub fn chmod(scene: &mut Scene) -> Result<()> {
    let files = scene.args.files / COPY_UP_SHARE;
    lower_storm(scene, files, |path| Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?))
}

/// Renames a lower layer's files.
pub fn rename_lower(scene: &mut Scene) -> Result<()> {
    let files = scene.args.files / COPY_UP_SHARE;
    lower_storm(scene, files, |path| Ok(fs::rename(path, path.with_extension("new"))?))
}

/// Unlinks a lower layer's files.
pub fn unlink_lower(scene: &mut Scene) -> Result<()> {
    let files = scene.args.files;
    lower_storm(scene, files, |path| Ok(fs::remove_file(path)?))
}

/// Removes a lower layer's tree as rm -rf does.
pub fn rm_rf(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Folders)?;
    let files = scene.args.files;
    scene.time(&view, "", files, |root| {
        Ok(fs::remove_dir_all(root.join(Part::Folders.folder()))?)
    })?;
    view.close()
}

/// Times `each` on files of upper.
fn upper_storm(scene: &mut Scene, each: fn(&Path) -> Result<()>) -> Result<()> {
    let view = scene.scratch(Part::Nothing)?;
    let paths = new_paths(scene, &view)?;
    create_all(&paths)?;
    scene.time(&view, "", paths.len(), |_| paths.iter().try_for_each(|path| each(path)))?;
    view.close()
}

/// Times `each` on `files` files of a lower layer.
fn lower_storm(scene: &mut Scene, files: usize, each: fn(&Path) -> Result<()>) -> Result<()> {
    let view = scene.scratch(Part::Storm)?;
    let folder = view.root.join(Part::Storm.folder());
    let paths: Vec<_> = (0..files.max(1)).map(|i| folder.join(name(i))).collect();
    scene.time(&view, "", paths.len(), |_| paths.iter().try_for_each(|path| each(path)))?;
    view.close()
}

/// A new folder in the view.
fn new_folder(view: &View) -> Result<PathBuf> {
    let folder = view.root.join("new");
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// Paths of `--files` files that are not there yet, in a new folder.
fn new_paths(scene: &Scene, view: &View) -> Result<Vec<PathBuf>> {
    let folder = new_folder(view)?;
    Ok((0..scene.args.files).map(|i| folder.join(name(i))).collect())
}

fn create_all(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| Ok(File::create(path)?.write_all(&[b'x'; SMALL_BYTES])?))
}
