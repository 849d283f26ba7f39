//! Large numbers and small limits: a million files in one directory, 500 layers, 256 descriptors.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::mount::{Mount, Spec};
use common::scratch::{self, Filesystem};
use common::{Backend, Context, Sandbox, Tree, assert_errno, backend, context, wait};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const MILLION: usize = 1_000_000;

/// What the daemon may hold with a million known files.
const MAX_RSS_MIB: u64 = 250;

/// Lists, stats and changes a directory of a million files; the daemon stays small, and small
/// again when the kernel forgets them.
#[test]
fn a_million_files() {
    context::require_root();
    let home = scratch::directory();
    let layers = Filesystem::tmpfs("size=3g,nr_inodes=1200000");
    let (tree, store) = (Tree::new(home.path()), Tree::new(layers.path()));
    store.dir("lower/d").dir("upper").dir("work");
    tree.dir("merged");
    make_files(&store.at("lower/d"));
    let spec = Spec {
        lowers: vec![store.at("lower")],
        data: Vec::new(),
        upper: Some((store.at("upper"), store.at("work"))),
        options: Vec::new(),
        merged: tree.at("merged"),
        context: Context::root,
        max_descriptors: Some(256),
        max_file_size: None,
        patience: Duration::from_secs(600),
    };
    let mount = Mount::new(backend(), spec, &tree.at("log"));
    let rss = |when: &str, since: Instant| {
        let mib = mount.pid().map_or(0, rss_mib);
        eprintln!("{when}: {mib} MiB, {:?}", since.elapsed());
        mib
    };
    let start = Instant::now();
    rss("mounted", start);
    let d = tree.sub("merged/d");
    assert_eq!(count_by(Command::new("ls").arg("-f").arg(d.path())), MILLION + 2);
    let listed = rss("listed", start);
    // The condition makes find(1) stat every file.
    assert_eq!(
        count_by(Command::new("find").arg(d.path()).args(["-type", "f", "-size", "0"])),
        MILLION
    );
    let known = rss("every file known", start);
    changes(&d, &store);
    let changed = rss("changed", start);

    let before = Instant::now();
    std::fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
    if let Some(pid) = mount.pid() {
        // The kernel forgets in requests that are served after the write returns.
        wait::until("files are forgotten", || rss_mib(pid) < known * 9 / 10);
        wait::until("the daemon is idle", || is_idle(pid));
    }
    let forgotten = rss("forgotten", before);
    assert_eq!(d.names("").len(), MILLION);
    mount.unmount();
    assert_eq!(store.sub("upper/d").names(""), ["0000000", "0000001", "new", "renamed"]);
    let most = listed.max(known).max(changed);
    assert!(most < MAX_RSS_MIB, "the daemon holds {listed}, {known}, {changed} MiB");
    assert!(forgotten < known / 2 || known == 0, "of {known} MiB it keeps {forgotten}");
}

/// A million empty files: links of a few inodes would have less to know.
fn make_files(directory: &Path) {
    let half = |from: usize| {
        for index in (from..MILLION).step_by(2) {
            File::create(directory.join(format!("{index:07}"))).expect("a file");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| half(0));
        scope.spawn(|| half(1));
    });
}

/// Changes a few files: two removed, one made, one renamed.
fn changes(d: &Tree, store: &Tree) {
    let start = Instant::now();
    d.unlink("0000000");
    d.write("new", "x");
    d.rename("0000001", "renamed");
    d.append("renamed", "y");
    assert_errno(std::fs::metadata(d.at("0000000")), Errno::NOENT);
    assert_errno(std::fs::metadata(d.at("never")), Errno::NOENT);
    assert_errno(std::fs::remove_dir(d.path()), Errno::NOTEMPTY);
    assert_eq!(
        (d.text("new"), d.text("renamed"), d.text("0999999")),
        ("x".into(), "y".into(), "".into())
    );
    assert!(store.is_whiteout("upper/d/0000000"));
    assert!(start.elapsed() < Duration::from_secs(10), "a few changes took {:?}", start.elapsed());
}

/// How many lines the command prints.
fn count_by(command: &mut Command) -> usize {
    scratch::run(command).lines().count()
}

/// Whether the process used no processor time over a few ticks of the clock.
fn is_idle(pid: u32) -> bool {
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon's stat");
        let fields: Vec<String> = stat.split(' ').map(str::to_owned).collect();
        (fields[13].clone(), fields[14].clone())
    };
    let (before, start) = (used(), Instant::now());
    while start.elapsed() < Duration::from_millis(200) {
        std::thread::yield_now();
    }
    used() == before
}

fn rss_mib(pid: u32) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn many_layers_and_few_descriptors() {
    context::run(Context::root, "scale::many_layers_and_few_descriptors", layers_and_descriptors);
}

#[test]
fn many_layers_and_few_descriptors_in_a_user_namespace() {
    let name = "scale::many_layers_and_few_descriptors_in_a_user_namespace";
    context::run(Context::userns, name, layers_and_descriptors);
}

/// 500 layers, of which each has a file and takes a descriptor, under a limit of 700: everything can
/// be read and changed, also with as many files open as the limit lets one have.
fn layers_and_descriptors(s: &mut Sandbox) {
    s.lower().file("d/0", "0");
    for layer in 1..500 {
        s.add_lower().file(format!("d/{layer}"), layer.to_string()).dir(format!("only{layer}"));
    }
    if backend() == Backend::Ovlfuse {
        s.max_descriptors(700);
    }
    let m = s.mount();
    assert_eq!((m.names("d").len(), m.names("").len()), (500, 500));
    let mut open: Vec<File> = Vec::new();
    for index in 0..300 {
        match rustix::fs::open(m.at(format!("d/{index}")), OFlags::RDONLY, Mode::empty()) {
            Ok(file) => open.push(file.into()),
            Err(error) => assert!(error == Errno::MFILE || error == Errno::NFILE, "{error}"),
        }
    }
    eprintln!("{} of 300 files open at once", open.len());
    assert!(open.len() >= 100, "only {} files could be open at once", open.len());
    for (index, file) in open.iter().enumerate() {
        assert_eq!(std::io::read_to_string(file).unwrap(), index.to_string());
    }
    // Names can be looked up and listed even then.
    assert_eq!(m.names("d").len(), 500);
    assert_eq!(m.stat("d/499").st_size, 3);
    drop(open);
    wait::until("the daemon has its descriptors back", || File::open(m.at("d/299")).is_ok());
    for index in 0..500 {
        m.append(format!("d/{index}"), "+");
    }
    for index in 0..500 {
        assert_eq!(m.text(format!("d/{index}")), format!("{index}+"));
    }
    m.file("only250/new", "x").unlink("d/250");
    m.open("d/250", OFlags::CREATE | OFlags::WRONLY).write_all(b"again").unwrap();
    assert_eq!(m.text("d/250"), "again");
}
