//! rename(2) and renameat2(2).

use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::{self, Errno};

use crate::common::{Sandbox, Tree, assert_errno};

mounted_tests! {
    [root userns user]:
        lower_file, upper_file_leaves_nothing, over_lower_file, over_whiteout, exchange_lower_files,
        lower_directory_is_exdev, mv_of_lower_directory, noreplace;
    [root userns]:
        back_and_forth, across_directories, over_directories, over_wrong_types, into_itself, missing,
        same_file_is_nothing, pure_directory, pure_directory_over_whiteout_is_opaque,
        pure_directory_into_merged_keeps_its_children_only, pure_directory_over_emptied_merged,
        every_type, exchange_of_upper_and_lower, exchange_of_types, exchange_of_lower_directory_is_exdev,
        exchange_with_missing, whiteout_flag_is_refused, open_files_follow, inode_numbers_follow,
        dotdot_follows, over_an_open_file, chain, names_with_dots, upper_over_lower_leaves_no_whiteout,
        replaced_file_in_lower_stays_hidden;
}

fn rename(m: &Tree, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
    renameat_with(CWD, m.at(from), CWD, m.at(to), flags)
}

fn plain(m: &Tree, from: &str, to: &str) -> io::Result<()> {
    rename(m, from, to, RenameFlags::empty())
}

fn lower_file(s: &mut Sandbox) {
    s.lower().file("a", "lower").mtime("a", 1_000_000_000, 7).chmod("a", 0o640);
    let m = s.mount();
    m.rename("a", "b");
    assert_eq!(m.names(""), ["b"]);
    assert_eq!(m.text("b"), "lower");
    assert_eq!((m.mode("b"), m.mtime_of("b")), (0o640, (1_000_000_000, 7)));
    assert!(s.upper().is_whiteout("a"));
    assert_eq!(s.upper().text("b"), "lower");
    assert_eq!(s.remount().names(""), ["b"]);
}

fn upper_file_leaves_nothing(s: &mut Sandbox) {
    s.upper().file("a", "upper");
    let m = s.mount();
    m.rename("a", "b");
    m.write("c", "new");
    m.rename("c", "d");
    assert_eq!(s.upper().names(""), ["b", "d"]);
    assert_eq!((m.text("b"), m.text("d")), ("upper".into(), "new".into()));
}

fn over_lower_file(s: &mut Sandbox) {
    s.lower().file("a", "a").file("b", "b");
    let m = s.mount();
    m.rename("a", "b");
    assert_eq!(m.text("b"), "a");
    assert_eq!(s.upper().names(""), ["a", "b"]);
    assert!(s.upper().is_whiteout("a"));
    m.unlink("b");
    assert!(s.upper().is_whiteout("b"));
    assert_eq!(m.names(""), [""; 0]);
}

fn upper_over_lower_leaves_no_whiteout(s: &mut Sandbox) {
    s.lower().file("b", "b");
    let m = s.mount();
    m.write("a", "a");
    m.rename("a", "b");
    assert_eq!(s.upper().names(""), ["b"]);
    assert_eq!(m.text("b"), "a");
}

fn replaced_file_in_lower_stays_hidden(s: &mut Sandbox) {
    s.lower().file("b", "b");
    let m = s.mount();
    m.write("a", "a");
    m.rename("a", "b");
    m.rename("b", "c");
    assert_eq!(m.names(""), ["c"], "the lower b must not show again");
    assert!(s.upper().is_whiteout("b"));
    assert_eq!(s.remount().names(""), ["c"]);
}

