//! Who may do what, and which bits a change takes away.

use std::os::unix::fs::{PermissionsExt, chown};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, XattrFlags, lsetxattr};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::common::{
    Backend, Caller, Context, Sandbox, Tree, assert_errno, backend, caller::ALICE, caller::BOB,
    caller::STAFF,
};

mounted_tests! {
    [root userns]:
        write_by_owner_clears_setid, write_by_root_keeps_setid, write_by_root_without_the_capability_clears_setid, truncate_clears_setid, chown_clears_setid, chown_of_nothing,
        chmod_by_owner_only, chown_rules, chmod_drops_setgid_of_strangers, utimes_rules,
        supplementary_groups_open_doors, supplementary_group_may_create, access_answers, group_bits_count,
        search_permission_is_needed, owner_of_lower_may_change_it, write_only_directory, truncate_needs_write,
        link_and_rename_need_write, readlink_needs_search_only, setid_survives_copy_up_by_metadata;
    [root]: capability_is_dropped_by_writes, setuid_program_runs_as_its_owner;
}

fn chmod(m: &Tree, path: &str, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(m.at(path), PermissionsExt::from_mode(mode))
}

fn write_by_owner_clears_setid(s: &mut Sandbox) {
    for name in ["low", "write"] {
        s.lower().file(name, "x").chown(name, ALICE, ALICE).chmod(name, 0o6755);
    }
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.append("low", "+");
        m.append("write", "+");
    });
    for name in ["low", "write"] {
        assert_eq!(m.mode(name), 0o755, "{name}");
        assert_eq!(s.upper().mode(name), 0o755, "{name}");
    }
}

fn write_by_root_keeps_setid(s: &mut Sandbox) {
    s.lower().file("f", "x").chown("f", ALICE, ALICE).chmod("f", 0o6755);
    let m = s.mount();
    m.append("f", "+");
    // CAP_FSETID counts in the initial user namespace only.
    let expected = if s.context() == Context::root { 0o6755 } else { 0o755 };
    assert_eq!((m.mode("f"), s.upper().mode("f")), (expected, expected));
}

fn write_by_root_without_the_capability_clears_setid(s: &mut Sandbox) {
    for name in ["low", "up"] {
        let tree = if name == "low" { s.lower() } else { s.upper() };
        tree.file(name, "x").chown(name, ALICE, ALICE).chmod(name, 0o6755);
    }
    let m = s.mount();
    Caller::default().run(|| {
        let caps = rustix::thread::capabilities(None).unwrap();
        let effective = caps.effective.difference(CapabilitySet::FSETID);
        rustix::thread::set_capabilities(None, CapabilitySets { effective, ..caps }).unwrap();
        for name in ["low", "up"] {
            m.append(name, "+");
            assert_eq!((m.mode(name), s.upper().mode(name)), (0o755, 0o755), "{name}");
        }
    });
}

fn setid_survives_copy_up_by_metadata(s: &mut Sandbox) {
    s.lower().file("f", "x").chown("f", ALICE, ALICE).chmod("f", 0o4755);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.set_xattr("f", "user.a", "1");
    });
    assert_eq!(s.upper().mode("f"), 0o4755);
}

fn truncate_clears_setid(s: &mut Sandbox) {
    for name in ["truncate", "open"] {
        s.lower().file(name, "x").chown(name, ALICE, ALICE).chmod(name, 0o6755);
    }
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.truncate("truncate", 0);
        drop(m.open("open", rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC));
    });
    assert_eq!((m.mode("truncate"), m.mode("open")), (0o755, 0o755));
}

fn chown_clears_setid(s: &mut Sandbox) {
    s.lower()
        .file("f", "x")
        .chmod("f", 0o6755)
        .file("sgid", "x")
        .chmod("sgid", 0o2644)
        .dir("d")
        .chmod("d", 0o6755);
    let m = s.mount();
    m.chown("f", ALICE, ALICE);
    m.chown("sgid", ALICE, ALICE);
    m.chown("d", ALICE, ALICE);
    assert_eq!(m.mode("f"), 0o755);
    assert_eq!(m.mode("sgid"), 0o2644, "without group execute it is no set-gid");
    assert_eq!(m.mode("d"), 0o6755);
}

/// FUSE does not tell it from the preparation of a write, which must be let through.
fn chown_of_nothing(s: &mut Sandbox) {
    s.upper().file("f", "x").chown("f", ALICE, ALICE).chmod("f", 0o6755);
    let m = s.mount();
    let nothing = || chown(m.at("f"), None, None);
    let by_other = Caller::user(BOB).run(nothing);
    let by_owner = Caller::user(ALICE).run(nothing);
    by_owner.unwrap();
    if backend() == Backend::Ovlfuse {
        by_other.unwrap();
        assert_eq!(m.mode("f"), 0o6755);
        return;
    }
    assert_errno(by_other, Errno::PERM);
    assert_eq!(m.mode("f"), 0o755);
}

