//! Listings: order, offsets, rewinding, change while reading.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, OFlags, SeekFrom, seek};

use crate::common::dirents::{Entry, all, batch, rest};
use crate::common::{Sandbox, Tree};

mounted_tests! {
    [root userns user]: every_buffer_size_gives_all, seek_to_every_offset, rewind_shows_changes, types_are_right;
    [root userns]:
        dot_entries_once, long_names, names_of_any_bytes, deleting_while_reading, creating_while_reading,
        many_entries, two_readers_do_not_disturb, listing_after_every_kind_of_change, listing_of_opaque_directory,
        hidden_names_of_many_layers, listing_of_the_root, replaced_types_are_seen, listing_while_directory_is_renamed,
        empty_directories, listing_after_exchange, listing_takes_the_mark_of_impure_directories;
}

fn names(entries: &[Entry]) -> BTreeSet<OsString> {
    entries.iter().map(|entry| entry.name.clone()).collect()
}

/// Some of everything: three layers, doubles, whiteouts.
fn layers(s: &mut Sandbox) -> BTreeSet<OsString> {
    for index in 0..60 {
        s.lower().file(format!("d/low-{index}"), "");
    }
    let middle = s.add_lower();
    for index in 30..90 {
        middle.file(format!("d/low-{index}"), "");
    }
    for index in 0..10 {
        s.upper().file(format!("d/up-{index}"), "");
        s.upper().whiteout(format!("d/low-{index}"));
    }
    let shown = (10..90).map(|index| format!("low-{index}"));
    let upper = (0..10).map(|index| format!("up-{index}"));
    let dots = [".".to_owned(), "..".to_owned()];
    shown.chain(upper).chain(dots).map(OsString::from).collect()
}

fn every_buffer_size_gives_all(s: &mut Sandbox) {
    let expected = layers(s);
    let m = s.mount();
    for buffer in [48, 64, 100, 512, 4096, 65_536] {
        let entries = rest(m.open("d", OFlags::DIRECTORY), buffer);
        assert_eq!(entries.len(), expected.len(), "buffer {buffer}");
        assert_eq!(names(&entries), expected, "buffer {buffer}");
    }
}

fn seek_to_every_offset(s: &mut Sandbox) {
    layers(s);
    let m = s.mount();
    let directory = m.open("d", OFlags::DIRECTORY);
    let whole = rest(&directory, 4096);
    for (index, entry) in whole.iter().enumerate() {
        seek(&directory, SeekFrom::Start(entry.next)).unwrap();
        assert_eq!(rest(&directory, 200), whole[index + 1..], "after {:?}", entry.name);
    }
    seek(&directory, SeekFrom::Start(0)).unwrap();
    assert_eq!(rest(&directory, 4096), whole);
    assert!(rest(&directory, 4096).is_empty());
}

fn rewind_shows_changes(s: &mut Sandbox) {
    s.lower().file("d/a", "").file("d/b", "");
    let m = s.mount();
    let directory = m.open("d", OFlags::DIRECTORY);
    assert_eq!(rest(&directory, 4096).len(), 4);
    m.write("d/new", "");
    m.unlink("d/a");
    m.rename("d/b", "d/c");
    seek(&directory, SeekFrom::Start(0)).unwrap();
    let expected: BTreeSet<OsString> = [".", "..", "c", "new"].map(OsString::from).into();
    assert_eq!(names(&rest(&directory, 4096)), expected);
    assert_eq!(names(&all(m.at("d"), OFlags::empty())), expected);
}

