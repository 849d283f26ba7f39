//! Random layers.

use super::{Kind, Writer};
use crate::common::Context;

impl Writer<'_> {
    /// Entries of all lower layers, and sometimes of the upper.
    pub(super) fn layers(&mut self, lowers: usize) {
        for number in 0..lowers {
            let count = 3 + self.rng.below(if lowers > 3 { 8 } else { 16 });
            self.layer(&format!("L{number}"), count);
        }
        if self.rng.chance(50) {
            self.layer("U", 6);
        }
        for name in std::mem::take(&mut self.late) {
            self.remember(&name, Kind::File);
        }
    }

    /// Files whose metadata is in one layer and whose data is in another, under names that
    /// nothing else gets before the calls; how many data-only layers there are.
    pub(super) fn bare_files(&mut self, lowers: usize, with_data: bool) -> usize {
        let layers = self.rng.pick(if with_data { &[1, 2] } else { &[0, 0, 1, 2] });
        let sizes = ["0", "5", "100", "5000", "20000"].map(|size| (size, self.next_seed()));
        for (number, (size, seed)) in sizes.iter().enumerate() {
            self.push(&["L0", "file", &format!("data{number}"), "0644", size, seed]);
            if layers > 0 {
                let layer = format!("D{}", self.rng.below(layers));
                self.push(&[&layer, "file", &format!("far{number}"), "0644", size, seed]);
            }
        }
        for number in 0..self.rng.below(6) {
            let which = self.rng.below(sizes.len());
            let layer = self.rng.below(lowers);
            let (target, name) = match self.rng.below(4) {
                0 if layer > 0 => (String::new(), format!("data{which}")),
                1 if layer > 0 => (format!("data{which}"), format!("bare{number}")),
                2 if layers > 0 => (format!("/far{which}"), format!("bare{number}")),
                _ => (format!("/data{which}"), format!("bare{number}")),
            };
            let (layer, mode, size) = (format!("L{layer}"), self.mode(), sizes[which].0);
            let target = (!target.is_empty()).then_some(target.as_str());
            let words = [layer.as_str(), "bare", &name, mode, size];
            self.push(&words.into_iter().chain(target).collect::<Vec<_>>());
            self.late.push(name);
        }
        layers
    }

    /// What was named as a directory so far.
    fn dirs(&self) -> Vec<String> {
        let dirs = self.paths.iter().filter(|(_, kind)| *kind == Kind::Dir);
        dirs.map(|(path, _)| path.clone()).chain([".".into()]).collect()
    }

    fn layer(&mut self, layer: &str, count: usize) {
        let mut named = Vec::new();
        for _ in 0..count {
            let path = self.entry_path(layer, &mut named);
            named.push(path);
        }
        for path in named {
            self.decorate(layer, &path);
        }
        self.below = self.dirs();
        if self.rng.chance(20) {
            let mode = self.rng.pick(&["1777", "0755", "2775"]);
            self.push(&[layer, "dir", ".", mode]);
        }
    }

    /// Writes the line of a new entry.
    fn entry_path(&mut self, layer: &str, named: &mut Vec<String>) -> String {
        // Half of the entries meet something in another layer.
        let path = if self.rng.chance(50) { self.path(None) } else { self.fresh() };
        let path = if path == "." { self.name() } else { path };
        self.parents(layer, &path, named);
        let link = self.linked_layers && !named.is_empty() && self.rng.chance(40);
        let kind = if link { 64 } else { self.rng.below(100) };
        let seed = self.next_seed();
        match kind {
            0..34 => {
                let mode = self.mode();
                self.push(&[layer, "dir", &path, mode]);
                self.remember(&path, Kind::Dir);
            }
            34..60 => {
                let mode = self.mode();
                let size = self.rng.pick(&["0", "5", "100", "5000", "20000"]);
                self.push(&[layer, "file", &path, mode, size, &seed]);
                self.remember(&path, Kind::File);
            }
            60..64 => {
                let size = self.rng.pick(&["300000", "65536", "1000000"]);
                self.push(&[layer, "sparse", &path, "0644", size, &seed]);
                self.remember(&path, Kind::File);
            }
            64..72 if !named.is_empty() => {
                let old = self.rng.pick(named);
                self.push(&[layer, "link", &old, &path]);
                self.remember(&path, Kind::File);
            }
            72..80 => {
                let target = self.rng.pick(&["a", "b", "nowhere", "a/b", "/nowhere/null", "./c"]);
                self.push(&[layer, "symlink", &path, target]);
                self.remember(&path, Kind::Other);
            }
            80..86 => {
                let node: &[&str] = match self.rng.below(4) {
                    0 => &["fifo"],
                    1 => &["sock"],
                    _ if self.context != Context::root => &["fifo"],
                    2 => &["chr", "1", "3"],
                    _ => &["blk", "7", "9"],
                };
                let mode = self.mode();
                self.push(&[&[layer, "node", &path, mode], node].concat());
                self.remember(&path, Kind::Other);
            }
            // With nothing below its directory the kernel would show it.
            86..95 if self.below.iter().any(|dir| *dir == parent(&path)) => {
                self.push(&[layer, "whiteout", &path]);
            }
            _ => {
                self.push(&[layer, "dir", &path, "0755"]);
                self.push(&[layer, "opaque", &path]);
                self.remember(&path, Kind::Dir);
            }
        }
        path
    }

    /// Writes the directories above `path`.
    fn parents(&mut self, layer: &str, path: &str, named: &mut Vec<String>) {
        for (end, _) in path.match_indices('/') {
            let parent = path[..end].to_owned();
            if !named.contains(&parent) {
                self.push(&[layer, "dir", &parent, "0755"]);
                self.remember(&parent, Kind::Dir);
                named.push(parent);
            }
        }
    }

    /// Writes owner, xattrs, ACL and time of an entry, now and then.
    fn decorate(&mut self, layer: &str, path: &str) {
        if self.rng.chance(30) {
            let (uid, gid) = self.owner();
            self.push(&[layer, "owner", path, uid, gid]);
            // chown clears set-id bits.
            if self.rng.chance(30) {
                let mode = self.mode();
                self.push(&[layer, "mode", path, mode]);
            }
        }
        if self.rng.chance(20) {
            let (name, value) = self.xattr();
            let own = name.contains(".overlay.");
            if !own {
                self.push(&[layer, "xattr", path, name, &value]);
            }
        }
        if self.rng.chance(8) {
            let acl = self.acl();
            let words: Vec<&str> = acl.iter().map(String::as_str).collect();
            self.push(&[&[layer, "acl", path], words.as_slice()].concat());
        }
        if self.rng.chance(15) {
            let (seconds, nanoseconds) = self.time();
            self.push(&[layer, "mtime", path, seconds, nanoseconds]);
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(parent, _)| parent)
}
