//! Acting as the caller of a request.
//!
//! Objects are created under the caller's file system user and group ids and
//! umask, so that the file system below applies its own rules (set-gid
//! directories, default ACLs, quotas). All of it is per thread: setfsuid(2)
//! and setfsgid(2) are, and [`with_umask`] first gives the thread a umask of
//! its own with unshare(2) `CLONE_FS`.
#![allow(unsafe_code)]

use super::{Errno, Result};
use rustix::fs::Mode;
use rustix::process::Gid;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, set_thread_groups};
use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    /// Whether this thread has a umask of its own already.
    static OWN_UMASK: Cell<bool> = const { Cell::new(false) };
}

/// What a thread may do while it acts as a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Keep the daemon's capabilities, as the kernel's overlayfs does: only
    /// the ownership of what is created follows the caller.
    Keep,
    /// Have the rights of the caller, the thread `pid`, and no others (as
    /// setfsuid(2) itself does), so that the file system below clears set-id
    /// bits where the caller's own call would.
    Caller {
        /// As this process sees it; 0 when it does not.
        pid: u32,
    },
}

/// Runs `f` with the file system ids `uid` and `gid`.
///
/// # Errors
/// `EPERM` when the process may not take these ids, or what `f` gives.
pub fn as_user<T>(
    uid: u32,
    gid: u32,
    privilege: Privilege,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (own_uid, own_gid) = own_ids();
    if uid == own_uid && gid == own_gid {
        return f();
    }
    let caps = rustix::thread::capabilities(None)?;
    let groups = match privilege {
        Privilege::Keep => None,
        Privilege::Caller { pid } => take_groups(pid)?,
    };
    let guard = Restore { own_uid, own_gid, groups, caps };
    set_fs_gid(gid)?;
    set_fs_uid(uid)?;
    if privilege == Privilege::Keep {
        rustix::thread::set_capabilities(None, caps)?;
    }
    let result = f();
    drop(guard);
    result
}

/// Runs `f` without `CAP_FSETID`, so that the file system below clears set-id bits.
///
/// # Errors
/// Those of capset(2), or what `f` gives.
pub fn without_fsetid<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let caps = rustix::thread::capabilities(None)?;
    let (own_uid, own_gid) = own_ids();
    let guard = Restore { own_uid, own_gid, groups: None, caps };
    let effective = caps.effective.difference(CapabilitySet::FSETID);
    rustix::thread::set_capabilities(None, CapabilitySets { effective, ..caps })?;
    let result = f();
    drop(guard);
    result
}

/// Puts the thread's identity back when it goes out of scope.
struct Restore {
    own_uid: u32,
    own_gid: u32,
    groups: Option<Vec<Gid>>,
    caps: CapabilitySets,
}

impl Drop for Restore {
    fn drop(&mut self) {
        let back = set_fs_uid(self.own_uid)
            .and_then(|()| set_fs_gid(self.own_gid))
            .and_then(|()| self.groups.as_deref().map_or(Ok(()), set_thread_groups))
            .and_then(|()| rustix::thread::set_capabilities(None, self.caps));
        if let Err(e) = back {
            // A thread that kept a caller's identity would answer other
            // callers with it: better no daemon than that one.
            log::error!("cannot return to the daemon's own identity: {e}");
            std::process::abort();
        }
    }
}

/// Runs `f` with `umask` as the thread's umask.
///
/// # Errors
/// Those of unshare(2), or what `f` gives.
pub fn with_umask<T>(umask: u32, f: impl FnOnce() -> Result<T>) -> Result<T> {
    own_umask()?;
    let before = rustix::process::umask(Mode::from_raw_mode(umask));
    let result = f();
    rustix::process::umask(before);
    result
}

/// Gives this thread a umask of its own, and sets it to 0.
///
/// # Errors
/// Those of unshare(2).
pub fn own_umask() -> Result<()> {
    if !OWN_UMASK.get() {
        // SAFETY: CLONE_FS only stops sharing cwd, root and umask with other
        // threads; no memory or descriptor is concerned.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::umask(Mode::empty());
        // The thread no longer follows the process's own chdir(2): let it not
        // pin the directory the program was started in.
        rustix::process::chdir("/")?;
        OWN_UMASK.set(true);
    }
    Ok(())
}

/// The effective ids, which the file system ids follow; the daemon never changes them.
fn own_ids() -> (u32, u32) {
    static IDS: OnceLock<(u32, u32)> = OnceLock::new();
    *IDS.get_or_init(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))
}

/// Whether this process has `CAP_SYS_ADMIN` in the initial user namespace, so
/// that it may use `trusted.*` attributes.
pub fn is_initial_admin() -> bool {
    /// `PROC_USER_INIT_INO` of linux/proc_ns.h.
    const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;
    let initial = rustix::fs::stat("/proc/self/ns/user").is_ok_and(|s| s.st_ino == INITIAL_USER_NS);
    initial && has_capability(CapabilitySet::SYS_ADMIN)
}

/// Whether this process had `CAP_CHOWN` in its user namespace when it was first
/// asked: it then may give files away and act for other users.
pub fn may_chown() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| has_capability(CapabilitySet::CHOWN))
}

fn has_capability(cap: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(cap))
}

