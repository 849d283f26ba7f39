//! Open files: OPEN to RELEASE, and the calls on their data.
//!
//! An open file owns one descriptor of the object's data. Readers of a lower
//! file go over to the copy in upper as soon as there is one, as the kernel's
//! do. When descriptors run out, those of files that can be opened again by
//! name are closed and opened at the next use.

use super::direct::{Cache, Opened};
use super::node::{Kept, Node};
use super::passthrough::Mapped;
use super::protect::refuse;
use super::set_id::has_set_id;
use super::{Caller, Fs};
use crate::config::Fsync;
use crate::sys::identity;
use crate::sys::{self, At, Errno, Kind, Result, Stat, data};
use crate::union::LayerId;
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::process::{Resource, getrlimit};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a file was opened.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The flags of open(2).
    pub flags: OFlags,
    /// It was just made or emptied.
    pub empty: bool,
}

impl How {
    /// `O_RDONLY`, `O_WRONLY` or `O_RDWR`.
    pub fn access(self) -> OFlags {
        self.flags & OFlags::ACCMODE
    }

    /// Whether it may be written to.
    pub fn writes(self) -> bool {
        self.access() != OFlags::RDONLY
    }

    /// Whether fcntl(2) can turn it into what reads or writes in another way.
    pub fn can_turn(self) -> bool {
        self.writes() && self.flags.contains(OFlags::APPEND) || self.flags.contains(OFlags::DIRECT)
    }

    /// Whether a process runs it: execve(2) did it.
    fn executes(self) -> bool {
        self.flags.contains(EXECUTE)
    }
}

/// An open regular file.
#[derive(Debug)]
pub struct OpenFile {
    node: Arc<Node>,
    pub(super) how: How,
    /// What the kernel's page cache is to it.
    pub(super) cache: Cache,
    backing: RwLock<Backing>,
}

/// The handle of a file that the kernel opened without asking. Without an upper the data of a node
/// is the same for everybody and stays it; beside one it takes the right to open whatever the
/// merged view lets clients open, at any time.
pub const NO_HANDLE: u64 = 0;

/// The flag of files that execve(2) opens (`__FMODE_EXEC` in the kernel's `include/linux/fs.h`).
const EXECUTE: OFlags = OFlags::from_bits_retain(0x20);

/// The most 512-byte blocks of an unlinked file that is kept without being open: the room of a
/// larger one is wanted back at once.
const KEPT_BLOCKS: u64 = 128;

/// Descriptors that are not given to files which keep them until they are closed.
const SPARE_DESCRIPTORS: u64 = 16;

#[derive(Debug)]
struct Backing {
    fd: Option<Arc<OwnedFd>>,
    /// The data is upper's.
    in_upper: bool,
}

impl OpenFile {
    /// Whether it may be written to.
    pub fn writable(&self) -> bool {
        self.how.writes()
    }

    /// Whether its descriptor can be closed while it has a name: without privileges a file that
    /// may be written now may not be opened so again.
    fn can_be_reopened(&self) -> bool {
        !self.writable() || identity::may_chown()
    }

    /// Goes over to the copy that was just put in upper, open for everything.
    pub(super) fn adopt(&self, copy: &Arc<OwnedFd>) {
        *self.backing.write() = Backing { fd: Some(Arc::clone(copy)), in_upper: true };
    }

    /// Its descriptor, if it is open at the moment, of the object as it is now.
    pub(super) fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        let backing = self.backing.read();
        // Data apart from the metadata is not the object.
        let is_object = backing.in_upper == self.node.in_upper() && !self.node.lacks_data();
        backing.fd.clone().filter(|_| is_object)
    }
}

