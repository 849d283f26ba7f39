//! `redirect_dir=`: renaming directories that have parts in lower layers.

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::common::{Sandbox, Tree, assert_errno};

mounted_tests! {
    [root userns user]:
        in_one_directory, across_directories, files_and_new_entries_inside;
    [root userns]:
        and_back, twice, parent_then_child, child_then_parent, into_a_renamed_directory,
        merged_directory, emptied_and_removed, removed_with_contents, made_again_under_the_old_name,
        over_an_empty_directory, over_a_whiteout, exchange_in_one_directory,
        exchange_across_directories, exchange_with_a_pure_directory, pure_directory_into_merged,
        new_directory_is_opaque, too_long, numbers_stay, open_files_stay, many_directories,
        relative_in_lowers, absolute_in_lowers, absolute_through_a_moved_parent,
        absolute_out_of_an_opaque_parent, follow_makes_none, nofollow_refuses, deep_rename_in_pure,
        whiteouts_move_along, long_names, hard_links_inside;
    [root]: off_follows, on_disk_as_the_kernel;
    [userns]: default_refuses;
}

const EXCHANGE: RenameFlags = RenameFlags::EXCHANGE;

fn exchange(m: &Tree, a: &str, b: &str) -> rustix::io::Result<()> {
    renameat_with(CWD, m.at(a), CWD, m.at(b), EXCHANGE)
}

fn plain(m: &Tree, from: &str, to: &str) -> rustix::io::Result<()> {
    renameat_with(CWD, m.at(from), CWD, m.at(to), RenameFlags::empty())
}

/// Mounts with `redirect_dir=value`; `None` where the kernel cannot, which takes
/// no such option beside `userxattr`.
fn mount_with(s: &mut Sandbox, value: &str) -> Option<Tree> {
    let option = format!("redirect_dir={value}");
    if value != "nofollow" {
        return s.mount_where_trusted(&option);
    }
    s.option(&option);
    Some(s.mount())
}

/// What `overlay.redirect` says on `path` of upper.
#[track_caller]
fn redirect(s: &Sandbox, path: &str) -> Option<String> {
    let value = s.upper().xattr(path, s.overlay_xattr("redirect"))?;
    Some(String::from_utf8(value).unwrap())
}

#[track_caller]
fn is_opaque(s: &Sandbox, path: &str) -> bool {
    s.upper().xattr(path, s.overlay_xattr("opaque")).as_deref() == Some(b"y")
}

/// Asserts what the view holds, now and after a remount.
#[track_caller]
fn assert_walk(s: &mut Sandbox, want: &[&str]) {
    assert_eq!(s.merged().walk(""), want);
    assert_eq!(s.remount().walk(""), want, "after a remount");
}

fn in_one_directory(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/sub/g", "g").mtime("d", 1_000_000_000, 7).chmod("d", 0o750);
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "e");
    assert_eq!((m.mode("e"), m.mtime_of("e")), (0o750, (1_000_000_000, 7)));
    assert_eq!(redirect(s, "e").as_deref(), Some("d"));
    assert!(s.upper().is_whiteout("d") && !s.upper().exists("e/f"));
    assert_walk(s, &["e/", "e/f", "e/sub/", "e/sub/g"]);
    assert_eq!(s.merged().text("e/sub/g"), "g");
}

fn across_directories(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p/d", "q/e");
    assert_eq!(redirect(s, "q/e").as_deref(), Some("/p/d"));
    assert!(s.upper().is_whiteout("p/d"));
    assert_eq!(s.upper().xattr("q", s.overlay_xattr("impure")).as_deref(), Some(&b"y"[..]));
    assert_walk(s, &["p/", "q/", "q/e/", "q/e/f"]);
}

fn and_back(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("p/d/sub/g", "g").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p/d", "p/e");
    m.rename("p/e", "p/d");
    assert_eq!(m.walk("p"), ["d/", "d/f", "d/sub/", "d/sub/g"]);
    assert_eq!(redirect(s, "p/d").as_deref(), Some("d"));
    m.rename("p/d", "q/d");
    m.rename("q/d", "p/d");
    assert_eq!(redirect(s, "p/d").as_deref(), Some("/p/d"));
    assert_eq!(s.upper().names("q"), [""; 0]);
    assert_walk(s, &["p/", "p/d/", "p/d/f", "p/d/sub/", "p/d/sub/g", "q/"]);
}

