//! When a lower file is copied to upper, and what the copy keeps.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, FileType, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::common::{Caller, Sandbox, Tree, assert_errno, caller::ALICE, caller::STAFF};

mounted_tests! {
    [root userns user]:
        looking_copies_nothing, every_change_copies, open_for_writing_copies, content_is_whole, holes_stay_holes,
        times_are_kept, one_byte_into_a_large_file, append_to_lower;
    [root userns]:
        truncating_open_copies_no_data, failed_changes_copy_nothing, owner_and_mode_are_kept,
        setid_bits_are_kept, xattrs_are_kept, other_types_are_copied, directories_are_copied_by_chmod,
        access_time_is_kept, negative_times, umask_does_not_matter, sticky_and_private_directories_keep_their_mode,
        unreadable_file_of_the_caller, truncate_to_a_length, origin_is_stored, origin_of_hard_links_is_not_stored,
        overlays_own_xattrs_are_not_copied, escaped_xattrs_are_copied, opened_file_is_copied_once,
        link_copies, middle_layer_is_the_source, stale_files_in_work, work_is_clean_after;
    [root]:
        capabilities_are_kept, lower_access_times_do_not_change, devices_are_copied, foreign_upper_filesystem;
}

fn looking_copies_nothing(s: &mut Sandbox) {
    s.lower()
        .file("f", "lower")
        .file("d/x", "")
        .symlink("f", "l")
        .fifo("p")
        .set_xattr("f", "user.a", "1");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDONLY);
    assert_eq!(std::io::read_to_string(&mut file).unwrap(), "lower");
    rustix::fs::fsync(&file).unwrap();
    rustix::fs::fdatasync(&file).unwrap();
    assert_eq!(m.names("d"), ["x"]);
    assert_eq!(m.xattr("f", "user.a").unwrap(), b"1");
    assert_eq!(m.xattr_names("f"), ["user.a"]);
    rustix::fs::access(m.at("f"), rustix::fs::Access::WRITE_OK).unwrap();
    rustix::fs::statvfs(m.at("f")).unwrap();
    assert_eq!(m.target("l").to_str(), Some("f"));
    drop(m.open("f", OFlags::PATH));
    drop(m.open("p", OFlags::RDWR | OFlags::NONBLOCK));
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn every_change_copies(s: &mut Sandbox) {
    s.kernel_splits_links();
    let names = ["chmod", "mtime", "truncate", "xattr", "write", "append", "rename", "link"];
    for name in names {
        s.lower().file(name, "lower");
    }
    let m = s.mount();
    m.chmod("chmod", 0o600);
    m.mtime("mtime", 1, 2);
    m.truncate("truncate", 3);
    m.set_xattr("xattr", "user.a", "b");
    m.write("write", "new");
    m.append("append", "+");
    m.rename("rename", "renamed");
    m.link("link", "linked");
    for name in ["chmod", "mtime", "xattr", "renamed", "link"] {
        assert_eq!(s.upper().text(name), "lower", "{name} copies the data");
    }
    assert_eq!(s.upper().text("truncate"), "low");
    assert_eq!(s.upper().text("write"), "new");
    assert_eq!(s.upper().text("append"), "lower+");
    assert_eq!(s.upper().mtime_of("mtime"), (1, 2));
}

fn open_for_writing_copies(s: &mut Sandbox) {
    for name in ["w", "rw", "creat"] {
        s.lower().file(name, "lower");
    }
    let m = s.mount();
    drop(m.open("w", OFlags::WRONLY));
    drop(m.open("rw", OFlags::RDWR));
    drop(m.open("creat", OFlags::RDWR | OFlags::CREATE));
    for name in ["w", "rw", "creat"] {
        assert_eq!(m.text(name), "lower");
        assert_eq!(m.stat(name).st_mtime, s.lower().stat(name).st_mtime);
    }
}

