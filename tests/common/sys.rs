//! The few system calls that need `unsafe` or that rustix does not carry.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the calling thread a umask and working directory of its own.
pub fn unshare_fs() -> io::Result<()> {
    // SAFETY: no pointers; only this thread's fs_struct is affected.
    check(unsafe { libc::unshare(libc::CLONE_FS) })
}

/// Gives the calling thread, and what it starts, mounts of its own.
///
/// Otherwise a user namespace that another test makes meanwhile takes a copy of this test's mounts
/// along, and a daemon does not end before that copy is gone.
pub fn unshare_mounts() -> io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    // SAFETY: no pointers; only this thread's namespace and fs_struct are affected.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// `truncate(2)`, which rustix does not carry.
pub fn truncate(path: &std::ffi::CStr, size: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: `path` lives over the call.
    check(unsafe { libc::truncate(path.as_ptr(), size) })
}

/// Makes this process's children die with the thread that called this.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: no pointers that outlive the call.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

/// Runs `child` between fork and exec of `command`.
pub fn before_exec(
    command: &mut std::process::Command,
    child: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closures given here only make system calls.
    unsafe { command.pre_exec(child) };
}

/// The kind of a byte-range lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

impl Lock {
    fn raw(self) -> libc::c_short {
        let kind = match self {
            Self::Read => libc::F_RDLCK,
            Self::Write => libc::F_WRLCK,
            Self::Unlock => libc::F_UNLCK,
        };
        libc::c_short::try_from(kind).expect("a small constant")
    }
}

fn flock_of(kind: Lock, start: i64, len: i64) -> libc::flock {
    // SAFETY: all-zero is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind.raw();
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).expect("a small constant");
    lock.l_start = start;
    lock.l_len = len;
    lock
}

/// Sets a lock of the open file description, without waiting (`F_OFD_SETLK`).
pub fn ofd_lock(file: &File, kind: Lock, start: i64, len: i64) -> io::Result<()> {
    let lock = flock_of(kind, start, len);
    // SAFETY: `lock` lives over the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) })
}

/// Sets a lock of the process, without waiting (`F_SETLK`).
pub fn process_lock(file: &File, kind: Lock, start: i64, len: i64) -> io::Result<()> {
    let lock = flock_of(kind, start, len);
    // SAFETY: `lock` lives over the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) })
}

/// The process that holds what keeps `kind` from being locked (`F_GETLK`).
pub fn lock_holder(file: &File, kind: Lock, start: i64, len: i64) -> io::Result<Option<i32>> {
    let mut lock = flock_of(kind, start, len);
    // SAFETY: `lock` lives over the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    Ok((lock.l_type != Lock::Unlock.raw()).then_some(lock.l_pid))
}

/// Runs `body` in a forked child and gives its exit code.
///
/// `body` may make system calls on what is prepared before; it must not
/// allocate or lock, as other threads of the parent do not exist there.
pub fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `body` (see above) and leaves through _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        let code = body();
        // SAFETY: ends the child without running destructors.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` lives over the call.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", io::Error::last_os_error());
    assert!(libc::WIFEXITED(status), "the child died: {status}");
    libc::WEXITSTATUS(status)
}

/// A mapping of the beginning of a file.
pub struct Map {
    address: *mut libc::c_void,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}

impl Map {
    /// Maps `len` bytes with `PROT_READ`, and `PROT_WRITE` when `writable`.
    pub fn new(file: impl AsFd, len: usize, writable: bool, shared: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { address, len })
        }
    }

    /// A copy of the mapped bytes `at..at + len`.
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        // SAFETY: inside the mapping; copied byte by byte as others may write.
        (at..at + len)
            .map(|i| unsafe { self.address.cast::<u8>().add(i).read_volatile() })
            .collect()
    }

    /// Stores `bytes` at `at`; the mapping must be writable.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the mapping.
            unsafe { self.address.cast::<u8>().add(at + i).write_volatile(*byte) };
        }
    }

    /// The address of the byte `at`.
    pub fn address(&self, at: usize) -> usize {
        self.address as usize + at
    }

    /// Takes the memory from `at`, a multiple of the page size, away.
    pub fn unmap_from(&mut self, at: usize) {
        assert!(at < self.len);
        // SAFETY: the rest of the mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.address.cast::<u8>().add(at).cast(), self.len - at) };
        self.len = at;
    }

    /// Writes changes back (`msync(MS_SYNC)`).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: exactly the mapping.
        check(unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping, which nothing else refers to.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// write(2) of the `len` bytes at `address`, whatever is there; the bytes written.
pub fn write_memory(file: impl AsFd, address: usize, len: usize) -> io::Result<usize> {
    let from = std::ptr::with_exposed_provenance(address);
    // SAFETY: the kernel checks the memory, which it only reads.
    let written = unsafe { libc::write(file.as_fd().as_raw_fd(), from, len) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// `struct file_dedupe_range` of linux/fs.h, with one range to share.
#[repr(C)]
struct Dedupe {
    from_offset: u64,
    len: u64,
    count: u16,
    reserved: [u16; 3],
    to: i64,
    to_offset: u64,
    shared: u64,
    status: i32,
    reserved_too: u32,
}

/// Lets the first `len` bytes of `to` share the room of those of `from` (`FIDEDUPERANGE`); the
/// outcome for `to`: 0, or an errno negated.
pub fn dedupe(from: impl AsFd, to: impl AsFd, len: u64) -> io::Result<i32> {
    const FIDEDUPERANGE: libc::c_ulong = 0xc018_9436;
    let to = i64::from(to.as_fd().as_raw_fd());
    let mut range = Dedupe {
        from_offset: 0,
        len,
        count: 1,
        reserved: [0; 3],
        to,
        to_offset: 0,
        shared: 0,
        status: 0,
        reserved_too: 0,
    };
    // SAFETY: the structure is of the size that `count` says.
    check(unsafe { libc::ioctl(from.as_fd().as_raw_fd(), FIDEDUPERANGE, &raw mut range) })?;
    Ok(range.status)
}
