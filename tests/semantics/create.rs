//! Making names: files, directories, nodes; over nothing, over whiteouts, in lower directories.

use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::common::{Caller, Sandbox, assert_errno, caller::ALICE, caller::STAFF};

mounted_tests! {
    [root userns user]:
        create_copies_the_parents_up, exclusive_create, create_over_a_whiteout,
        umask_is_the_callers, created_without_permissions_is_open, mkdir_over_a_whiteout_is_opaque;
    [root userns]:
        modes_come_out_as_asked, parents_keep_their_attributes, symlink_and_fifo_over_a_whiteout, link_over_a_whiteout,
        mkdir_over_existing, removed_directory_made_again_is_empty, mkdir_in_merged_is_not_opaque,
        mkdir_under_xino_is_opaque,
        create_belongs_to_the_caller, setgid_directory_gives_its_group, setgid_is_kept_or_lost_as_natively,
        mknod_of_a_whiteout_is_refused, open_with_impossible_flags, create_needs_permission,
        create_in_a_removed_directory, default_acl_decides_the_mode, create_touches_the_parents_times;
    [root]: mknod_makes_devices;
}

fn mkdir_under_xino_is_opaque(s: &mut Sandbox) {
    s.lower().dir("d");
    s.option("xino=on");
    let m = s.mount();
    m.mkdir("d/new");
    m.mkdir("d/new/in");
    m.mkdir("top");
    let opaque = |path| s.upper().xattr(path, s.overlay_xattr("opaque"));
    assert_eq!(opaque("d/new").as_deref(), Some(&b"y"[..]));
    assert_eq!((opaque("top").as_deref(), opaque("d/new/in")), (Some(&b"y"[..]), None));
}

fn create_copies_the_parents_up(s: &mut Sandbox) {
    s.lower().file("a/b/c/low", "");
    let m = s.mount();
    m.write("a/b/c/new", "new");
    assert_eq!(s.upper().walk(""), ["a/", "a/b/", "a/b/c/", "a/b/c/new"]);
    assert_eq!(m.names("a/b/c"), ["low", "new"]);
    let m = s.remount();
    assert_eq!(m.text("a/b/c/new"), "new");
}

fn parents_keep_their_attributes(s: &mut Sandbox) {
    let low = s.lower();
    low.dir("sticky/private/readonly");
    low.chmod("sticky", 0o1777)
        .chmod("sticky/private", 0o700)
        .chmod("sticky/private/readonly", 0o555);
    low.chown("sticky/private", ALICE, STAFF).set_xattr("sticky", "user.colour", "blue");
    for path in ["sticky/private", "sticky"] {
        low.mtime(path, 1_000_000_000, 123_456_789);
    }
    let m = s.mount();
    Caller::with_umask(0o777).run(|| m.write("sticky/private/readonly/new", ""));
    for tree in [&m, &s.upper()] {
        assert_eq!(tree.mode("sticky"), 0o1777);
        assert_eq!(tree.mode("sticky/private"), 0o700);
        assert_eq!(tree.mode("sticky/private/readonly"), 0o555);
        assert_eq!(tree.owner("sticky/private"), (ALICE, STAFF));
        assert_eq!(tree.xattr("sticky", "user.colour").unwrap(), b"blue");
        assert_eq!(tree.mtime_of("sticky"), (1_000_000_000, 123_456_789));
        assert_eq!(tree.mtime_of("sticky/private"), (1_000_000_000, 123_456_789));
        assert_eq!(tree.mode("sticky/private/readonly/new"), 0o000);
    }
}

fn exclusive_create(s: &mut Sandbox) {
    s.lower().file("low", "lower").dir("dir").symlink("nowhere", "link");
    s.upper().file("up", "upper");
    let m = s.mount();
    for name in ["low", "up", "dir", "link"] {
        let result = OpenOptions::new().write(true).create_new(true).open(m.at(name));
        assert_errno(result, Errno::EXIST);
    }
    assert!(!s.upper().exists("low"), "a refused create copies nothing up");
    assert_eq!(m.text("low"), "lower");
    m.open("new", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY);
    assert_eq!(m.names(""), ["dir", "link", "low", "new", "up"]);
}

/// `rm f; echo > f; rm f` must leave the lower f hidden, at the root as well.
fn create_over_a_whiteout(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("d/f", "lower");
    let m = s.mount();
    for path in ["f", "d/f"] {
        m.unlink(path);
        assert!(s.upper().is_whiteout(path));
        m.open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY);
        assert_eq!(m.text(path), "");
        m.write(path, "new");
        assert_eq!(s.upper().text(path), "new");
        m.unlink(path);
        assert!(!m.exists(path));
        assert!(s.upper().is_whiteout(path));
    }
    assert_eq!(m.walk(""), ["d/"]);
    let m = s.remount();
    assert_eq!(m.walk(""), ["d/"]);
}

