//! The mount table, and taking a mount out of it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount as umount2};

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id, unique while it is mounted.
    pub id: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system type, with its subtype.
    pub fs_type: OsString,
    /// What it shows of: the layers, or a name that was given.
    pub source: OsString,
}

/// The mounts of this process's mount namespace.
///
/// # Errors
/// `/proc` is not mounted or may not be read.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount that is seen at `point`: of several, the one mounted last.
pub fn topmost<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let mut device = fields.nth(1)?.split(|&byte| byte == b':');
    let device = (number(device.next()?)?, number(device.next()?)?);
    let point = PathBuf::from(unescape_octal(fields.nth(1)?));
    let mut behind = fields.skip_while(|&field| field != b"-").skip(1);
    let fs_type = unescape_octal(behind.next()?);
    let source = unescape_octal(behind.next()?);
    Some(Mount { id, device, point, fs_type, source })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for blanks and the like (`seq_path`).
fn unescape_octal(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'\\'
            && let Some((code, behind)) = behind.split_first_chunk::<3>().and_then(octal)
        {
            plain.push(code);
            rest = behind;
            continue;
        }
        plain.push(byte);
    }
    OsString::from_vec(plain)
}

fn octal<'a>((digits, behind): (&[u8; 3], &'a [u8])) -> Option<(u8, &'a [u8])> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 8).ok().map(|code| (code, behind))
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Now, or not at all.
    Plain,
    /// Out of sight now, gone when its last user is (`MNT_DETACH`).
    Lazy,
}

/// Why it could not be unmounted.
#[derive(Debug, PartialEq, Eq)]
pub enum UnmountError {
    /// Someone uses it.
    Busy,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for UnmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("it is in use"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Unmounts what is seen at `point`: with umount2(2), or where that is not
/// allowed with `fusermount3 -u`.
///
/// # Errors
/// See [`UnmountError`].
pub fn unmount(point: &Path, how: How) -> Result<(), UnmountError> {
    let flags = match how {
        How::Plain => UnmountFlags::NOFOLLOW,
        How::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match umount2(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy),
        Err(Errno::PERM) => fusermount(point, how),
        Err(errno) => Err(UnmountError::Other(errno.to_string())),
    }
}

fn fusermount(point: &Path, how: How) -> Result<(), UnmountError> {
    for program in ["fusermount3", "fusermount"] {
        match fusermount_by(program, point, how) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(UnmountError::Other(format!("{program}: {error}"))),
            Ok(output) => return judge_fusermount(&output),
        }
    }
    let missing =
        "only root may unmount without fusermount3, which is not installed (package fuse3)";
    Err(UnmountError::Other(missing.into()))
}

fn fusermount_by(program: &str, point: &Path, how: How) -> io::Result<Output> {
    let lazily: &[&str] = match how {
        How::Plain => &[],
        How::Lazy => &["-z"],
    };
    Command::new(program)
        .arg("-u")
        .args(lazily)
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
}

fn judge_fusermount(output: &Output) -> Result<(), UnmountError> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        return Err(UnmountError::Busy);
    }
    Err(UnmountError::Other(text.trim().replace('\n', "; ")))
}

/// `path` without symbolic links, also where the last component is a mount that
/// does not answer any more.
///
/// # Errors
/// Those of realpath(3).
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    let whole = path.canonicalize();
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if whole.is_err() => {
            let parent = if parent == OsStr::new("") { Path::new(".") } else { parent };
            parent.canonicalize().map(|parent| parent.join(name))
        }
        _ => whole,
    }
}

/// The mount of this process itself, as it was when it appeared.
#[derive(Debug)]
pub struct OwnMount {
    point: PathBuf,
    id: Option<u64>,
}

impl OwnMount {
    /// The mount just made at `point`, an absolute path without symbolic links.
    pub fn at(point: PathBuf) -> Self {
        let id = match read() {
            Ok(mounts) => topmost(&mounts, &point).map(|mount| mount.id),
            Err(error) => {
                log::debug!("the mount table cannot be read: {error}");
                None
            }
        };
        Self { point, id }
    }

