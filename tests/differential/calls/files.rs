//! The calls that take an open file, named by its slot.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, XattrFlags,
    copy_file_range, fallocate, fchmod, fchown, fdatasync, fgetxattr, flistxattr, fremovexattr,
    fsetxattr, fstat, fsync, ftruncate, futimens, linkat, mkdirat, openat, seek, statat, unlinkat,
};
use rustix::io::Errno;

use super::{Mapped, SLOTS, Side, list, paths, show_bytes, show_names, show_stat};
use crate::common::sys::Map;
use crate::rng;
use crate::script::Line;

/// The length of every mapping.
const MAP_BYTES: usize = 4096;

/// Makes the call of `line`.
pub fn call(side: &mut Side, line: &Line) -> io::Result<String> {
    let slot = line.count(1) % SLOTS;
    match line.word(0) {
        "open" => {
            let path = side.merged.join(line.path(2));
            let mode = if line.word(4).is_empty() { 0o644 } else { line.mode(4) };
            let opened = openat(CWD, path, open_flags(line.word(3)), Mode::from_raw_mode(mode));
            side.files[slot] = None;
            let file = File::from(opened?);
            let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
            if kind.is_char_device() || kind.is_block_device() {
                return Ok("opened a device".into());
            }
            side.files[slot] = Some(file);
            Ok("ok".into())
        }
        "reopen" => {
            let link = format!("/proc/self/fd/{}", side.file(slot)?.as_raw_fd());
            let opened = openat(CWD, link, open_flags(line.word(3)), Mode::empty())?;
            side.files[line.count(2) % SLOTS] = Some(opened.into());
            Ok("ok".into())
        }
        "close" => {
            side.files[slot] = None;
            Ok("ok".into())
        }
        "map" => {
            let file = side.file(slot)?.try_clone()?;
            if !fills_map(&file) {
                return Err(Errno::NXIO.into());
            }
            let writable = line.word(2) == "rw";
            let map = Map::new(&file, MAP_BYTES, writable, true)?;
            side.maps[slot] = Some(Mapped { map, file, writable });
            Ok("ok".into())
        }
        "mapread" | "mapwrite" | "unmap" => mapped(side, line, slot),
        _ => on_file(side, line, side.file(slot)?),
    }
}

/// Flags by their names, parted by `|`.
fn open_flags(names: &str) -> OFlags {
    let flag = |name| match name {
        "r" => OFlags::RDONLY,
        "w" => OFlags::WRONLY,
        "rw" => OFlags::RDWR,
        "creat" => OFlags::CREATE,
        "excl" => OFlags::EXCL,
        "trunc" => OFlags::TRUNC,
        "append" => OFlags::APPEND,
        "dir" => OFlags::DIRECTORY,
        "nofollow" => OFlags::NOFOLLOW,
        "path" => OFlags::PATH,
        "sync" => OFlags::SYNC,
        "noatime" => OFlags::NOATIME,
        other => panic!("no such open flag: {other}"),
    };
    names.split('|').map(flag).fold(OFlags::NONBLOCK | OFlags::CLOEXEC, |all, one| all | one)
}

/// Whether `file` is long enough: touching a page beyond its end would be SIGBUS.
fn fills_map(file: &File) -> bool {
    fstat(file).is_ok_and(|stat| stat.st_size >= i64::try_from(MAP_BYTES).expect("small"))
}

fn mapped(side: &mut Side, line: &Line, slot: usize) -> io::Result<String> {
    let mapped = side.maps[slot].as_ref().filter(|mapped| fills_map(&mapped.file));
    let Mapped { map, writable, .. } = mapped.ok_or(Errno::NXIO)?;
    match line.word(0) {
        "mapread" => Ok(show_bytes(&map.read(0, MAP_BYTES))),
        // It would be SIGSEGV.
        "mapwrite" if !writable => Err(Errno::ACCESS.into()),
        "mapwrite" => {
            map.write(line.count(2), &rng::bytes(line.size(4), line.count(3)));
            map.sync().map(|()| "ok".into())
        }
        _ => {
            side.maps[slot] = None;
            Ok("ok".into())
        }
    }
}

