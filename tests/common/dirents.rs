//! Directory entries as the kernel hands them out, offsets included.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, RawDir};

use super::tree::Tree;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, any bytes.
    pub name: OsString,
    /// `d_ino`.
    pub ino: u64,
    /// `d_type`.
    pub kind: FileType,
    /// `d_off`: what to seek to for the entry after this one.
    pub next: u64,
}

/// The entries that one getdents64 call with a buffer of `buffer` bytes gives; empty at the end.
pub fn batch(directory: impl AsFd, buffer: usize) -> std::io::Result<Vec<Entry>> {
    let mut buffer: Vec<MaybeUninit<u8>> = vec![MaybeUninit::uninit(); buffer];
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        entries.push(Entry {
            name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
            ino: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok(entries)
}

/// What is left of an open directory, read with a buffer of `buffer` bytes.
#[track_caller]
pub fn rest(directory: impl AsFd, buffer: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let more = batch(&directory, buffer).unwrap_or_else(|error| panic!("getdents64: {error}"));
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

/// All entries of the directory at `path`, opened with `flags`, `.` and `..` included, in order.
#[track_caller]
pub fn all(path: impl AsRef<Path>, flags: OFlags) -> Vec<Entry> {
    rest(Tree::new(path.as_ref()).open("", flags | OFlags::DIRECTORY), 32 << 10)
}