fn types_are_right(s: &mut Sandbox) {
    let make = |tree: &Tree, prefix: &str| {
        let name = |kind: &str| format!("d/{prefix}-{kind}");
        tree.file(name("file"), "").dir(name("dir")).symlink("t", name("link")).fifo(name("fifo"));
        tree.mknod(name("socket"), FileType::Socket, 0o755, (0, 0));
    };
    make(&s.lower(), "low");
    make(&s.upper(), "up");
    let m = s.mount();
    make(&m, "new");
    for entry in all(m.at("d"), OFlags::empty()) {
        let name = entry.name.to_str().unwrap();
        let expected = match name.rsplit('-').next().unwrap() {
            "file" => FileType::RegularFile,
            "link" => FileType::Symlink,
            "fifo" => FileType::Fifo,
            "socket" => FileType::Socket,
            _ => FileType::Directory,
        };
        assert_eq!(entry.kind, expected, "{name}");
    }
}

fn dot_entries_once(s: &mut Sandbox) {
    s.lower().file("d/x", "").dir("low/sub").dir("empty");
    s.upper().file("d/y", "").dir("up/sub");
    let m = s.mount();
    for path in ["", "d", "low", "up", "empty", "low/sub"] {
        let entries = all(m.at(path), OFlags::empty());
        for name in [".", ".."] {
            assert_eq!(
                entries.iter().filter(|entry| entry.name == name).count(),
                1,
                "{name} in {path:?}"
            );
        }
    }
}

fn empty_directories(s: &mut Sandbox) {
    s.lower().dir("low").dir("merged").file("emptied/f", "");
    s.upper().dir("up").dir("merged").dir("emptied").whiteout("emptied/f");
    let m = s.mount();
    m.mkdir("new");
    for path in ["low", "up", "merged", "emptied", "new"] {
        let expected: BTreeSet<OsString> = [".", ".."].map(OsString::from).into();
        assert_eq!(names(&all(m.at(path), OFlags::empty())), expected, "{path}");
    }
}

fn long_names(s: &mut Sandbox) {
    let name = |layer: char, index: u32| format!("{index:03}{}", layer.to_string().repeat(252));
    for index in 0..50 {
        s.lower().file(name('l', index), "");
        s.upper().file(name('u', index), "");
    }
    let m = s.mount();
    for buffer in [300, 4096, 32_768] {
        assert_eq!(rest(m.open("", OFlags::DIRECTORY), buffer).len(), 102, "buffer {buffer}");
    }
}

fn names_of_any_bytes(s: &mut Sandbox) {
    for byte in 1..=255_u8 {
        if byte != b'/' && byte != b'.' {
            s.lower().file(OsStr::from_bytes(&[byte]), "");
            s.upper().file(OsStr::from_bytes(&[byte, 0xff]), "");
        }
    }
    let m = s.mount();
    assert_eq!(names(&all(m.path(), OFlags::empty())).len(), 2 * 253 + 2);
}

/// What `rm -rf` does: read some, remove them, read on. None may be skipped.
fn deleting_while_reading(s: &mut Sandbox) {
    for index in 0..300 {
        s.lower().file(format!("d/low-{index}"), "");
        s.upper().file(format!("d/up-{index}"), "");
    }
    let m = s.mount();
    let directory = m.open("d", OFlags::DIRECTORY);
    let mut seen = BTreeSet::new();
    loop {
        let entries = batch(&directory, 500).unwrap();
        if entries.is_empty() {
            break;
        }
        for entry in entries.iter().filter(|entry| entry.kind == FileType::RegularFile) {
            assert!(seen.insert(entry.name.clone()), "{:?} twice", entry.name);
            m.sub("d").unlink(&entry.name);
        }
    }
    assert_eq!(seen.len(), 600);
    m.rmdir("d");
    assert!(s.upper().is_whiteout("d"));
}

