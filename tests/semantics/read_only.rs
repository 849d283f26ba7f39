//! Mounts that cannot be written: without an upper, and with `ro`.

use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, SeekFrom, XattrFlags, lremovexattr, lsetxattr,
};
use rustix::io::Errno;

use crate::common::{Sandbox, Tree, assert_errno, dirents, sys::Map};

mounted_tests! {
    [root userns user]: without_upper_shows_the_merge, without_upper_refuses_every_change,
        every_way_of_reading;
    [root]: every_way_of_reading_passed_through;
    [root userns]:
        single_lower, ro_option_leaves_upper_alone, without_upper_numbers, whiteouts_between_lowers_without_upper,
        remounts_of_an_upper_as_lower;
}

fn assert_all_refused(m: &Tree) {
    let refused = Errno::ROFS;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    assert_errno(std::fs::write(m.at("f"), ""), refused);
    assert_errno(std::fs::write(m.at("new"), ""), refused);
    assert_errno(rustix::fs::open(m.at("f"), OFlags::WRONLY, Mode::empty()), refused);
    assert_errno(std::fs::remove_file(m.at("f")), refused);
    assert_errno(std::fs::remove_dir(m.at("d/empty")), refused);
    assert_errno(std::fs::create_dir(m.at("new")), refused);
    assert_errno(std::os::unix::fs::symlink("t", m.at("new")), refused);
    assert_errno(std::fs::rename(m.at("f"), m.at("g")), refused);
    assert_errno(
        rustix::fs::renameat_with(CWD, m.at("f"), CWD, m.at("g"), RenameFlags::NOREPLACE),
        refused,
    );
    assert_errno(std::fs::hard_link(m.at("f"), m.at("g")), refused);
    assert_errno(std::fs::set_permissions(m.at("f"), mode), refused);
    assert_errno(rustix::fs::chownat(CWD, m.at("f"), None, None, AtFlags::empty()), refused);
    assert_errno(lsetxattr(m.at("f"), "user.a", b"", XattrFlags::empty()), refused);
    assert_errno(lremovexattr(m.at("f"), "user.seen"), refused);
    assert_errno(rustix::fs::access(m.at("f"), rustix::fs::Access::WRITE_OK), refused);
}

fn without_upper_shows_the_merge(s: &mut Sandbox) {
    s.lower().file("f", "bottom").file("d/a", "");
    s.add_lower().file("f", "top").file("d/b", "").symlink("f", "l");
    s.without_upper();
    let m = s.mount();
    assert_eq!((m.text("f"), m.text("l")), ("top".into(), "top".into()));
    assert_eq!(m.names("d"), ["a", "b"]);
    assert_eq!(m.walk(""), ["d/", "d/a", "d/b", "f", "l"]);
}

fn without_upper_refuses_every_change(s: &mut Sandbox) {
    s.lower().file("f", "bottom").set_xattr("f", "user.seen", "1").dir("d/empty");
    s.add_lower().file("d/b", "");
    s.without_upper();
    let m = s.mount();
    assert_all_refused(&m);
    assert_eq!(m.text("f"), "bottom");
    assert_eq!(m.xattr("f", "user.seen").unwrap(), b"1");
}

