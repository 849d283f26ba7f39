//! RENAME, with `NOREPLACE` and `EXCHANGE` (`fs/overlayfs/dir.c: ovl_rename`).
//!
//! In upper it is one renameat2(2), prepared so that nothing from below shows
//! through: a source that exists below leaves a whiteout, a directory that
//! comes to lie over another is marked opaque first, and one that has parts in
//! lower layers gets a redirect.

use super::Fs;
use super::copy_xattrs::{copy_mode, copy_owner_and_xattrs};
use super::lookup::Child;
use super::node::{Gone, Link, Node};
use crate::format::OverlayName;
use crate::layer::work::check_only_whiteouts;
use crate::layer::{Upper, facts};
use crate::sys::{self, At, Errno, Kind, Result};
use crate::union::LayerId;
use parking_lot::{MutexGuard, RwLockWriteGuard};
use rustix::fs::{Mode, RenameFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Proof that a node is not used by name meanwhile.
type PlaceGuard<'a> = RwLockWriteGuard<'a, Option<Box<Gone>>>;

/// A name in a directory.
#[derive(Clone, Copy)]
struct Spot<'a> {
    parent: &'a Arc<Node>,
    name: &'a [u8],
}

impl Spot<'_> {
    fn link(self) -> Link {
        Link { parent: Arc::clone(self.parent), name: self.name.into() }
    }
}

/// One object of a rename, found under the locks.
struct Side<'a> {
    child: Option<Child<'a>>,
    /// Something is visible below upper under the name.
    below: bool,
}

impl Fs {
    /// Renames `from` to `to`, each a directory's node id and a name.
    ///
    /// # Errors
    /// `EXDEV` for a directory that has parts in lower layers, where it gets no
    /// redirect; `EINVAL` for unknown flags; those of copy-up and of renameat2(2).
    pub fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<()> {
        let flags = RenameFlags::from_bits_retain(flags);
        self.upper()?;
        self.check_new_name(to.1)?;
        let (old_parent, new_parent) = (self.nodes.get(from.0)?, self.nodes.get(to.0)?);
        let old = Spot { parent: &old_parent, name: from.1 };
        let new = Spot { parent: &new_parent, name: to.1 };
        self.check_renaming((old.parent, old.name), (new.parent, new.name))?;
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        self.wait_for_copy(new.parent, new.name);
        let moves_dir = self.prepare_rename(old, new, exchange)?;
        let crosses = old.parent.id != new.parent.id;
        // A metadata-only file may need a path.
        let topology = (moves_dir || crosses || self.metacopy).then(|| self.topology.lock());
        let (first, second) = in_lock_order(old.parent, new.parent);
        let _first = self.lock_names(first)?;
        let _second = match crosses {
            true => Some(self.lock_names(second)?),
            false => None,
        };
        let source = self.side(old)?;
        let target = self.side(new)?;
        let Some(moved) = source.child.as_ref().map(|c| Arc::clone(&c.node)) else {
            return Err(Errno::NOENT);
        };
        if target.child.as_ref().is_some_and(|t| Arc::ptr_eq(&t.node, &moved)) {
            return Ok(());
        }
        check_target(&moved, &target, flags)?;
        check_copied(&moved)?;
        self.check_movable(&moved)?;
        for (side, spot) in [(&source, old), (&target, new)] {
            if let Some(child) = &side.child {
                self.link_up(&child.node, &child.node.place.write(), spot.parent, spot.name)?;
            }
        }
        match exchange {
            true => self.exchange((old, source), (new, target), topology.as_ref()),
            false => self.replace((old, source), (new, target), topology.as_ref()),
        }
    }

    /// Copies up what the rename changes; whether a directory is moved.
    fn prepare_rename(&self, old: Spot<'_>, new: Spot<'_>, exchange: bool) -> Result<bool> {
        let source = self.find(old)?;
        let target = if exchange { Some(self.find(new)?) } else { None };
        let moved = || std::iter::once(&source).chain(&target).map(|c| &c.node);
        if !self.detaches() {
            moved().try_for_each(|n| self.check_movable(n))?;
        }
        if source.node.kind == Kind::Dir && !exchange {
            self.check_victim(new)?;
        }
        let sides = std::iter::once((&source, old)).chain(target.iter().map(|t| (t, new)));
        for (child, spot) in sides {
            self.copy_up_metadata_as(&child.node, Some(spot.link()))?;
            // Another name of it may have been copied up before.
            self.copy_up(spot.parent, 0)?;
            if self.detaches() {
                self.detach(&child.node)?;
            }
            // Not before the source, which may not be to be had.
            self.copy_up(new.parent, 0)?;
        }
        if !exchange {
            self.copy_up_indexed(new.parent, new.name)?;
        }
        let dirs = moved().any(|n| n.kind == Kind::Dir);
        Ok(dirs)
    }