fn truncating_open_copies_no_data(s: &mut Sandbox) {
    s.lower().file("f", vec![7; 3 << 20]).chmod("f", 0o640).set_xattr("f", "user.a", "1");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDWR | OFlags::TRUNC);
    assert_eq!(m.stat("f").st_size, 0);
    file.write_all(b"new").unwrap();
    assert_eq!(s.upper().text("f"), "new");
    assert_eq!(s.upper().mode("f"), 0o640);
    assert_eq!(s.upper().xattr("f", "user.a").unwrap(), b"1");
}

fn failed_changes_copy_nothing(s: &mut Sandbox) {
    s.lower().file("f", "lower").chmod("f", 0o644).dir("d");
    let m = s.mount();
    assert_errno(rustix::fs::removexattr(m.at("f"), "user.none"), Errno::NODATA);
    let replace = rustix::fs::XattrFlags::REPLACE;
    Caller::user(ALICE).run(|| {
        assert_errno(std::fs::write(m.at("f"), "x"), Errno::ACCESS);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        assert_errno(std::fs::set_permissions(m.at("f"), mode), Errno::PERM);
        assert_errno(std::os::unix::fs::chown(m.at("f"), Some(ALICE), None), Errno::PERM);
        assert_errno(rustix::fs::setxattr(m.at("f"), "user.a", b"1", replace), Errno::ACCESS);
    });
    assert_errno(rustix::fs::open(m.at("d"), OFlags::WRONLY, 0o0.into()), Errno::ISDIR);
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn content_is_whole(s: &mut Sandbox) {
    let pattern: Vec<u8> =
        (0..5_000_011_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for size in [0, 1, 4095, 4096, 4097, 65_536, 1 << 20, 5_000_011] {
        s.lower().file(format!("f{size}"), &pattern[..size]);
    }
    let m = s.mount();
    for size in [0, 1, 4095, 4096, 4097, 65_536, 1 << 20, 5_000_011] {
        let name = format!("f{size}");
        drop(m.open(&name, OFlags::WRONLY));
        assert!(s.upper().read(&name) == pattern[..size], "{name} in upper");
        assert!(m.read(&name) == pattern[..size], "{name} merged");
    }
}

fn holes_stay_holes(s: &mut Sandbox) {
    s.lower().file("f", "").file("empty", "");
    let file = s.lower().open("f", OFlags::WRONLY);
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"middle", 20 << 20).unwrap();
    s.lower().open("empty", OFlags::WRONLY).set_len(32 << 20).unwrap();
    let blocks = s.lower().stat("f").st_blocks;
    let m = s.mount();
    m.chmod("f", 0o600);
    m.chmod("empty", 0o600);
    let upper = s.upper();
    assert_eq!(upper.stat("f").st_size, 64 << 20);
    assert!(upper.stat("f").st_blocks <= blocks + 4096, "{} blocks", upper.stat("f").st_blocks);
    assert_eq!(upper.stat("empty").st_blocks, 0);
    assert_eq!(m.stat("f").st_blocks, upper.stat("f").st_blocks);
    let mut middle = [0; 8];
    m.open("f", OFlags::RDONLY).read_exact_at(&mut middle, (20 << 20) - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
}

fn owner_and_mode_are_kept(s: &mut Sandbox) {
    s.lower().file("f", "x").chown("f", ALICE, STAFF).chmod("f", 0o1604);
    let m = s.mount();
    m.append("f", "y");
    for tree in [&m, &s.upper()] {
        assert_eq!((tree.owner("f"), tree.mode("f")), ((ALICE, STAFF), 0o1604));
    }
}

fn setid_bits_are_kept(s: &mut Sandbox) {
    s.lower().file("f", "x").chown("f", ALICE, STAFF).chmod("f", 0o6755);
    let m = s.mount();
    m.mtime("f", 5, 5);
    assert_eq!(m.mode("f"), 0o6755);
    assert_eq!(s.upper().mode("f"), 0o6755);
}

fn capabilities_are_kept(s: &mut Sandbox) {
    // VFS_CAP_REVISION_2, cap_net_raw permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    s.lower().file("f", "x").set_xattr("f", "security.capability", capability);
    let m = s.mount();
    m.mtime("f", 5, 5);
    assert_eq!(s.upper().xattr("f", "security.capability").unwrap(), capability);
    assert_eq!(m.xattr("f", "security.capability").unwrap(), capability);
    m.append("f", "y");
    assert_eq!(m.xattr("f", "security.capability"), None, "a write drops it");
}

fn xattrs_are_kept(s: &mut Sandbox) {
    let low = s.lower();
    low.file("f", "").set_xattr("f", "user.a", "1").set_xattr("f", "user.empty", "");
    low.set_xattr("f", b"user.\xff\xfe", [0, 1, 2]).set_xattr("f", "user.big", vec![b'x'; 2000]);
    let acl = acl_of(&[
        (0x01, 6, u32::MAX),
        (0x02, 4, ALICE),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ]);
    low.set_xattr("f", "system.posix_acl_access", &acl);
    let m = s.mount();
    m.append("f", "x");
    for tree in [&m, &s.upper()] {
        assert_eq!(tree.xattr("f", "user.a").unwrap(), b"1");
        assert_eq!(tree.xattr("f", "user.empty").unwrap(), b"");
        assert_eq!(tree.xattr("f", b"user.\xff\xfe").unwrap(), [0, 1, 2]);
        assert_eq!(tree.xattr("f", "user.big").unwrap(), vec![b'x'; 2000]);
        assert_eq!(tree.xattr("f", "system.posix_acl_access").unwrap(), acl);
    }
}

fn acl_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

fn times_are_kept(s: &mut Sandbox) {
    s.lower().file("f", "x").mtime("f", 1_234_567_890, 987_654_321);
    s.lower().file("d/f", "x").mtime("d/f", 2_000_000_001, 1).mtime(
        "d",
        1_000_000_000,
        999_999_999,
    );
    let m = s.mount();
    m.chmod("f", 0o600);
    m.chmod("d/f", 0o600);
    for tree in [&m, &s.upper()] {
        assert_eq!(tree.mtime_of("f"), (1_234_567_890, 987_654_321));
        assert_eq!(tree.mtime_of("d/f"), (2_000_000_001, 1));
        assert_eq!(tree.mtime_of("d"), (1_000_000_000, 999_999_999));
    }
}

fn set_atime(tree: &Tree, path: &str, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    rustix::fs::utimensat(CWD, tree.at(path), &times, AtFlags::empty()).unwrap();
}

fn access_time_is_kept(s: &mut Sandbox) {
    s.lower().file("f", "x");
    set_atime(&s.lower(), "f", 1_500_000_000, 42);
    let m = s.mount();
    m.chmod("f", 0o600);
    let stat = s.upper().stat("f");
    assert_eq!((stat.st_atime, stat.st_atime_nsec), (1_500_000_000, 42));
}

fn negative_times(s: &mut Sandbox) {
    s.lower().file("f", "x").mtime("f", -1_000_000, 500).file("g", "x");
    let m = s.mount();
    assert_eq!(m.mtime_of("f"), (-1_000_000, 500));
    m.chmod("f", 0o600);
    m.mtime("g", -1, 999_999_999);
    m.write("h", "");
    m.mtime("h", -2_000_000_000, 0);
    set_atime(&m, "h", -5, 5);
    for tree in [&m, &s.upper()] {
        assert_eq!(tree.mtime_of("f"), (-1_000_000, 500));
        assert_eq!(tree.mtime_of("g"), (-1, 999_999_999));
        assert_eq!(tree.mtime_of("h"), (-2_000_000_000, 0));
        assert_eq!((tree.stat("h").st_atime, tree.stat("h").st_atime_nsec), (-5, 5));
    }
}

fn umask_does_not_matter(s: &mut Sandbox) {
    s.lower().file("d/f", "x").chmod("d/f", 0o666).chmod("d", 0o777).dir("e").chmod("e", 0o777);
    s.lower().fifo("p").chmod("p", 0o666);
    let m = s.mount();
    Caller::with_umask(0o777).run(|| {
        m.append("d/f", "y");
        m.mtime("p", 1, 1);
        m.mtime("e", 1, 1);
    });
    let modes = ["d", "d/f", "e", "p"].map(|path| s.upper().mode(path));
    assert_eq!(modes, [0o777, 0o666, 0o777, 0o666]);
}

fn sticky_and_private_directories_keep_their_mode(s: &mut Sandbox) {
    s.lower().dir("tmp").chmod("tmp", 0o1777).dir("var/private").chmod("var/private", 0o3700);
    s.lower().file("tmp/f", "").file("var/private/f", "");
    let m = s.mount();
    m.append("tmp/f", "x");
    m.append("var/private/f", "x");
    assert_eq!(s.upper().mode("tmp"), 0o1777);
    assert_eq!(s.upper().mode("var/private"), 0o3700);
}

fn other_types_are_copied(s: &mut Sandbox) {
    s.lower().symlink("target", "l").fifo("p").mknod("s", FileType::Socket, 0o755, (0, 0));
    s.lower().mtime("l", 1_000_000_000, 3);
    let m = s.mount();
    m.chown("l", ALICE, STAFF);
    m.chmod("p", 0o600);
    m.chmod("s", 0o700);
    let upper = s.upper();
    assert_eq!(upper.target("l").to_str(), Some("target"));
    assert_eq!((upper.owner("l"), upper.mtime_of("l")), ((ALICE, STAFF), (1_000_000_000, 3)));
    assert_eq!(upper.mode("p"), 0o600);
    assert_eq!(FileType::from_raw_mode(upper.stat("p").st_mode), FileType::Fifo);
    assert_eq!(FileType::from_raw_mode(upper.stat("s").st_mode), FileType::Socket);
}

fn devices_are_copied(s: &mut Sandbox) {
    s.lower().mknod("null", FileType::CharacterDevice, 0o666, (1, 3));
    let m = s.mount();
    m.chmod("null", 0o600);
    assert_eq!(s.upper().stat("null").st_rdev, rustix::fs::makedev(1, 3));
    assert_eq!(m.mode("null"), 0o600);
}

fn directories_are_copied_by_chmod(s: &mut Sandbox) {
    s.lower().file("a/b/f", "").set_xattr("a/b", "user.a", "1").mtime("a/b", 1_000_000_000, 1);
    let m = s.mount();
    m.chmod("a/b", 0o700);
    assert_eq!(s.upper().walk(""), ["a/", "a/b/"]);
    assert_eq!(m.names("a/b"), ["f"]);
    assert_eq!((m.mode("a/b"), m.mtime_of("a/b")), (0o700, (1_000_000_000, 1)));
    m.set_xattr("a", "user.b", "2");
    m.remove_xattr("a/b", "user.a");
    assert_eq!(s.upper().xattr("a", "user.b").unwrap(), b"2");
    assert_eq!(m.xattr("a/b", "user.a"), None);
}

/// The daemon reads what the caller may not: a write-only file is copied up all the same.
fn unreadable_file_of_the_caller(s: &mut Sandbox) {
    s.lower().file("f", "secret").chown("f", ALICE, ALICE).chmod("f", 0o200);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.append("f", "+more");
        assert_errno(std::fs::read(m.at("f")), Errno::ACCESS);
    });
    assert_eq!(s.upper().text("f"), "secret+more");
    assert_eq!((s.upper().owner("f"), s.upper().mode("f")), ((ALICE, ALICE), 0o200));
}

