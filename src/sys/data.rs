//! Copying the content of files.

use super::{Errno, Result};
use rustix::fs::SeekFrom;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes copied by one call, so that a copy can be interrupted between two.
const CHUNK: u64 = 8 << 20;

/// Reads from `file` at `offset` until `buf` is full or the file ends; the bytes read.
///
/// # Errors
/// Those of pread(2), also after some were read: fewer would say that the file ends there.
pub fn read_at(file: impl AsFd, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match retry(|| rustix::io::pread(&file, &mut buf[done..], offset + done as u64))? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Copies the first `len` bytes of `from` to the file `to` without data, which
/// is `len` bytes long afterwards: as a clone that shares the blocks where the
/// file system can, else piece by piece, leaving out holes.
///
/// # Errors
/// Those of copy_file_range(2), read(2), write(2) and ftruncate(2).
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u64, whole: bool) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    if !whole || rustix::fs::ioctl_ficlone(to, from).is_err() {
        let mut pos = 0;
        while let Some((start, end)) = next_data(from, pos, len)? {
            copy_range(from, to, start, end)?;
            pos = end;
        }
    }
    // Only where it is needed: it changes the time.
    match super::stat::stat(super::At::fd(to))?.size == len {
        true => Ok(()),
        false => rustix::fs::ftruncate(to, len),
    }
}

/// Copies the first `len` bytes of `from`, which has no holes, to the empty file `to`.
///
/// # Errors
/// Those of copy_file_range(2), read(2) and write(2).
pub fn copy_dense(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u64) -> Result<()> {
    copy_range(from, to, 0, len)
}

/// The next range of `from` at or after `pos` and before `len` that holds data.
fn next_data(from: BorrowedFd<'_>, pos: u64, len: u64) -> Result<Option<(u64, u64)>> {
    if pos >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(from, SeekFrom::Data(pos)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system does not know its holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(Some((pos, len))),
        Err(e) => return Err(e),
    };
    if start >= len {
        return Ok(None);
    }
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(len))))
}

/// Copies the bytes `start..end`; an early end of `from` ends it too.
fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut pos = start;
    while pos < end {
        let (mut off_in, mut off_out) = (pos, pos);
        let want = (end - pos).min(CHUNK) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), want) {
            Ok(0) => return copy_buffered(from, to, pos, end),
            Ok(n) => pos += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                return copy_buffered(from, to, pos, end);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Copies the bytes `start..end` through memory.
fn copy_buffered(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut buf = vec![0u8; (256 << 10).min(end - start) as usize];
    let mut pos = start;
    while pos < end {
        let want = buf.len().min((end - pos) as usize);
        let n = retry(|| rustix::io::pread(from, &mut buf[..want], pos))?;
        if n == 0 {
            return Ok(());
        }
        write_all(to, &buf[..n], pos)?;
        pos += n as u64;
    }
    Ok(())
}

/// Writes all of `data` at `offset`.
///
/// # Errors
/// Those of pwrite(2).
pub fn write_all(fd: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while done < data.len() {
        match retry(|| rustix::io::pwrite(fd, &data[done..], offset + done as u64))? {
            0 => return Err(Errno::IO),
            n => done += n,
        }
    }
    Ok(())
}

/// Calls `f` again while a signal interrupts it.
///
/// # Errors
/// Those of `f` other than `EINTR`.
pub fn retry<T>(mut f: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match f() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