    /// Checks that a directory that is to be replaced shows no entries, before anything is copied up.
    fn check_victim(&self, spot: Spot<'_>) -> Result<()> {
        let _names = spot.parent.dir()?.lock.read();
        let victim = match self.child(spot.parent, spot.name) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        if victim.node.is_pure_upper() {
            return Ok(());
        }
        let _victims = victim.node.dir()?.lock.read();
        self.check_empty(&victim.node)
    }

    fn find(&self, spot: Spot<'_>) -> Result<Child<'_>> {
        let _names = spot.parent.dir()?.lock.read();
        self.child(spot.parent, spot.name)
    }

    fn side(&self, spot: Spot<'_>) -> Result<Side<'_>> {
        let child = match self.child(spot.parent, spot.name) {
            Ok(child) => Some(child),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(e),
        };
        Ok(Side { child, below: self.visible_below(spot.parent, spot.name)? })
    }

    /// Moves the source to the target's name, in place of what is there.
    fn replace(
        &self,
        (old, source): (Spot<'_>, Side<'_>),
        (new, target): (Spot<'_>, Side<'_>),
        topology: Option<&MutexGuard<'_, ()>>,
    ) -> Result<()> {
        let upper = self.upper()?;
        let old_fd = self.dir_fd(old.parent, LayerId::UPPER)?;
        let new_fd = self.dir_fd(new.parent, LayerId::UPPER)?;
        let (from, to) = (At::new(old_fd.as_fd(), old.name), At::new(new_fd.as_fd(), new.name));
        let moved = source.child.ok_or(Errno::NOENT)?;
        let is_dir = moved.node.kind == Kind::Dir;
        let victim = target.child.as_ref();
        // The kernel marks before it knows whether a directory of upper alone can be replaced.
        if is_dir && victim.is_some_and(|v| v.node.is_pure_upper()) {
            self.prepare_side(upper, &moved, (from, old), new.parent)?;
        }
        // Locked after its parents, so that nothing is made in it meanwhile.
        let _victims = match victim {
            Some(v) if v.node.kind == Kind::Dir => {
                let held = self.lock_names(&v.node)?;
                self.check_empty(&v.node)?;
                self.clear_whiteouts(upper, &v.node, to)?;
                Some(held)
            }
            _ => None,
        };
        self.prepare_side(upper, &moved, (from, old), new.parent)?;
        let over_whiteout = (is_dir || source.below)
            && victim.is_none_or(|v| !v.node.in_upper())
            && self.is_upper_whiteout(to)?;
        let victim_stat = victim.map(|v| self.node_attr(&v.node)).transpose()?;
        let (mut moved_place, victim_place) = lock_places(&moved.node, victim.map(|v| &v.node));
        let kept = match (victim, &victim_place, victim_stat) {
            (Some(v), Some(place), Some(stat)) => self.keep(&v.node, place, stat)?,
            _ => None,
        };
        let changing = topology.map(|held| self.topology.changing(held));
        move_in_upper(upper, from, to, source.below, over_whiteout)?;
        if let (Some(v), Some(mut place), Some(stat)) = (victim, victim_place, victim_stat) {
            self.lose_name(new.parent, new.name, &v.node, &mut place, stat, kept);
        }
        self.change_name(&moved.node, &mut moved_place, old, new);
        drop(changing);
        let dtype = moved.node.kind.dirent_type() as u8;
        old.parent.dir()?.relist(|list| list.remove(old.name));
        new.parent.dir()?.relist(|list| list.set_upper(new.name, dtype, false));
        Ok(())
    }

    /// Swaps source and target.
    fn exchange(
        &self,
        (old, source): (Spot<'_>, Side<'_>),
        (new, target): (Spot<'_>, Side<'_>),
        topology: Option<&MutexGuard<'_, ()>>,
    ) -> Result<()> {
        let upper = self.upper()?;
        let old_fd = self.dir_fd(old.parent, LayerId::UPPER)?;
        let new_fd = self.dir_fd(new.parent, LayerId::UPPER)?;
        let (from, to) = (At::new(old_fd.as_fd(), old.name), At::new(new_fd.as_fd(), new.name));
        let (a, b) = (source.child.ok_or(Errno::NOENT)?, target.child.ok_or(Errno::NOENT)?);
        check_copied(&b.node)?;
        self.check_movable(&b.node)?;
        self.prepare_side(upper, &a, (from, old), new.parent)?;
        self.prepare_side(upper, &b, (to, new), old.parent)?;
        let (mut a_place, b_place) = lock_places(&a.node, Some(&b.node));
        let changing = topology.map(|held| self.topology.changing(held));
        rename_at(from, to, RenameFlags::EXCHANGE)?;
        // Both names are taken away before either is given, so that none is known twice.
        self.names.unlink(&b.node, new.parent, new.name);
        self.change_name(&a.node, &mut a_place, old, new);
        self.give_name(&b.node, old);
        drop((changing, a_place, b_place));
        let (a_type, b_type) = (a.node.kind.dirent_type() as u8, b.node.kind.dirent_type() as u8);
        old.parent.dir()?.relist(|list| list.set_upper(old.name, b_type, false));
        new.parent.dir()?.relist(|list| list.set_upper(new.name, a_type, false));
        Ok(())
    }

    /// Gives `node` its new name; its place is locked.
    fn change_name(
        &self,
        node: &Arc<Node>,
        _place: &mut PlaceGuard<'_>,
        old: Spot<'_>,
        new: Spot<'_>,
    ) {
        self.names.unlink(node, old.parent, old.name);
        self.give_name(node, new);
    }

    fn give_name(&self, node: &Arc<Node>, spot: Spot<'_>) {
        if let Some(other) = self.names.link(node, spot.link()) {
            log::error!("nodes {} and {} claim one name", node.id, other.id);
            self.forget(other.id, 1);
        }
    }

    /// Gives the object at `from` the marks that let it lie in the directory `to`.
    fn prepare_side(
        &self,
        upper: &Upper,
        moved: &Child<'_>,
        (from, old): (At<'_>, Spot<'_>),
        to: &Node,
    ) -> Result<()> {
        let crosses = old.parent.id != to.id;
        match &moved.node {
            file if file.kind != Kind::Dir => {
                if file.lacks_data() {
                    let absolute = crosses || self.is_shared_below(file);
                    self.set_redirect(file, old.link(), absolute)?;
                }
                match crosses {
                    true => self.carry_origin(file, from, to),
                    false => Ok(()),
                }
            }
            pure if pure.is_pure_upper() => self.hide_below(upper, from, to),
            merged => {
                if crosses {
                    self.set_impure(to)?;
                }
                self.set_redirect(merged, old.link(), crosses)
            }
        }
    }

    /// Marks the directory at `at` opaque when it comes to lie in a merged
    /// directory, where something of its name may lie below.
    fn hide_below(&self, upper: &Upper, at: At<'_>, parent: &Node) -> Result<()> {
        if !parent.is_merged() || facts::opaque_value(at, upper.namespace)? == Some(b'y') {
            return Ok(());
        }
        upper.mark(at, OverlayName::Opaque, b"y")
    }

    /// Marks the new directory of an object with an origin as impure.
    fn carry_origin(&self, moved: &Node, at: At<'_>, parent: &Node) -> Result<()> {
        if self.shows_other_ino(moved, at)? {
            self.set_impure(parent)?;
        }
        Ok(())
    }

    /// Empties the upper directory `victim` at `at`, which shows no entries, of
    /// its whiteouts, so that it can be replaced: an empty opaque copy takes its
    /// place first (`ovl_clear_empty`).
    fn clear_whiteouts(&self, upper: &Upper, victim: &Arc<Node>, at: At<'_>) -> Result<()> {
        if !victim.in_upper() {
            return Ok(());
        }
        let fd = self.dir_fd(victim, LayerId::UPPER)?;
        if is_empty(fd.as_fd())? {
            return Ok(());
        }
        check_only_whiteouts(fd.as_fd())?;
        let stat = upper.owners.stat(at)?;
        let temp = upper.work.temp();
        let to = temp.at();
        rustix::fs::mkdirat(to.dir, to.name, Mode::from_raw_mode(0o700))?;
        copy_owner_and_xattrs(upper, at, to, &stat)?;
        upper.mark(to, OverlayName::Opaque, b"y")?;
        copy_mode(upper, to, stat.mode)?;
        temp.exchange(at)?;
        self.dirs.remove((victim.id, LayerId::UPPER));
        self.forget_lowers(victim)?;
        self.attributes_changed(victim);
        Ok(())
    }
}

fn is_empty(dir: BorrowedFd<'_>) -> Result<bool> {
    match sys::list::for_each(dir, |_| Err(Errno::NOTEMPTY)) {
        Err(Errno::NOTEMPTY) => Ok(false),
        listed => listed.map(|()| true),
    }
}

/// The two directories, an ancestor before its descendant, else by id.
fn in_lock_order<'a>(a: &'a Arc<Node>, b: &'a Arc<Node>) -> (&'a Arc<Node>, &'a Arc<Node>) {
    let below = |node: &Arc<Node>, above: u64| {
        let mut link = node.link();
        while let Some(here) = link {
            if here.parent.id == above {
                return true;
            }
            link = here.parent.link();
        }
        false
    };
    match below(a, b.id) || (!below(b, a.id) && b.id < a.id) {
        true => (b, a),
        false => (a, b),
    }
}

/// Checks that the node is still in upper, where `prepare_rename` put it.
fn check_copied(node: &Node) -> Result<()> {
    match node.in_upper() {
        true => Ok(()),
        false => Err(Errno::XDEV),
    }
}

/// The errors of rename(2) that the target decides.
fn check_target(moved: &Node, target: &Side<'_>, flags: RenameFlags) -> Result<()> {
    let Some(child) = &target.child else {
        return match flags.contains(RenameFlags::EXCHANGE) {
            true => Err(Errno::NOENT),
            false => Ok(()),
        };
    };
    let (from, to) = (moved.kind == Kind::Dir, child.node.kind == Kind::Dir);
    match () {
        () if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EXIST),
        () if flags.contains(RenameFlags::EXCHANGE) || from == to => Ok(()),
        () if from => Err(Errno::NOTDIR),
        () => Err(Errno::ISDIR),
    }
}