fn truncate_to_a_length(s: &mut Sandbox) {
    for name in ["shorter", "longer", "same", "zero"] {
        s.lower().file(name, "0123456789");
    }
    let m = s.mount();
    m.truncate("shorter", 4);
    m.truncate("longer", 12);
    m.truncate("same", 10);
    m.truncate("zero", 0);
    assert_eq!(s.upper().text("shorter"), "0123");
    assert_eq!(s.upper().text("longer"), "0123456789\0\0");
    assert_eq!(s.upper().text("same"), "0123456789");
    assert_eq!(m.text("zero"), "");
}

fn origin_is_stored(s: &mut Sandbox) {
    s.lower().file("d/f", "x").fifo("d/p").dir("d/e").symlink("t", "d/l");
    let m = s.mount();
    for path in ["d/f", "d/p", "d/e"] {
        m.chmod(path, 0o700);
    }
    let (origin, impure) = (s.overlay_xattr("origin"), s.overlay_xattr("impure"));
    let upper = s.upper();
    for path in ["d", "d/f", "d/e"] {
        let value = upper.xattr(path, &origin).unwrap_or_else(|| panic!("{path} has no origin"));
        if s.context() == crate::common::Context::root {
            assert_eq!(value[..2], [0, 0xfb], "{path}: version and magic of a file handle");
            assert_eq!(usize::from(value[2]), value.len(), "{path}: its length");
        } else {
            assert_eq!(value, b"", "{path}: without privileges the kernel stores an empty origin");
        }
    }
    assert_eq!(upper.xattr("", &impure).unwrap(), b"y");
    assert_eq!(upper.xattr("d", &impure).unwrap(), b"y");
}

