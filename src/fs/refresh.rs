//! Refresh: what is known of the layers is found out again, after somebody changed them without
//! the mount.
//!
//! Every directory that has a node is gone through, from the root down. A name that still means
//! the object of its node keeps it; any other loses its node, which lives on for who has it open
//! ([`Gone`] without attributes), with all that is known below it, and gets a new one when it is
//! looked up. Then the kernel is told, under no lock: it may wait for requests meanwhile.

use super::Fs;
use super::node::{Gone, Kept, LowerDir, Node, ROOT_ID};
use super::resolve::Resolved;
use crate::format::Namespace;
use crate::sys::{Kind, Result};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// What the kernel is to ask again.
#[derive(Debug, Default)]
struct Outdated {
    nodes: Vec<u64>,
    /// Directories, and names in them that have no node (any more).
    names: Vec<(u64, Vec<u8>)>,
}

impl Fs {
    /// Drops all that is known of the layers but still meant by the same name, and tells the
    /// kernel to do so.
    ///
    /// # Errors
    /// `ESTALE` when there is no root (a bug).
    pub fn refresh(&self) -> Result<()> {
        let outdated = self.compare_with_layers()?;
        if let Some(notify) = self.notify.get() {
            for (parent, name) in &outdated.names {
                notify.name_changed(*parent, name);
            }
            outdated.nodes.iter().for_each(|&id| notify.content_changed(id));
        }
        Ok(())
    }

    fn compare_with_layers(&self) -> Result<Outdated> {
        // No directory is moved from where it is still to be visited to where it no longer is.
        let _paths = self.topology.lock();
        self.dirs.clear();
        let mut outdated = Outdated::default();
        let mut todo = vec![self.nodes.get(ROOT_ID)?];
        while let Some(node) = todo.pop() {
            outdated.nodes.push(node.id);
            self.compare_directory(&node, &mut outdated, &mut todo)?;
            // It may have been kept for children that it no longer has.
            self.forget(node.id, 0);
        }
        Ok(outdated)
    }

    /// Compares what is known of the directory `node` with what its layers hold now.
    fn compare_directory(
        &self,
        node: &Arc<Node>,
        outdated: &mut Outdated,
        todo: &mut Vec<Arc<Node>>,
    ) -> Result<()> {
        let dir = node.dir()?;
        let _names = dir.lock.write();
        *dir.listing.write() = None;
        self.listings.forget(node.id);
        dir.misses.store(0, Ordering::Relaxed);
        dir.impure.store(false, Ordering::Relaxed);
        dir.not_impure.store(false, Ordering::Relaxed);
        dir.settled.store(false, Ordering::Relaxed);
        let replaced = node.is_replaced();
        let mut kept = HashSet::new();
        for child in dir.children() {
            for name in child.names_in(node.id) {
                if !replaced && self.still_means(node, &name, &child) {
                    kept.insert(name.into_vec());
                } else {
                    self.take_name(node, &name, &child);
                    outdated.names.push((node.id, name.into_vec()));
                }
            }
            match child.kind {
                Kind::Dir => todo.push(child),
                _ => {
                    // What the kernel is being given of it arrives before it is told to drop that.
                    drop(child.place.read());
                    outdated.nodes.push(child.id);
                }
            }
        }
        if !replaced {
            self.note_unknown(node, &kept, outdated);
        }
        Ok(())
    }

    /// Whether `name` in `parent`, whose lock the caller holds, still means the object of `node`.
    fn still_means(&self, parent: &Arc<Node>, name: &[u8], node: &Arc<Node>) -> bool {
        // Nobody cuts it off from its lower layers meanwhile.
        let _entries = node.dir().ok().map(|dir| dir.lock.read());
        let same = self.resolve(parent, name).and_then(|found| match found {
            Some(object) => Ok(self.is_same(parent, name, node, &object)?.then_some(object)),
            None => Ok(None),
        });
        match same {
            Ok(Some(object)) if object.layer.is_upper() => node.forget_protection(),
            Ok(Some(object)) => node.set_protection(object.stat.protection),
            Ok(None) => return false,
            Err(e) => {
                log::debug!("{} is to be looked up again: {e}", name.escape_ascii());
                return false;
            }
        }
        true
    }

    fn is_same(
        &self,
        parent: &Node,
        name: &[u8],
        node: &Arc<Node>,
        object: &Resolved,
    ) -> Result<bool> {
        if object.stat.kind() != node.kind {
            return Ok(false);
        }
        if let Some(key) = self.shared_by(object)
            && let Some(known) = self.hard_links.lock().get(&key).and_then(Weak::upgrade)
        {
            return Ok(Arc::ptr_eq(&known, node));
        }
        let merged = node.dir().map_or(&[][..], |dir| &*dir.stack);
        let same_place = |(a, b): (&LowerDir, &LowerDir)| (a.layer, &a.path) == (b.layer, &b.path);
        if object.layer != node.layer()
            || object.stack.len() != merged.len()
            || !object.stack.iter().zip(merged).all(same_place)
        {
            return Ok(false);
        }
        // While a file is open its number on disk cannot become another's.
        if let Some(open) = self.opened(node) {
            return Ok(rustix::fs::fstat(open)?.st_ino == object.stat.ino);
        }
        // A copy may still show the number of what it was copied from, which it does not tell.
        let untold = object.layer.is_upper()
            && (self.layers.namespace == Namespace::User || node.borrows_ino());
        Ok(untold || self.ino_of(parent, name, object, None)? == node.ino())
    }

    /// Takes the name `name` in `parent`, whose lock the caller holds, from `node`.
    fn take_name(&self, parent: &Arc<Node>, name: &[u8], node: &Arc<Node>) {
        // What is under way in a directory that is lost still finds it.
        let _entries = node.dir().ok().map(|dir| dir.lock.write());
        let mut place = node.place.write();
        if self.names.unlink(node, parent, name) || node.is_indexed() {
            return;
        }
        node.set_removed();
        let kept = self.opened(node).map(|fd| Kept { fd, counted: None });
        *place = Some(Box::new(Gone { stat: None, parent: Arc::clone(parent), kept }));
    }

    /// Notes all names in `node` but those of the `known` nodes: the kernel may have found that
    /// they are nothing.
    fn note_unknown(&self, node: &Node, known: &HashSet<Vec<u8>>, outdated: &mut Outdated) {
        match self.build_listing(node) {
            Ok(listing) => {
                let names = listing.after(0).map(|item| item.name);
                let unknown = names.filter(|&name| !known.contains(name));
                outdated.names.extend(unknown.map(|name| (node.id, name.to_vec())));
            }
            Err(e) => log::debug!("node {} cannot be listed: {e}", node.id),
        }
    }
}