    /// Unmounts it, lazily when it is in use. What is mounted there by others
    /// since then is left alone.
    ///
    /// # Errors
    /// See [`UnmountError`].
    pub fn unmount(&self) -> Result<(), UnmountError> {
        let Some(point) = self.current_point()? else {
            return Ok(());
        };
        match unmount(&point, How::Plain) {
            Err(UnmountError::Busy) => unmount(&point, How::Lazy),
            result => result,
        }
    }

    /// Where it is mounted now; `None` when it is not any more.
    fn current_point(&self) -> Result<Option<PathBuf>, UnmountError> {
        let (Some(id), Ok(mounts)) = (self.id, read()) else {
            return Ok(Some(self.point.clone()));
        };
        let Some(own) = mounts.iter().find(|mount| mount.id == id) else {
            return Ok(None);
        };
        match topmost(&mounts, &own.point) {
            Some(top) if top.id != id => {
                Err(UnmountError::Other("something else is mounted over it".into()))
            }
            _ => Ok(Some(own.point.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn reads_mountinfo_lines() {
        let table = b"24 1 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k\n\
            42 27 0:39 / /tmp/a\\040b\\134c\\012\xff rw,nodev - fuse.ovlfuse a:b rw,user_id=0\n\
            43 42 253:1 /sub /tmp/a\\040b rw master:1 shared:7 - ext4 /dev/x rw\n\
            nonsense\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].fs_type, "devtmpfs");
        assert_eq!((mounts[1].id, mounts[1].device), (42, (0, 39)));
        assert_eq!(mounts[1].point.as_os_str().as_bytes(), b"/tmp/a b\\c\n\xff");
        assert_eq!(
            (&*mounts[1].fs_type, &*mounts[1].source),
            ("fuse.ovlfuse".as_ref(), "a:b".as_ref())
        );
        assert_eq!(
            (mounts[2].device, mounts[2].fs_type.as_os_str()),
            ((253, 1), OsStr::new("ext4"))
        );
    }

    #[test]
    fn octal_escapes() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"plain", b"plain"),
            (b"\\040\\011", b" \t"),
            (b"a\\", b"a\\"),
            (b"\\04", b"\\04"),
            (b"\\999", b"\\999"),
            (b"\\777", b"\\777"),
        ];
        for (text, plain) in cases {
            assert_eq!(unescape_octal(text).as_bytes(), *plain, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_last_mount_at_a_point_is_seen() {
        let mount = |id, point: &str| Mount {
            id,
            device: (0, 1),
            point: point.into(),
            fs_type: "t".into(),
            source: "s".into(),
        };
        let mounts = [mount(1, "/a"), mount(2, "/b"), mount(3, "/a")];
        assert_eq!(topmost(&mounts, Path::new("/a")).map(|mount| mount.id), Some(3));
        assert_eq!(topmost(&mounts, Path::new("/c")), None);
    }

    #[test]
    fn a_path_is_real_even_if_its_end_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(real_path(&dir.path().join("missing")).unwrap(), real.join("missing"));
        assert!(real_path(&dir.path().join("missing/below")).is_err());
        assert_eq!(real_path(&dir.path().join(".")).unwrap(), real);
    }

    #[test]
    fn fusermount_s_words_are_understood() {
        use std::os::unix::process::ExitStatusExt;
        let output = |code: i32, stderr: &str| Output {
            status: std::process::ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: stderr.into(),
        };
        assert_eq!(judge_fusermount(&output(0, "")), Ok(()));
        let busy = "fusermount3: failed to unmount /m: Device or resource busy\n";
        assert_eq!(judge_fusermount(&output(1, busy)), Err(UnmountError::Busy));
        let other = judge_fusermount(&output(1, "no\nway\n"));
        assert_eq!(other, Err(UnmountError::Other("no; way".into())));
    }
}