fn twice(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p/d", "p/e");
    m.rename("p/e", "p/g");
    assert_eq!(redirect(s, "p/g").as_deref(), Some("d"));
    assert_eq!(s.upper().names("p"), ["d", "g"]);
    let m = s.remount();
    m.rename("p/g", "q/h");
    assert_eq!(redirect(s, "q/h").as_deref(), Some("/p/d"));
    m.rename("q/h", "i");
    assert_eq!(redirect(s, "i").as_deref(), Some("/p/d"));
    assert_walk(s, &["i/", "i/f", "p/", "q/"]);
}

fn parent_then_child(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("p/x", "x").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p", "r");
    m.rename("r/d", "r/e");
    assert_eq!(redirect(s, "r/e").as_deref(), Some("d"));
    m.rename("r/e", "q/e");
    assert_eq!(redirect(s, "q/e").as_deref(), Some("/p/d"));
    assert_walk(s, &["q/", "q/e/", "q/e/f", "r/", "r/x"]);
    s.merged().rename("q/e", "r/d");
    assert_walk(s, &["q/", "r/", "r/d/", "r/d/f", "r/x"]);
}

fn child_then_parent(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("p/d/sub/g", "g").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p/d", "p/e");
    m.rename("p", "q/r");
    m.rename("q/r/e/sub", "q/sub");
    assert_eq!(redirect(s, "q/r").as_deref(), Some("/p"));
    assert_eq!(redirect(s, "q/sub").as_deref(), Some("/p/d/sub"));
    assert_walk(s, &["q/", "q/r/", "q/r/e/", "q/r/e/f", "q/sub/", "q/sub/g"]);
}

fn into_a_renamed_directory(s: &mut Sandbox) {
    s.lower().file("a/f", "a").file("b/g", "b").file("b/a/h", "below");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("b", "c");
    assert_errno(plain(&m, "a", "c/a"), Errno::NOTEMPTY);
    m.unlink("c/a/h");
    m.rename("a", "c/a");
    assert_eq!(redirect(s, "c/a").as_deref(), Some("/a"));
    assert_errno(plain(&m, "c", "c/a/c"), Errno::INVAL);
    assert_walk(s, &["c/", "c/a/", "c/a/f", "c/g"]);
}

fn merged_directory(s: &mut Sandbox) {
    s.lower().file("d/0", "0").file("d/sub/0", "0");
    s.add_lower().file("d/1", "1").file("d/sub/1", "1");
    s.upper().file("d/u", "u");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "e");
    m.rename("e/sub", "sub");
    assert_walk(s, &["e/", "e/0", "e/1", "e/u", "sub/", "sub/0", "sub/1"]);
    assert_eq!(s.merged().nlink("e"), 1);
}

fn files_and_new_entries_inside(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/sub/g", "g");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "e");
    m.write("e/new", "new");
    m.append("e/sub/g", "+");
    m.unlink("e/f");
    m.mkdir("e/dir");
    assert_eq!(s.upper().walk("e"), ["dir/", "f", "new", "sub/", "sub/g"]);
    assert!(s.upper().is_whiteout("e/f"));
    assert_walk(s, &["e/", "e/dir/", "e/new", "e/sub/", "e/sub/g"]);
    assert_eq!(s.merged().text("e/sub/g"), "g+");
}

fn emptied_and_removed(s: &mut Sandbox) {
    s.lower().file("d/f", "f").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "q/e");
    assert_errno(rustix::fs::rmdir(m.at("q/e")), Errno::NOTEMPTY);
    m.unlink("q/e/f");
    m.rmdir("q/e");
    assert_eq!(s.upper().names("q"), [""; 0], "nothing lies below q/e");
    assert_walk(s, &["q/"]);
}

