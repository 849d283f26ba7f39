//! The calls that take a path.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid,
    XattrFlags, accessat, chmodat, chownat, fstat, ioctl_getflags, ioctl_setflags, lgetxattr,
    linkat, llistxattr, lremovexattr, lsetxattr, lstat, mkdirat, mknodat, openat, readlinkat,
    renameat_with, setxattr, stat, statfs, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{Side, list, show_bytes, show_names, show_stat};
use crate::acl;
use crate::common::sys;
use crate::layers::{id, node};
use crate::rng;
use crate::script::Line;

/// Makes the call when it is one of those here.
pub fn call(side: &mut Side, line: &Line) -> Option<io::Result<String>> {
    let result = names(side, line).or_else(|| attributes(side, line)).or_else(|| data(side, line));
    result.or_else(|| xattrs(side, line))
}

fn done(result: Result<(), impl Into<io::Error>>) -> Option<io::Result<String>> {
    Some(result.map(|()| "ok".into()).map_err(Into::into))
}

/// Calls that change names.
fn names(side: &Side, line: &Line) -> Option<io::Result<String>> {
    let at = |index| side.merged.join(line.path(index));
    let mode = |index| Mode::from_raw_mode(line.mode(index));
    match line.word(0) {
        "mkdir" => done(mkdirat(CWD, at(1), mode(2))),
        "create" => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            done(openat(CWD, at(1), flags, mode(2)).map(drop))
        }
        "mknod" => {
            let (kind, device) = node(line, 3);
            done(mknodat(CWD, at(1), kind, mode(2), device))
        }
        "symlink" => done(symlinkat(line.path(1), CWD, at(2))),
        "link" => {
            let follow = line.word(3) == "follow";
            let flags = if follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
            done(linkat(CWD, at(1), CWD, at(2), flags))
        }
        "unlink" => done(unlinkat(CWD, at(1), AtFlags::empty())),
        "rmdir" => done(unlinkat(CWD, at(1), AtFlags::REMOVEDIR)),
        "rename" => {
            let flags = line.word(3).split('|').map(rename_flag).collect();
            done(renameat_with(CWD, at(1), CWD, at(2), flags))
        }
        "rmtree" => done(remove_tree(&at(1))),
        _ => None,
    }
}

fn rename_flag(name: &str) -> RenameFlags {
    match name {
        "noreplace" => RenameFlags::NOREPLACE,
        "exchange" => RenameFlags::EXCHANGE,
        "whiteout" => RenameFlags::WHITEOUT,
        _ => RenameFlags::empty(),
    }
}

/// Removes a tree name by name, sorted, up to the first error.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.last().cloned() {
        let is_dir = lstat(&path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        if is_dir {
            let entries = std::fs::read_dir(&path)?;
            let mut below: Vec<_> =
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            below.retain(|path| lstat(path).is_ok());
            if below.is_empty() {
                unlinkat(CWD, &path, AtFlags::REMOVEDIR)?;
            } else {
                below.sort();
                todo.extend(below);
                continue;
            }
        } else {
            match unlinkat(CWD, &path, AtFlags::empty()) {
                Err(Errno::NOENT) if todo.len() > 1 => {}
                other => other?,
            }
        }
        todo.pop();
    }
    Ok(())
}

/// Calls that ask for or change attributes.
fn attributes(side: &Side, line: &Line) -> Option<io::Result<String>> {
    let path = side.merged.join(line.path(1));
    let show = |result: rustix::io::Result<rustix::fs::Stat>| {
        Some(result.map(|stat| show_stat(&stat, side.blocks)).map_err(Into::into))
    };
    match line.word(0) {
        "stat" => show(stat(&path)),
        "lstat" => show(lstat(&path)),
        "chmod" => done(chmodat(CWD, &path, Mode::from_raw_mode(line.mode(2)), AtFlags::empty())),
        "chown" | "lchown" => {
            let (uid, gid) = (id(line.number(2)), id(line.number(3)));
            let nofollow = line.word(0) == "lchown";
            let flags = if nofollow { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
            done(chownat(CWD, &path, uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags))
        }
        "utimens" => done(utimensat(CWD, &path, &times(line, 2), AtFlags::SYMLINK_NOFOLLOW)),
        "truncate" => {
            let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
            done(sys::truncate(&path, line.size(2)))
        }
        "chattr" => done(with_attributes(&path).and_then(|file| chattr(&file, line.word(2)))),
        "lsattr" => Some(with_attributes(&path).and_then(|file| super::lsattr(&file))),
        "access" => {
            let access = Access::from_bits_truncate(u32::try_from(line.number(2)).expect("bits"));
            done(accessat(CWD, &path, access, AtFlags::EACCESS))
        }
        "readlink" => Some(
            readlinkat(CWD, &path, Vec::new())
                .map(|target| show_bytes(target.as_bytes()))
                .map_err(Into::into),
        ),
        "statfs" => Some(
            statfs(&path).map(|found| format!("namelen={}", found.f_namelen)).map_err(Into::into),
        ),
        _ => None,
    }
}

fn opened(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?.into())
}