fn origin_of_hard_links_is_not_stored(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b");
    let m = s.mount();
    m.append("a", "+");
    assert_eq!(s.upper().xattr("a", s.overlay_xattr("origin")), None);
    assert_eq!((m.text("a"), m.text("b")), ("x+".into(), "x".into()));
    assert_eq!(m.nlink("a"), 1);
}

fn overlays_own_xattrs_are_not_copied(s: &mut Sandbox) {
    let impure = s.overlay_xattr("impure");
    s.lower().file("d/f", "").set_xattr("d", &impure, "y").set_xattr(
        "d/f",
        s.overlay_xattr("uuid"),
        "x",
    );
    let m = s.mount();
    m.mtime("d", 1, 1);
    m.mtime("d/f", 1, 1);
    assert_eq!(s.upper().xattr("d/f", s.overlay_xattr("uuid")), None);
    assert_eq!(m.xattr_names("d/f"), [""; 0]);
    assert_eq!(m.xattr_names("d"), [""; 0]);
}

fn escaped_xattrs_are_copied(s: &mut Sandbox) {
    let (stored, seen) = (s.overlay_xattr("overlay.opaque"), s.overlay_xattr("opaque"));
    s.lower().dir("d").set_xattr("d", &stored, "y").file("d/f", "");
    let m = s.mount();
    m.chmod("d", 0o700);
    assert_eq!(s.upper().xattr("d", &stored).unwrap(), b"y");
    assert_eq!(m.xattr("d", &seen).unwrap(), b"y");
    assert_eq!(m.names("d"), ["f"], "an escaped mark means nothing here");
}

