//! From the transport crate's callbacks to [`Fs`] and back: unpack, one call, reply.
//!
//! Replies that carry attributes are sent on the [`Channel`] and the crate's
//! reply object is forgotten: it would insist that node id and inode number
//! are one (see `docs/ARCHITECTURE.md`). Whatever is not answered, because a
//! request panicked, the crate answers with `EIO` when the object is dropped.

use super::channel::Channel;
use super::convert::{done, errno, new, send_list, send_value, sent_count, set_time};
use super::init::{Wishes, negotiate, pass_through};
use super::ioctl::Command;
use super::wire::Reply;
use crate::config::{Config, Passthrough, ViewOptions};
use crate::fs::Fs;
use crate::fs::attr::Changes;
use crate::sys::{self, identity};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

thread_local! {
    /// The buffer of this thread's READs.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system as the transport crate wants it.
#[derive(Clone)]
pub struct Adapter {
    pub(super) fs: Arc<Fs>,
    pub(super) view: Arc<ViewOptions>,
    pub(super) channel: Arc<OnceLock<Channel>>,
    /// Files are to be handed to the kernel: where it can, or in any case.
    passthrough: Passthrough,
    /// The kernel opens and closes files without asking.
    no_open: bool,
}

impl Adapter {
    /// Serves `fs` as `config` says; `channel` is set once the session exists.
    pub fn new(fs: Arc<Fs>, config: &Config, channel: Arc<OnceLock<Channel>>) -> Self {
        let view = Arc::new(config.view.clone());
        let passthrough = match config.passthrough {
            Passthrough::Auto if !passes_by_itself(config) => Passthrough::Off,
            wanted => wanted,
        };
        Self { fs, view, channel, passthrough, no_open: false }
    }

    /// Runs one request; one that panics is answered with `EIO` and logged.
    fn run(&self, request: impl FnOnce(&Fs)) {
        if catch_unwind(AssertUnwindSafe(|| request(&self.fs))).is_err() {
            log::error!("a request failed in an unforeseen way and was answered with EIO");
        }
    }

    /// Runs a request that may copy up the node `id`; on a thread of its own if
    /// that takes long, so that the others stay free.
    fn run_copying(&self, id: Option<u64>, request: impl FnOnce(&Self) + Send + 'static) {
        self.run_apart(id.is_some_and(|id| self.fs.copies_long(id)), request);
    }

    /// Runs a request, on a thread of its own if it is `long`.
    fn run_apart(&self, long: bool, request: impl FnOnce(&Self) + Send + 'static) {
        if !long {
            return self.run(|_| request(self));
        }
        let this = self.clone();
        let apart = move || this.run(|_| request(&this));
        if let Err(e) = std::thread::Builder::new().name("copy-up".into()).spawn(apart) {
            log::error!("no thread for a copy-up, which is answered with EIO: {e}");
        }
    }
}

/// Whether files are handed to the kernel without having been asked for.
fn passes_by_itself(config: &Config) -> bool {
    config.upper.is_some() && !config.no_open && identity::is_initial_admin()
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let can_skip_open = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        let must_open = self.passthrough == Passthrough::On;
        self.no_open = can_skip_open && self.fs.needs_no_open() && !must_open;
        if pass_through(config, self.passthrough, self.fs.is_read_only())? {
            self.fs.allow_passthrough();
        }
        // RESEND came with Linux 6.9: before it, changes of such files through a mapping could be lost.
        let maps_uncached = InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP | InitFlags::FUSE_HAS_RESEND;
        if config.capabilities().contains(maps_uncached) {
            self.fs.allow_bypass();
        }
        negotiate(config, Wishes { acl: self.view.acl, no_open: self.no_open });
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.run(|fs| self.send_entry(req.unique().0, fs.lookup(parent.0, name.as_bytes()), reply));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.run(|fs| fs.forget(ino.0, nlookup));
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.run(|fs| self.send_attr((req.unique().0, ino.0), fs.getattr(ino.0), reply));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (uid, gid) = match self.view.owners(uid, gid) {
            Ok(owners) => owners,
            Err(e) => return reply.error(errno(e)),
        };
        let (atime, mtime, handle) = (set_time(atime), set_time(mtime), fh.map(|fh| fh.0));
        let changes = Changes { mode, uid, gid, size, atime, mtime, handle };
        let (unique, caller) = (req.unique().0, self.view.caller(req));
        self.run_copying(Some(ino.0), move |this| {
            this.send_attr((unique, ino.0), this.fs.setattr(ino.0, changes, caller), reply);
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.run(|fs| match fs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = new(self.view.caller(req), parent, name, mode, umask);
        self.run(|fs| self.send_entry(req.unique().0, fs.mknod(new, rdev).map(Some), reply));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = new(self.view.caller(req), parent, name, mode, umask);
        self.run(|fs| self.send_entry(req.unique().0, fs.mkdir(new).map(Some), reply));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let victim = self.fs.known_child(parent.0, &name);
        let waits = victim.is_some_and(|id| self.fs.is_copying(id));
        self.run_apart(waits, move |this| done(this.fs.unlink(parent.0, &name), reply));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run(|fs| done(fs.rmdir(parent.0, name.as_bytes()), reply));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let new = new(self.view.caller(req), parent, link_name, 0o777, 0);
        let target = target.as_os_str().as_bytes();
        self.run(|fs| self.send_entry(req.unique().0, fs.symlink(new, target).map(Some), reply));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        let moved = self.fs.known_child(parent.0, &name);
        self.run_copying(moved, move |this| {
            let (from, to) = ((parent.0, &*name), (newparent.0, &*newname));
            done(this.fs.rename(from, to, flags.bits()), reply);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (unique, name) = (req.unique().0, newname.as_bytes().to_vec());
        self.run_copying(Some(ino.0), move |this| {
            let linked = this.fs.link(ino.0, newparent.0, &name);
            this.send_entry(unique, linked.map(Some), reply);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            // The kernel does not ask again; `NO_HANDLE` stands in what follows.
            return reply.error(fuser::Errno::ENOSYS);
        }
        let (unique, caller, flags) = (req.unique().0, self.view.caller(req), flags.0 as u32);
        let changes = flags & (libc::O_ACCMODE | libc::O_TRUNC) as u32 != 0;
        self.run_copying(changes.then_some(ino.0), move |this| {
            this.send_opened(unique, this.fs.open(ino.0, flags, caller), reply);
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run(|fs| {
            BUFFER.with_borrow_mut(|buffer| {
                let size = size as usize;
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                match fs.read(ino.0, fh.0, offset, &mut buffer[..size]) {
                    Ok(n) => reply.data(&buffer[..n]),
                    Err(e) => reply.error(errno(e)),
                }
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let unprivileged = kills.then(|| self.view.caller(req));
        let file = (ino.0, fh.0, flags.0 as u32);
        let written = move |fs: &Fs, data: &[u8]| {
            sent_count(fs.write(file, offset, data, unprivileged), reply);
        };
        // The first change of a file that nobody opened copies it up.
        if self.no_open && self.fs.copies_long(ino.0) {
            let data = data.to_vec();
            return self.run_apart(true, move |this| written(&this.fs, &data));
        }
        self.run(|fs| written(fs, data));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Writes report their errors themselves; the kernel does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.run(|fs| {
            fs.release(fh.0);
            done(Ok(()), reply);
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.run(|fs| done(fs.fsync(ino.0, fh.0, datasync), reply));
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Listings need no handle; the kernel does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.run(|_| {
            self.send_listing((req, ino.0, offset, false), reply, ReplyDirectory::error);
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.run(|_| {
            self.send_listing((req, ino.0, offset, true), reply, ReplyDirectoryPlus::error);
        });
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.run(|fs| done(fs.fsync_dir(ino.0, datasync), reply));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.run(|fs| match fs.statfs() {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namemax as u32,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = name.as_bytes().to_vec();
        let value = match self.view.stored_xattr(&name, value) {
            Ok(value) if self.view.xattrs => value,
            Ok(_) => return reply.error(fuser::Errno::ENOSYS),
            Err(e) => return reply.error(errno(e)),
        };
        let (flags, caller) = (flags as u32, self.view.caller(req));
        self.run_copying(Some(ino.0), move |this| {
            done(this.fs.setxattr(ino.0, &name, &value, flags, caller), reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.view.xattrs {
            return reply.error(fuser::Errno::ENOSYS);
        }
        let name = name.as_bytes();
        let get = |fs: &Fs| fs.getxattr(ino.0, name).map(|v| self.view.show_xattr(name, v));
        self.run(|fs| send_value(get(fs), size, reply));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.view.xattrs {
            return reply.error(fuser::Errno::ENOSYS);
        }
        self.run(|fs| send_list(fs.listxattr(ino.0, req.uid() == 0), size, reply));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.view.xattrs {
            return reply.error(fuser::Errno::ENOSYS);
        }
        let (name, caller) = (name.as_bytes().to_vec(), self.view.caller(req));
        self.run_copying(Some(ino.0), move |this| {
            done(this.fs.removexattr(ino.0, &name, caller), reply);
        });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions itself and does not ask.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = new(self.view.caller(req), parent, name, mode, umask);
        self.run(|fs| match fs.create(new, flags as u32) {
            Ok((entry, opened)) => {
                let mut bytes = Reply::new(req.unique().0, 144);
                bytes.entry(Some(&entry), self.lasts(&entry), &self.view);
                bytes.open(&opened);
                if !self.send(&bytes.finish(), reply) {
                    fs.release(opened.handle);
                    fs.forget(entry.id, 1);
                }
            }
            Err(e) => reply.error(errno(e)),
        });
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let Some(command) = Command::parse(cmd, in_data) else {
            return reply.error(fuser::Errno::ENOTTY);
        };
        let (long, uid) = (command.takes_long(&self.fs, ino.0), req.uid());
        self.run_apart(long, move |this| match command.run(&this.fs, ino.0, uid) {
            Ok(answer) => reply.ioctl(0, &answer),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (file, caller) = ((ino.0, fh.0), self.view.caller(req));
        self.run_copying(self.no_open.then_some(ino.0), move |this| {
            let allocated = this.fs.fallocate(file, (offset, length), mode as u32, caller);
            done(allocated, reply);
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let seek = |fs: &Fs| match u64::try_from(offset) {
            Ok(offset) => fs.lseek(ino.0, fh.0, offset, whence),
            Err(_) => Err(sys::Errno::NXIO),
        };
        self.run(|fs| match seek(fs) {
            Ok(offset) => reply.offset(offset as i64),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (len, caller) = (len.min(1 << 30) as usize, self.view.caller(req));
        let from = ((ino_in.0, fh_in.0), offset_in);
        let to = ((ino_out.0, fh_out.0), offset_out);
        self.run_copying(self.no_open.then_some(ino_out.0), move |this| {
            sent_count(this.fs.copy_file_range(from, to, len, caller), reply);
        });
    }
}