/// Opens what may have file attributes; a device would answer itself.
fn with_attributes(path: &Path) -> io::Result<File> {
    let file = opened(path)?;
    let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
    let is_device = kind.is_char_device() || kind.is_block_device();
    if is_device { Err(Errno::NOTTY.into()) } else { Ok(file) }
}

/// Gives `file` these of the file attributes that calls give, `-` for none.
fn chattr(file: &File, letters: &str) -> io::Result<()> {
    let wanted = super::FILE_ATTRIBUTES.iter().filter(|(letter, _)| letters.contains(*letter));
    let others = super::FILE_ATTRIBUTES.iter().fold(ioctl_getflags(file)?, |all, one| all - one.1);
    Ok(ioctl_setflags(file, wanted.fold(others, |all, one| all | one.1))?)
}

/// Words `index` onwards, `SEC NSEC` or `now` or `omit`, as both times; `atime` sets that alone.
pub fn times(line: &Line, index: usize) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let time = match line.word(index) {
        "now" => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        "omit" => omit,
        "atime" => {
            let last_access = Timespec { tv_sec: 1, tv_nsec: 0 };
            return Timestamps { last_access, last_modification: omit };
        }
        _ => Timespec { tv_sec: line.number(index), tv_nsec: line.number(index + 1) },
    };
    Timestamps { last_access: time, last_modification: time }
}

/// Calls that open, do something with the content or listing, and close.
fn data(side: &Side, line: &Line) -> Option<io::Result<String>> {
    let path = side.merged.join(line.path(1));
    let mut options = std::fs::OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK);
    let result = match line.word(0) {
        "read" => read_all(&path),
        "write" => options.write(true).open(&path).and_then(|file| {
            file.write_all_at(&rng::bytes(line.size(4), line.count(3)), line.size(2))?;
            Ok("ok".into())
        }),
        "append" => options.append(true).open(&path).and_then(|mut file| {
            io::Write::write_all(&mut file, &rng::bytes(line.size(3), line.count(2)))?;
            Ok("ok".into())
        }),
        "list" => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, &path, flags, Mode::empty()).map_err(Into::into).and_then(list)
        }
        _ => return None,
    };
    Some(result)
}

fn read_all(path: &Path) -> io::Result<String> {
    let file = opened(path)?;
    let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
    if kind.is_char_device() || kind.is_block_device() {
        return Ok("opened".into());
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut { file }, &mut bytes)?;
    Ok(show_bytes(&bytes))
}

fn xattrs(side: &Side, line: &Line) -> Option<io::Result<String>> {
    let path = side.merged.join(line.path(1));
    let name = line.raw(2);
    match line.word(0) {
        "setxattr" => done(lsetxattr(&path, name.as_slice(), &line.raw(3), flags(line, 4))),
        "acl" => {
            let (name, value) = acl::parse(line, 2);
            done(setxattr(&path, name, &value, XattrFlags::empty()))
        }
        "getxattr" => {
            let mut value = vec![0; 1 << 16];
            let got = lgetxattr(&path, name.as_slice(), value.as_mut_slice());
            Some(got.map(|len| show_bytes(&value[..len])).map_err(Into::into))
        }
        "removexattr" => done(lremovexattr(&path, name.as_slice())),
        "listxattr" => {
            let mut names = vec![0_u8; 1 << 16];
            let got = llistxattr(&path, names.as_mut_slice());
            Some(got.map(|len| show_names(&names[..len])).map_err(Into::into))
        }
        _ => None,
    }
}

/// Word `index` as the flags of setting an xattr.
pub fn flags(line: &Line, index: usize) -> XattrFlags {
    match line.word(index) {
        "create" => XattrFlags::CREATE,
        "replace" => XattrFlags::REPLACE,
        _ => XattrFlags::empty(),
    }
}
