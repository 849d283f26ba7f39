//! unlink and rmdir, and the whiteouts they leave.

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::{Caller, Sandbox, assert_errno, caller::ALICE, caller::BOB};

mounted_tests! {
    [root userns user]:
        unlink_of_lower_leaves_a_whiteout, unlink_of_upper_leaves_nothing,
        unlink_of_copied_up_leaves_a_whiteout, whiteouts_share_one_inode, rmdir_of_lower, rmdir_that_is_not_empty,
        remove_a_whole_lower_tree;
    [root userns]:
        rmdir_of_directory_with_only_whiteouts, rmdir_of_merged, unlink_of_wrong_type, remove_missing,
        remove_every_type, sticky_directory_protects, unlink_one_of_several_links,
        removal_survives_remount, whiteouts_after_remount_share_one_inode, rmdir_with_dot_names;
    [root]: whiteout_is_a_bare_device;
}

fn unlink_of_lower_leaves_a_whiteout(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("d/f", "lower");
    let m = s.mount();
    for path in ["f", "d/f"] {
        m.unlink(path);
        assert!(s.upper().is_whiteout(path));
        assert!(!m.exists(path));
    }
    assert_eq!(m.walk(""), ["d/"]);
}

fn whiteout_is_a_bare_device(s: &mut Sandbox) {
    s.lower()
        .file("f", "lower")
        .chown("f", 3001, 3001)
        .chmod("f", 0o777)
        .set_xattr("f", "user.a", "b");
    let m = s.mount();
    m.unlink("f");
    let upper = s.upper();
    assert_eq!(upper.mode("f"), 0);
    assert_eq!(upper.owner("f"), (0, 0));
    assert_eq!(upper.xattr_names("f"), [""; 0]);
}

fn unlink_of_upper_leaves_nothing(s: &mut Sandbox) {
    s.lower().dir("d");
    s.upper().file("old", "").file("d/old", "");
    let m = s.mount();
    m.write("new", "");
    m.write("d/new", "");
    for path in ["old", "d/old", "new", "d/new"] {
        m.unlink(path);
        assert!(!s.upper().exists(path), "{path} was in upper only: no whiteout");
    }
}

fn unlink_of_copied_up_leaves_a_whiteout(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    m.append("f", "+");
    m.unlink("f");
    assert!(s.upper().is_whiteout("f"));
    assert!(!m.exists("f"));
}

fn whiteouts_share_one_inode(s: &mut Sandbox) {
    for name in ["a", "b", "c", "d/e"] {
        s.lower().file(name, "");
    }
    let m = s.mount();
    m.unlink("a");
    m.unlink("b");
    m.remove_all("d");
    let upper = s.upper();
    assert_eq!(upper.ino("a"), upper.ino("b"));
    assert_eq!(upper.ino("a"), upper.ino("d"));
    s.unmount();
    let spare = s.work().names("work");
    assert_eq!(spare.len(), 1, "one spare name in work: {spare:?}");
    assert_eq!(upper.nlink("a"), 4, "three whiteouts and the spare");
    s.mount();
}

fn whiteouts_after_remount_share_one_inode(s: &mut Sandbox) {
    for name in ["a", "b", "c", "d"] {
        s.lower().file(name, "");
    }
    s.mount().unlink("a");
    let m = s.remount();
    m.unlink("b");
    m.unlink("c");
    let upper = s.upper();
    assert_eq!(upper.ino("b"), upper.ino("c"));
    assert_eq!(upper.nlink("a"), 1, "work was emptied at mount");
}

fn rmdir_of_lower(s: &mut Sandbox) {
    s.lower().dir("d").dir("p/d");
    let m = s.mount();
    for path in ["d", "p/d"] {
        m.rmdir(path);
        assert!(s.upper().is_whiteout(path));
        assert!(!m.exists(path));
    }
    assert_eq!(m.names("p"), [""; 0]);
}

fn rmdir_that_is_not_empty(s: &mut Sandbox) {
    s.lower().file("low/f", "").dir("merged");
    s.upper().file("merged/f", "").file("up/f", "");
    let m = s.mount();
    for path in ["low", "merged", "up"] {
        assert_errno(std::fs::remove_dir(m.at(path)), Errno::NOTEMPTY);
    }
    assert!(!s.upper().exists("low"));
    m.unlink("merged/f");
    m.rmdir("merged");
    assert!(s.upper().is_whiteout("merged"));
}

fn rmdir_of_directory_with_only_whiteouts(s: &mut Sandbox) {
    s.lower().file("d/a", "").file("d/b", "");
    let m = s.mount();
    m.unlink("d/a");
    assert_errno(std::fs::remove_dir(m.at("d")), Errno::NOTEMPTY);
    m.unlink("d/b");
    assert_eq!(s.upper().names("d"), ["a", "b"]);
    m.rmdir("d");
    assert!(s.upper().is_whiteout("d"));
    assert!(!m.exists("d"));
}