impl Fs {
    /// Opens node `id` with the `open(2)` flags `flags`; the file's handle.
    ///
    /// # Errors
    /// `EROFS`, `ETXTBSY`, those of copy-up and of open(2).
    pub fn open(&self, id: u64, flags: u32, caller: Caller) -> Result<Opened> {
        let node = self.nodes.get(id)?;
        let flags = OFlags::from_bits_retain(flags);
        let truncate = flags.contains(OFlags::TRUNC);
        let access = flags & OFlags::ACCMODE;
        self.check_opening(&node, flags)?;
        self.await_release(&node, access);
        // The kernel looks only after it has told us to truncate, unless the file is opened for writing.
        if truncate && node.opens().iter().any(|f| f.how.executes()) {
            return Err(Errno::TXTBSY);
        }
        // Whoever removes the file meanwhile keeps it for this open.
        let _busy = (!node.is_whole_in_upper()).then(|| self.busy(&node));
        if truncate || access != OFlags::RDONLY {
            self.copy_up(&node, if truncate { 0 } else { u64::MAX })?;
        }
        let backing = self.open_backing(&node, access)?;
        if truncate && let Some(fd) = &backing.fd {
            self.cut(&node, fd, access, caller)?;
        }
        let before = node.mapped();
        let opened = self.add_file(&node, How { flags, empty: truncate }, backing)?;
        if before != Mapped::ToWrite && node.mapped() == Mapped::ToWrite {
            self.attributes_changed(&node);
        }
        self.give_content(&node);
        Ok(opened)
    }

    /// Empties a file that is opened with `O_TRUNC`.
    fn cut(&self, node: &Node, fd: &OwnedFd, access: OFlags, caller: Caller) -> Result<()> {
        let cut =
            |fd: &OwnedFd| self.change_data(node, fd, caller, || rustix::fs::ftruncate(fd, 0));
        match access {
            // O_RDONLY | O_TRUNC: Linux truncates all the same.
            OFlags::RDONLY => cut(&self.on(node, |at, _| sys::node::open(at, OFlags::WRONLY))?),
            _ => cut(fd),
        }
    }

    /// Adds a file that was just created and opened as `fd`.
    pub(super) fn add_created(&self, node: &Arc<Node>, flags: u32, fd: OwnedFd) -> Result<Opened> {
        if self.no_open {
            self.unopened.insert((node.id, LayerId::UPPER), Arc::new(fd));
            return Ok(Opened { handle: NO_HANDLE, cache: Cache::Kept });
        }
        let backing = Backing { fd: Some(Arc::new(fd)), in_upper: true };
        self.add_file(node, How { flags: OFlags::from_bits_retain(flags), empty: true }, backing)
    }

    /// Adds the open file `node`.
    fn add_file(&self, node: &Arc<Node>, how: How, backing: Backing) -> Result<Opened> {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let in_upper = backing.in_upper;
        let fd = backing.fd.ok_or(Errno::IO)?;
        let file = loop {
            let handed = self.hand_over(node, (fd.as_fd(), in_upper), how)?;
            let added = node.add_open(|other, mapped| {
                // Another was handed over and closed meanwhile.
                if *mapped != Mapped::Never && handed.is_none() && other.is_none() {
                    return None;
                }
                let cache = self.cache(node, how, handed.as_ref(), other);
                *mapped = self.mapped_by(how, &cache).max(*mapped);
                let backing = RwLock::new(Backing { fd: Some(Arc::clone(&fd)), in_upper });
                Some(OpenFile { node: Arc::clone(node), how, cache, backing })
            });
            if let Some(file) = added {
                break file;
            }
        };
        if node.mapped() == Mapped::ToWrite {
            self.unseen.store(true, Ordering::Release);
        }
        let opened = Opened { handle, cache: file.cache.clone() };
        self.open_files.insert(handle, file);
        Ok(opened)
    }

    fn open_backing(&self, node: &Node, access: OFlags) -> Result<Backing> {
        if node.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        let place = node.place.read();
        let in_upper = node.is_whole_in_upper();
        let fd = match node.lacks_data() {
            true => self.open_data(node)?,
            false => self.at_place(node, &place, |at, layer| self.open_at(at, layer, access))?,
        };
        Ok(Backing { fd: Some(Arc::new(fd)), in_upper })
    }

    /// Opens the regular file `at` of `layer`; one of a lower layer for reading.
    fn open_at(&self, at: At<'_>, layer: LayerId, access: OFlags) -> Result<OwnedFd> {
        match layer.is_upper() {
            true => self.with_descriptors(|| sys::node::open(at, access)),
            false => self.open_lower(at),
        }
    }