fn creating_while_reading(s: &mut Sandbox) {
    for index in 0..100 {
        s.lower().file(format!("d/low-{index}"), "");
    }
    let m = s.mount();
    let directory = m.open("d", OFlags::DIRECTORY);
    let mut seen = batch(&directory, 300).unwrap();
    for index in 0..100 {
        m.write(format!("d/new-{index}"), "");
        m.append(format!("d/low-{index}"), "+");
    }
    seen.extend(rest(&directory, 300));
    let old = seen.iter().filter(|entry| entry.name.as_bytes().starts_with(b"low-")).count();
    assert_eq!(old, 100, "what was there all the time is listed exactly once");
    assert_eq!(names(&seen).len(), seen.len());
    assert_eq!(all(m.at("d"), OFlags::empty()).len(), 202);
}

fn many_entries(s: &mut Sandbox) {
    s.lower().dir("d");
    for index in 0..5000 {
        drop(s.lower().open(format!("d/low-{index}"), OFlags::CREATE | OFlags::WRONLY));
    }
    let m = s.mount();
    assert_eq!(m.names("d").len(), 5000);
    for index in (0..5000).step_by(10) {
        m.unlink(format!("d/low-{index}"));
        drop(m.open(format!("d/new-{index}"), OFlags::CREATE | OFlags::WRONLY));
    }
    let listed = m.names("d");
    assert_eq!(listed.len(), 5000);
    assert_eq!(listed.iter().filter(|name| name.starts_with("new-")).count(), 500);
}

fn two_readers_do_not_disturb(s: &mut Sandbox) {
    let expected = layers(s);
    let m = s.mount();
    let (one, two) = (m.open("d", OFlags::DIRECTORY), m.open("d", OFlags::DIRECTORY));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    loop {
        let (a, b) = (batch(&one, 128).unwrap(), batch(&two, 400).unwrap());
        if a.is_empty() && b.is_empty() {
            break;
        }
        first.extend(a);
        second.extend(b);
    }
    assert_eq!((names(&first), first.len()), (expected.clone(), expected.len()));
    assert_eq!((names(&second), second.len()), (expected.clone(), expected.len()));
}

fn listing_after_every_kind_of_change(s: &mut Sandbox) {
    s.lower().file("d/f", "").file("d/g", "").dir("d/sub").symlink("t", "d/l");
    let m = s.mount();
    assert_eq!(m.names("d"), ["f", "g", "l", "sub"]);
    m.write("d/a", "");
    assert_eq!(m.names("d"), ["a", "f", "g", "l", "sub"]);
    m.mkdir("d/b");
    m.symlink("t", "d/c");
    m.fifo("d/e");
    m.link("d/f", "d/h");
    assert_eq!(m.names("d"), ["a", "b", "c", "e", "f", "g", "h", "l", "sub"]);
    m.unlink("d/f");
    m.rmdir("d/sub");
    m.unlink("d/l");
    assert_eq!(m.names("d"), ["a", "b", "c", "e", "g", "h"]);
    m.rename("d/g", "moved");
    m.rename("d/b", "d/z");
    assert_eq!(m.names("d"), ["a", "c", "e", "h", "z"]);
    assert_eq!(m.names(""), ["d", "moved"]);
    m.rename("moved", "d/a");
    assert_eq!(m.names("d"), ["a", "c", "e", "h", "z"]);
    assert_eq!(m.names(""), ["d"]);
}