fn rmdir_of_merged(s: &mut Sandbox) {
    s.lower().dir("d/empty").file("opaque/x", "");
    s.upper()
        .dir("d")
        .dir("opaque")
        .set_xattr("opaque", s.overlay_xattr("opaque"), "y")
        .dir("pure");
    let m = s.mount();
    m.rmdir("opaque");
    m.rmdir("d/empty");
    m.rmdir("d");
    m.rmdir("pure");
    assert!(s.upper().is_whiteout("d"));
    assert!(s.upper().is_whiteout("opaque"));
    assert!(!s.upper().exists("pure"));
    assert_eq!(m.names(""), [""; 0]);
}

fn unlink_of_wrong_type(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("d", "l");
    let m = s.mount();
    assert_errno(std::fs::remove_dir(m.at("f")), Errno::NOTDIR);
    assert_errno(std::fs::remove_dir(m.at("l")), Errno::NOTDIR);
    assert_errno(std::fs::remove_file(m.at("d")), Errno::ISDIR);
    assert_eq!(s.upper().names(""), [""; 0]);
    m.unlink("l");
    assert!(m.exists("d"));
}

fn remove_missing(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    m.unlink("f");
    for name in ["f", "never"] {
        assert_errno(std::fs::remove_file(m.at(name)), Errno::NOENT);
        assert_errno(std::fs::remove_dir(m.at(name)), Errno::NOENT);
    }
    assert_errno(std::fs::remove_file(m.at("never/x")), Errno::NOENT);
}

fn rmdir_with_dot_names(s: &mut Sandbox) {
    s.lower().dir("d/e");
    let m = s.mount();
    assert_errno(rustix::fs::rmdir(m.at("d/.")), Errno::INVAL);
    assert_errno(rustix::fs::rmdir(m.at("d/e/..")), Errno::NOTEMPTY);
    assert_errno(rustix::fs::rmdir(m.path()), Errno::BUSY);
}

fn remove_every_type(s: &mut Sandbox) {
    s.lower().symlink("x", "l").fifo("p").mknod("s", rustix::fs::FileType::Socket, 0o755, (0, 0));
    let m = s.mount();
    for name in ["l", "p", "s"] {
        m.unlink(name);
        assert!(s.upper().is_whiteout(name));
    }
    assert_eq!(m.names(""), [""; 0]);
}

fn remove_a_whole_lower_tree(s: &mut Sandbox) {
    for directory in 0..10 {
        for file in 0..20 {
            s.lower().file(format!("tree/{directory}/sub/{file}"), "x");
        }
    }
    let m = s.mount();
    m.remove_all("tree");
    assert_eq!(m.names(""), [""; 0]);
    assert_eq!(s.upper().names(""), ["tree"]);
    assert!(s.upper().is_whiteout("tree"));
}

fn sticky_directory_protects(s: &mut Sandbox) {
    s.lower().file("tmp/of-alice", "").chown("tmp/of-alice", ALICE, ALICE).chmod("tmp", 0o1777);
    let m = s.mount();
    Caller::user(BOB).run(|| {
        assert_errno(std::fs::remove_file(m.at("tmp/of-alice")), Errno::PERM);
        assert_errno(std::fs::rename(m.at("tmp/of-alice"), m.at("tmp/mine")), Errno::PERM);
        m.write("tmp/of-bob", "");
        assert_errno(std::fs::rename(m.at("tmp/of-bob"), m.at("tmp/of-alice")), Errno::PERM);
    });
    Caller::user(ALICE).run(|| m.unlink("tmp/of-alice"));
    assert_eq!(m.names("tmp"), ["of-bob"]);
    assert_eq!(s.upper().mode("tmp"), 0o1777);
}

fn unlink_one_of_several_links(s: &mut Sandbox) {
    s.lower().file("low1", "x").link("low1", "low2");
    let m = s.mount();
    m.write("up1", "y");
    m.link("up1", "up2");
    assert_eq!((m.nlink("low1"), m.nlink("up1")), (2, 2));
    m.unlink("up1");
    assert_eq!((m.nlink("up2"), m.text("up2")), (1, "y".into()));
    m.unlink("low1");
    assert_eq!(m.text("low2"), "x");
    assert!(!s.upper().exists("low2"), "removing a name of a lower file leaves the other alone");
}

fn removal_survives_remount(s: &mut Sandbox) {
    s.lower().file("a", "").file("d/b", "").dir("e");
    s.add_lower().file("d/c", "");
    let m = s.mount();
    m.unlink("a");
    m.unlink("d/c");
    m.rmdir("e");
    let held = m.open("d/b", OFlags::RDONLY);
    m.unlink("d/b");
    drop(held);
    assert_eq!(m.walk(""), ["d/"]);
    assert_eq!(s.remount().walk(""), ["d/"]);
}
