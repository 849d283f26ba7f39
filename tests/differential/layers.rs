//! Building the layers that a script describes, directly on disk.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, lsetxattr, makedev, mknodat, symlinkat, utimensat,
};

use super::acl;
use super::script::Line;
use super::{phantom, rng};
use crate::common::Context;

/// The modification time of entries that no line gives another.
const OLD: i64 = 1_000_000_000;

/// Makes the layers in `lowers`, `data` and `upper` (which exist) from `lines`. What cannot be
/// made is left out: the same lines leave out the same things everywhere.
pub fn build(
    lines: &[Line],
    (lowers, data): (&[PathBuf], &[PathBuf]),
    upper: &Path,
    context: Context,
) {
    let mut times = Vec::new();
    for line in lines.iter().filter(|line| line.is_layer()) {
        let layer = match line.word(0) {
            "U" => upper,
            number => {
                let index: usize = number[1..].parse().expect("a layer's number");
                let layers = if number.starts_with('D') { data } else { lowers };
                let Some(layer) = layers.get(index) else { continue };
                layer
            }
        };
        if line.word(1) == "mtime" {
            times.push((layer.join(line.path(2)), line.number(3), line.number(4)));
        } else if let Err(error) = entry(line, layer, context) {
            log_skip(line, &error);
        }
    }
    let all: Vec<&Path> = lowers.iter().map(PathBuf::as_path).chain([upper]).collect();
    phantom::remove(&all, context);
    all.into_iter().chain(data.iter().map(PathBuf::as_path)).for_each(age);
    for (path, seconds, nanoseconds) in times {
        if let Err(error) = set_mtime(&path, seconds, nanoseconds) {
            log_skip(&format!("mtime {}", path.display()), &error);
        }
    }
}

fn log_skip(what: &dyn std::fmt::Display, error: &io::Error) {
    if std::env::var_os("OVLFUSE_DIFF_VERBOSE").is_some() {
        eprintln!("not in the layer: {what}: {error}");
    }
}

fn entry(line: &Line, layer: &Path, context: Context) -> io::Result<()> {
    let path = layer.join(line.path(2));
    let mode = |index| Mode::from_raw_mode(line.mode(index));
    let overlay = |name| context.overlay_xattr(name);
    match line.word(1) {
        "dir" => {
            if line.word(2) != "." {
                std::fs::create_dir(&path)?;
            }
            chmodat(CWD, &path, mode(3), AtFlags::empty())?;
        }
        "file" => {
            let file = std::fs::File::create_new(&path)?;
            file.write_all_at(&rng::bytes(line.size(5), line.count(4)), 0)?;
            chmodat(CWD, &path, mode(3), AtFlags::empty())?;
        }
        "sparse" => {
            let file = std::fs::File::create_new(&path)?;
            // The data is at the end: of a hole behind data the kernel's copy-up fills some.
            let tail = rng::bytes(line.size(5), 5000);
            let start = line.count(4).saturating_sub(tail.len());
            file.write_all_at(&tail, u64::try_from(start).expect("a size"))?;
            chmodat(CWD, &path, mode(3), AtFlags::empty())?;
        }
        "bare" => {
            let file = std::fs::File::create_new(&path)?;
            file.set_len(u64::try_from(line.number(4)).expect("a size"))?;
            chmodat(CWD, &path, mode(3), AtFlags::empty())?;
            lsetxattr(&path, overlay("metacopy"), b"", XattrFlags::empty())?;
            if !line.word(5).is_empty() {
                lsetxattr(&path, overlay("redirect"), &line.raw(5), XattrFlags::empty())?;
            }
        }
        "link" => linkat(CWD, &path, CWD, layer.join(line.path(3)), AtFlags::empty())?,
        "symlink" => symlinkat(line.path(3), CWD, &path)?,
        "node" => {
            let (kind, device) = node(line, 4);
            mknodat(CWD, &path, kind, mode(3), device)?;
            chmodat(CWD, &path, mode(3), AtFlags::empty())?;
        }
        "whiteout" => {
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        "opaque" => lsetxattr(&path, overlay("opaque"), b"y", XattrFlags::empty())?,
        "owner" => {
            let (uid, gid) = (id(line.number(3)), id(line.number(4)));
            chownat(
                CWD,
                &path,
                uid.map(Uid::from_raw),
                gid.map(Gid::from_raw),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        "mode" => chmodat(CWD, &path, mode(3), AtFlags::empty())?,
        "xattr" => {
            lsetxattr(&path, line.raw(3).as_slice(), &line.raw(4), XattrFlags::empty())?;
        }
        "acl" => {
            let (name, value) = acl::parse(line, 3);
            lsetxattr(&path, name, &value, XattrFlags::empty())?;
        }
        other => panic!("no such layer entry: {other}"),
    }
    Ok(())
}

/// Words `index` onwards as the kind and number of a node: `fifo`, `sock`, `chr A B`, `blk A B`.
pub fn node(line: &Line, index: usize) -> (FileType, u64) {
    let number = |index| u32::try_from(line.number(index)).expect("a device number");
    let device = || makedev(number(index + 1), number(index + 2));
    match line.word(index) {
        "fifo" => (FileType::Fifo, 0),
        "sock" => (FileType::Socket, 0),
        "chr" => (FileType::CharacterDevice, device()),
        "blk" => (FileType::BlockDevice, device()),
        "file" => (FileType::RegularFile, 0),
        other => panic!("no such kind of node: {other}"),
    }
}

/// An owner; -1 keeps the one there is.
pub fn id(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}

/// Gives everything in `layer` the same old time, leaves first.
fn age(layer: &Path) {
    let mut found = vec![layer.to_path_buf()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            let entries = std::fs::read_dir(&path).expect("a layer's directory");
            found.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    let mut failed = BTreeMap::new();
    for path in found.iter().rev() {
        if let Err(error) = set_mtime(path, OLD, 0) {
            failed.insert(path, error.to_string());
        }
    }
    assert!(failed.is_empty(), "times not set: {failed:?}");
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