fn opened_file_is_copied_once(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let first = m.open("f", OFlags::WRONLY | OFlags::APPEND);
    let ino = s.upper().ino("f");
    let second = m.open("f", OFlags::WRONLY | OFlags::APPEND);
    (&first).write_all(b"1").unwrap();
    (&second).write_all(b"2").unwrap();
    m.chmod("f", 0o600);
    assert_eq!(s.upper().ino("f"), ino);
    assert_eq!(m.text("f"), "lower12");
}

fn one_byte_into_a_large_file(s: &mut Sandbox) {
    s.lower().file("f", vec![b'a'; 8 << 20]);
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    file.write_all_at(b"B", 5_000_000).unwrap();
    let mut around = [0; 3];
    file.read_exact_at(&mut around, 4_999_999).unwrap();
    assert_eq!(&around, b"aBa");
    drop(file);
    let content = s.upper().read("f");
    assert_eq!(content.len(), 8 << 20);
    assert_eq!(content.iter().filter(|byte| **byte == b'a').count(), (8 << 20) - 1);
}

fn append_to_lower(s: &mut Sandbox) {
    s.lower().file("f", "lower\n");
    let m = s.mount();
    for line in 0..50 {
        m.append("f", format!("{line}\n"));
    }
    let mut text = String::new();
    m.open("f", OFlags::RDONLY).read_to_string(&mut text).unwrap();
    let expected: String =
        std::iter::once("lower\n".into()).chain((0..50).map(|line| format!("{line}\n"))).collect();
    assert_eq!(text, expected);
}