fn umask_is_the_callers(s: &mut Sandbox) {
    let m = s.mount();
    let make = |name: &str| {
        drop(OpenOptions::new().write(true).create_new(true).mode(0o666).open(m.at(name)).unwrap());
        m.mkdir(format!("{name}.d"));
        m.mknod(format!("{name}.p"), FileType::Fifo, 0o666, (0, 0));
    };
    for (mask, file, directory) in
        [(0o000, 0o666, 0o777), (0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
    {
        let name = format!("{mask:o}");
        Caller::with_umask(mask).run(|| make(&name));
        for tree in [&m, &s.upper()] {
            assert_eq!(tree.mode(&name), file, "file with umask {mask:o}");
            assert_eq!(tree.mode(format!("{name}.p")), file, "fifo with umask {mask:o}");
            assert_eq!(tree.mode(format!("{name}.d")), directory, "directory with umask {mask:o}");
        }
    }
}

fn modes_come_out_as_asked(s: &mut Sandbox) {
    let m = s.mount();
    Caller::with_umask(0).run(|| {
        for mode in [0o000, 0o111, 0o400, 0o555, 0o600, 0o644, 0o777, 0o1755, 0o4755] {
            let (file, directory, fifo) =
                (format!("f{mode:o}"), format!("d{mode:o}"), format!("p{mode:o}"));
            drop(
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(m.at(&file))
                    .unwrap(),
            );
            m.mknod(&fifo, FileType::Fifo, mode, (0, 0));
            rustix::fs::mkdir(m.at(&directory), Mode::from_raw_mode(mode & 0o1777)).unwrap();
            assert_eq!(m.mode(&file), mode);
            assert_eq!(m.mode(&fifo), mode);
            assert_eq!(m.mode(&directory), mode & 0o1777);
        }
    });
}

/// The descriptor of a new file is good for what was asked, whatever the mode forbids later.
fn created_without_permissions_is_open(s: &mut Sandbox) {
    s.lower().file("gone", "lower");
    let m = s.mount();
    m.unlink("gone");
    for name in ["new", "gone"] {
        let mut file = OpenOptions::new()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(0o0)
            .open(m.at(name))
            .unwrap();
        file.write_all(b"through the first descriptor").unwrap();
        assert_eq!(m.mode(name), 0);
        file.rewind().unwrap();
        assert_eq!(std::io::read_to_string(&file).unwrap(), "through the first descriptor");
        m.chmod(name, 0o600);
    }
}

fn mkdir_over_a_whiteout_is_opaque(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("d/x", "lower").file("p/d/x", "lower");
    let m = s.mount();
    m.unlink("f");
    for path in ["d", "p/d"] {
        m.remove_all(path);
        assert!(s.upper().is_whiteout(path));
    }
    for path in ["f", "d", "p/d"] {
        m.mkdir(path);
        assert_eq!(m.names(path), [""; 0]);
        assert_eq!(s.upper().xattr(path, s.overlay_xattr("opaque")).unwrap(), b"y");
    }
    let m = s.remount();
    for path in ["f", "d", "p/d"] {
        assert_eq!(m.names(path), [""; 0], "the old children stay away after a remount");
    }
}

fn symlink_and_fifo_over_a_whiteout(s: &mut Sandbox) {
    s.lower().file("l", "lower").file("p", "lower").dir("ld");
    let m = s.mount();
    m.unlink("l");
    m.unlink("p");
    m.rmdir("ld");
    m.symlink("target", "l").symlink("target", "ld").fifo("p");
    assert_eq!(m.target("l").to_str(), Some("target"));
    assert_eq!(s.upper().target("ld").to_str(), Some("target"));
    assert_eq!(FileType::from_raw_mode(s.upper().stat("p").st_mode), FileType::Fifo);
    m.unlink("l");
    assert!(s.upper().is_whiteout("l"));
}

fn link_over_a_whiteout(s: &mut Sandbox) {
    s.kernel_splits_links();
    s.lower().file("f", "lower").file("gone", "gone");
    let m = s.mount();
    m.unlink("gone");
    m.link("f", "gone");
    assert_eq!(m.text("gone"), "lower");
    assert_eq!(m.nlink("f"), 2);
    assert_eq!(s.upper().ino("f"), s.upper().ino("gone"));
}

fn mkdir_over_existing(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("nowhere", "l");
    let m = s.mount();
    for name in ["f", "d", "l"] {
        assert_errno(std::fs::create_dir(m.at(name)), Errno::EXIST);
        assert_errno(std::os::unix::fs::symlink("x", m.at(name)), Errno::EXIST);
        let node = rustix::fs::mknodat(CWD, m.at(name), FileType::Fifo, Mode::RUSR, 0);
        assert_errno(node, Errno::EXIST);
    }
    assert_eq!(s.upper().names(""), [""; 0]);
}

/// `rm -rf d; mkdir d` at the root: the deleted children must not come back.
fn removed_directory_made_again_is_empty(s: &mut Sandbox) {
    s.lower().file("d/a", "lower").file("d/sub/b", "lower");
    s.add_lower().file("d/c", "lower");
    let m = s.mount();
    m.remove_all("d");
    m.mkdir("d");
    m.write("d/new", "new");
    assert_eq!(m.walk("d"), ["new"]);
    m.mkdir("d/sub");
    assert_eq!(m.walk("d"), ["new", "sub/"]);
    let m = s.remount();
    assert_eq!(m.walk("d"), ["new", "sub/"]);
}

fn mkdir_in_merged_is_not_opaque(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    m.mkdir("new");
    m.mkdir("d/new");
    assert_eq!(s.upper().xattr("new", s.overlay_xattr("opaque")), None);
    assert_eq!(s.upper().xattr("d/new", s.overlay_xattr("opaque")), None);
}

fn create_belongs_to_the_caller(s: &mut Sandbox) {
    s.lower().dir("d").chmod("d", 0o777);
    let m = s.mount();
    Caller::user(ALICE).group(STAFF).run(|| {
        m.write("d/f", "");
        m.mkdir("d/d");
        m.symlink("x", "d/l").fifo("d/p");
    });
    for name in ["d/f", "d/d", "d/l", "d/p"] {
        assert_eq!(m.owner(name), (ALICE, STAFF));
        assert_eq!(s.upper().owner(name), (ALICE, STAFF));
    }
}

fn setgid_directory_gives_its_group(s: &mut Sandbox) {
    s.lower().dir("d").chown("d", 0, STAFF).chmod("d", 0o2777);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.write("d/f", "");
        m.mkdir("d/d");
        m.symlink("x", "d/l");
        m.write("d/d/f", "");
    });
    for tree in [&m, &s.upper()] {
        for name in ["d/f", "d/d", "d/l", "d/d/f"] {
            assert_eq!(tree.owner(name), (ALICE, STAFF));
        }
        assert_eq!(tree.mode("d/d") & 0o7000, 0o2000);
        assert_eq!(tree.mode("d/f") & 0o7000, 0);
    }
}

