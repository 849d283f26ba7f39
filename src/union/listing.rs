//! The merged listing of one directory, which is its index as well.
//!
//! Built once from the listings of the layers (upper first), then kept true by
//! every change. It tells which layers hold a name, so that a lookup asks only
//! those, and it is what READDIR serves: an entry keeps its offset for as long
//! as the listing lives, a new one is added at the end, a removed one leaves a
//! gap. Whiteouts stay in it as hidden entries.

use super::LayerId;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Bits of [`Entry::flags`] that hold the `DT_*` type.
const TYPE: u8 = 0x0f;
/// The name is not visible: a whiteout, or removed.
const HIDDEN: u8 = 0x10;
/// Below upper, the name is visible: removing it needs a whiteout.
const BELOW: u8 = 0x20;
/// While building: what is below upper is known.
const BELOW_KNOWN: u8 = 0x40;
/// While building: what is further below is hidden.
const CLOSED: u8 = 0x80;

/// Offsets of `.` and `..`; entries follow.
const FIRST_OFFSET: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Entry {
    name_start: u32,
    /// 1 + index into `Listing::stacks`, or 0: only `top` holds the name.
    stack: u32,
    offset: u32,
    top: u16,
    name_len: u8,
    flags: u8,
}

/// One entry as readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its `DT_*` type.
    pub dtype: u8,
    /// The topmost layer that holds it.
    pub top: LayerId,
    /// The offset that continues behind it.
    pub offset: u64,
}

/// What the listing knows of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    /// Whether it is visible.
    pub visible: bool,
    /// Whether something is visible under it below upper.
    pub below: bool,
    /// The topmost layer that holds it.
    pub top: LayerId,
    /// All layers that may hold it, from the top, when there are several.
    pub stack: Option<&'a [u16]>,
}

/// One entry of a layer's own listing.
#[derive(Debug, Clone, Copy)]
pub struct LayerEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its `DT_*` type.
    pub dtype: u8,
    /// It is a whiteout.
    pub whiteout: bool,
}

/// The merged listing of one directory.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
    table: HashTable<u32>,
    stacks: Vec<Vec<u16>>,
    hasher: DefaultHashBuilder,
    hidden: usize,
}

impl Listing {
    /// Adds an entry of `layer`. Layers must come from the top down.
    pub fn add(&mut self, layer: LayerId, entry: LayerEntry<'_>) {
        match self.find(entry.name) {
            Some(i) => self.merge(i, layer, entry),
            None => {
                let below =
                    if layer.is_upper() { 0 } else { BELOW_KNOWN | below_bit(!entry.whiteout) };
                let closed = if is_dir(entry.dtype) && !entry.whiteout { 0 } else { CLOSED };
                let hidden = if entry.whiteout { HIDDEN } else { 0 };
                self.push(entry, layer, entry.dtype & TYPE | below | closed | hidden);
            }
        }
    }

    /// Merges a layer's entry into the one of the layers above.
    fn merge(&mut self, i: usize, layer: LayerId, entry: LayerEntry<'_>) {
        let old = &mut self.entries[i];
        if old.flags & BELOW_KNOWN == 0 && !layer.is_upper() {
            old.flags |= BELOW_KNOWN | below_bit(!entry.whiteout);
        }
        if old.flags & CLOSED != 0 {
            return;
        }
        if entry.whiteout || !is_dir(entry.dtype) {
            old.flags |= CLOSED;
            return;
        }
        if old.stack == 0 {
            self.stacks.push(vec![old.top]);
            old.stack = self.stacks.len() as u32;
        }
        let stack = old.stack as usize - 1;
        self.stacks[stack].push(layer.0);
    }

    fn push(&mut self, entry: LayerEntry<'_>, layer: LayerId, flags: u8) {
        let i = self.entries.len() as u32;
        let offset = self.entries.last().map_or(FIRST_OFFSET, |last| last.offset + 1);
        let name_start = self.names.len() as u32;
        self.names.extend_from_slice(entry.name);
        self.hidden += usize::from(flags & HIDDEN != 0);
        self.entries.push(Entry {
            name_start,
            stack: 0,
            offset,
            top: layer.0,
            name_len: entry.name.len() as u8,
            flags,
        });
        let hash = self.hasher.hash_one(entry.name);
        let (names, entries, hasher) = (&self.names, &self.entries, &self.hasher);
        self.table
            .insert_unique(hash, i, |&j| hasher.hash_one(name_of(names, &entries[j as usize])));
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        let found =
            self.table.find(hash, |&i| name_of(&self.names, &self.entries[i as usize]) == name);
        found.map(|&i| i as usize)
    }

