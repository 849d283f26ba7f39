//! `whiteouts=dot_wh`: whiteouts as container tools unpack them, in upper. Names are changed in the
//! kernel's format only, so that its overlayfs agrees once every directory with marks was changed.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, lstat};
use rustix::io::Errno;

use crate::common::{Backend, Sandbox, Tree, assert_errno, backend};

mounted_tests! {
    [root userns user]:
        hidden, new_objects, removed_directories, opaque_directory, what_stands_beside;
    [user]: unreadable_directory;
    [root userns]:
        hidden_in_lowers_below_upper, over_an_emptied_directory, names_that_cannot_be_made,
        failed_changes_leave_times, half_changed, marks_of_tools, reading_changes_nothing;
}

/// Mounts with `whiteouts=dot_wh`; `None` for the kernel, which knows no such thing.
fn mount(s: &mut Sandbox) -> Option<Tree> {
    s.option("whiteouts=dot_wh");
    (backend() == Backend::Ovlfuse).then(|| s.mount())
}

#[track_caller]
fn assert_gone(m: &Tree, paths: &[&str]) {
    for path in paths {
        assert_errno(lstat(m.at(path)), Errno::NOENT);
    }
}

/// A mark in upper for each of `names`, all of which lower has.
fn marked(s: &Sandbox, names: &[&str]) {
    for name in names {
        s.lower().file(name, "lower");
        s.upper().file(format!(".wh.{name}"), "");
    }
}

fn hidden(s: &mut Sandbox) {
    marked(s, &["f", "g"]);
    s.lower().file("d/x", "").file("opaque/x", "").file("opaque/sub/x", "").file("kept/x", "");
    s.upper().file("d/.wh.x", "").file("opaque/.wh..wh..opq", "").file("opaque/y", "");
    s.upper().dir("opaque/sub").file(".wh.kept-not", "").file("kept/y", "");
    let Some(m) = mount(s) else { return };
    let gone = ["f", "d/x", "opaque/x", "opaque/sub/x", ".wh.f", "d/.wh.x", "opaque/.wh..wh..opq"];
    // Once without listings, which are an index, and once with them.
    for _ in 0..2 {
        assert_gone(&m, &gone);
        assert_eq!(m.names(""), ["d", "kept", "opaque"]);
        assert_eq!(m.names("opaque"), ["sub", "y"]);
        assert_eq!([m.names("d"), m.names("opaque/sub")], [[""; 0]; 2]);
        assert_eq!(m.names("kept"), ["x", "y"]);
    }
    s.kernel_disagrees("it reads no .wh. names");
}

fn reading_changes_nothing(s: &mut Sandbox) {
    marked(s, &["f"]);
    s.lower().file("d/x", "");
    s.upper().file("d/.wh..wh..opq", "");
    let before = s.upper().walk("");
    let Some(m) = mount(s) else { return };
    assert_eq!(m.walk("").len(), 1);
    m.chmod("d", 0o711);
    assert_eq!(s.upper().walk(""), before);
    s.kernel_disagrees("it reads no .wh. names");
}

fn hidden_in_lowers_below_upper(s: &mut Sandbox) {
    s.lower().file("f", "0").file("d/x", "0");
    s.add_lower().file(".wh.f", "").file("d/.wh..wh..opq", "");
    s.upper().file("d/y", "");
    let Some(m) = mount(s) else { return };
    assert_eq!(m.names("d"), ["y"]);
    m.file("f", "new").unlink("f");
    assert!(!s.upper().exists("f"), "nothing to hide below");
    assert_gone(&m, &["f"]);
    s.kernel_disagrees("it reads no .wh. names");
}

fn new_objects(s: &mut Sandbox) {
    marked(s, &["file", "pipe", "symlink", "link", "moved", "moved-dir"]);
    s.lower().file("dir/below", "");
    s.upper().file(".wh.dir", "").file("source", "s").file("source-dir/in", "");
    let Some(m) = mount(s) else { return };
    m.file("file", "new").fifo("pipe").symlink("t", "symlink").link("source", "link");
    m.mkdir("dir");
    m.rename("source", "moved");
    m.rename("source-dir", "moved-dir");
    assert_eq!(m.names("dir"), [""; 0]);
    assert_eq!(m.names("moved-dir"), ["in"]);
    assert_eq!([m.text("file"), m.text("link"), m.text("moved")], ["new", "s", "s"]);
    let marks = || s.upper().walk("").into_iter().filter(|path| path.contains(".wh."));
    assert_eq!(marks().next(), None);
    let m = s.remount();
    assert_eq!(m.names(""), ["dir", "file", "link", "moved", "moved-dir", "pipe", "symlink"]);
    for name in ["file", "pipe", "symlink", "link", "moved"] {
        m.unlink(name);
    }
    m.rmdir("dir");
    m.remove_all("moved-dir");
    let m = s.remount();
    assert_eq!(m.names(""), [""; 0]);
}

fn removed_directories(s: &mut Sandbox) {
    for name in ["marks", "opaque", "all"] {
        s.lower().file(format!("{name}/x"), "");
    }
    s.upper().file("marks/.wh.x", "").file("opaque/.wh..wh..opq", "");
    s.upper().file("all/.wh..wh..opq", "").file("all/.wh.x", "").file("all/.wh..opq", "");
    s.upper().file("alone/.wh.x", "");
    let Some(m) = mount(s) else { return };
    for name in ["marks", "opaque", "all", "alone"] {
        m.rmdir(name);
    }
    assert_eq!(m.names(""), [""; 0]);
    assert_eq!(s.upper().names(""), ["all", "marks", "opaque"]);
    assert!(["all", "marks", "opaque"].iter().all(|name| s.upper().is_whiteout(name)));
}

