//! System calls made as somebody else, or with another umask.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::sys;

/// An ordinary user, in every context (inside the namespace it is a subuid).
pub const ALICE: u32 = 3001;
/// Another ordinary user.
pub const BOB: u32 = 3002;
/// A group that neither is in unless a test says so.
pub const STAFF: u32 = 3050;

/// Who makes the calls of a closure. It runs on a thread of its own, whose
/// identity and umask nobody shares.
#[derive(Clone, Default)]
pub struct Caller {
    id: Option<(u32, u32)>,
    groups: Vec<u32>,
    umask: Option<u32>,
}

impl Caller {
    /// The user and group `id`, without capabilities and supplementary groups.
    pub fn user(id: u32) -> Self {
        Self { id: Some((id, id)), ..Self::default() }
    }

    /// The test's own user with the umask `mask`.
    pub fn with_umask(mask: u32) -> Self {
        Self { umask: Some(mask), ..Self::default() }
    }

    /// Adds the umask `mask`.
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Replaces the primary group.
    pub fn group(mut self, gid: u32) -> Self {
        self.id = self.id.map(|(uid, _)| (uid, gid));
        self
    }

    /// Adds a supplementary group.
    pub fn in_group(mut self, gid: u32) -> Self {
        self.groups.push(gid);
        self
    }

    /// Runs `body` as this caller; a panic in it is the test's.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.become_it();
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn become_it(&self) {
        sys::unshare_fs().expect("unshare(CLONE_FS)");
        if let Some(mask) = self.umask {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        }
        if let Some((uid, gid)) = self.id {
            let groups: Vec<Gid> = self.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            set_thread_groups(&groups).expect("setgroups");
            set_thread_res_gid(gid, gid, gid).expect("setresgid");
            set_thread_res_uid(uid, uid, uid).expect("setresuid");
        }
    }
}