fn link_copies(s: &mut Sandbox) {
    s.lower().file("a", "x").dir("d").symlink("t", "l");
    let m = s.mount();
    m.link("a", "d/b");
    m.link("l", "d/l2");
    assert_eq!((m.nlink("a"), m.nlink("d/b")), (2, 2));
    assert!(s.kernel_splits_links() || m.ino("a") == m.ino("d/b"));
    m.append("d/b", "y");
    assert_eq!(m.text("a"), "xy");
    assert_eq!(m.target("d/l2").to_str(), Some("t"));
    assert_eq!(s.upper().walk(""), ["a", "d/", "d/b", "d/l2", "l"]);
}

fn middle_layer_is_the_source(s: &mut Sandbox) {
    s.lower().file("f", "bottom").chmod("f", 0o600);
    s.add_lower().file("f", "middle").chmod("f", 0o640);
    s.add_lower().dir("elsewhere");
    let m = s.mount();
    m.append("f", "+");
    assert_eq!(s.upper().text("f"), "middle+");
    assert_eq!(s.upper().mode("f"), 0o640);
}

/// What a crash left in work must neither be appended to nor stay.
fn stale_files_in_work(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("d/g", "lower");
    drop(s.mount());
    s.unmount();
    let work = s.work().sub("work");
    for name in ["f", "#1", "#0", "g", "#2a"] {
        work.file(name, "stale, and longer than the copied file");
    }
    work.file("#3/x", "").file("d/y", "");
    let m = s.mount();
    m.append("f", "+");
    m.append("d/g", "+");
    assert_eq!((m.text("f"), m.text("d/g")), ("lower+".into(), "lower+".into()));
    s.unmount();
    assert_eq!(s.work().names("work"), [""; 0], "work is emptied at mount");
    s.mount();
}

fn work_is_clean_after(s: &mut Sandbox) {
    s.lower().file("a", "x").file("b", "x").dir("d").symlink("t", "l").file("e/f", "");
    let m = s.mount();
    m.append("a", "+");
    m.rename("b", "c");
    m.unlink("c");
    m.rmdir("d");
    m.mkdir("d");
    m.chown("l", 0, 0);
    m.remove_all("e");
    s.unmount();
    s.assert_work_clean();
    assert_eq!(s.work().names(""), ["work"]);
    assert_eq!(s.work().mode("work"), 0);
    s.mount();
}

fn lower_access_times_do_not_change(s: &mut Sandbox) {
    s.lower().file("f", "x").dir("d").symlink("f", "l");
    set_atime(&s.lower(), "f", 1, 1);
    set_atime(&s.lower(), "d", 1, 1);
    let m = s.mount();
    assert_eq!(m.text("f"), "x");
    assert_eq!(m.names("d"), [""; 0]);
    s.unmount();
    for path in ["f", "d"] {
        assert_eq!(s.lower().stat(path).st_atime, 1, "{path}");
    }
    s.mount();
}

/// Copy-up where neither reflink nor a link from another file system is possible.
fn foreign_upper_filesystem(s: &mut Sandbox) {
    let foreign = crate::common::scratch::Filesystem::tmpfs("size=64m");
    s.upper_in(foreign.path());
    s.option("xino=on");
    s.lower()
        .file("d/f", vec![b'x'; 300_000])
        .mtime("d/f", 1_000_000_000, 77)
        .fifo("d/p")
        .symlink("t", "d/l");
    let m = s.mount();
    m.append("d/f", "y");
    m.chmod("d/p", 0o600);
    m.chown("d/l", ALICE, STAFF);
    m.unlink("d/p");
    assert_eq!(s.upper().read("d/f").len(), 300_001);
    assert_eq!(m.names("d"), ["f", "l"]);
    s.finish();
}
