//! What a layer changes, as a layer archive of the OCI image format.
//!
//! The same layer gives the same bytes: entries in the order of their names, owners as numbers, no
//! access times, times not later than a given one. Extended headers (pax) carry what the plain
//! header cannot: long names, times between seconds, extended attributes (`SCHILY.xattr.`).
//!
//! Holes are written as zeros: the format advises against sparse entries, which many cannot read,
//! and zeros compress to nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};

use super::changes::{self, Change};
use super::pack::{Compression, Hashed, Packer};
use super::stack::{Object, Part, Stack};
use super::{Result, Stop, Style, failed, join, object, path_of, refused, split};
use crate::error::MountError;
use crate::format::dot_wh;
use crate::sys::{self, Kind, Time};

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The digest of the archive without compression, which an image's configuration lists.
    pub diff_id: String,
    /// The digest of the file, which an image's manifest lists.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
    /// Sockets that were left out: an archive cannot hold them.
    pub sockets: u64,
}

type Output<'a> = Hashed<Packer<Hashed<BufWriter<&'a File>>>>;

/// Writes what `folders[0]` changes of the union of the others (topmost first) to `to`, compressed
/// as the ending of its name asks. Times after `latest` (seconds) become `latest`.
///
/// # Errors
/// What cannot be read, written, or expressed in an archive; `to` is as before then.
pub fn write(folders: &[PathBuf], to: &Path, latest: Option<i64>, style: Style) -> Result<Written> {
    let stack = Stack::open(folders, style)?;
    let to = &place_of(to)?;
    stack.check_outside(to)?;
    let above = to.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: io::Error| refused(format!("{} cannot be written: {error}", to.display()));
    let permissions = std::fs::Permissions::from_mode(0o666);
    let file =
        tempfile::Builder::new().prefix(".ovlfuse-").permissions(permissions).tempfile_in(above);
    let (file, name) = file.map_err(cannot)?.into_parts();
    let compression = Compression::of_name(to.as_os_str().as_encoded_bytes());
    let packer = Packer::new(Hashed::new(BufWriter::new(&file)), compression).map_err(cannot)?;
    let mut archive = Archive {
        stack: &stack,
        tar: Builder::new(Hashed::new(packer)),
        latest,
        links: HashMap::new(),
        sockets: 0,
    };
    changes::walk(&stack, |change| archive.append(&change))?;
    let sockets = archive.sockets;
    let close = || {
        let (packer, diff_id, _) = archive.tar.into_inner()?.finish();
        let (mut buffered, digest, size) = packer.finish()?.finish();
        buffered.flush()?;
        Ok(Written { diff_id, digest, size, sockets })
    };
    let written = close().map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    name.persist(to).map_err(|error| cannot(error.error))?;
    Ok(written)
}

/// Where the archive `to` is, which is a regular file, or nothing yet: a rename puts it there, and
/// must not replace a device or a link.
fn place_of(to: &Path) -> Result<PathBuf> {
    if to == Path::new("-") {
        return Err(refused("an archive cannot be written to the standard output; name a file"));
    }
    match to.metadata() {
        Ok(found) if !found.is_file() => {
            Err(refused(format!("{} is no regular file; name one", to.display())))
        }
        Ok(_) => to
            .canonicalize()
            .map_err(|error| refused(format!("{} cannot be written: {error}", to.display()))),
        // What else is wrong shows when it is made.
        Err(_) => Ok(to.to_owned()),
    }
}

struct Archive<'a> {
    stack: &'a Stack,
    tar: Builder<Output<'a>>,
    latest: Option<i64>,
    /// Files with several names that were written: layer, device and inode number to the name.
    links: HashMap<(usize, (u32, u32), u64), Vec<u8>>,
    sockets: u64,
}