fn removed_with_contents(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/sub/g", "g").file("e/x", "");
    let Some(m) = mount_with(s, "on") else { return };
    m.remove_all("e");
    m.rename("d", "e");
    m.remove_all("e");
    assert_eq!(s.upper().names(""), ["d", "e"]);
    assert!(s.upper().is_whiteout("d") && s.upper().is_whiteout("e"));
    assert_walk(s, &[]);
}

fn made_again_under_the_old_name(s: &mut Sandbox) {
    s.lower().file("d/f", "f").dir("d/sub");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "e");
    m.mkdir("d");
    m.write("d/new", "");
    assert!(is_opaque(s, "d"));
    m.rename("d", "g");
    assert_eq!(redirect(s, "g"), None);
    m.mkdir("d");
    m.rename("d", "e/d");
    assert_walk(s, &["e/", "e/d/", "e/f", "e/sub/", "g/", "g/new"]);
}

fn over_an_empty_directory(s: &mut Sandbox) {
    s.lower().file("d/f", "f").dir("empty").file("hollow/x", "");
    let Some(m) = mount_with(s, "on") else { return };
    m.unlink("hollow/x");
    m.rename("d", "empty");
    assert_eq!(redirect(s, "empty").as_deref(), Some("d"));
    m.rename("empty", "hollow");
    assert_eq!(redirect(s, "hollow").as_deref(), Some("d"));
    assert!(s.upper().is_whiteout("empty"));
    assert_walk(s, &["hollow/", "hollow/f"]);
}

fn over_a_whiteout(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("gone/x", "").file("file", "");
    let Some(m) = mount_with(s, "on") else { return };
    m.remove_all("gone");
    m.unlink("file");
    m.rename("d", "gone");
    assert_eq!(s.upper().names(""), ["d", "file", "gone"]);
    m.rename("gone", "file");
    assert!(s.upper().is_whiteout("gone") && s.upper().is_whiteout("d"));
    m.rename("file", "d");
    assert!(s.upper().is_whiteout("file"));
    assert_walk(s, &["d/", "d/f"]);
}

fn exchange_in_one_directory(s: &mut Sandbox) {
    s.lower().file("a/x", "x").file("b/y", "y").file("f", "f");
    let Some(m) = mount_with(s, "on") else { return };
    exchange(&m, "a", "b").unwrap();
    assert_eq!((redirect(s, "a").as_deref(), redirect(s, "b").as_deref()), (Some("b"), Some("a")));
    assert_eq!(m.walk(""), ["a/", "a/y", "b/", "b/x", "f"]);
    exchange(&m, "a", "f").unwrap();
    assert_walk(s, &["a", "b/", "b/x", "f/", "f/y"]);
}

fn exchange_across_directories(s: &mut Sandbox) {
    s.lower().file("p/a/x", "x").file("q/b/y", "y");
    let Some(m) = mount_with(s, "on") else { return };
    exchange(&m, "p/a", "q/b").unwrap();
    assert_eq!(redirect(s, "p/a").as_deref(), Some("/q/b"));
    assert_eq!(redirect(s, "q/b").as_deref(), Some("/p/a"));
    assert_walk(s, &["p/", "p/a/", "p/a/y", "q/", "q/b/", "q/b/x"]);
}

fn exchange_with_a_pure_directory(s: &mut Sandbox) {
    s.lower().file("low/x", "x");
    let Some(m) = mount_with(s, "on") else { return };
    m.mkdir("pure");
    m.write("pure/y", "y");
    exchange(&m, "low", "pure").unwrap();
    assert!(is_opaque(s, "low") && !is_opaque(s, "pure"));
    assert_eq!(redirect(s, "pure").as_deref(), Some("low"));
    assert_walk(s, &["low/", "low/y", "pure/", "pure/x"]);
}

fn pure_directory_into_merged(s: &mut Sandbox) {
    s.lower().file("p/d/x", "").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    m.mkdir("q/pure");
    m.mkdir("q/pure/in");
    assert!(is_opaque(s, "q/pure") && !is_opaque(s, "q/pure/in"));
    m.rename("q/pure/in", "p/in");
    assert!(is_opaque(s, "p/in"));
    assert_walk(s, &["p/", "p/d/", "p/d/x", "p/in/", "q/", "q/pure/"]);
}