fn opaque_directory(s: &mut Sandbox) {
    s.lower().file("d/x", "").file("d/sub/x", "").file("e/x", "");
    s.upper().file("d/.wh..wh..opq", "").file("d/y", "").file("e/.wh..wh..opq", "");
    let Some(m) = mount(s) else { return };
    // The directory above is changed first: that must not make the marks inside forgotten.
    m.write("new", "");
    assert_eq!(m.names("d"), ["y"]);
    m.unlink("d/y");
    m.mkdir("d/sub");
    m.rename("e", "e2");
    m.write("e2/z", "");
    assert_eq!([m.names("d"), m.names("d/sub"), m.names("e2")], [vec!["sub"], vec![], vec!["z"]]);
    assert_eq!([s.upper().names("d"), s.upper().names("e2")], [["sub"], ["z"]]);
    let opaque = s.overlay_xattr("opaque");
    assert_eq!(s.upper().xattr("d", opaque).as_deref(), Some(&b"y"[..]));
}

/// A mark hides what is below, not what its own layer has.
fn what_stands_beside(s: &mut Sandbox) {
    marked(s, &["f", "gone"]);
    s.lower().file("d/below", "");
    s.upper().file("f", "upper").file("d/above", "").file(".wh.d", "");
    let Some(m) = mount(s) else { return };
    assert_eq!(m.text("f"), "upper");
    assert_eq!(m.names("d"), ["above"]);
    assert_eq!(m.names(""), ["d", "f"]);
    m.unlink("f");
    assert_gone(&m, &["f", "d/below"]);
    assert_eq!(s.upper().names(""), ["d", "f", "gone"]);
}

fn over_an_emptied_directory(s: &mut Sandbox) {
    s.lower().file("victim/x", "");
    s.upper().file("victim/.wh.x", "").file("d/in", "");
    let Some(m) = mount(s) else { return };
    m.rename("d", "victim");
    assert_eq!(m.names("victim"), ["in"]);
}

fn names_that_cannot_be_made(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d");
    let Some(m) = mount(s) else { return };
    for name in [".wh.x", ".wh.", ".wh..wh..opq"] {
        let at = m.at(name);
        let create = OFlags::CREATE | OFlags::WRONLY;
        assert_errno(rustix::fs::open(&at, create, Mode::RWXU), Errno::INVAL);
        assert_errno(rustix::fs::mkdir(&at, Mode::RWXU), Errno::INVAL);
        assert_errno(rustix::fs::symlink("t", &at), Errno::INVAL);
        assert_errno(rustix::fs::linkat(CWD, m.at("f"), CWD, &at, AtFlags::empty()), Errno::INVAL);
        assert_errno(rustix::fs::rename(m.at("f"), &at), Errno::INVAL);
        assert_errno(rustix::fs::rename(m.at("d"), &at), Errno::INVAL);
        assert_errno(rustix::fs::unlink(&at), Errno::NOENT);
    }
    m.write(".whx", "");
}

fn failed_changes_leave_times(s: &mut Sandbox) {
    marked(s, &["f"]);
    s.upper().file("d/in", "").mtime("", 1_000_000_000, 1);
    let Some(m) = mount(s) else { return };
    assert_errno(rustix::fs::rmdir(m.at("d")), Errno::NOTEMPTY);
    assert_eq!(m.mtime_of(""), (1_000_000_000, 1));
    assert_eq!(m.names(""), ["d"]);
}

/// What a crash in the middle of replacing marks leaves.
fn half_changed(s: &mut Sandbox) {
    marked(s, &["f"]);
    s.lower().file("d/x", "");
    let opaque = s.overlay_xattr("opaque");
    s.upper().whiteout("f").file("d/.wh..wh..opq", "").set_xattr("d", opaque, "y");
    let Some(m) = mount(s) else { return };
    assert_eq!(m.names(""), ["d"]);
    assert_gone(&m, &["f", "d/x"]);
    m.write("f", "new");
    m.write("d/x", "new");
    assert_eq!(s.upper().walk(""), ["d/", "d/x", "f"]);
}

fn unreadable_directory(s: &mut Sandbox) {
    s.lower().file("d/f", "").file("d/sub/x", "");
    s.upper().file("d/.wh.f", "").file("d/.wh.sub", "").chmod("d", 0o300);
    let Some(m) = mount(s) else { return };
    m.write("d/f", "new");
    m.mkdir("d/sub");
    m.unlink("d/f");
    m.write("d/f", "again");
    let m = s.remount();
    m.chmod("d", 0o700);
    assert_eq!(m.names("d"), ["f", "sub"]);
    assert_eq!((m.text("d/f"), m.names("d/sub")), ("again".into(), Vec::new()));
    s.kernel_disagrees("it reads no .wh. names");
}

/// Marks that hide nothing are neither shown nor in the way; what one holds is not removed.
fn marks_of_tools(s: &mut Sandbox) {
    s.lower().file("d/x", "").file("e/x", "");
    s.upper().file("d/.wh..wh.aufs", "").file("d/.wh..opq", "").file("e/.wh.odd/in", "");
    let Some(m) = mount(s) else { return };
    assert_eq!([m.names("d"), m.names("e")], [["x"], ["x"]]);
    m.unlink("d/x");
    m.unlink("e/x");
    m.rmdir("d");
    assert!(s.upper().is_whiteout("d"));
    assert_errno(rustix::fs::rmdir(m.at("e")), Errno::NOTEMPTY);
    assert_eq!(s.upper().names("e/.wh.odd"), ["in"]);
    s.kernel_disagrees("it shows the directory called .wh.odd");
}