impl Archive<'_> {
    fn append(&mut self, change: &Change<'_>) -> Result<()> {
        let (above, name) = split(change.path);
        if name.starts_with(dot_wh::PREFIX) {
            return Err(refused(format!(
                "/{} cannot be exported: in a layer archive its name is a whiteout",
                path_of(change.path).display()
            )));
        }
        match change.now {
            None if change.hidden => Ok(()),
            None => match dot_wh::whiteout_of(name) {
                Some(mark) => self.mark(&join(above, &mark)),
                None => Err(refused(format!(
                    "the removal of /{} cannot be exported: the name is too long for a whiteout",
                    path_of(change.path).display()
                ))),
            },
            Some(object) => {
                self.object(change.path, object)?;
                if change.opaque { self.mark(&join(change.path, dot_wh::OPAQUE)) } else { Ok(()) }
            }
        }
    }

    /// An empty file that says something by its name.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let mut entry = Entry::new(path, EntryType::Regular);
        entry.header.set_mode(0);
        entry.time(Time::default());
        self.write(entry, 0, io::empty()).map_err(|error| self.cannot(path, error))
    }

    fn object(&mut self, path: &[u8], object: &Object) -> Result<()> {
        let (stat, part) = (&object.stat, &object.place);
        let entry_type = match object.stat.kind() {
            Kind::Socket => {
                self.sockets += 1;
                return Ok(());
            }
            Kind::File => EntryType::Regular,
            Kind::Dir => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::Char => EntryType::Char,
            Kind::Block => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        };
        let linked =
            (!object.is_dir() && stat.nlink > 1).then_some((part.layer, stat.dev, stat.ino));
        let first = linked.and_then(|key| self.links.get(&key).cloned());
        let mut entry = match first {
            Some(_) => Entry::new(path, EntryType::Link),
            None if object.is_dir() => Entry::new(&join(path, b""), entry_type),
            None => Entry::new(path, entry_type),
        };
        entry.header.set_mode(stat.mode & 0o7777);
        entry.owner(stat.uid, stat.gid);
        entry.time(clamp(stat.mtime, self.latest));
        if let Some(first) = first {
            entry.link(&first);
            return self.write(entry, 0, io::empty()).map_err(|error| self.cannot(path, error));
        }
        if let Some(key) = linked {
            self.links.insert(key, path.to_vec());
        }
        for (name, value) in object::xattrs(self.stack, part)? {
            entry.xattr(&name, value).ok_or_else(|| {
                let name = name.escape_ascii();
                refused(format!(
                    "/{}: an archive cannot hold the attribute {name}",
                    path_of(path).display()
                ))
            })?;
        }
        match object.stat.kind() {
            Kind::Symlink => entry.link(&self.stack.at(part, sys::node::read_link)?),
            Kind::Char | Kind::Block => entry.device(stat.rdev),
            Kind::File => return self.file(entry, path, part, stat.size),
            _ => {}
        }
        self.write(entry, 0, io::empty()).map_err(|error| self.cannot(path, error))
    }

    fn file(&mut self, entry: Entry, path: &[u8], part: &Part, size: u64) -> Result<()> {
        let open = |flags| self.stack.at(part, |at| sys::node::open(at, OFlags::RDONLY | flags));
        let fd: OwnedFd = open(OFlags::NOATIME).or_else(|_| open(OFlags::empty()))?;
        let mut content =
            Content { file: File::from(fd), left: size, stop: self.stack.style().stop.clone() };
        self.write(entry, size, &mut content).map_err(|error| self.cannot(path, error))
    }

    fn write(&mut self, mut entry: Entry, size: u64, content: impl Read) -> io::Result<()> {
        entry.size(size);
        let pax = entry.pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(pax)?;
        entry.header.set_cksum();
        self.tar.append(&entry.header, content)
    }

    fn cannot(&self, path: &[u8], error: io::Error) -> MountError {
        match error.raw_os_error() {
            Some(code) => failed(path_of(path), sys::Errno::from_raw_os_error(code)),
            None => refused(format!("/{}: {error}", path_of(path).display())),
        }
    }
}

/// Exactly as much of a file as its header says.
struct Content {
    file: File,
    left: u64,
    stop: Stop,
}