fn new_directory_is_opaque(s: &mut Sandbox) {
    s.lower().dir("d");
    let Some(m) = mount_with(s, "on") else { return };
    m.mkdir("new");
    m.mkdir("d/new");
    m.mkdir("d/new/in");
    assert!(is_opaque(s, "new") && is_opaque(s, "d/new") && !is_opaque(s, "d/new/in"));
    assert_walk(s, &["d/", "d/new/", "d/new/in/", "new/"]);
}

fn too_long(s: &mut Sandbox) {
    // `/` and the name make 256 bytes, which is the most.
    let fits = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    let longer = format!("{}/{}", "a".repeat(127), "c".repeat(128));
    s.lower().file(format!("{fits}/f"), "").file(format!("{longer}/f"), "");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename(&fits, "fits");
    assert_eq!(redirect(s, "fits"), Some(format!("/{fits}")));
    assert_errno(plain(&m, &longer, "longer"), Errno::XDEV);
    m.rename(&longer, format!("{}/same", "a".repeat(127)));
    assert_errno(plain(&m, &format!("{}/same", "a".repeat(127)), "longer"), Errno::XDEV);
    let parent = "a".repeat(127);
    assert_eq!(m.walk(&parent), ["same/", "same/f"]);
    m.rename(&parent, "short");
    assert_errno(plain(&m, "short/same", "longer"), Errno::XDEV);
    assert_walk(s, &["fits/", "fits/f", "short/", "short/same/", "short/same/f"]);
}

fn long_names(s: &mut Sandbox) {
    let (from, to) = ("f".repeat(255), "t".repeat(255));
    s.lower().file(format!("{from}/x"), "");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename(&from, &to);
    m.mkdir("d");
    m.rename(&to, format!("d/{to}"));
    assert_eq!(redirect(s, &format!("d/{to}")), Some(format!("/{from}")));
    let inner = format!("d/{to}/");
    assert_walk(s, &["d/", &inner, &format!("{inner}x")]);
}

fn numbers_stay(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").dir("q");
    let Some(m) = mount_with(s, "on") else { return };
    let before = (m.ino("p/d"), m.ino("p/d/f"));
    m.rename("p/d", "q/e");
    assert_eq!((m.ino("q/e"), m.ino("q/e/f")), before);
    let listed = crate::common::dirents::rest(m.open("q", OFlags::DIRECTORY), 4096);
    assert_eq!(listed.iter().find(|entry| entry.name == "e").unwrap().ino, before.0);
    let inner = crate::common::dirents::rest(m.open("q/e", OFlags::DIRECTORY), 4096);
    assert_eq!(inner.iter().find(|entry| entry.name == "..").unwrap().ino, m.ino("q"));
    let m = s.remount();
    assert_eq!((m.ino("q/e"), m.ino("q/e/f")), before);
}

fn open_files_stay(s: &mut Sandbox) {
    s.lower().file("d/sub/f", "f");
    let Some(m) = mount_with(s, "on") else { return };
    let directory = m.open("d/sub", OFlags::DIRECTORY);
    let file = m.open("d/sub/f", OFlags::RDONLY);
    m.rename("d", "e");
    m.rename("e/sub", "sub");
    assert_eq!(std::io::read_to_string(&file).unwrap(), "f");
    let made = rustix::fs::openat(
        &directory,
        "new",
        OFlags::CREATE | OFlags::WRONLY,
        rustix::fs::Mode::RUSR,
    );
    drop((made.unwrap(), directory, file));
    assert_walk(s, &["e/", "sub/", "sub/f", "sub/new"]);
}

fn many_directories(s: &mut Sandbox) {
    for index in 0..20 {
        s.lower().file(format!("a/{index}/f"), index.to_string());
    }
    let Some(m) = mount_with(s, "on") else { return };
    m.mkdir("b");
    for index in 0..20 {
        m.rename(format!("a/{index}"), format!("b/{}", (index + 1) % 20));
    }
    m.rename("b", "a/b");
    m.rename("a", "c");
    let m = s.remount();
    assert_eq!(m.names("c"), ["b"]);
    for index in 0..20 {
        assert_eq!(m.text(format!("c/b/{}/f", (index + 1) % 20)), index.to_string());
    }
}