    /// What is known of `name`; `None`: no layer holds it.
    pub fn get(&self, name: &[u8]) -> Option<Known<'_>> {
        let entry = &self.entries[self.find(name)?];
        Some(Known {
            visible: entry.flags & HIDDEN == 0,
            below: entry.flags & BELOW != 0,
            top: LayerId(entry.top),
            stack: self.stack_of(entry),
        })
    }

    fn stack_of(&self, entry: &Entry) -> Option<&[u16]> {
        let at = (entry.stack as usize).checked_sub(1)?;
        self.stacks.get(at).map(Vec::as_slice)
    }

    /// Notes that upper now holds `name`, alone (a new object) or, when
    /// `merged`, on top of what the listing knows of it (a copied-up one).
    pub fn set_upper(&mut self, name: &[u8], dtype: u8, merged: bool) {
        self.compact_if_sparse();
        let entry = LayerEntry { name, dtype, whiteout: false };
        let Some(i) = self.find(name) else {
            return self.push(entry, LayerId::UPPER, dtype & TYPE | BELOW_KNOWN);
        };
        if !merged && self.entries[i].flags & HIDDEN != 0 {
            // A listing under way must see the new object, wherever it stands.
            let below = self.entries[i].flags & BELOW;
            self.unlink_slot(i, name);
            return self.push(entry, LayerId::UPPER, dtype & TYPE | BELOW_KNOWN | below);
        }
        let stack = merged.then(|| self.merged_stack(i, dtype)).flatten();
        let old = &mut self.entries[i];
        old.flags = dtype & TYPE | BELOW_KNOWN | old.flags & BELOW;
        old.top = LayerId::UPPER.0;
        old.stack = match stack {
            Some(stack) => {
                self.stacks.push(stack);
                self.stacks.len() as u32
            }
            None => 0,
        };
    }

    /// The layers of entry `i` with upper put on top, when it is a directory.
    fn merged_stack(&self, i: usize, dtype: u8) -> Option<Vec<u16>> {
        let entry = &self.entries[i];
        let below = match self.stack_of(entry) {
            Some(stack) => stack,
            None => std::slice::from_ref(&entry.top),
        };
        is_dir(dtype).then(|| {
            let lowers = below.iter().copied().filter(|&l| l != LayerId::UPPER.0);
            std::iter::once(LayerId::UPPER.0).chain(lowers).collect()
        })
    }

    /// Notes that `name` is gone from the merged view.
    pub fn remove(&mut self, name: &[u8]) {
        let Some(i) = self.find(name) else { return };
        let entry = &mut self.entries[i];
        if entry.flags & HIDDEN == 0 {
            entry.flags |= HIDDEN;
            self.hidden += 1;
        }
        entry.top = LayerId::UPPER.0;
        entry.stack = 0;
    }

    /// Notes that nothing is below upper any more, which holds all that is visible.
    pub fn keep_upper(&mut self) {
        for entry in &mut self.entries {
            entry.flags &= !BELOW;
            entry.top = LayerId::UPPER.0;
            entry.stack = 0;
        }
        self.stacks.clear();
    }

    /// Takes entry `i` out of the table, leaving a gap in the order.
    fn unlink_slot(&mut self, i: usize, name: &[u8]) {
        let hash = self.hasher.hash_one(name);
        if let Ok(slot) = self.table.find_entry(hash, |&j| j as usize == i) {
            slot.remove();
        }
        self.entries[i].flags |= HIDDEN;
    }

    /// The visible entries behind `offset`, in order.
    pub fn after(&self, offset: u64) -> impl Iterator<Item = Item<'_>> {
        let start = self.entries.partition_point(|e| u64::from(e.offset) <= offset);
        self.entries[start..].iter().filter(|e| e.flags & HIDDEN == 0).map(|e| Item {
            name: name_of(&self.names, e),
            dtype: e.flags & TYPE,
            top: LayerId(e.top),
            offset: u64::from(e.offset),
        })
    }

    /// Whether nothing is visible.
    pub fn is_empty(&self) -> bool {
        self.after(0).next().is_none()
    }

    /// Bytes of memory it uses, about.
    pub fn bytes(&self) -> usize {
        self.names.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.table.capacity() * (size_of::<u32>() + 1)
            + self.stacks.iter().map(|s| size_of_val(s) + s.capacity() * 2).sum::<usize>()
    }

    /// Gives back the room that building left over.
    pub fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Drops the gaps once they outnumber the visible entries; offsets stay.
    fn compact_if_sparse(&mut self) {
        if self.hidden < 4096 || self.hidden < self.entries.len() / 2 {
            return;
        }
        let old = std::mem::take(self);
        for (i, entry) in old.entries.iter().enumerate() {
            let name = name_of(&old.names, entry);
            if old.find(name) != Some(i) || entry.flags & HIDDEN != 0 && entry.flags & BELOW == 0 {
                continue;
            }
            let layer_entry = LayerEntry { name, dtype: entry.flags & TYPE, whiteout: false };
            self.push(layer_entry, LayerId(entry.top), entry.flags);
            if let Some(new) = self.entries.last_mut() {
                new.offset = entry.offset;
            }
            if let (Some(stack), Some(new)) = (old.stack_of(entry), self.entries.last_mut()) {
                self.stacks.push(stack.to_vec());
                new.stack = self.stacks.len() as u32;
            }
        }
        // Whiteouts of lower entries may remain many; look again only after as many changes.
        self.hidden = 0;
    }
}