impl Read for Content {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        self.stop.check().map_err(io::Error::other)?;
        let want = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut data[..want])?;
        if count == 0 && want > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// One entry: a plain header, and what does not fit in it.
struct Entry {
    header: Header,
    pax: Vec<(String, Vec<u8>)>,
}

/// The greatest number of a header's field of `digits` octal digits.
const fn greatest(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

impl Entry {
    fn new(path: &[u8], entry_type: EntryType) -> Self {
        let mut entry = Self { header: Header::new_ustar(), pax: Vec::new() };
        entry.header.set_entry_type(entry_type);
        entry.header.set_uid(0);
        entry.header.set_gid(0);
        entry.device(0);
        entry.name(path, "path");
        entry
    }

    fn link(&mut self, target: &[u8]) {
        self.name(target, "linkpath");
    }

    /// A name, in the plain header as far as it fits.
    fn name(&mut self, name: &[u8], key: &str) {
        let header = self.header.as_old_mut();
        let field = if key == "path" { &mut header.name } else { &mut header.linkname };
        let fits = name.len().min(field.len());
        field[..fits].copy_from_slice(&name[..fits]);
        if fits < name.len() {
            if std::str::from_utf8(name).is_err() {
                self.pax.push(("hdrcharset".into(), b"BINARY".into()));
            }
            self.pax.push((key.into(), name.to_vec()));
        }
    }

    fn owner(&mut self, uid: u32, gid: u32) {
        let uid = self.number("uid", uid.into(), greatest(7));
        self.header.set_uid(uid);
        let gid = self.number("gid", gid.into(), greatest(7));
        self.header.set_gid(gid);
    }

    fn size(&mut self, size: u64) {
        let size = self.number("size", size, greatest(11));
        self.header.set_size(size);
    }

    /// `number` for the plain header; 0 where that has no room and `key` says it.
    fn number(&mut self, key: &str, number: u64, greatest: u64) -> u64 {
        if number <= greatest {
            return number;
        }
        self.pax.push((key.into(), number.to_string().into_bytes()));
        0
    }

    fn time(&mut self, time: Time) {
        let plain = u64::try_from(time.secs).ok().filter(|&secs| secs <= greatest(11));
        if plain.is_none() || time.nanos != 0 {
            self.pax.push(("mtime".into(), decimal(time).into_bytes()));
        }
        self.header.set_mtime(plain.unwrap_or(0));
    }

    fn device(&mut self, rdev: u32) {
        let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00));
        if let Some(header) = self.header.as_ustar_mut() {
            header.set_device_major(major);
            header.set_device_minor(minor);
        }
    }

    /// `None` when the name cannot be a key.
    fn xattr(&mut self, name: &[u8], value: Vec<u8>) -> Option<()> {
        let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('='))?;
        self.pax.push((format!("SCHILY.xattr.{name}"), value));
        Some(())
    }
}

/// `time`, or `latest` where that is earlier.
fn clamp(time: Time, latest: Option<i64>) -> Time {
    match latest {
        Some(secs) if time.secs >= secs => Time { secs, nanos: 0 },
        _ => time,
    }
}

/// `time` as a decimal number of seconds, as pax has it.
fn decimal(time: Time) -> String {
    match time {
        Time { secs, nanos: 0 } => secs.to_string(),
        Time { secs, nanos } if secs < 0 => {
            format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos)
        }
        Time { secs, nanos } => format!("{secs}.{nanos:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        let table = [
            ((5, 0), "5"),
            ((5, 7), "5.000000007"),
            ((-1, 0), "-1"),
            ((-1, 250_000_000), "-0.750000000"),
            ((-3, 1), "-2.999999999"),
        ];
        for ((secs, nanos), text) in table {
            assert_eq!(decimal(Time { secs, nanos }), text);
        }
        assert_eq!(clamp(Time { secs: 5, nanos: 1 }, Some(5)), Time { secs: 5, nanos: 0 });
        assert_eq!(clamp(Time { secs: 4, nanos: 9 }, Some(5)), Time { secs: 4, nanos: 9 });
    }
}