/// The kernel opens files of such a mount without asking, or reads them itself.
fn every_way_of_reading(s: &mut Sandbox) {
    s.lower().file("script", "#!/bin/sh\necho ran").chmod("script", 0o755).file("empty", "");
    let sparse = s.lower().open("sparse", OFlags::CREATE | OFlags::RDWR);
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"end", (1 << 20) - 3).unwrap();
    for index in 0..500 {
        s.lower().file(format!("many/f{index}"), index.to_string());
    }
    s.add_lower().file("many/f7", "seven").file("large", vec![b'l'; 3 << 20]);
    s.without_upper();
    s.max_descriptors(256);
    let m = s.mount();
    let open: Vec<_> =
        (0..150).map(|index| m.open(format!("many/f{index}"), OFlags::RDONLY)).collect();
    for round in 0..2 {
        for index in 0..500 {
            let expected = if index == 7 { "seven".into() } else { index.to_string() };
            assert_eq!(m.text(format!("many/f{index}")), expected, "round {round}");
        }
    }
    let mut text = [0; 3];
    assert_eq!(open[149].read_at(&mut text, 0).unwrap(), 3);
    assert_eq!(&text, b"149");
    let sparse = m.open("sparse", OFlags::RDONLY);
    assert_eq!(rustix::fs::seek(&sparse, SeekFrom::Data(0)).unwrap(), (1 << 20) - 4096);
    assert_eq!(rustix::fs::seek(&sparse, SeekFrom::Hole(0)).unwrap(), 0);
    assert_eq!(sparse.read_at(&mut text, (1 << 20) - 3).unwrap(), 3);
    assert_eq!(&text, b"end");
    sparse.sync_all().unwrap();
    rustix::fs::flock(&sparse, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(std::process::Command::new(m.at("script")).output().unwrap().stdout, b"ran\n");
    let large = m.open("large", OFlags::RDONLY);
    let map = Map::new(&large, 3 << 20, false, true).unwrap();
    assert_eq!(map.read((3 << 20) - 5, 5), b"lllll");
    assert_eq!(std::fs::copy(m.at("large"), s.scratch().at("copy")).unwrap(), 3 << 20);
    assert_eq!(s.scratch().read("copy"), vec![b'l'; 3 << 20]);
    assert_eq!(m.text("empty"), "");
    let closed = rustix::fs::open(m.at("empty"), OFlags::RDONLY | OFlags::TRUNC, Mode::empty());
    assert_errno(closed, Errno::ROFS);
    // At once and in any order, from one file and several.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (m, large) = (&m, &large);
            scope.spawn(move || {
                for index in 0..200 {
                    let mut byte = [0];
                    let other = m.open(format!("many/f{}", 100 + index), OFlags::RDONLY);
                    assert_eq!(other.read_at(&mut byte, 0).unwrap(), 1);
                    assert_eq!(large.read_at(&mut byte, index * 997 + thread).unwrap(), 1);
                    assert_eq!(byte, *b"l");
                }
            });
        }
    });
}

fn every_way_of_reading_passed_through(s: &mut Sandbox) {
    s.option("passthrough");
    every_way_of_reading(s);
}

fn single_lower(s: &mut Sandbox) {
    s.kernel_disagrees("it refuses a lone lower layer");
    s.lower().file("f", "only").set_xattr("f", "user.seen", "1").dir("d/empty");
    s.without_upper();
    let m = s.mount();
    assert_eq!(m.text("f"), "only");
    assert_all_refused(&m);
    let directory = m.open("d", OFlags::DIRECTORY);
    assert_eq!(dirents::rest(&directory, 100).len(), 3);
}

fn ro_option_leaves_upper_alone(s: &mut Sandbox) {
    s.lower().file("f", "lower").set_xattr("f", "user.seen", "1").dir("d/empty");
    s.upper().file("up", "upper");
    s.option("ro");
    let m = s.mount();
    assert_eq!((m.text("f"), m.text("up")), ("lower".into(), "upper".into()));
    assert_all_refused(&m);
    assert_errno(std::fs::write(m.at("up"), ""), Errno::ROFS);
    assert_eq!(s.upper().walk(""), ["up"]);
    assert_eq!(s.upper().text("up"), "upper");
}

fn without_upper_numbers(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b").file("d/f", "");
    s.add_lower().file("d/g", "");
    s.without_upper();
    let m = s.mount();
    assert_eq!((m.ino("a"), m.nlink("a")), (m.ino("b"), 2));
    assert_eq!(m.ino("d/f"), s.lower().ino("d/f"));
}

fn whiteouts_between_lowers_without_upper(s: &mut Sandbox) {
    let opaque = s.overlay_xattr("opaque");
    s.lower().file("gone", "").file("d/old", "").file("d/sub/old", "");
    s.add_lower()
        .whiteout("gone")
        .file("d/sub/new", "")
        .set_xattr("d/sub", opaque, "y")
        .whiteout("d/old");
    s.without_upper();
    let m = s.mount();
    assert_eq!(m.walk(""), ["d/", "d/sub/", "d/sub/new"]);
}

/// What was an upper becomes a lower of the next mount, as in a container image.
fn remounts_of_an_upper_as_lower(s: &mut Sandbox) {
    s.lower().file("kept", "0").file("removed", "0").file("d/old", "0").file("changed", "0");
    let m = s.mount();
    m.unlink("removed");
    m.remove_all("d");
    m.mkdir("d");
    m.write("d/new", "1");
    m.append("changed", "+1");
    s.unmount();
    let upper = s.upper();
    let layer = s.scratch().at("lower1");
    s.scratch().rename(upper.path(), &layer);
    s.work().remove_all("work");
    s.scratch().dir("upper");
    s.forget_layers();
    s.add_lower_at(layer);
    let m = s.mount();
    assert_eq!(m.walk(""), ["changed", "d/", "d/new", "kept"]);
    m.append("changed", "+2");
    m.unlink("d/new");
    m.unlink("kept");
    assert_eq!(
        (m.text("changed"), m.walk("")),
        ("0+1+2".into(), vec!["changed".into(), "d/".into()])
    );
}