/// Locks the places of two nodes, by ascending id.
fn lock_places<'a>(
    a: &'a Arc<Node>,
    b: Option<&'a Arc<Node>>,
) -> (PlaceGuard<'a>, Option<PlaceGuard<'a>>) {
    match b {
        Some(b) if b.id < a.id => {
            let b = b.place.write();
            (a.place.write(), Some(b))
        }
        b => (a.place.write(), b.map(|b| b.place.write())),
    }
}

/// The rename in upper. `leave_whiteout`: the source's name must stay hidden.
/// `over_whiteout`: the target is a whiteout that is exchanged with the source,
/// the only way for a directory; it then serves at the source's name, or goes.
fn move_in_upper(
    upper: &Upper,
    from: At<'_>,
    to: At<'_>,
    leave_whiteout: bool,
    over_whiteout: bool,
) -> Result<()> {
    if over_whiteout {
        rename_at(from, to, RenameFlags::EXCHANGE)?;
        if leave_whiteout {
            return Ok(());
        }
        // The rename is done: a whiteout that stays hides nothing.
        let removed = rustix::fs::unlinkat(from.dir, from.name, rustix::fs::AtFlags::empty());
        if let Err(e) = removed {
            log::warn!("a whiteout {} is left: {e}", from.name.escape_ascii());
        }
        return Ok(());
    }
    if !leave_whiteout {
        return rename_at(from, to, RenameFlags::empty());
    }
    match rename_at(from, to, RenameFlags::WHITEOUT) {
        // A file system that cannot do both at once: the object first, so that
        // a crash in between shows an old file rather than none.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rename_at(from, to, RenameFlags::empty())?;
            upper.work.whiteout(from).or_else(|e| {
                // Back, so that the lower object does not show beside it.
                log::debug!("no whiteout for {}: {e}", from.name.escape_ascii());
                rename_at(to, from, RenameFlags::NOREPLACE).and(Err(e))
            })
        }
        done => done,
    }
}

fn rename_at(from: At<'_>, to: At<'_>, flags: RenameFlags) -> Result<()> {
    rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags)
}