    fn file(&self, handle: u64) -> Result<Arc<OpenFile>> {
        self.open_files.get(&handle).map(|f| Arc::clone(&f)).ok_or(Errno::BADF)
    }

    /// The descriptor of `file`'s data, where it is now.
    ///
    /// # Errors
    /// Those of open(2), when it has to be opened again.
    pub(super) fn backing(&self, file: &OpenFile) -> Result<Arc<OwnedFd>> {
        let current = |b: &Backing| match &b.fd {
            Some(fd) if b.in_upper || !file.node.is_whole_in_upper() => Some(Arc::clone(fd)),
            _ => None,
        };
        if let Some(fd) = current(&file.backing.read()) {
            return Ok(fd);
        }
        let opened = self.open_backing(&file.node, file.how.access())?;
        let mut backing = file.backing.write();
        if let Some(fd) = current(&backing) {
            return Ok(fd);
        }
        *backing = opened;
        backing.fd.clone().ok_or(Errno::IO)
    }

    /// The descriptor to read node `id` from, opened as `handle`.
    ///
    /// # Errors
    /// `EBADF`; those of open(2), where nothing was opened yet.
    pub fn source(&self, id: u64, handle: u64) -> Result<Arc<OwnedFd>> {
        if handle != NO_HANDLE {
            return self.backing(&*self.file(handle)?);
        }
        let node = self.nodes.get(id)?;
        match self.unopened(&node) {
            // Of what cannot be written to now, nothing is kept.
            Err(_) if node.in_upper() => {
                self.open_backing(&node, OFlags::RDONLY)?.fd.ok_or(Errno::IO)
            }
            opened => opened,
        }
    }

    /// Node `id` and the descriptor to change its data through, opened as `handle`; a file that
    /// the kernel opened without asking (with `flags`) is copied up by its first change.
    fn target(&self, id: u64, handle: u64, flags: OFlags) -> Result<(Arc<Node>, Arc<OwnedFd>)> {
        if handle != NO_HANDLE {
            let file = self.file(handle)?;
            return Ok((Arc::clone(&file.node), self.backing(&file)?));
        }
        let node = self.nodes.get(id)?;
        self.check_opening(&node, flags)?;
        self.copy_up(&node, u64::MAX)?;
        let fd = self.unopened(&node)?;
        Ok((node, fd))
    }

