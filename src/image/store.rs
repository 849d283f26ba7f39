//! The members of an image: files in a folder, or in an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ::tar::EntryType;
use rustix::fs::{Mode, OFlags};

use super::import::Budget;
use super::pack::Unpacker;
use super::{Result, failed, path_of, refused, split, tar};
use crate::sys::{self, At, Errno, Kind};

/// The longest description (index, manifest, configuration) that is read into memory.
const MAX_TEXT: u64 = 16 << 20;

/// Symbolic links that are followed from one member to another.
const MAX_LINKS: usize = 8;

/// Where the members are.
pub struct Store {
    shown: PathBuf,
    members: Members,
}

enum Members {
    Folder(OwnedFd),
    Archive { file: File, index: HashMap<Vec<u8>, Member> },
}

enum Member {
    Content { start: u64, size: u64 },
    Link(Vec<u8>),
}

impl Store {
    /// Opens the folder or archive (which may be compressed) at `path`. A compressed one is
    /// decompressed to an unnamed file in `scratch`.
    pub fn open(path: &Path, scratch: &Path, budget: &mut Budget) -> Result<Self> {
        let cannot =
            |error: io::Error| refused(format!("{} cannot be read: {error}", path.display()));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| cannot(error.into()))?;
        let stat = sys::stat::stat(At::fd(fd.as_fd())).map_err(|errno| failed(path, errno))?;
        let members = match stat.kind() {
            Kind::Dir => Members::Folder(fd),
            Kind::File => {
                let file = plain(File::from(fd), scratch, budget).map_err(cannot)?;
                let index = index(&file, budget).map_err(cannot)?;
                Members::Archive { file, index }
            }
            _ => {
                return Err(refused(format!(
                    "{} is neither an archive nor a folder",
                    path.display()
                )));
            }
        };
        Ok(Self { shown: path.to_owned(), members })
    }

    /// Whether there is a member of this name.
    pub fn has(&self, name: &[u8]) -> bool {
        self.open_member(name).is_ok()
    }

    /// A member's content and its size in bytes. One at a time: members of an archive share its
    /// position.
    pub fn read(&self, name: &[u8]) -> Result<(impl Read + use<'_>, u64)> {
        self.open_member(name).map_err(|error| {
            let name = path_of(name).display();
            refused(format!("{} cannot be used: its part {name}: {error}", self.shown.display()))
        })
    }

    /// The whole of a short member.
    pub fn text(&self, name: &[u8]) -> Result<Vec<u8>> {
        let (mut content, size) = self.read(name)?;
        let what = || format!("{}: its part {}", self.shown.display(), path_of(name).display());
        if size > MAX_TEXT {
            return Err(refused(format!("{} is too long", what())));
        }
        let mut text = Vec::new();
        content.read_to_end(&mut text).map_err(|error| refused(format!("{}: {error}", what())))?;
        Ok(text)
    }

    fn open_member(&self, name: &[u8]) -> io::Result<(Box<dyn Read + '_>, u64)> {
        match &self.members {
            Members::Folder(root) => {
                let (above, last) = split(name);
                let dir = sys::node::open_dir_path(root.as_fd(), above)?;
                let fd = sys::node::open(At::new(dir.as_fd(), last), OFlags::RDONLY)?;
                let stat = sys::stat::stat(At::fd(fd.as_fd()))?;
                match stat.kind() {
                    Kind::File => Ok((Box::new(File::from(fd)), stat.size)),
                    _ => Err(io::Error::other("it is no regular file")),
                }
            }
            Members::Archive { file, index } => {
                let mut name = clean(name);
                for _ in 0..MAX_LINKS {
                    match index.get(&name) {
                        None => return Err(Errno::NOENT.into()),
                        Some(Member::Link(target)) => name = clean(target),
                        Some(&Member::Content { start, size }) => {
                            let mut file: &File = file;
                            file.seek(SeekFrom::Start(start))?;
                            return Ok((Box::new(file.take(size)), size));
                        }
                    }
                }
                Err(Errno::LOOP.into())
            }
        }
    }
}

/// The archive itself, or decompressed.
fn plain(file: File, scratch: &Path, budget: &mut Budget) -> io::Result<File> {
    let mut unpacker = Unpacker::new(&file)?;
    if matches!(unpacker, Unpacker::None(_)) {
        drop(unpacker);
        (&file).rewind()?;
        return Ok(file);
    }
    let mut plain = tempfile::tempfile_in(scratch)?;
    io::copy(&mut budget.limit(&mut unpacker), &mut plain)?;
    plain.rewind()?;
    Ok(plain)
}

/// What is where in the archive.
fn index(file: &File, budget: &mut Budget) -> io::Result<HashMap<Vec<u8>, Member>> {
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut index = HashMap::new();
    while let Some(entry) = archive.next()? {
        budget.entry(entry.path.len() + entry.link.len())?;
        let path = clean(&entry.path);
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                let member = Member::Content { start: archive.position(), size: entry.size };
                index.insert(path, member);
                archive.skip()?;
            }
            EntryType::Link => drop(index.insert(path, Member::Link(entry.link))),
            EntryType::Symlink => {
                let target = [split(&path).0, b"/", &entry.link].concat();
                index.insert(path, Member::Link(target));
            }
            _ => {}
        }
    }
    Ok(index)
}

/// A name in the archive without `.`, `..` and needless slashes. It only has to be the same for
/// equal names: it is looked up in the index, never in the file system.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_clean() {
        for (name, want) in
            [("./a//b/", "a/b"), ("/a/./b", "a/b"), ("x/../a/b", "a/b"), ("../../a/b", "a/b")]
        {
            assert_eq!(clean(name.as_bytes()), want.as_bytes());
        }
    }
}
