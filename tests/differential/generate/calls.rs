//! Random calls.

use super::{Kind, Writer};
use crate::common::Context;
use crate::script::Line;

const OPEN_FLAGS: [&str; 24] = [
    "r",
    "r",
    "r",
    "w",
    "rw",
    "rw",
    "w|trunc",
    "w|append",
    "rw|creat",
    "w|creat|excl",
    "w|creat|trunc",
    "r|dir",
    "path",
    "r|nofollow",
    "r|trunc",
    "r|creat",
    "r|noatime",
    "rw|sync",
    "rw|trunc",
    "rw|append",
    "rw|creat|excl",
    "w|creat|nofollow",
    "rw|creat|trunc",
    "w|dir",
];

impl Writer<'_> {
    /// Writes one call.
    pub(super) fn call(&mut self) {
        let words = match self.rng.below(100) {
            0..36 => self.names_call(),
            36..52 => self.attribute_call(),
            52..64 => self.xattr_call(),
            64..74 => self.look_call(),
            74..80 => self.content_call(),
            _ => self.file_call(),
        };
        let who = self.who();
        let words: Vec<&str> = who.iter().chain(&words).map(String::as_str).collect();
        self.lines.push(Line::new(&words));
    }

    fn who(&mut self) -> Option<String> {
        let user = match self.rng.below(10) {
            0 => "alice",
            1 => "bob",
            2 => "root",
            _ => return None,
        };
        let mask = self.rng.pick(&["", "", "/000", "/077", "/027"]);
        let group = if user != "root" && self.rng.chance(30) { "+3050" } else { "" };
        Some(format!("@{user}{mask}{group}"))
    }

    fn some_slot(&mut self) -> String {
        self.rng.below(5).to_string()
    }

    fn names_call(&mut self) -> Vec<String> {
        let pick = self.rng.below(100);
        let new = if self.rng.chance(70) { self.fresh() } else { self.path(None) };
        let mode = self.mode().to_owned();
        match pick {
            0..14 => {
                self.remember(&new, Kind::Dir);
                vec!["mkdir".into(), new, mode]
            }
            14..26 => {
                self.remember(&new, Kind::File);
                vec!["create".into(), new, mode]
            }
            26..32 => self.mknod_call(new, mode),
            32..36 => {
                self.remember(&new, Kind::Other);
                let target = self.rng.pick(&["a", "b", "nowhere", "c/d", "/nowhere/null"]);
                vec!["symlink".into(), target.into(), new]
            }
            36..46 if self.links => {
                let kind = if self.rng.chance(80) { Kind::File } else { Kind::Other };
                let old = self.path(Some(kind));
                self.remember(&new, kind);
                let follow = self.rng.chance(10).then(|| "follow".to_owned());
                [vec!["link".into(), old, new], follow.into_iter().collect()].concat()
            }
            36..62 => vec!["unlink".into(), self.path(Some(Kind::File))],
            62..65 => vec!["unlink".into(), self.path(None)],
            65..73 => vec!["rmdir".into(), self.path(Some(Kind::Dir))],
            73..77 => vec!["rmtree".into(), self.path(Some(Kind::Dir))],
            _ => self.rename_call(new),
        }
    }

    fn mknod_call(&mut self, new: String, mode: String) -> Vec<String> {
        let mut words = vec!["mknod".into(), new.clone(), mode];
        let kinds: &[&[&str]] = if self.context == Context::root {
            &[
                &["fifo"],
                &["sock"],
                &["chr", "1", "3"],
                &["blk", "7", "9"],
                &["chr", "0", "0"],
                &["file"],
            ]
        } else {
            &[&["fifo"], &["sock"], &["chr", "0", "0"], &["chr", "1", "3"], &["file"]]
        };
        words.extend(self.rng.pick(kinds).iter().map(|word| (*word).to_owned()));
        self.remember(&new, Kind::Other);
        words
    }

    fn rename_call(&mut self, new: String) -> Vec<String> {
        let kind = if self.rng.chance(35) { Kind::Dir } else { Kind::File };
        let old = if self.rng.chance(85) { self.path(Some(kind)) } else { self.path(None) };
        let flags = self.rng.pick(&[
            "",
            "",
            "",
            "",
            "noreplace",
            "noreplace",
            "exchange",
            "exchange",
            "exchange",
            "whiteout",
            "noreplace|exchange",
            "noreplace|whiteout",
        ]);
        let new = if flags.ends_with("exchange") { self.path(None) } else { new };
        if flags != "exchange" {
            self.remember(&new, kind);
        }
        let mut words = vec!["rename".into(), old, new];
        words.extend((!flags.is_empty()).then(|| flags.to_owned()));
        words
    }

    fn attribute_call(&mut self) -> Vec<String> {
        let path = self.path(None);
        if self.chattr && self.rng.chance(25) {
            let letters = self.rng.pick(&["i", "a", "A", "d", "ai", "-", "-", "-", "-"]);
            return vec!["chattr".into(), path, letters.into()];
        }
        match self.rng.below(10) {
            0..3 => vec!["chmod".into(), path, self.mode().into()],
            3..5 => {
                let (uid, gid) = self.owner();
                let name = self.rng.pick(&["chown", "lchown"]);
                vec![name.into(), path, uid.into(), gid.into()]
            }
            5 => vec!["lchown".into(), path, "-1".into(), "3050".into()],
            6..8 => {
                let (seconds, nanoseconds) = self.time();
                let when = self.rng.pick(&["", "", "", "now", "omit", "atime"]);
                if when.is_empty() {
                    vec!["utimens".into(), path, seconds.into(), nanoseconds.into()]
                } else {
                    vec!["utimens".into(), path, when.into()]
                }
            }
            _ => {
                let path = self.path(Some(Kind::File));
                let size = self.rng.pick(&["0", "3", "4096", "70000"]);
                vec!["truncate".into(), path, size.into()]
            }
        }
    }

    fn xattr_call(&mut self) -> Vec<String> {
        let path = self.path(None);
        let (name, value) = self.xattr();
        match self.rng.below(10) {
            0..4 => {
                let mut words = vec!["setxattr".into(), path, name.into(), value];
                let flags = self.rng.pick(&["", "", "create", "replace"]);
                words.extend((!flags.is_empty()).then(|| flags.to_owned()));
                words
            }
            4 => vec!["getxattr".into(), path, name.into()],
            5 | 6 => vec!["removexattr".into(), path, name.into()],
            7 => vec!["listxattr".into(), path],
            _ => {
                let mut words = vec!["acl".into(), path];
                words.extend(self.acl());
                words
            }
        }
    }

    fn look_call(&mut self) -> Vec<String> {
        let path = self.path(None);
        match self.rng.below(11) {
            10 => vec!["lsattr".into(), path],
            0..3 => vec!["lstat".into(), path],
            3 => vec!["stat".into(), path],
            4 => vec!["readlink".into(), path],
            5 => vec!["access".into(), path, self.rng.pick(&["4", "2", "1", "7"]).into()],
            6 => vec!["statfs".into(), path],
            7 => vec!["read".into(), path],
            _ => vec!["list".into(), self.path(Some(Kind::Dir))],
        }
    }

    fn content_call(&mut self) -> Vec<String> {
        let path = self.path(Some(Kind::File));
        let seed = self.next_seed();
        let offset = self.rng.pick(&["0", "10", "4096", "100000"]);
        let len = self.rng.pick(&["1", "10", "5000"]);
        match self.rng.below(4) {
            0 => vec!["append".into(), path, len.into(), seed],
            1 => vec!["read".into(), path],
            _ => vec!["write".into(), path, offset.into(), len.into(), seed],
        }
    }

    fn file_call(&mut self) -> Vec<String> {
        let slot = self.some_slot();
        let seed = self.next_seed();
        let offset = self.rng.pick(&["0", "7", "4096", "65536"]);
        let len = self.rng.pick(&["5", "300", "4096", "9000"]);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self.rng.below(40) {
            0..10 => {
                let kind = if self.rng.chance(90) { Kind::File } else { Kind::Other };
                let path = self.path(Some(kind));
                let flags = self.rng.pick(&OPEN_FLAGS);
                words(&["open", &slot, &path, flags, "0640"])
            }
            10 => {
                let path = self.path(Some(Kind::Dir));
                words(&["open", &slot, &path, "r|dir"])
            }
            11 => {
                words(&["reopen", &slot, &self.some_slot(), self.rng.pick(&["r", "rw", "w|trunc"])])
            }
            12 => words(&["close", &slot]),
            13..16 => words(&["pread", &slot, offset, len]),
            16..19 => words(&["pwrite", &slot, offset, len, &seed]),
            19..22 => words(&["fstat", &slot]),
            22 => words(&["ftruncate", &slot, offset]),
            23 | 24 => {
                let mode = self.rng.pick(&["keep", "punch", "zero", "none"]);
                words(&["fallocate", &slot, mode, offset, len])
            }
            25 => words(&["lseek", &slot, offset, self.rng.pick(&["data", "hole", "end"])]),
            26 => words(&[self.rng.pick(&["fsync", "fdatasync"]), &slot]),
            27 | 28 => words(&["flist", &slot]),
            29 | 30 => words(&["copy", &slot, &self.some_slot(), offset, "100", len]),
            31 => words(&["fchmod", &slot, self.mode()]),
            32 => {
                let (uid, gid) = self.owner();
                words(&["fchown", &slot, uid, gid])
            }
            33 => {
                let (seconds, nanoseconds) = self.time();
                words(&["futimens", &slot, seconds, nanoseconds])
            }
            34 => self.file_xattr_call(&slot),
            35 => words(&["map", &slot, self.rng.pick(&["r", "rw"])]),
            36 => words(&[self.rng.pick(&["mapread", "unmap"]), &slot]),
            37 => words(&["mapwrite", &slot, "100", "50", &seed]),
            38 if self.links => {
                let new = self.fresh();
                self.remember(&new, Kind::File);
                words(&["flink", &slot, &new])
            }
            _ => {
                let name = self.name();
                let call = self.rng.pick(&["mkdirat", "createat", "unlinkat", "statat"]);
                words(&[call, &slot, &name])
            }
        }
    }

    fn file_xattr_call(&mut self, slot: &str) -> Vec<String> {
        let (name, value) = self.xattr();
        let call = self.rng.pick(&["fsetxattr", "fgetxattr", "flistxattr", "fremovexattr"]);
        vec![call.into(), slot.into(), name.into(), value]
    }
}