fn capability_is_dropped_by_writes(s: &mut Sandbox) {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for name in ["write", "truncate", "chown", "chmod"] {
        s.lower().file(name, "x").set_xattr(name, "security.capability", capability);
    }
    let m = s.mount();
    m.append("write", "+");
    m.truncate("truncate", 0);
    m.chown("chown", ALICE, ALICE);
    m.chmod("chmod", 0o755);
    let left = ["write", "truncate", "chown", "chmod"]
        .map(|name| m.xattr(name, "security.capability").is_some());
    assert_eq!(left, [false, false, false, true]);
    m.set_xattr("write", "security.capability", capability);
    m.append("write", "+");
    assert_eq!(s.upper().xattr("write", "security.capability"), None, "also once it is in upper");
}

fn chmod_by_owner_only(s: &mut Sandbox) {
    s.lower().file("f", "").chown("f", ALICE, ALICE).chmod("f", 0o666);
    let m = s.mount();
    Caller::user(BOB).run(|| assert_errno(chmod(&m, "f", 0o777), Errno::PERM));
    assert!(!s.upper().exists("f"));
    Caller::user(ALICE).run(|| chmod(&m, "f", 0o600)).unwrap();
    assert_eq!(s.upper().mode("f"), 0o600);
}

fn chown_rules(s: &mut Sandbox) {
    s.lower().file("f", "").chown("f", ALICE, ALICE);
    let m = s.mount();
    Caller::user(ALICE).in_group(STAFF).run(|| {
        assert_errno(chown(m.at("f"), Some(BOB), None), Errno::PERM);
        assert_errno(chown(m.at("f"), None, Some(BOB)), Errno::PERM);
        chown(m.at("f"), Some(ALICE), Some(STAFF)).unwrap();
    });
    assert_eq!(m.owner("f"), (ALICE, STAFF));
    Caller::user(BOB).run(|| assert_errno(chown(m.at("f"), None, Some(BOB)), Errno::PERM));
    assert_eq!(s.upper().owner("f"), (ALICE, STAFF));
}

fn chmod_drops_setgid_of_strangers(s: &mut Sandbox) {
    s.lower().file("f", "").chown("f", ALICE, STAFF);
    let m = s.mount();
    Caller::user(ALICE).run(|| chmod(&m, "f", 0o2755)).unwrap();
    assert_eq!(m.mode("f"), 0o755);
    Caller::user(ALICE).in_group(STAFF).run(|| chmod(&m, "f", 0o2755)).unwrap();
    assert_eq!(m.mode("f"), 0o2755);
}

fn utimes_rules(s: &mut Sandbox) {
    s.lower()
        .file("f", "")
        .chown("f", ALICE, ALICE)
        .chmod("f", 0o666)
        .file("g", "")
        .chmod("g", 0o644);
    let m = s.mount();
    let set = |path: &str, nanoseconds: i64| {
        let time = Timespec { tv_sec: 5, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, m.at(path), &times, AtFlags::empty())
    };
    Caller::user(BOB).run(|| {
        set("f", UTIME_NOW).expect("whoever may write may set the time to now");
        assert_errno(set("f", 5), Errno::PERM);
        assert_errno(set("g", UTIME_NOW), Errno::ACCESS);
    });
    Caller::user(ALICE).run(|| set("f", 5)).unwrap();
    assert_eq!(m.mtime_of("f"), (5, 5));
}

fn supplementary_groups_open_doors(s: &mut Sandbox) {
    s.lower()
        .file("d/f", "x")
        .chown("d", 0, STAFF)
        .chmod("d", 0o750)
        .chown("d/f", 0, STAFF)
        .chmod("d/f", 0o660);
    let m = s.mount();
    Caller::user(ALICE).run(|| assert_errno(std::fs::read(m.at("d/f")), Errno::ACCESS));
    Caller::user(ALICE).in_group(STAFF).run(|| {
        assert_eq!(m.text("d/f"), "x");
        m.append("d/f", "+");
    });
    assert_eq!(s.upper().text("d/f"), "x+");
}

/// A directory that only a supplementary group may write in.
fn supplementary_group_may_create(s: &mut Sandbox) {
    s.lower().file("d/old", "").chown("d", 0, STAFF).chmod("d", 0o770);
    let m = s.mount();
    Caller::user(ALICE).in_group(BOB).in_group(STAFF).run(|| {
        m.write("d/f", "");
        m.mkdir("d/d");
        m.symlink("t", "d/l").fifo("d/p");
        m.link("d/f", "d/g");
        m.rename("d/g", "d/h");
        m.unlink("d/old");
        m.rmdir("d/d");
    });
    assert_eq!(m.names("d"), ["f", "h", "l", "p"]);
    assert_eq!(m.owner("d/f"), (ALICE, ALICE));
}

