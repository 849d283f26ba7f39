//! The content of small lower files, given to the kernel before it is told that the file is open:
//! it then asks neither for the data nor for the access time that it takes a READ to change.
//!
//! **Nothing stale is given.** A lower file's data stays as it is, and a copy in upper, which can be
//! changed, is put in its place under the same lock that is held here. Where somebody changes a layer
//! all the same, a refresh waits for the lock before it makes the kernel forget.
//!
//! **Nobody is waited for.** The kernel locks the pages it puts the data in. A READ that it waits
//! for an answer to would hold them, but there is none: no file is open but the one whose opening is
//! about to be answered, and whoever opens another waits here first.

use super::Fs;
use super::node::Node;
use crate::sys::{Result, data};
use std::os::fd::OwnedFd;

/// The most bytes that are given: what a reader of the beginning alone would not notice.
const SMALL: u64 = 64 << 10;

impl Fs {
    /// Gives the kernel the content of the file `node`, which was just opened, if it is small, a
    /// lower layer's, and opened for the first time.
    pub(super) fn give_content(&self, node: &Node) {
        let Some(notify) = self.notify.get().filter(|_| !self.no_open) else { return };
        let is_done = || node.in_upper() || node.is_content_settled();
        if is_done() {
            return;
        }
        let place = node.place.write();
        if place.is_some() || is_done() {
            return;
        }
        if let [file] = &*node.opens()
            && let Some(fd) = file.descriptor()
        {
            match read_small(&fd) {
                Ok(Some(content)) => notify.content_is(node.id, &content),
                Ok(None) => {}
                // Whoever reads it gets the error.
                Err(e) => log::debug!("the content of node {} is not given: {e}", node.id),
            }
        }
        node.settle_content();
    }
}

/// The whole content of the regular file `fd`, unless there is none or it is large.
fn read_small(fd: &OwnedFd) -> Result<Option<Vec<u8>>> {
    let size = rustix::fs::fstat(fd)?.st_size as u64;
    if size == 0 || size > SMALL {
        return Ok(None);
    }
    let mut content = vec![0; size as usize];
    let read = data::read_at(fd, 0, &mut content)?;
    Ok((read == content.len()).then_some(content))
}