fn relative_in_lowers(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("p/a/0", "0").file("p/c/no", "");
    s.add_lower().file("p/b/1", "1").set_xattr("p/b", &name, "a").whiteout("p/a");
    s.add_lower().file("p/c/2", "2").set_xattr("p/c", &name, "b").whiteout("p/b");
    let Some(m) = mount_with(s, "on") else { return };
    assert_eq!(m.walk(""), ["p/", "p/c/", "p/c/0", "p/c/1", "p/c/2"]);
    m.rename("p/c", "p/d");
    assert_eq!(redirect(s, "p/d").as_deref(), Some("c"));
    m.rename("p/d", "d");
    assert_walk(s, &["d/", "d/0", "d/1", "d/2", "p/"]);
}

fn absolute_in_lowers(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("x/y/a/0", "0");
    s.add_lower().dir("p").file("b/1", "1").set_xattr("b", &name, "/x/y/a");
    s.add_lower().file("p/c/2", "2").set_xattr("p/c", &name, "/b");
    let Some(m) = mount_with(s, "follow") else { return };
    let shown =
        ["b/", "b/0", "b/1", "p/", "p/c/", "p/c/0", "p/c/1", "p/c/2", "x/", "x/y/", "x/y/a/"];
    let mut shown = shown.to_vec();
    shown.push("x/y/a/0");
    assert_eq!(m.walk(""), shown);
    assert_errno(plain(&m, "b", "c"), Errno::XDEV);
    assert_walk(s, &shown);
}

/// A directory on the way of an absolute redirect was itself moved in a middle layer.
fn absolute_through_a_moved_parent(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("old/d/0", "0").file("old/e/0", "0");
    s.add_lower().whiteout("old").file("p/d/1", "1").set_xattr("p", &name, "old");
    s.add_lower().file("top/2", "2").set_xattr("top", &name, "/p/d").dir("p").whiteout("p/d");
    s.scratch().dir("lower2/other").set_xattr("lower2/other", &name, "/p/e").dir("lower1");
    let Some(m) = mount_with(s, "on") else { return };
    assert_eq!(
        m.walk(""),
        ["other/", "other/0", "p/", "p/e/", "p/e/0", "top/", "top/0", "top/1", "top/2"]
    );
    m.rename("other", "p/o");
    m.rename("top", "t");
    m.rename("t", "p/t");
    assert_walk(s, &["p/", "p/e/", "p/e/0", "p/o/", "p/o/0", "p/t/", "p/t/0", "p/t/1", "p/t/2"]);
}

/// An opaque directory on the way ends the search, unless a redirect leads out of it.
fn absolute_out_of_an_opaque_parent(s: &mut Sandbox) {
    let (name, opaque) = (s.overlay_xattr("redirect"), s.overlay_xattr("opaque"));
    s.lower().file("p/d/0", "no").file("x/0", "0");
    let middle = s.add_lower();
    middle.file("p/d/1", "1").file("p/e/1", "1").set_xattr("p", &opaque, "y");
    middle.set_xattr("p/e", &name, "/x");
    s.add_lower().dir("a").set_xattr("a", &name, "/p/d").dir("b").set_xattr("b", &name, "/p/e");
    let Some(m) = mount_with(s, "on") else { return };
    assert_eq!((m.names("a"), m.names("b")), (vec!["1".into()], vec!["0".into(), "1".into()]));
}

fn follow_makes_none(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("old/f", "f");
    s.upper().dir("new").set_xattr("new", &name, "old").whiteout("old");
    let Some(m) = mount_with(s, "follow") else { return };
    assert_eq!(m.walk(""), ["new/", "new/f"]);
    assert_errno(plain(&m, "new", "newer"), Errno::XDEV);
    m.mkdir("made");
    assert!(!is_opaque(s, "made"));
}