fn listing_after_exchange(s: &mut Sandbox) {
    s.lower().file("d/f", "").dir("e").symlink("t", "e/l");
    let m = s.mount();
    assert_eq!((m.names("d"), m.names("e")), (vec!["f".into()], vec!["l".into()]));
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(
        cwd,
        m.at("d/f"),
        cwd,
        m.at("e/l"),
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    let kind = |path: &str, name: &str| {
        all(m.at(path), OFlags::empty()).into_iter().find(|entry| entry.name == name).unwrap().kind
    };
    assert_eq!((kind("d", "f"), kind("e", "l")), (FileType::Symlink, FileType::RegularFile));
}

fn replaced_types_are_seen(s: &mut Sandbox) {
    s.lower().file("d/x", "").dir("d/y");
    let m = s.mount();
    assert_eq!(m.names("d"), ["x", "y"]);
    m.unlink("d/x");
    m.mkdir("d/x");
    m.rmdir("d/y");
    m.symlink("t", "d/y");
    for entry in all(m.at("d"), OFlags::empty()) {
        match entry.name.to_str().unwrap() {
            "x" => assert_eq!(entry.kind, FileType::Directory),
            "y" => assert_eq!(entry.kind, FileType::Symlink),
            _ => {}
        }
    }
}

fn listing_of_opaque_directory(s: &mut Sandbox) {
    s.lower().file("d/low", "");
    s.upper().file("d/up", "").set_xattr("d", s.overlay_xattr("opaque"), "y");
    let m = s.mount();
    assert_eq!(m.names("d"), ["up"]);
    m.write("d/low", "new");
    assert_eq!(m.names("d"), ["low", "up"]);
}

fn hidden_names_of_many_layers(s: &mut Sandbox) {
    for layer in 0..20 {
        let tree = if layer == 0 { s.lower() } else { s.add_lower() };
        tree.file(format!("d/own-{layer}"), "").file("d/common", layer.to_string());
        if layer > 0 {
            tree.whiteout(format!("d/own-{}", layer - 1));
        }
    }
    let m = s.mount();
    assert_eq!(m.names("d"), ["common", "own-19"]);
    assert_eq!(m.text("d/common"), "19");
}

fn listing_of_the_root(s: &mut Sandbox) {
    s.lower().file("a", "");
    s.upper().file("b", "");
    let m = s.mount();
    let root = m.open("", OFlags::DIRECTORY);
    assert_eq!(rest(&root, 4096).len(), 4);
    m.unlink("a");
    m.unlink("b");
    seek(&root, SeekFrom::Start(0)).unwrap();
    assert_eq!(rest(&root, 4096).len(), 2);
}

fn listing_while_directory_is_renamed(s: &mut Sandbox) {
    let m = s.mount();
    m.mkdir("a");
    for index in 0..50 {
        m.write(format!("a/{index}"), "");
    }
    let directory = m.open("a", OFlags::DIRECTORY);
    let mut seen = batch(&directory, 200).unwrap();
    m.rename("a", "b");
    seen.extend(rest(&directory, 200));
    assert_eq!(names(&seen).len(), 52);
    assert_eq!(m.names("b").len(), 50);
}

/// A directory of upper alone is marked while something from below is in it, and until it is listed
/// then.
fn listing_takes_the_mark_of_impure_directories(s: &mut Sandbox) {
    s.lower().file("f", "").file("g", "").file("merged/h", "");
    s.upper().dir("old").set_xattr("old", s.overlay_xattr("impure"), "y");
    s.upper().file("old/f", "").dir("merged");
    let (upper, mark) = (s.upper(), s.overlay_xattr("impure"));
    let m = s.mount();
    let marked = |name| upper.xattr(name, &mark).is_some();
    m.dir("new");
    for name in ["f", "g"] {
        m.rename(name, format!("new/{name}"));
    }
    m.write("merged/h", "");
    assert_eq!((m.names("new"), marked("new")), (vec!["f".into(), "g".into()], true));
    m.unlink("new/f");
    assert_eq!((m.names("new"), marked("new")), (vec!["g".into()], true));
    m.rename("new/g", "g");
    assert!(marked("new"));
    let before = m.stat("new");
    assert_eq!((m.names("new").len(), marked("new")), (0, false));
    let after = m.stat("new");
    assert!((before.st_ctime, before.st_ctime_nsec) < (after.st_ctime, after.st_ctime_nsec));
    assert_eq!((m.names("old"), marked("old")), (vec!["f".into()], false));
    m.unlink("merged/h");
    assert_eq!((m.names("merged").len(), marked("merged")), (0, true));
    m.rename("g", "new/g");
    assert_eq!((m.names("new"), marked("new")), (vec!["g".into()], true));
}
