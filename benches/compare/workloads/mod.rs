//! What is measured: one function per workload, listed in [`ALL`].
//!
//! A function makes its views, warms up what the kernel or the disk would charge to the wrong part, and
//! times each part with [`Scene::time`]. Work outside a timed section is free. Inside one nothing but
//! Rust runs, except where programs are what is measured.

mod data;
mod names;
pub mod programs;
mod reads;
mod stacks;

use crate::Result;
use crate::scene::Scene;
use crate::systems::Kind;

/// Whom a workload makes sense for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Every system.
    All,
    /// What merges layers.
    Unions,
    /// What has a daemon.
    Daemons,
}

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// As on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Where it runs.
    pub who: Who,
    /// Measures it once.
    pub run: fn(&mut Scene) -> Result<()>,
}

const fn workload(
    name: &'static str,
    who: Who,
    run: fn(&mut Scene) -> Result<()>,
    about: &'static str,
) -> Workload {
    Workload { name, about, who, run }
}

use Who::{All, Daemons, Unions};

/// Every workload, in the report's order.
#[rustfmt::skip]
pub const ALL: &[Workload] = &[
    workload("walk", All, reads::walk, "readdir and lstat of the whole tree, first and again"),
    workload("walk-ro", All, reads::walk_ro, "the same without upper"),
    workload("stat", All, reads::stat, "lstat of names in random order, first and again"),
    workload("miss", All, reads::miss, "lstat of names that do not exist, first and again"),
    workload("open", All, reads::open, "open, read 4 KiB, close, first and again"),
    workload("open-ro", All, reads::open_ro, "the same without upper"),
    workload("two-readers", All, programs::two_readers, "read every file of the tree, two threads at once, first and again"),
    workload("tar", All, programs::tar, "read every file of the tree as tar -c does, first and again"),
    workload("ls", All, programs::ls, "ls -lR of the tree, first and again"),
    workload("create", All, names::create, "create files of 4 KiB in a new folder"),
    workload("append", All, names::append, "open, append 100 bytes, close; files of upper"),
    workload("rename", All, names::rename, "rename files of upper in their folder"),
    workload("unlink", All, names::unlink, "unlink files of upper"),
    workload("mkdir", All, names::mkdir, "make folders in a new folder"),
    workload("untar", All, names::untar, "create, write, chown, chmod and utimens as tar does"),
    workload("chmod", All, names::chmod, "chmod of files of a lower layer: copy-up"),
    workload("rename-lower", All, names::rename_lower, "rename files of a lower layer: copy-up and whiteout"),
    workload("unlink-lower", All, names::unlink_lower, "unlink files of a lower layer: whiteouts"),
    workload("rm-rf", All, names::rm_rf, "remove a tree of a lower layer"),
    workload("chown", All, programs::chown, "chown -R of a tree of a lower layer: copy-up"),
    workload("cp", All, programs::cp, "cp -a of a tree of a lower layer within the view"),
    workload("git-clone", All, programs::git_clone, "git clone of a repository in a lower layer, within the view"),
    workload("git-status", All, programs::git_status, "git status of a repository in a lower layer, first and again"),
    workload("python", All, programs::python, "start python and import much of its library from a lower layer, first and again"),
    workload("gcc", All, programs::gcc, "compile 20 small C files that include 200 headers of a lower layer"),
    workload("read", All, data::read, "read a big file of a lower layer, first and again"),
    workload("read-ro", All, data::read_ro, "the same without upper"),
    workload("write", All, data::write, "write a big file"),
    workload("pread", All, data::pread, "read 4 KiB at random offsets of a big file, cached"),
    workload("pwrite", All, data::pwrite, "write 4 KiB at random offsets of a file in upper, and close it"),
    workload("copy-up", Unions, data::copy_up, "append one byte to a big file of a lower layer"),
    workload("latency", Unions, data::latency, "the slowest of the first lstats of other names while the big file is copied up"),
    workload("mount", Unions, stacks::mount, "mount 2 and 500 layers"),
    workload("layers-2", Unions, |s| stacks::stack(s, 2), "first stat, miss and walk of 1,000 files over 2 layers"),
    workload("layers-64", Unions, |s| stacks::stack(s, 64), "the same over 64 layers"),
    workload("layers-500", Unions, |s| stacks::stack(s, 500), "the same over 500 layers"),
    workload("memory", Daemons, stacks::memory, "the daemon's memory, now and at most, once it knows --inodes files"),
];

impl Workload {
    /// Whether it runs on such a system.
    pub fn suits(&self, kind: Kind) -> bool {
        match self.who {
            All => true,
            Unions => kind != Kind::Native,
            Daemons => kind.is_fuse(),
        }
    }
}

/// The workloads with these names; all when there are none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Workload>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        ALL.iter()
            .find(|w| w.name == name)
            .ok_or_else(|| format!("no workload `{name}`; --list shows them").into())
    };
    names.iter().map(find).collect()
}

/// What `--list` shows.
pub fn print_list() {
    for workload in ALL {
        println!("{:<14}{}", workload.name, workload.about);
    }
}

/// Numbers that are the same in every run (splitmix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// `count` of `from` in random order, or all of them when there are fewer.
pub fn pick<T: Clone>(from: &[T], count: usize, seed: u64) -> Vec<T> {
    let mut random = Random(seed);
    let mut all = from.to_vec();
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i + 1));
    }
    all.truncate(count);
    all
}