/// A group-executable set-gid file by a stranger to the directory's group loses set-gid.
fn setgid_is_kept_or_lost_as_natively(s: &mut Sandbox) {
    s.lower().dir("d").chown("d", 0, STAFF).chmod("d", 0o2777);
    let m = s.mount();
    let make = |name: &str| {
        drop(
            OpenOptions::new().write(true).create_new(true).mode(0o2775).open(m.at(name)).unwrap(),
        );
    };
    Caller::user(ALICE).umask(0o002).run(|| make("d/stranger"));
    Caller::user(ALICE).in_group(STAFF).umask(0o002).run(|| make("d/member"));
    assert_eq!(m.mode("d/stranger"), 0o775);
    assert_eq!(m.mode("d/member"), 0o2775);
}

fn mknod_of_a_whiteout_is_refused(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    for name in ["new", "d"] {
        let made = rustix::fs::mknodat(CWD, m.at(name), FileType::CharacterDevice, Mode::RUSR, 0);
        assert_errno(made, Errno::PERM);
    }
    assert_eq!(s.upper().names(""), [""; 0]);
    let made = rustix::fs::mknodat(CWD, m.at("f"), FileType::CharacterDevice, Mode::RUSR, 0);
    assert_errno(made, Errno::EXIST);
}

fn mknod_makes_devices(s: &mut Sandbox) {
    let m = s.mount();
    m.mknod("zero", FileType::CharacterDevice, 0o666, (1, 5));
    m.mknod("block", FileType::BlockDevice, 0o600, (7, 3));
    assert_eq!(s.upper().stat("zero").st_rdev, rustix::fs::makedev(1, 5));
    assert_eq!(s.upper().stat("block").st_rdev, rustix::fs::makedev(7, 3));
    let mut bytes = [1; 4];
    std::io::Read::read_exact(&mut m.open("zero", OFlags::RDONLY), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4]);
}

