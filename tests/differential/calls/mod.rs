//! Making a script's calls on one side, with the result as text.

mod files;
mod paths;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, IFlags, Stat, ioctl_getflags};
use rustix::io::Errno;

use super::script::{Line, escape};
use crate::common::dirents;
use crate::common::sys::Map;

/// How many files a script may hold open.
pub const SLOTS: usize = 6;

/// One mount with what is held open in it.
pub struct Side {
    /// Where it is mounted.
    pub merged: PathBuf,
    /// Whether `st_blocks` follows from the calls, as on tmpfs.
    pub blocks: bool,
    files: [Option<File>; SLOTS],
    maps: [Option<Mapped>; SLOTS],
}

/// A mapping of the beginning of a file.
struct Mapped {
    map: Map,
    file: File,
    writable: bool,
}

impl Side {
    /// Nothing open yet in `merged`.
    pub fn new(merged: PathBuf, blocks: bool) -> Self {
        Self { merged, blocks, files: Default::default(), maps: Default::default() }
    }

    /// Makes the call of `line`: what it gave, or its errno's name.
    pub fn call(&mut self, line: &Line) -> String {
        let result = match line.caller() {
            None => self.dispatch(line),
            Some(caller) => caller.run(|| self.dispatch(line)),
        };
        result.unwrap_or_else(|error| error_name(&error))
    }

    fn dispatch(&mut self, line: &Line) -> io::Result<String> {
        match paths::call(self, line) {
            Some(result) => result,
            None => files::call(self, line),
        }
    }

    fn file(&self, slot: usize) -> io::Result<&File> {
        self.files.get(slot).and_then(Option::as_ref).ok_or(Errno::BADF.into())
    }

    /// Closes everything.
    pub fn close_all(&mut self) {
        self.files = Default::default();
        self.maps = Default::default();
    }
}

/// An error as its errno's name.
pub fn error_name(error: &io::Error) -> String {
    let Some(errno) = Errno::from_io_error(error) else { return error.to_string() };
    let names = [
        (Errno::ACCESS, "EACCES"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::BADF, "EBADF"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::FBIG, "EFBIG"),
        (Errno::INVAL, "EINVAL"),
        (Errno::IO, "EIO"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::LOOP, "ELOOP"),
        (Errno::MLINK, "EMLINK"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::NODATA, "ENODATA"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOENT, "ENOENT"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::NOTTY, "ENOTTY"),
        (Errno::NXIO, "ENXIO"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::PERM, "EPERM"),
        (Errno::RANGE, "ERANGE"),
        (Errno::ROFS, "EROFS"),
        (Errno::SPIPE, "ESPIPE"),
        (Errno::STALE, "ESTALE"),
        (Errno::TXTBSY, "ETXTBSY"),
        (Errno::XDEV, "EXDEV"),
    ];
    let found = names.iter().find(|(known, _)| *known == errno);
    found.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

/// A time, `now` when it is within an hour of this moment: two runs cannot share it.
pub fn moment(seconds: i64, nanoseconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    if i64::try_from(now).expect("before the year 292e9").abs_diff(seconds) < 3600 {
        "now".into()
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}

/// What `stat` says that two sides must share.
pub fn show_stat(stat: &Stat, blocks: bool) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut text = format!(
        "{kind:?} {:04o} {}:{} nlink={} mtime={}",
        stat.st_mode & 0o7777,
        stat.st_uid,
        stat.st_gid,
        stat.st_nlink,
        moment(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).expect("below 1e9"))
    );
    if kind != FileType::Directory {
        text += &format!(" size={} rdev={:x}", stat.st_size, stat.st_rdev);
    }
    if kind == FileType::RegularFile && blocks {
        text += &format!(" blocks={}", stat.st_blocks);
    }
    text
}

/// The file attributes (chattr(1)) that calls give, by their letters.
const FILE_ATTRIBUTES: [(char, IFlags); 4] = [
    ('a', IFlags::APPEND),
    ('A', IFlags::NOATIME),
    ('d', IFlags::NODUMP),
    ('i', IFlags::IMMUTABLE),
];

/// Those that `file` has.
pub fn lsattr(file: &File) -> io::Result<String> {
    let flags = ioctl_getflags(file)?;
    let set = FILE_ATTRIBUTES.iter().filter(|(_, flag)| flags.contains(*flag));
    Ok(format!("[{}]", set.map(|(letter, _)| letter).collect::<String>()))
}

/// Bytes as text when they are few, else their number and hash.
pub fn show_bytes(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hasher};
    if bytes.len() <= 40 {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{} bytes, hash {:08x}", bytes.len(), hasher.finish() >> 32)
}

/// What a directory that is open lists from the beginning, sorted.
fn list(directory: impl AsFd) -> io::Result<String> {
    rustix::fs::seek(&directory, rustix::fs::SeekFrom::Start(0))?;
    let mut names = Vec::new();
    loop {
        let batch = dirents::batch(&directory, 4096)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch {
            use std::os::unix::ffi::OsStrExt;
            names.push(format!("{}:{:?}", escape(entry.name.as_bytes()), entry.kind));
        }
    }
    names.sort();
    Ok(names.join(" "))
}

/// The xattr names in `list`, sorted.
fn show_names(list: &[u8]) -> String {
    let mut names: Vec<String> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| name.escape_ascii().to_string())
        .collect();
    names.sort();
    names.join(" ")
}
