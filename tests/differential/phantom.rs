//! Whiteouts that hide nothing.
//!
//! In a directory that no layer below shares, the kernel lists a whiteout that stat then does not
//! find, and refuses to remove the directory. No mount leaves such whiteouts behind, so they are
//! taken out of random layers.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::lgetxattr;

use crate::common::Context;

/// Removes them from `layers`, which are listed bottom to top.
pub fn remove(layers: &[&Path], context: Context) {
    let opaque = context.overlay_xattr("opaque");
    for (index, layer) in layers.iter().enumerate() {
        for directory in directories(layer) {
            let shared = is_shared(&directory, &layers[..=index], &opaque);
            if !shared {
                for whiteout in whiteouts(&layer.join(&directory)) {
                    std::fs::remove_file(whiteout).expect("a whiteout to remove");
                }
            }
        }
    }
}

/// All directories below `root`, relative, with the root itself.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(root.join(&directory)).expect("a layer's directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                found.push(directory.join(entry.file_name()));
            }
        }
    }
    found
}

fn whiteouts(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a layer's directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| is_whiteout(path)).collect()
}

fn is_whiteout(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

/// Whether `directory` of the last layer is merged with one of a layer before.
fn is_shared(directory: &Path, layers: &[&Path], opaque: &str) -> bool {
    for (depth, layer) in layers.iter().rev().enumerate() {
        let mut path = layer.to_path_buf();
        let mut parts = directory.iter();
        while let Ok(found) = path.symlink_metadata() {
            if !found.is_dir() {
                return false;
            }
            let next = parts.next();
            if next.is_none() && depth > 0 {
                return true;
            }
            // The root's own mark counts for nothing.
            let is_root = path == **layer;
            if !is_root && lgetxattr(&path, opaque, [0_u8; 8].as_mut_slice()).is_ok() {
                return false;
            }
            let Some(next) = next else { break };
            path.push(next);
        }
    }
    false
}