fn open_with_impossible_flags(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("f", "l");
    let m = s.mount();
    let open =
        |name: &str, flags: OFlags| rustix::fs::open(m.at(name), flags, Mode::from_raw_mode(0o644));
    assert_errno(open("d", OFlags::WRONLY), Errno::ISDIR);
    assert_errno(open("d", OFlags::RDWR | OFlags::TRUNC), Errno::ISDIR);
    assert_errno(open("d", OFlags::CREATE), Errno::ISDIR);
    assert_errno(open("f", OFlags::DIRECTORY), Errno::NOTDIR);
    assert_errno(open("l", OFlags::NOFOLLOW), Errno::LOOP);
    assert_errno(open("new", OFlags::CREATE | OFlags::DIRECTORY), Errno::INVAL);
    assert_errno(open("missing", OFlags::RDONLY), Errno::NOENT);
    assert_errno(open("missing/new", OFlags::CREATE), Errno::NOENT);
    assert_errno(open("f/", OFlags::RDONLY), Errno::NOTDIR);
    assert_errno(open("new/", OFlags::CREATE), Errno::ISDIR);
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn create_needs_permission(s: &mut Sandbox) {
    s.lower().dir("d").file("d/f", "").chmod("d", 0o755).dir("closed").chmod("closed", 0o700);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_errno(std::fs::write(m.at("d/new"), ""), Errno::ACCESS);
        assert_errno(std::fs::create_dir(m.at("d/new")), Errno::ACCESS);
        assert_errno(std::os::unix::fs::symlink("x", m.at("d/new")), Errno::ACCESS);
        assert_errno(std::fs::write(m.at("d/f"), ""), Errno::ACCESS);
        assert_errno(std::fs::remove_file(m.at("d/f")), Errno::ACCESS);
        assert_errno(std::fs::rename(m.at("d/f"), m.at("d/g")), Errno::ACCESS);
        assert_errno(rustix::fs::lstat(m.at("closed/x")), Errno::ACCESS);
        assert_errno(std::fs::read_dir(m.at("closed")).map(|_| ()), Errno::ACCESS);
    });
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn create_in_a_removed_directory(s: &mut Sandbox) {
    s.lower().dir("low");
    let m = s.mount();
    m.mkdir("up");
    for name in ["low", "up"] {
        let directory = m.open(name, OFlags::RDONLY | OFlags::DIRECTORY);
        m.rmdir(name);
        let made = rustix::fs::openat(&directory, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
        assert_errno(made, Errno::NOENT);
        assert_errno(rustix::fs::mkdirat(&directory, "x", Mode::RWXU), Errno::NOENT);
        assert_errno(rustix::fs::symlinkat("t", &directory, "x"), Errno::NOENT);
    }
}

/// u::rwx g::r-x o::--- plus a named user, as setfacl -d writes it.
fn default_acl_decides_the_mode(s: &mut Sandbox) {
    let acl: Vec<u8> = [
        &2_u32.to_le_bytes()[..],
        &entry(0x01, 7, u32::MAX),
        &entry(0x02, 6, ALICE),
        &entry(0x04, 5, u32::MAX),
        &entry(0x10, 7, u32::MAX),
        &entry(0x20, 0, u32::MAX),
    ]
    .concat();
    s.lower().dir("d").set_xattr("d", "system.posix_acl_default", &acl);
    let m = s.mount();
    Caller::with_umask(0o077).run(|| {
        m.write("d/f", "");
        m.mkdir("d/d");
    });
    for tree in [&m, &s.upper()] {
        assert_eq!(tree.mode("d/f"), 0o660, "the ACL's mask, not the umask");
        assert_eq!(tree.mode("d/d"), 0o770);
        assert_eq!(tree.xattr("d/d", "system.posix_acl_default").unwrap(), acl);
        assert_eq!(tree.xattr_names("d/f"), ["system.posix_acl_access"]);
    }
}

fn entry(tag: u16, permissions: u16, id: u32) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &permissions.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
}

fn create_touches_the_parents_times(s: &mut Sandbox) {
    s.lower().dir("d").mtime("d", 1_000_000_000, 5);
    let m = s.mount();
    assert_eq!(m.mtime_of("d"), (1_000_000_000, 5));
    m.write("d/new", "");
    let made = m.mtime_of("d");
    assert_eq!(made, m.mtime_of("d/new"), "the directory changed when the file was made");
    m.unlink("d/new");
    assert!(m.mtime_of("d") >= made);
    assert_eq!(m.mtime_of("d"), s.upper().mtime_of("d"));
}
