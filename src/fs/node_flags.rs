//! What is known of a node in one bit each.

use super::node::Node;
use crate::sys::fileattr::Protection;
use std::sync::atomic::Ordering;

/// Its last link is gone, its inode number on disk may be another's by now.
const REMOVED: u8 = 1;
/// It is known what the object forbids.
const PROTECTION_KNOWN: u8 = 2;
/// It is append-only.
const APPEND: u8 = 4;
/// It is immutable.
const IMMUTABLE: u8 = 8;
/// It has an index entry, whose name is in `More::index`.
pub(super) const INDEXED: u8 = 16;
/// The file's layer holds its metadata only.
const LACKS_DATA: u8 = 32;
/// Nothing on disk tells the inode number it shows, which is that of what it was copied up from.
const BORROWS_INO: u8 = 64;
/// Of a file of a lower layer: the kernel was given its content, or is to ask for it.
const CONTENT_SETTLED: u8 = 128;
/// Of a file of upper: the kernel's cache may hold what is older than the file.
const CACHE_OUTDATED: u8 = CONTENT_SETTLED;

impl Node {
    /// Notes that no link of the object is left.
    pub fn set_removed(&self) {
        self.flags.fetch_or(REMOVED, Ordering::Release);
    }

    /// Whether no link of the object is left.
    pub fn is_removed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & REMOVED != 0
    }

    /// What the object forbids, if that is known.
    pub fn protection(&self) -> Option<Protection> {
        let flags = self.flags.load(Ordering::Acquire);
        let protection =
            Protection { append: flags & APPEND != 0, immutable: flags & IMMUTABLE != 0 };
        (flags & PROTECTION_KNOWN != 0).then_some(protection)
    }

    /// Notes what the object forbids from now on.
    pub fn set_protection(&self, protection: Protection) {
        let bits = protection_bits(protection);
        self.update_flags(|flags| Some(flags & !(APPEND | IMMUTABLE) | bits));
    }

    /// Notes what was read of the object, unless it is known already.
    pub fn learn_protection(&self, protection: Protection) {
        let bits = protection_bits(protection);
        self.update_flags(|flags| (flags & PROTECTION_KNOWN == 0).then_some(flags | bits));
    }

    /// Notes that what the object forbids is to be read again.
    pub fn forget_protection(&self) {
        self.update_flags(|flags| Some(flags & !(PROTECTION_KNOWN | APPEND | IMMUTABLE)));
    }

    fn update_flags(&self, update: impl FnMut(u8) -> Option<u8>) {
        // It fails where there is nothing to update.
        let (Ok(_) | Err(_)) = self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Whether the object has an index entry.
    pub fn is_indexed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & INDEXED != 0
    }

    /// Notes whether the file's layer holds its metadata only.
    pub fn set_lacks_data(&self, lacks: bool) {
        match lacks {
            true => self.flags.fetch_or(LACKS_DATA, Ordering::Release),
            false => self.flags.fetch_and(!LACKS_DATA, Ordering::Release),
        };
    }

    /// Whether the file's layer holds its metadata only.
    pub fn lacks_data(&self) -> bool {
        self.flags.load(Ordering::Acquire) & LACKS_DATA != 0
    }

    /// Notes that the kernel was given the file's content, or is to ask for it.
    pub fn settle_content(&self) {
        self.flags.fetch_or(CONTENT_SETTLED, Ordering::Release);
    }

    /// Whether the kernel was given the file's content, or is to ask for it.
    pub fn is_content_settled(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CONTENT_SETTLED != 0
    }

    /// Notes that the kernel's cache of the file, which is in upper, may hold what is older.
    pub fn set_cache_outdated(&self) {
        self.flags.fetch_or(CACHE_OUTDATED, Ordering::Release);
    }

    /// Whether the file is in upper and the kernel's cache of it may hold what is older; no longer
    /// from now on.
    pub fn take_cache_outdated(&self) -> bool {
        self.in_upper()
            && self.flags.fetch_and(!CACHE_OUTDATED, Ordering::AcqRel) & CACHE_OUTDATED != 0
    }

    /// Notes that the object will show another inode number once it was forgotten.
    pub fn set_borrows_ino(&self) {
        self.flags.fetch_or(BORROWS_INO, Ordering::Release);
    }

    /// Whether the object will show another inode number once it was forgotten.
    pub fn borrows_ino(&self) -> bool {
        self.flags.load(Ordering::Acquire) & BORROWS_INO != 0
    }
}

fn protection_bits(protection: Protection) -> u8 {
    let append = if protection.append { APPEND } else { 0 };
    let immutable = if protection.immutable { IMMUTABLE } else { 0 };
    PROTECTION_KNOWN | append | immutable
}