fn on_file(side: &Side, line: &Line, file: &File) -> io::Result<String> {
    let ok = || Ok("ok".to_owned());
    match line.word(0) {
        "pread" => {
            let mut bytes = vec![0; line.count(3)];
            let read = file.read_at(&mut bytes, line.size(2))?;
            Ok(show_bytes(&bytes[..read]))
        }
        "pwrite" => {
            let written = file.write_at(&rng::bytes(line.size(4), line.count(3)), line.size(2))?;
            Ok(written.to_string())
        }
        "fstat" => Ok(show_stat(&fstat(file)?, side.blocks)),
        "ftruncate" => ftruncate(file, line.size(2)).map_err(Into::into).and_then(|()| ok()),
        "fallocate" => {
            let mode = match line.word(2) {
                "keep" => FallocateFlags::KEEP_SIZE,
                "punch" => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                "zero" => FallocateFlags::ZERO_RANGE,
                _ => FallocateFlags::empty(),
            };
            fallocate(file, mode, line.size(3), line.size(4))?;
            ok()
        }
        "lseek" => {
            if FileType::from_raw_mode(fstat(file)?.st_mode).is_dir() {
                // FUSE answers for directories without asking the daemon.
                return Err(Errno::ISDIR.into());
            }
            let to = match line.word(3) {
                "data" => SeekFrom::Data(line.size(2)),
                "hole" => SeekFrom::Hole(line.size(2)),
                _ => SeekFrom::End(line.number(2)),
            };
            Ok(seek(file, to)?.to_string())
        }
        "fsync" => fsync(file).map_err(Into::into).and_then(|()| ok()),
        "fdatasync" => fdatasync(file).map_err(Into::into).and_then(|()| ok()),
        "flist" => list(file),
        "copy" => {
            let to = side.file(line.count(2) % SLOTS)?;
            let (mut from_at, mut to_at) = (line.size(3), line.size(4));
            let done =
                copy_file_range(file, Some(&mut from_at), to, Some(&mut to_at), line.count(5))?;
            Ok(done.to_string())
        }
        _ => on_metadata(line, file).unwrap_or_else(|| beside(side, line, file)),
    }
}

fn on_metadata(line: &Line, file: &File) -> Option<io::Result<String>> {
    let name = line.raw(2);
    let result = match line.word(0) {
        "fchmod" => fchmod(file, Mode::from_raw_mode(line.mode(2))),
        "fchown" => {
            let (uid, gid) = (super::super::layers::id(line.number(2)), line.number(3));
            let gid = super::super::layers::id(gid);
            fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
        }
        "futimens" => futimens(file, &paths::times(line, 2)),
        "fsetxattr" => fsetxattr(file, name.as_slice(), &line.raw(3), XattrFlags::empty()),
        "fremovexattr" => fremovexattr(file, name.as_slice()),
        "fgetxattr" => {
            let mut value = vec![0; 1 << 16];
            let got = fgetxattr(file, name.as_slice(), value.as_mut_slice());
            return Some(got.map(|len| show_bytes(&value[..len])).map_err(Into::into));
        }
        "flistxattr" => {
            let mut names = vec![0_u8; 1 << 16];
            let got = flistxattr(file, names.as_mut_slice());
            return Some(got.map(|len| show_names(&names[..len])).map_err(Into::into));
        }
        _ => return None,
    };
    Some(result.map(|()| "ok".into()).map_err(Into::into))
}

/// Calls on a name in an open directory, and giving an open file a name.
fn beside(side: &Side, line: &Line, file: &File) -> io::Result<String> {
    let name = line.path(2);
    match line.word(0) {
        "mkdirat" => mkdirat(file, name, Mode::from_raw_mode(0o755))?,
        "createat" => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(openat(file, name, flags, Mode::from_raw_mode(0o644))?);
        }
        "unlinkat" => unlinkat(file, name, AtFlags::empty())?,
        "statat" => {
            let found = statat(file, name, AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(show_stat(&found, side.blocks));
        }
        "flink" => {
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, link, CWD, side.merged.join(name), AtFlags::SYMLINK_FOLLOW)?;
        }
        other => panic!("no such call: {other}"),
    }
    Ok("ok".into())
}