fn name_of<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    &names[entry.name_start as usize..][..usize::from(entry.name_len)]
}

fn is_dir(dtype: u8) -> bool {
    dtype & TYPE == libc::DT_DIR
}

fn below_bit(visible: bool) -> u8 {
    if visible { BELOW } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: u8, whiteout: bool) -> LayerEntry<'_> {
        LayerEntry { name: name.as_bytes(), dtype, whiteout }
    }

    fn names(listing: &Listing) -> Vec<String> {
        let text = |i: Item<'_>| String::from_utf8(i.name.to_vec()).unwrap();
        listing.after(0).map(text).collect()
    }

    fn sample() -> Listing {
        let mut l = Listing::default();
        l.add(LayerId(0), entry("gone", libc::DT_CHR, true));
        l.add(LayerId(0), entry("dir", libc::DT_DIR, false));
        l.add(LayerId(0), entry("both", libc::DT_REG, false));
        l.add(LayerId(1), entry("gone", libc::DT_REG, false));
        l.add(LayerId(1), entry("dir", libc::DT_DIR, false));
        l.add(LayerId(1), entry("low", libc::DT_REG, false));
        l.add(LayerId(2), entry("dir", libc::DT_REG, false));
        l.add(LayerId(3), entry("dir", libc::DT_DIR, false));
        l.add(LayerId(3), entry("both", libc::DT_REG, false));
        l
    }

    #[test]
    fn merges_like_lookup() {
        let l = sample();
        assert_eq!(names(&l), ["dir", "both", "low"]);
        assert_eq!(l.get(b"dir").unwrap().stack, Some(&[0u16, 1][..]));
        assert!(l.get(b"both").unwrap().below);
        let gone = l.get(b"gone").unwrap();
        assert!(!gone.visible && gone.below);
        assert_eq!(l.get(b"nothing"), None);
        assert_eq!(l.get(b"low").unwrap().top, LayerId(1));
    }

    #[test]
    fn what_is_kept_of_upper_needs_no_whiteout() {
        let mut l = sample();
        l.set_upper(b"dir", libc::DT_DIR, true);
        l.set_upper(b"low", libc::DT_REG, true);
        let offsets: Vec<_> = l.after(0).map(|i| i.offset).collect();
        l.keep_upper();
        assert_eq!(l.after(0).map(|i| i.offset).collect::<Vec<_>>(), offsets);
        assert_eq!(names(&l), ["dir", "both", "low"]);
        for name in ["dir", "both", "low", "gone"] {
            let known = l.get(name.as_bytes()).unwrap();
            assert!(!known.below && known.stack.is_none() && known.top.is_upper(), "{name}");
        }
    }

    #[test]
    fn offsets_stay_while_names_come_and_go() {
        let mut l = sample();
        let third = l.after(0).nth(1).unwrap().offset;
        l.remove(b"dir");
        l.set_upper(b"new", libc::DT_REG, false);
        l.set_upper(b"gone", libc::DT_REG, false);
        let rest: Vec<_> = l.after(third).map(|i| i.name.to_vec()).collect();
        assert_eq!(rest, [b"low".to_vec(), b"new".to_vec(), b"gone".to_vec()]);
        assert!(l.get(b"gone").unwrap().below, "a whiteout is needed again");
        assert!(!l.get(b"new").unwrap().below);
    }

    #[test]
    fn copy_up_puts_upper_on_top() {
        let mut l = sample();
        l.set_upper(b"low", libc::DT_REG, true);
        let low = l.get(b"low").unwrap();
        assert!(low.below && low.top.is_upper() && low.stack.is_none());
        let mut l = Listing::default();
        l.add(LayerId(2), entry("d", libc::DT_DIR, false));
        l.set_upper(b"d", libc::DT_DIR, true);
        assert_eq!(l.get(b"d").unwrap().stack, Some(&[0u16, 2][..]));
        l.remove(b"d");
        l.set_upper(b"d", libc::DT_DIR, false);
        assert_eq!(l.get(b"d").unwrap().stack, None);
    }

    #[test]
    fn create_and_remove_forever_uses_bounded_memory() {
        let mut l = sample();
        for i in 0..100_000 {
            let name = format!("tmp{i}");
            l.set_upper(name.as_bytes(), libc::DT_REG, false);
            l.remove(name.as_bytes());
        }
        assert!(l.bytes() < 4 << 20, "{}", l.bytes());
        assert_eq!(names(&l), ["dir", "both", "low"]);
        assert!(l.get(b"both").unwrap().below && !l.get(b"gone").unwrap().visible);
    }
}