fn access_answers(s: &mut Sandbox) {
    use rustix::fs::Access;
    s.lower()
        .file("f", "")
        .chmod("f", 0o640)
        .chown("f", ALICE, STAFF)
        .file("x", "")
        .chmod("x", 0o755);
    let m = s.mount();
    let may = |path: &str, access: Access| rustix::fs::access(m.at(path), access);
    Caller::user(ALICE).run(|| {
        may("f", Access::READ_OK | Access::WRITE_OK).unwrap();
        assert_errno(may("f", Access::EXEC_OK), Errno::ACCESS);
        may("x", Access::EXEC_OK | Access::READ_OK).unwrap();
        assert_errno(may("x", Access::WRITE_OK), Errno::ACCESS);
    });
    Caller::user(BOB).run(|| assert_errno(may("f", Access::READ_OK), Errno::ACCESS));
    Caller::user(BOB).in_group(STAFF).run(|| may("f", Access::READ_OK)).unwrap();
    may("f", Access::WRITE_OK).unwrap();
    assert_errno(may("f", Access::EXEC_OK), Errno::ACCESS);
}

/// The owner is judged by the owner's bits, even when the group's would give more.
fn group_bits_count(s: &mut Sandbox) {
    s.lower().file("f", "x").chown("f", ALICE, STAFF).chmod("f", 0o070);
    let m = s.mount();
    Caller::user(ALICE)
        .in_group(STAFF)
        .run(|| assert_errno(std::fs::read(m.at("f")), Errno::ACCESS));
    Caller::user(BOB).in_group(STAFF).run(|| assert_eq!(m.text("f"), "x"));
}

fn search_permission_is_needed(s: &mut Sandbox) {
    s.lower().file("d/f", "x").chmod("d", 0o744);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_eq!(m.names("d"), ["f"], "reading the names needs no search permission");
        assert_errno(std::fs::read(m.at("d/f")), Errno::ACCESS);
        assert_errno(rustix::fs::lstat(m.at("d/f")), Errno::ACCESS);
        assert_errno(rustix::fs::lstat(m.at("d/missing")), Errno::ACCESS);
    });
}

fn write_only_directory(s: &mut Sandbox) {
    s.lower().file("drop/old", "x").chmod("drop", 0o733);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.write("drop/new", "mine");
        assert_errno(std::fs::read_dir(m.at("drop")).map(|_| ()), Errno::ACCESS);
        assert_eq!(m.text("drop/new"), "mine");
    });
    assert_eq!(m.names("drop"), ["new", "old"]);
}

fn owner_of_lower_may_change_it(s: &mut Sandbox) {
    s.lower()
        .file("home/f", "x")
        .chown("home", ALICE, ALICE)
        .chown("home/f", ALICE, ALICE)
        .chmod("home", 0o700);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        m.append("home/f", "+");
        m.chmod("home/f", 0o600);
        m.write("home/new", "");
        m.rename("home/new", "home/newer");
        m.unlink("home/f");
    });
    assert_eq!(m.walk(""), ["home/", "home/newer"]);
    assert_eq!(s.upper().owner("home"), (ALICE, ALICE));
    assert_eq!(s.upper().mode("home"), 0o700);
}

fn truncate_needs_write(s: &mut Sandbox) {
    s.lower().file("f", "x").chmod("f", 0o644);
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        let truncating = std::fs::OpenOptions::new().write(true).truncate(true).open(m.at("f"));
        assert_errno(truncating, Errno::ACCESS);
        assert_errno(lsetxattr(m.at("f"), "user.a", b"", XattrFlags::empty()), Errno::ACCESS);
    });
    assert!(!s.upper().exists("f"));
}

fn link_and_rename_need_write(s: &mut Sandbox) {
    s.lower()
        .file("mine/f", "")
        .chown("mine", ALICE, ALICE)
        .chown("mine/f", ALICE, ALICE)
        .dir("theirs");
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_errno(std::fs::hard_link(m.at("mine/f"), m.at("theirs/f")), Errno::ACCESS);
        assert_errno(std::fs::rename(m.at("mine/f"), m.at("theirs/f")), Errno::ACCESS);
    });
    assert_eq!(s.upper().names(""), [""; 0]);
}

fn readlink_needs_search_only(s: &mut Sandbox) {
    s.lower().symlink("target", "l").chown("l", BOB, BOB);
    let m = s.mount();
    Caller::user(ALICE).run(|| assert_eq!(m.target("l").to_str(), Some("target")));
}

fn setuid_program_runs_as_its_owner(s: &mut Sandbox) {
    s.lower().dir("bin");
    std::fs::copy("/usr/bin/id", s.lower().at("bin/id")).unwrap();
    s.lower().chown("bin/id", BOB, BOB).chmod("bin/id", 0o4755);
    let m = s.mount();
    let run = || {
        let mut command = std::process::Command::new("setpriv");
        let ids = [format!("--reuid={ALICE}"), format!("--regid={ALICE}"), "--clear-groups".into()];
        crate::common::scratch::run(command.args(ids).arg(m.at("bin/id")).arg("-u"))
            .trim()
            .to_owned()
    };
    assert_eq!(run(), BOB.to_string());
    m.mtime("bin/id", 1, 1);
    assert_eq!(run(), BOB.to_string(), "after copy-up");
}
