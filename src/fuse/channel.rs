//! Writing replies and notifications to `/dev/fuse` directly.
//!
//! One write(2) is one reply, so threads need no lock. The descriptor is a
//! duplicate of the session's, the same open file: a clone would have a queue
//! of its own that never saw the request.

use super::wire::Reply;
use crate::fs::Notify;
use crate::sys::{Errno, Result, backing};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The way to the kernel.
#[derive(Debug, Clone)]
pub struct Channel(Arc<OwnedFd>);

impl Channel {
    /// Writes to `device`, a descriptor of the session's open file.
    pub fn new(device: OwnedFd) -> Self {
        Self(Arc::new(device))
    }

    /// Sends a finished reply.
    ///
    /// # Errors
    /// `ENOENT` when the request is gone: the reply then has no effect.
    pub fn send(&self, reply: &[u8]) -> Result<()> {
        rustix::io::write(&*self.0, reply).map(|_| ())
    }
}

impl Channel {
    fn notify(&self, message: Reply, id: u64) {
        match self.send(&message.finish()) {
            // The kernel does not know the node, or is gone.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTCONN) => {}
            Err(e) => log::warn!("the kernel may keep what it knows of node {id}: {e}"),
        }
    }
}

impl Notify for Channel {
    fn attributes_changed(&self, id: u64) {
        self.notify(Reply::attributes_changed(id), id);
    }

    fn content_changed(&self, id: u64) {
        self.notify(Reply::content_changed(id), id);
    }

    fn content_is(&self, id: u64, data: &[u8]) {
        let header = Reply::content_is(id, data.len());
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        if let Err(e) = rustix::io::writev(&*self.0, &parts) {
            log::debug!("the kernel does not take the content of node {id}: {e}");
        }
    }

    fn name_changed(&self, parent: u64, name: &[u8]) {
        self.notify(Reply::name_changed(parent, name), parent);
    }

    fn hand_over(&self, file: BorrowedFd<'_>) -> Result<u32> {
        backing::open(self.0.as_fd(), file)
    }

    fn take_back(&self, id: u32) {
        if let Err(e) = backing::close(self.0.as_fd(), id) {
            log::debug!("the kernel keeps the file it calls {id}: {e}");
        }
    }
}