    /// The descriptor of the file `node`, which nobody opened: for reading, in upper for writing too.
    fn unopened(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        if !self.no_open {
            return Err(Errno::BADF);
        }
        let key = (node.id, node.layer());
        if let Some(fd) = self.unopened.get(key) {
            return Ok(fd);
        }
        let access = if node.is_whole_in_upper() { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = self.open_backing(node, access)?;
        let fd = opened.fd.ok_or(Errno::IO)?;
        // It may have been copied up meanwhile; and data that is elsewhere will be.
        if opened.in_upper == key.1.is_upper() && !node.lacks_data() {
            self.unopened.insert(key, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Closes the descriptors of files that can be opened again by name.
    pub(super) fn close_idle_files(&self) {
        for file in &self.open_files {
            if !file.can_be_reopened() {
                continue;
            }
            let named = file.node.place.try_read().is_some_and(|gone| gone.is_none());
            if named && let Some(mut backing) = file.backing.try_write() {
                backing.fd = None;
            }
        }
    }

    /// Reads node `id`, opened as `handle`, at `offset` into `buf` until it is full or the file
    /// ends; the bytes read.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, id: u64, handle: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        data::read_at(&*self.source(id, handle)?, offset, buf)
    }

    /// Writes `bytes` to the node and handle, opened with `flags`, at `offset`; the bytes written, fewer when the rest failed.
    /// With `unprivileged`, a write by this caller clears set-id bits.
    ///
    /// # Errors
    /// Those of pwrite(2), when nothing was written.
    pub fn write(
        &self,
        (id, handle, flags): (u64, u64, u32),
        offset: u64,
        bytes: &[u8],
        unprivileged: Option<Caller>,
    ) -> Result<usize> {
        let flags = OFlags::from_bits_retain(flags);
        let (node, fd) = self.target(id, handle, OFlags::WRONLY | flags & OFlags::APPEND)?;
        let written = match unprivileged {
            // The kernel says so of root too, where that lacks `CAP_FSETID`; of root of a user
            // namespace always.
            Some(caller) if caller.uid == 0 && has_set_id(&fd)? && identity::is_initial_admin() => {
                self.change_data(&node, &fd, caller, || {
                    identity::without_fsetid(|| write_some(&fd, offset, bytes))
                })
            }
            Some(caller) => self.change_data(&node, &fd, caller, || write_some(&fd, offset, bytes)),
            None => write_some(&fd, offset, bytes),
        }?;
        self.sync_written(id, handle, flags)?;
        Ok(written)
    }

    /// Closes the file.
    pub fn release(&self, handle: u64) {
        if let Some((_, file)) = self.open_files.remove(&handle) {
            file.node.drop_open(&file);
        }
    }

    /// Brings a file's data (and, unless `data_only`, its attributes) to the disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn fsync(&self, id: u64, handle: u64, data_only: bool) -> Result<()> {
        let node = self.nodes.get(id)?;
        if self.fsync == Fsync::Volatile || !node.in_upper() {
            return Ok(());
        }
        if node.lacks_data() {
            return if data_only { Ok(()) } else { self.sync_metadata(&node) };
        }
        let fd = self.source(id, handle)?;
        if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }
    }

    /// Brings the attributes of `node` to the disk, whose data is in a lower layer.
    fn sync_metadata(&self, node: &Node) -> Result<()> {
        let open = |at: At<'_>, _| self.with_descriptors(|| sys::node::open(at, OFlags::RDONLY));
        rustix::fs::fsync(self.on(node, open)?)
    }

    /// Brings the names in the directory `id` to the disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn fsync_dir(&self, id: u64, data_only: bool) -> Result<()> {
        let node = self.nodes.get(id)?;
        let removed = node.place.read().is_some();
        if self.fsync == Fsync::Volatile || !node.in_upper() || removed {
            return Ok(());
        }
        let dir = self.dir_fd(&node, LayerId::UPPER)?;
        let at = At::new(dir.as_fd(), b".");
        let fd =
            self.with_descriptors(|| sys::node::open(at, OFlags::RDONLY | OFlags::DIRECTORY))?;
        if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }
    }

    /// Reserves or frees room in a file; `mode` is that of fallocate(2).
    ///
    /// # Errors
    /// Those of fallocate(2).
    pub fn fallocate(
        &self,
        (id, handle): (u64, u64),
        (offset, length): (u64, u64),
        mode: u32,
        caller: Caller,
    ) -> Result<()> {
        let (node, fd) = self.target(id, handle, OFlags::WRONLY)?;
        let mode = FallocateFlags::from_bits_retain(mode);
        let protection = self.protection(&node)?;
        let appends = FallocateFlags::KEEP_SIZE.contains(mode);
        refuse(protection.immutable || protection.append && !appends)?;
        let allocate = || data::retry(|| rustix::fs::fallocate(&fd, mode, offset, length));
        self.change_data(&node, &fd, caller, allocate).inspect_err(|_| {
            // It may have grown up to where there was no room (ext4).
            self.attributes_changed(&node);
        })
    }

    /// The next data (or hole) of node `id`, opened as `handle`, at or after `offset`; `whence` is `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` behind the last one, `EINVAL` for another `whence`.
    pub fn lseek(&self, id: u64, handle: u64, offset: u64, whence: i32) -> Result<u64> {
        let fd = self.source(id, handle)?;
        match whence {
            libc::SEEK_DATA => rustix::fs::seek(&fd, SeekFrom::Data(offset)),
            libc::SEEK_HOLE => rustix::fs::seek(&fd, SeekFrom::Hole(offset)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Copies `len` bytes between two open files, each a node and a handle, from an offset of the
    /// one to an offset of the other; the bytes copied.
    ///
    /// # Errors
    /// Those of copy_file_range(2).
    pub fn copy_file_range(
        &self,
        (from, mut off_in): ((u64, u64), u64),
        (to, mut off_out): ((u64, u64), u64),
        len: usize,
        caller: Caller,
    ) -> Result<usize> {
        // First, because it may be the source as well.
        let (node, target) = self.target(to.0, to.1, OFlags::WRONLY)?;
        refuse(self.protection(&node)?.immutable)?;
        let source = self.source(from.0, from.1)?;
        self.change_data(&node, &target, caller, || {
            data::retry(|| {
                let (off_in, off_out) = (Some(&mut off_in), Some(&mut off_out));
                rustix::fs::copy_file_range(&source, off_in, &target, off_out, len)
            })
        })
    }

    /// A descriptor of the file `node`, if it is open at the moment.
    pub(super) fn opened(&self, node: &Node) -> Option<Arc<OwnedFd>> {
        let unopened = || self.unopened.get((node.id, node.layer()));
        node.opens().iter().find_map(|file| file.descriptor()).or_else(unopened)
    }

    /// A descriptor to keep of an object that is about to lose its last name:
    /// that of an open file, or a new one where the kernel can still reach the
    /// object without one.
    ///
    /// # Errors
    /// `EMFILE` for a file that is open: it can be removed once others are closed, and without a
    /// descriptor it would be lost to who has it open.
    pub(super) fn descriptor_to_keep(
        &self,
        node: &Node,
        at: At<'_>,
        stat: &Stat,
    ) -> Result<Option<Kept>> {
        let opens = node.opens();
        let in_use = !opens.is_empty()
            || self.copying.contains_key(&node.id)
            || (self.no_open && node.kind == Kind::File);
        if in_use && opens.iter().all(|file| file.can_be_reopened()) {
            self.check_spare_descriptors()?;
        }
        if let Some(fd) = self.opened(node) {
            return Ok(Some(Kept { fd, counted: None }));
        }
        let needed = in_use
            || !matches!(node.kind, Kind::File | Kind::Symlink)
            || (stat.nlink > 1 && node.in_upper() && !node.is_indexed());
        // Else only a path descriptor can lead here, until the kernel forgets the object.
        let large = node.in_upper() && stat.blocks > KEPT_BLOCKS;
        if !needed && (large || Arc::strong_count(&self.kept) > self.dirs.capacity()) {
            return Ok(None);
        }
        match self.open_to_keep(node, at, &opens) {
            Ok(fd) => Ok(Some(Kept { fd, counted: (!needed).then(|| Arc::clone(&self.kept)) })),
            Err(e) if in_use => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// A new descriptor of the object `at`, which is `node`: the one that one of its `opens` goes
    /// on with, so that none more is needed to use it.
    fn open_to_keep(
        &self,
        node: &Node,
        at: At<'_>,
        opens: &[Arc<OpenFile>],
    ) -> Result<Arc<OwnedFd>> {
        match opens.iter().max_by_key(|file| file.writable()) {
            Some(file) if !node.lacks_data() => {
                let fd = Arc::new(self.open_at(at, node.layer(), file.how.access())?);
                let backing = Backing { fd: Some(Arc::clone(&fd)), in_upper: node.in_upper() };
                *file.backing.write() = backing;
                Ok(fd)
            }
            _ => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                self.with_descriptors(|| sys::node::open(at, flags)).map(Arc::new)
            }
        }
    }

    /// Checks that descriptors are left for requests that need some for a moment, before one that
    /// could be closed must stay open.
    ///
    /// # Errors
    /// `EMFILE`.
    fn check_spare_descriptors(&self) -> Result<()> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.with_descriptors(|| {
            // It gets the lowest number that is free.
            let probe = rustix::io::fcntl_dupfd_cloexec(self.upper()?.root(), 0)?;
            match u64::try_from(probe.as_raw_fd()) {
                Ok(number) if number + SPARE_DESCRIPTORS >= limit => Err(Errno::MFILE),
                _ => Ok(()),
            }
        })
    }
}

fn write_some(fd: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match data::retry(|| rustix::io::pwrite(fd, &bytes[done..], offset + done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}
