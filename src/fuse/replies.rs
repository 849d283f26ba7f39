//! Replies that carry attributes, sent by the adapter itself (see `wire`).

use super::adapter::Adapter;
use super::convert::{errno, wanted_size};
use super::wire::{DirReply, Reply};
use crate::fs::Entry;
use crate::fs::direct::Opened;
use crate::sys;
use fuser::{ReplyAttr, ReplyEntry, ReplyOpen, Request};
use std::fmt::Debug;

impl Adapter {
    /// Sends a reply in the place of `replaced`; whether the kernel took it.
    pub(super) fn send<R>(&self, reply: &[u8], replaced: R) -> bool {
        let sent = self.channel.get().map_or(Err(sys::Errno::IO), |channel| channel.send(reply));
        if matches!(sent, Ok(()) | Err(sys::Errno::NOENT)) {
            // Answered, or no longer waited for; else dropping it answers with EIO.
            std::mem::forget(replaced);
        }
        sent.is_ok()
    }

    pub(super) fn send_entry(
        &self,
        unique: u64,
        entry: sys::Result<Option<Entry>>,
        reply: ReplyEntry,
    ) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => return reply.error(errno(e)),
        };
        let mut bytes = Reply::new(unique, 128);
        bytes.entry(entry.as_ref(), entry.as_ref().is_none_or(|e| self.lasts(e)), &self.view);
        let sent = self.send(&bytes.finish(), reply);
        if let (Some(entry), false) = (entry, sent) {
            self.fs.forget(entry.id, 1);
        }
    }

    /// Whether the attributes of `entry` can be kept.
    pub(super) fn lasts(&self, entry: &Entry) -> bool {
        self.fs.attributes_last(entry.id)
    }

    pub(super) fn send_attr(
        &self,
        (unique, id): (u64, u64),
        attr: sys::Result<sys::Stat>,
        reply: ReplyAttr,
    ) {
        match attr {
            Ok(stat) => {
                let mut bytes = Reply::new(unique, 104);
                bytes.attr(&stat, self.fs.attributes_last(id), &self.view);
                self.send(&bytes.finish(), reply);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    pub(super) fn send_opened(&self, unique: u64, opened: sys::Result<Opened>, reply: ReplyOpen) {
        match opened {
            Ok(opened) => {
                let mut bytes = Reply::new(unique, 16);
                bytes.open(&opened);
                if !self.send(&bytes.finish(), reply) {
                    self.fs.release(opened.handle);
                }
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    pub(super) fn send_listing<R: Debug>(
        &self,
        (req, id, offset, plus): (&Request, u64, u64, bool),
        reply: R,
        error: fn(R, fuser::Errno),
    ) {
        let (size, lasts) = (wanted_size(&reply), |entry: &Entry| self.lasts(entry));
        let mut listing = DirReply::new(req.unique().0, (size, plus), &lasts, &self.view);
        if let Err(e) = self.fs.readdir(id, offset, plus, &mut listing) {
            self.undo(&listing.lookups);
            return error(reply, errno(e));
        }
        let lookups = std::mem::take(&mut listing.lookups);
        if !self.send(&listing.finish(), reply) {
            self.undo(&lookups);
        }
    }

    fn undo(&self, lookups: &[u64]) {
        for &id in lookups {
            self.fs.forget(id, 1);
        }
    }
}