/// The ids that the kernel shows for owners without a mapping in this user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// And whether the id is also that of an owner with a mapping.
    uid: Option<(u32, bool)>,
    gid: Option<u32>,
}

impl Overflow {
    /// Reads them. A group's that is mapped itself cannot be told from the group it stands for,
    /// and is not one then.
    pub fn read() -> Self {
        let read = |id: &str, map: &str| {
            let id: u32 = std::fs::read_to_string(format!("/proc/sys/kernel/{id}"))
                .ok()?
                .trim()
                .parse()
                .ok()?;
            let map = std::fs::read_to_string(format!("/proc/self/{map}")).ok()?;
            // Where every id has a mapping none is without.
            (!is_mapped(&map, u32::MAX - 1)).then(|| (id, is_mapped(&map, id)))
        };
        let gid = read("overflowgid", "gid_map");
        let gid = gid.and_then(|(id, mapped)| (!mapped).then_some(id));
        Self { uid: read("overflowuid", "uid_map"), gid }
    }

    /// Whether `uid` or `gid` stands for an owner without a mapping; `has_mapping` tells for a
    /// `uid` that may be one or the other.
    pub fn covers(&self, uid: u32, gid: u32, has_mapping: impl FnOnce() -> bool) -> bool {
        let uncovered = |mapped: bool| mapped && has_mapping();
        let owner = self.uid.is_some_and(|(id, mapped)| id == uid && !uncovered(mapped));
        owner || self.gid == Some(gid)
    }
}

/// Whether `id` lies in a range of `map` (lines of: first inside, first outside, count).
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => (first..first + count).contains(&id.into()),
            _ => false,
        }
    })
}

/// The supplementary groups of the thread `pid`; none when they cannot be read.
pub fn groups_of(pid: u32) -> Vec<Gid> {
    status_of(pid).map(|status| listed_groups(&status)).unwrap_or_default()
}

/// Whether root's thread `pid` may leave set-id bits on what it changes (`CAP_FSETID`); so when that cannot
/// be read.
pub fn may_keep_set_id(pid: u32) -> bool {
    let set = status_of(pid)
        .ok()
        .and_then(|status| u64::from_str_radix(field_of(&status, "CapEff:").trim(), 16).ok());
    set.is_none_or(|set| CapabilitySet::from_bits_retain(set).contains(CapabilitySet::FSETID))
}

/// What proc(5) tells of the thread `pid`.
fn status_of(pid: u32) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
}

/// A field of proc(5)'s status; empty when it is not there.
fn field_of<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
}

/// The groups of `Groups:` in proc(5)'s status.
fn listed_groups(status: &str) -> Vec<Gid> {
    let groups = field_of(status, "Groups:");
    groups.split_whitespace().flat_map(str::parse).map(Gid::from_raw).collect()
}

/// Gives this thread the supplementary groups of the thread `pid`, in place of those it returns.
fn take_groups(pid: u32) -> Result<Option<Vec<Gid>>> {
    let own = rustix::process::getgroups()?;
    match set_thread_groups(&groups_of(pid)) {
        // A user namespace may forbid setgroups(2); it then maps no group that could matter.
        Err(Errno::PERM) => Ok(None),
        // Of a group without a mapping a number is shown that cannot be set.
        Err(Errno::INVAL) => set_thread_groups(&[]).map(|()| Some(own)),
        done => done.map(|()| Some(own)),
    }
}

fn set_fs_uid(uid: u32) -> Result<()> {
    // SAFETY: setfsuid(2) has no memory arguments.
    let set = |id: u32| unsafe { libc::syscall(libc::SYS_setfsuid, libc::c_ulong::from(id)) };
    set(uid);
    // The call reports no errors: an invalid id changes nothing and returns the present one.
    if set(u32::MAX) as u32 == uid { Ok(()) } else { Err(Errno::PERM) }
}

fn set_fs_gid(gid: u32) -> Result<()> {
    // SAFETY: setfsgid(2) has no memory arguments.
    let set = |id: u32| unsafe { libc::syscall(libc::SYS_setfsgid, libc::c_ulong::from(id)) };
    set(gid);
    if set(u32::MAX) as u32 == gid { Ok(()) } else { Err(Errno::PERM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ranges() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(is_mapped(map, 0) && is_mapped(map, 65536));
        assert!(!is_mapped(map, 65537));
        assert!(is_mapped("0 0 4294967295\n", 65534));
    }

    #[test]
    fn owners_without_a_mapping() {
        let certain = Overflow { uid: Some((9, false)), gid: Some(8) };
        assert!(certain.covers(9, 0, || true) && certain.covers(0, 8, || true));
        assert!(!certain.covers(8, 9, || false));
        let either = Overflow { uid: Some((9, true)), gid: None };
        assert!(either.covers(9, 0, || false) && !either.covers(9, 0, || true));
    }

    #[test]
    fn supplementary_groups() {
        let status = "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t4 24 3050 \nNStgid:\t9\n";
        assert_eq!(listed_groups(status), [4, 24, 3050].map(Gid::from_raw));
        assert!(listed_groups("Name:\tx\n").is_empty());
    }

    #[test]
    fn own_identity_needs_no_privilege() {
        let (uid, gid) = own_ids();
        assert_eq!(as_user(uid, gid, Privilege::Keep, || Ok(7)), Ok(7));
    }
}