fn nofollow_refuses(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("old/f", "f").dir("d");
    s.upper().dir("new").set_xattr("new", &name, "old").whiteout("old");
    s.upper().dir("lost").set_xattr("lost", &name, "nowhere");
    let Some(m) = mount_with(s, "nofollow") else { return };
    assert_eq!(m.names(""), ["d", "lost", "new"]);
    assert_errno(rustix::fs::stat(m.at("new")).map(drop), Errno::PERM);
    assert_errno(rustix::fs::stat(m.at("lost")).map(drop), Errno::PERM);
    assert_errno(plain(&m, "d", "e"), Errno::XDEV);
    // What is refused cannot be compared.
    s.unmount();
}

fn default_refuses(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("old/f", "f");
    s.upper().dir("new").set_xattr("new", &name, "/old").whiteout("old");
    let m = s.mount();
    assert_errno(rustix::fs::stat(m.at("new")).map(drop), Errno::PERM);
    // What is refused cannot be compared.
    s.unmount();
}

fn off_follows(s: &mut Sandbox) {
    let name = s.overlay_xattr("redirect");
    s.lower().file("old/f", "f");
    s.upper().dir("new").set_xattr("new", &name, "/old").whiteout("old");
    let Some(m) = mount_with(s, "off") else { return };
    assert_eq!(m.walk(""), ["new/", "new/f"]);
    assert_errno(plain(&m, "new", "newer"), Errno::XDEV);
}

fn deep_rename_in_pure(s: &mut Sandbox) {
    s.lower().file("p/d/sub/f", "f");
    let Some(m) = mount_with(s, "on") else { return };
    m.mkdir("u");
    m.mkdir("u/v");
    m.rename("p/d", "u/v/d");
    m.rename("u", "w");
    m.rename("w/v/d/sub", "w/sub");
    assert_eq!(redirect(s, "w/v/d").as_deref(), Some("/p/d"));
    assert_eq!(redirect(s, "w/sub").as_deref(), Some("/p/d/sub"));
    assert!(s.upper().is_whiteout("w/v/d/sub"));
    assert_walk(s, &["p/", "w/", "w/sub/", "w/sub/f", "w/v/", "w/v/d/"]);
}

fn whiteouts_move_along(s: &mut Sandbox) {
    s.lower().file("d/gone", "").file("d/stays", "").file("d/sub/gone", "");
    let Some(m) = mount_with(s, "on") else { return };
    m.unlink("d/gone");
    m.rename("d", "e");
    m.unlink("e/sub/gone");
    m.rename("e", "d");
    assert_walk(s, &["d/", "d/stays", "d/sub/"]);
}

fn hard_links_inside(s: &mut Sandbox) {
    s.lower().file("d/a", "x").link("d/a", "d/b");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("d", "e");
    m.append("e/a", "+");
    assert_eq!((m.text("e/a"), m.text("e/b")), ("x+".into(), "x".into()));
    assert_walk(s, &["e/", "e/a", "e/b"]);
}

/// Every mark of every directory, after a chain of renames.
fn on_disk_as_the_kernel(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("p/d/sub/g", "g").dir("q").dir("r");
    let Some(m) = mount_with(s, "on") else { return };
    m.rename("p/d", "q/d");
    m.rename("q/d/sub", "q/d/sub2");
    m.rename("q", "r/q");
    m.rename("r/q/d/f", "r/f");
    let marks = |path: &str| {
        let names = s.upper().xattr_names(path);
        let own = names.iter().filter_map(|name| name.strip_prefix("trusted.overlay."));
        own.filter(|name| *name != "uuid").collect::<Vec<_>>().join(" ")
    };
    let found: Vec<_> = ["", "p", "r", "r/q", "r/q/d", "r/q/d/sub2", "r/f"].map(marks).into();
    let want = [
        "impure",
        "impure origin",
        "impure origin",
        "impure origin redirect",
        "impure origin redirect",
        "origin redirect",
        "origin",
    ];
    assert_eq!(found, want);
    assert_eq!(redirect(s, "r/q/d/sub2").as_deref(), Some("sub"));
}
