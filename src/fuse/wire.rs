//! Replies in the kernel's format (`include/uapi/linux/fuse.h`), as far as they
//! are written here rather than by the transport crate: everything that holds
//! attributes, because there the node id and the inode number differ, and
//! times may lie before 1970.

use crate::config::ViewOptions;
use crate::fs::Entry;
use crate::fs::direct::{Cache, Opened};
use crate::fs::readdir::{Item, Sink};
use crate::sys::Stat;
use fuser::FopenFlags;
use std::time::Duration;

/// `struct fuse_out_header`.
const HEADER_LEN: usize = 16;
/// `struct fuse_entry_out`.
const ENTRY_LEN: usize = 128;
/// `struct fuse_dirent` without the name.
const DIRENT_LEN: usize = 24;

/// `FUSE_NOTIFY_INVAL_INODE`.
const NOTIFY_INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_INVAL_ENTRY`.
const NOTIFY_INVAL_ENTRY: i32 = 3;
/// `FUSE_NOTIFY_STORE`.
const NOTIFY_STORE: i32 = 4;
/// `FUSE_EXPIRE_ONLY`: look the name up again rather than drop what is cached and mounted below.
const EXPIRE_ONLY: u32 = 1;

/// A reply under construction.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// An empty reply to the request `unique`, with room for `room` bytes.
    pub fn new(unique: u64, room: usize) -> Self {
        Self::with_code(unique, 0, room)
    }

    fn with_code(unique: u64, code: i32, room: usize) -> Self {
        let mut reply = Self { bytes: Vec::with_capacity(HEADER_LEN + room) };
        reply.u32(0);
        reply.u32(code as u32);
        reply.u64(unique);
        reply
    }

    /// A notification that the attributes of node `id` are no longer valid.
    pub fn attributes_changed(id: u64) -> Self {
        // A negative offset leaves the cached data alone.
        Self::inval_inode(id, -1)
    }

    /// A notification that neither the attributes nor the content of node `id` are valid any longer.
    pub fn content_changed(id: u64) -> Self {
        Self::inval_inode(id, 0)
    }

    /// A notification that `name` in the directory `parent` is to be looked up again.
    pub fn name_changed(parent: u64, name: &[u8]) -> Self {
        let mut reply = Self::with_code(0, NOTIFY_INVAL_ENTRY, 16 + name.len() + 1);
        reply.u64(parent);
        reply.u32(name.len() as u32);
        reply.u32(EXPIRE_ONLY);
        reply.bytes.extend_from_slice(name);
        reply.bytes.push(0);
        reply
    }

    /// What comes before the `len` bytes of data in a notification that node `id` begins with them.
    pub fn content_is(id: u64, len: usize) -> Vec<u8> {
        let mut reply = Self::with_code(0, NOTIFY_STORE, 24);
        reply.u64(id);
        reply.u64(0);
        reply.u32(len as u32);
        reply.u32(0);
        reply.finish_before(len)
    }

    fn inval_inode(id: u64, offset: i64) -> Self {
        let mut reply = Self::with_code(0, NOTIFY_INVAL_INODE, 24);
        reply.u64(id);
        reply.u64(offset as u64);
        reply.u64(0);
        reply
    }

    /// Appends `struct fuse_entry_out`; `None` is a negative entry. The attributes can be kept if
    /// they `last`.
    pub fn entry(&mut self, entry: Option<&Entry>, last: bool, view: &ViewOptions) {
        let kept = if last { view.timeout } else { Duration::ZERO };
        self.u64(entry.map_or(0, |e| e.id));
        self.u64(0);
        self.u64(view.timeout.as_secs());
        self.u64(kept.as_secs());
        self.u32(view.timeout.subsec_nanos());
        self.u32(kept.subsec_nanos());
        match entry {
            Some(entry) => self.attr_body(&view.show(&entry.attr)),
            None => self.bytes.resize(self.bytes.len() + 88, 0),
        }
    }

    /// Appends `struct fuse_attr_out`; the attributes can be kept if they `last`.
    pub fn attr(&mut self, stat: &Stat, last: bool, view: &ViewOptions) {
        let kept = if last { view.timeout } else { Duration::ZERO };
        self.u64(kept.as_secs());
        self.u32(kept.subsec_nanos());
        self.u32(0);
        self.attr_body(&view.show(stat));
    }

    /// Appends `struct fuse_open_out`.
    pub fn open(&mut self, opened: &Opened) {
        let (keep, direct) = (FopenFlags::FOPEN_KEEP_CACHE, FopenFlags::FOPEN_DIRECT_IO);
        let pass = FopenFlags::FOPEN_PASSTHROUGH;
        let (flags, passed) = match &opened.cache {
            Cache::Kept => (keep, 0),
            Cache::Renewed => (FopenFlags::empty(), 0),
            // What others have mapped stays mapped.
            Cache::Bypassed => (keep | direct, 0),
            Cache::Passed { file, asks: false } => (pass, file.id),
            Cache::Passed { file, asks: true } => (pass | direct, file.id),
        };
        self.u64(opened.handle);
        self.u32(flags.bits());
        self.u32(passed);
    }

    /// `struct fuse_attr`.
    fn attr_body(&mut self, stat: &Stat) {
        let times = [stat.atime, stat.mtime, stat.ctime];
        self.u64(stat.ino);
        self.u64(stat.size);
        self.u64(stat.blocks);
        for time in times {
            self.u64(time.secs as u64);
        }
        for time in times {
            self.u32(time.nanos);
        }
        self.u32(stat.mode);
        self.u32(stat.nlink);
        self.u32(stat.uid);
        self.u32(stat.gid);
        self.u32(stat.rdev);
        self.u32(stat.blksize);
        self.u32(0);
    }

    /// The finished reply.
    pub fn finish(self) -> Vec<u8> {
        self.finish_before(0)
    }

    /// The finished reply but for `more` bytes that are sent behind it.
    fn finish_before(mut self, more: usize) -> Vec<u8> {
        let len = (self.bytes.len() + more) as u32;
        if let Some(field) = self.bytes.first_chunk_mut() {
            *field = len.to_ne_bytes();
        }
        self.bytes
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }
}

/// A listing under construction, of at most the size the kernel asked for.
pub struct DirReply<'a> {
    last: &'a dyn Fn(&Entry) -> bool,
    view: &'a ViewOptions,
    reply: Reply,
    end: usize,
    plus: bool,
    /// The lookups it carries, to be undone if it cannot be sent.
    pub lookups: Vec<u64>,
}

impl<'a> DirReply<'a> {
    /// An empty listing of at most `size` bytes; with `plus` for READDIRPLUS, where `last` tells
    /// whether an entry's attributes can be kept.
    pub fn new(
        unique: u64,
        (size, plus): (usize, bool),
        last: &'a dyn Fn(&Entry) -> bool,
        view: &'a ViewOptions,
    ) -> Self {
        let reply = Reply::new(unique, size);
        Self { last, view, reply, end: HEADER_LEN + size, plus, lookups: Vec::new() }
    }

    /// The finished reply.
    pub fn finish(self) -> Vec<u8> {
        self.reply.finish()
    }
}

impl Sink for DirReply<'_> {
    fn fits(&self, len: usize) -> bool {
        let fixed = DIRENT_LEN + if self.plus { ENTRY_LEN } else { 0 };
        self.reply.bytes.len() + fixed + len.next_multiple_of(8) <= self.end
    }

    fn push(&mut self, item: Item<'_>) {
        if self.plus {
            match &item.entry {
                Some(entry) => {
                    self.lookups.push(entry.id);
                    self.reply.entry(Some(entry), (self.last)(entry), self.view);
                }
                // All zeros: no lookup is implied, the kernel asks when it needs one.
                None => self.reply.bytes.resize(self.reply.bytes.len() + ENTRY_LEN, 0),
            }
        }
        self.reply.u64(item.ino);
        self.reply.u64(item.offset);
        self.reply.u32(item.name.len() as u32);
        self.reply.u32(item.dtype);
        self.reply.bytes.extend_from_slice(item.name);
        let padded = self.reply.bytes.len().next_multiple_of(8);
        self.reply.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_kernels_structures() {
        let len = |build: fn(&mut Reply)| {
            let mut reply = Reply::new(7, 0);
            build(&mut reply);
            reply.finish().len() - HEADER_LEN
        };
        assert_eq!(len(|r| r.entry(None, true, &ViewOptions::default())), ENTRY_LEN);
        assert_eq!(len(|r| r.open(&Opened { handle: 1, cache: Cache::Kept })), 16);
        assert_eq!(Reply::attributes_changed(1).finish().len(), HEADER_LEN + 24);
        assert_eq!(Reply::name_changed(1, b"name").finish().len(), HEADER_LEN + 16 + 5);
        let before = Reply::content_is(7, 100);
        assert_eq!(before.len(), HEADER_LEN + 24);
        assert_eq!(before.first_chunk(), Some(&(HEADER_LEN as u32 + 24 + 100).to_ne_bytes()));
    }

    #[test]
    fn a_listing_never_exceeds_its_size() {
        let view = ViewOptions::default();
        let mut listing = DirReply::new(1, (100, false), &|_| true, &view);
        let mut pushed = 0;
        while listing.fits(5) {
            let item = Item { name: b"hello", dtype: 8, ino: 1, offset: 3, entry: None };
            listing.push(item);
            pushed += 1;
        }
        assert_eq!(pushed, 3);
        assert_eq!(listing.finish().len(), HEADER_LEN + 96);
    }
}