fn over_whiteout(s: &mut Sandbox) {
    s.lower().file("a", "a").file("b", "b").file("c", "c");
    let m = s.mount();
    m.unlink("b");
    m.rename("a", "b");
    assert_eq!((m.text("b"), m.names("")), ("a".into(), vec!["b".into(), "c".into()]));
    assert!(s.upper().is_whiteout("a"));
    m.write("new", "new");
    m.rename("new", "a");
    assert_eq!(m.text("a"), "new");
    assert_eq!(s.upper().names(""), ["a", "b"], "a plain source leaves nothing");
    rename(&m, "c", "d", RenameFlags::NOREPLACE).unwrap();
    rename(&m, "b", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(m.names(""), ["a", "c", "d"]);
}

fn noreplace(s: &mut Sandbox) {
    s.lower().file("a", "a").file("b", "b").dir("d");
    s.upper().file("up", "up");
    let m = s.mount();
    for target in ["b", "d", "up", "a"] {
        assert_errno(rename(&m, "a", target, RenameFlags::NOREPLACE), Errno::EXIST);
    }
    assert!(!s.upper().exists("a"));
    rename(&m, "a", "new", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(m.names(""), ["b", "d", "new", "up"]);
}

fn back_and_forth(s: &mut Sandbox) {
    s.lower().file("a", "lower");
    let m = s.mount();
    for _ in 0..3 {
        m.rename("a", "b");
        assert_eq!(m.names(""), ["b"]);
        m.rename("b", "a");
        assert_eq!(m.names(""), ["a"]);
    }
    assert_eq!(s.upper().names(""), ["a"]);
    assert_eq!(m.text("a"), "lower");
}

fn across_directories(s: &mut Sandbox) {
    s.lower().file("from/a", "lower").file("to/x", "").dir("deep/er");
    let m = s.mount();
    m.rename("from/a", "to/a");
    m.rename("to/x", "deep/er/x");
    assert_eq!(m.walk(""), ["deep/", "deep/er/", "deep/er/x", "from/", "to/", "to/a"]);
    assert!(s.upper().is_whiteout("from/a"));
    assert!(s.upper().is_whiteout("to/x"));
    assert_eq!(s.remount().text("to/a"), "lower");
}

fn over_directories(s: &mut Sandbox) {
    s.lower().dir("low-empty").file("low-full/x", "");
    let m = s.mount();
    m.mkdir("a");
    m.write("a/f", "");
    assert_errno(plain(&m, "a", "low-full"), Errno::NOTEMPTY);
    m.rename("a", "low-empty");
    assert_eq!(m.walk("low-empty"), ["f"]);
    m.mkdir("b");
    assert_errno(plain(&m, "b", "low-empty"), Errno::NOTEMPTY);
    m.rename("b", "c");
    assert_eq!(m.names(""), ["c", "low-empty", "low-full"]);
}

fn over_wrong_types(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("d", "l");
    let m = s.mount();
    m.mkdir("pure");
    assert_errno(plain(&m, "f", "d"), Errno::ISDIR);
    assert_errno(plain(&m, "pure", "f"), Errno::NOTDIR);
    assert_errno(plain(&m, "pure", "l"), Errno::NOTDIR);
    assert_errno(plain(&m, "f", "pure"), Errno::ISDIR);
    assert_errno(plain(&m, "f/", "x"), Errno::NOTDIR);
    assert_eq!(m.names(""), ["d", "f", "l", "pure"]);
}

fn into_itself(s: &mut Sandbox) {
    s.lower().dir("low/sub");
    let m = s.mount();
    m.mkdir("pure");
    m.mkdir("pure/sub");
    assert_errno(plain(&m, "pure", "pure/sub/x"), Errno::INVAL);
    assert_errno(plain(&m, "pure/sub", "pure"), Errno::NOTEMPTY);
    assert_errno(plain(&m, "low", "low/sub/x"), Errno::INVAL);
}

fn missing(s: &mut Sandbox) {
    s.lower().file("f", "").file("gone", "");
    let m = s.mount();
    m.unlink("gone");
    assert_errno(plain(&m, "gone", "x"), Errno::NOENT);
    assert_errno(plain(&m, "never", "f"), Errno::NOENT);
    assert_errno(plain(&m, "f", "never/x"), Errno::NOENT);
    assert_errno(plain(&m, "f", "gone/x"), Errno::NOENT);
    assert_eq!(m.names(""), ["f"]);
}

fn names_with_dots(s: &mut Sandbox) {
    s.lower().dir("d").file("f", "");
    let m = s.mount();
    assert_errno(plain(&m, "d/.", "x"), Errno::BUSY);
    assert_errno(plain(&m, "f", "d/.."), Errno::BUSY);
}

fn same_file_is_nothing(s: &mut Sandbox) {
    let m = s.mount();
    m.write("a", "x");
    m.link("a", "b");
    m.rename("a", "b");
    assert_eq!(m.names(""), ["a", "b"], "rename onto another name of the same file does nothing");
    m.rename("a", "a");
    assert_eq!(m.nlink("a"), 2);
}

fn pure_directory(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    m.mkdir("pure");
    m.write("pure/f", "f");
    m.mkdir("pure/sub");
    m.rename("pure", "moved");
    m.rename("moved", "d/in");
    assert_eq!(m.walk(""), ["d/", "d/in/", "d/in/f", "d/in/sub/"]);
    assert_eq!(m.text("d/in/f"), "f");
    assert_eq!(s.upper().walk(""), ["d/", "d/in/", "d/in/f", "d/in/sub/"]);
}

fn pure_directory_over_whiteout_is_opaque(s: &mut Sandbox) {
    s.lower().file("d/old", "");
    let m = s.mount();
    m.remove_all("d");
    m.mkdir("pure");
    m.write("pure/new", "");
    m.rename("pure", "d");
    assert_eq!(m.walk("d"), ["new"]);
    assert_eq!(s.upper().xattr("d", s.overlay_xattr("opaque")).unwrap(), b"y");
    assert_eq!(s.remount().walk(""), ["d/", "d/new"]);
}

fn pure_directory_into_merged_keeps_its_children_only(s: &mut Sandbox) {
    s.lower().file("p/x", "").dir("q/d");
    let m = s.mount();
    m.mkdir("pure");
    m.write("pure/new", "");
    m.rename("pure", "p/pure");
    assert_eq!(m.walk("p"), ["pure/", "pure/new", "x"]);
    m.rename("p/pure", "q/d");
    assert_eq!(m.walk("q"), ["d/", "d/new"]);
    assert_eq!(s.remount().walk(""), ["p/", "p/x", "q/", "q/d/", "q/d/new"]);
}

fn pure_directory_over_emptied_merged(s: &mut Sandbox) {
    s.lower().file("d/a", "").file("d/b", "");
    let m = s.mount();
    m.unlink("d/a");
    m.unlink("d/b");
    m.mkdir("pure");
    m.write("pure/c", "");
    m.rename("pure", "d");
    assert_eq!(m.walk("d"), ["c"], "what was deleted stays deleted");
    assert_eq!(s.remount().walk(""), ["d/", "d/c"]);
}

fn lower_directory_is_exdev(s: &mut Sandbox) {
    s.lower().file("low/f", "").file("merged/low", "").dir("opaque");
    s.upper().file("merged/up", "").dir("opaque").set_xattr(
        "opaque",
        s.overlay_xattr("opaque"),
        "y",
    );
    let m = s.mount();
    assert_errno(plain(&m, "low", "x"), Errno::XDEV);
    assert_errno(plain(&m, "merged", "x"), Errno::XDEV);
    m.rename("opaque", "pure");
    assert!(s.upper().is_whiteout("opaque"));
    assert_eq!(m.names(""), ["low", "merged", "pure"]);
}

fn mv_of_lower_directory(s: &mut Sandbox) {
    s.lower().file("d/sub/f", "x").symlink("f", "d/sub/l").mtime("d/sub/f", 1_000_000_000, 9);
    let m = s.mount();
    let status = std::process::Command::new("mv").arg(m.at("d")).arg(m.at("e")).status().unwrap();
    assert!(status.success());
    assert_eq!(m.walk(""), ["e/", "e/sub/", "e/sub/f", "e/sub/l"]);
    assert_eq!(m.mtime_of("e/sub/f"), (1_000_000_000, 9));
    assert!(s.upper().is_whiteout("d"));
}

fn every_type(s: &mut Sandbox) {
    s.lower().symlink("target", "l").fifo("p").mknod(
        "s",
        rustix::fs::FileType::Socket,
        0o755,
        (0, 0),
    );
    let m = s.mount();
    for name in ["l", "p", "s"] {
        let (kind, ino) = (m.stat(name).st_mode, m.ino(name));
        let new = format!("{name}-new");
        m.rename(name, &new);
        assert_eq!((m.stat(&new).st_mode, m.ino(&new)), (kind, ino));
        assert!(s.upper().is_whiteout(name));
    }
    assert_eq!(m.target("l-new").to_str(), Some("target"));
}

fn exchange_lower_files(s: &mut Sandbox) {
    s.lower().file("a", "a").file("d/b", "b");
    let m = s.mount();
    rename(&m, "a", "d/b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((m.text("a"), m.text("d/b")), ("b".into(), "a".into()));
    assert_eq!(s.upper().walk(""), ["a", "d/", "d/b"]);
    let m = s.remount();
    assert_eq!((m.text("a"), m.text("d/b")), ("b".into(), "a".into()));
}

fn exchange_of_upper_and_lower(s: &mut Sandbox) {
    s.lower().file("low", "low");
    let m = s.mount();
    m.write("up", "up");
    rename(&m, "up", "low", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((m.text("up"), m.text("low")), ("low".into(), "up".into()));
    m.unlink("up");
    assert!(!s.upper().exists("up"), "nothing below up");
    m.unlink("low");
    assert!(s.upper().is_whiteout("low"));
}

fn exchange_of_types(s: &mut Sandbox) {
    s.lower().file("f", "f").symlink("t", "l");
    let m = s.mount();
    m.mkdir("pure");
    m.write("pure/x", "");
    rename(&m, "f", "pure", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((m.text("pure"), m.names("f")), ("f".into(), vec!["x".into()]));
    rename(&m, "l", "pure", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((m.text("l"), m.target("pure").to_str()), ("f".into(), Some("t")));
    let m = s.remount();
    assert_eq!(m.walk(""), ["f/", "f/x", "l", "pure"]);
}

fn exchange_of_lower_directory_is_exdev(s: &mut Sandbox) {
    s.lower().dir("low").file("f", "");
    let m = s.mount();
    m.mkdir("pure");
    assert_errno(rename(&m, "low", "pure", RenameFlags::EXCHANGE), Errno::XDEV);
    assert_errno(rename(&m, "pure", "low", RenameFlags::EXCHANGE), Errno::XDEV);
    assert_errno(rename(&m, "f", "low", RenameFlags::EXCHANGE), Errno::XDEV);
}

fn exchange_with_missing(s: &mut Sandbox) {
    s.lower().file("f", "").file("gone", "");
    let m = s.mount();
    m.unlink("gone");
    assert_errno(rename(&m, "f", "never", RenameFlags::EXCHANGE), Errno::NOENT);
    assert_errno(rename(&m, "f", "gone", RenameFlags::EXCHANGE), Errno::NOENT);
    assert_errno(rename(&m, "gone", "f", RenameFlags::EXCHANGE), Errno::NOENT);
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    assert_errno(rename(&m, "f", "f", both), Errno::INVAL);
    assert_eq!(m.names(""), ["f"]);
}

fn whiteout_flag_is_refused(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    m.write("up", "");
    for name in ["f", "up"] {
        assert_errno(rename(&m, name, "x", RenameFlags::WHITEOUT), Errno::INVAL);
    }
    assert_eq!(m.names(""), ["f", "up"]);
}

fn open_files_follow(s: &mut Sandbox) {
    s.lower().file("a", "lower");
    let m = s.mount();
    let reading = m.open("a", OFlags::RDONLY);
    m.rename("a", "b");
    let writing = m.open("b", OFlags::WRONLY | OFlags::APPEND);
    m.rename("b", "c");
    std::io::Write::write_all(&mut &writing, b"+more").unwrap();
    assert_eq!(std::io::read_to_string(&reading).unwrap(), "lower+more");
    assert_eq!(m.text("c"), "lower+more");
    assert_eq!(rustix::fs::fstat(&reading).unwrap().st_ino, m.ino("c"));
}

fn inode_numbers_follow(s: &mut Sandbox) {
    s.lower().file("a", "lower");
    let m = s.mount();
    m.mkdir("d");
    m.write("d/x", "");
    let before = (m.ino("a"), m.ino("d"), m.ino("d/x"));
    m.rename("a", "b");
    m.rename("d", "e");
    assert_eq!((m.ino("b"), m.ino("e"), m.ino("e/x")), before);
}

fn dotdot_follows(s: &mut Sandbox) {
    s.lower().dir("p").dir("q");
    let m = s.mount();
    m.mkdir("p/d");
    let held = m.open("p/d", OFlags::DIRECTORY);
    m.rename("p/d", "q/d");
    let above = rustix::fs::statat(&held, "..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(above.st_ino, m.ino("q"));
    let listed = crate::common::dirents::rest(&held, 4096);
    let dotdot = listed.iter().find(|entry| entry.name == "..").unwrap();
    assert_eq!(dotdot.ino, m.ino("q"));
}

fn over_an_open_file(s: &mut Sandbox) {
    s.lower().file("a", "a").file("b", "b");
    let m = s.mount();
    let old = m.open("b", OFlags::RDWR);
    m.rename("a", "b");
    assert_eq!(std::io::read_to_string(&old).unwrap(), "b");
    assert_eq!(rustix::fs::fstat(&old).unwrap().st_nlink, 0);
    std::io::Write::write_all(&mut &old, b"+").unwrap();
    assert_eq!(m.text("b"), "a");
}

fn chain(s: &mut Sandbox) {
    s.lower().file("0", "0").file("5", "5").file("9", "9");
    let m = s.mount();
    for step in 0..20 {
        m.rename(step.to_string(), (step + 1).to_string());
    }
    assert_eq!(m.names(""), ["20"]);
    assert_eq!(m.text("20"), "0");
    for name in ["0", "5", "9"] {
        assert!(s.upper().is_whiteout(Path::new(name)));
    }
    assert_eq!(s.upper().names(""), ["0", "20", "5", "9"]);
}
