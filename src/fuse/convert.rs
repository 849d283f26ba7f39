//! The transport crate's values to the file system's, and small replies.

use crate::fs::Caller;
use crate::fs::create::New;
use crate::sys::node::SetTime;
use crate::sys::{self, Time};
use fuser::{INodeNo, ReplyEmpty, ReplyWrite, ReplyXattr, TimeOrNow};
use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The size of a listing when the kernel's wish cannot be read.
const SAFE_LISTING: usize = 4096;

/// The room for a listing: the crate keeps the request's size to itself but for
/// the output for debugging. The version is pinned; a test watches the format.
pub(super) fn wanted_size(reply: &impl Debug) -> usize {
    let text = format!("{reply:?}");
    let size = text.split_once("max_size: ").and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    size.unwrap_or(SAFE_LISTING)
}

/// The crate's form of an error number.
pub(super) fn errno(e: sys::Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}

/// Answers a request that returns nothing.
pub(super) fn done(result: sys::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

/// Answers with a number of bytes that were written.
pub(super) fn sent_count(written: sys::Result<usize>, reply: ReplyWrite) {
    match written {
        Ok(bytes) => reply.written(bytes as u32),
        Err(e) => reply.error(errno(e)),
    }
}

/// Answers with `value`, or its size when none was asked for.
pub(super) fn send_value(value: sys::Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Err(e) => reply.error(errno(e)),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

/// Answers LISTXATTR with a list that takes as much room as the second value says.
pub(super) fn send_list(list: sys::Result<(Vec<u8>, usize)>, size: u32, reply: ReplyXattr) {
    match list {
        Ok((_, room)) if size == 0 => reply.size(room as u32),
        Ok((_, room)) if room > size as usize => reply.error(fuser::Errno::ERANGE),
        list => send_value(list.map(|(names, _)| names), size, reply),
    }
}

/// The new object that a request by `caller` asks for.
pub(super) fn new<'a>(
    caller: Caller,
    parent: INodeNo,
    name: &'a OsStr,
    mode: u32,
    umask: u32,
) -> New<'a> {
    New { parent: parent.0, name: name.as_bytes(), mode, umask, caller }
}

/// One time of a SETATTR.
pub(super) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(from_system_time(time)),
    }
}

/// Undoes the crate's conversion, which before 1970 subtracts the nanoseconds
/// instead of adding them: its distance to the epoch has the request's fields.
fn from_system_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Time { secs: (d.as_secs() as i64).wrapping_neg(), nanos: d.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_1970_come_back_as_they_were_sent() {
        // The crate turns (-2 s, 300 ms) into the epoch less 2.3 s.
        let sent = UNIX_EPOCH - Duration::new(2, 300_000_000);
        assert_eq!(from_system_time(sent), Time { secs: -2, nanos: 300_000_000 });
        let sent = UNIX_EPOCH + Duration::new(5, 7);
        assert_eq!(from_system_time(sent), Time { secs: 5, nanos: 7 });
    }

    #[test]
    fn size_is_read_from_the_debug_output() {
        #[derive(Debug)]
        struct Like {
            #[expect(dead_code, reason = "read through Debug")]
            max_size: usize,
        }
        assert_eq!(wanted_size(&Like { max_size: 32768 }), 32768);
        assert_eq!(wanted_size(&"nothing"), SAFE_LISTING);
    }
}
