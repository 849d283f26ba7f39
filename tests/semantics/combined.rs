//! Options together that no kernel mount has, or of which one is ours: nothing is lost by them.

use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use crate::common::{Backend, Context, Sandbox, Tree, backend};

mounted_tests! {
    [root userns]: no_open_and_metacopy, no_open_and_index, copies_and_index, copies_and_data_only;
    [root]: passthrough_and_data_only;
}

const DATA: &[u8] = &[7; 100_000];

/// Mounts with `options`; `None` where the kernel has no such thing.
fn mount(s: &mut Sandbox, options: &[&str]) -> Option<Tree> {
    options.iter().for_each(|option| s.option(option));
    if s.context() != Context::root {
        s.kernel_disagrees("it has neither metacopy=on nor index=on in a user namespace");
    }
    (backend() == Backend::Ovlfuse).then(|| s.mount())
}

/// Makes `path` of a layer a metadata-only file of the size of [`DATA`] that leads to `target`.
fn bare(s: &Sandbox, layer: &Tree, path: &str, target: &str) {
    layer.file(path, "").truncate(path, DATA.len() as u64);
    layer.set_xattr(path, s.overlay_xattr("metacopy"), "");
    layer.set_xattr(path, s.overlay_xattr("redirect"), target);
}

fn is_bare(s: &Sandbox, path: &str) -> bool {
    s.upper().xattr(path, s.overlay_xattr("metacopy")).is_some()
}

fn no_open_and_metacopy(s: &mut Sandbox) {
    for name in ["open", "written", "unlinked", "moved", "cut"] {
        s.lower().file(name, DATA);
    }
    let Some(m) = mount(s, &["no_open", "metacopy=on"]) else { return };
    let open = m.open("open", OFlags::RDWR);
    m.chmod("open", 0o600);
    let mut read = vec![0; DATA.len()];
    open.read_exact_at(&mut read, 0).unwrap();
    assert!(read == DATA && is_bare(s, "open"));
    open.write_all_at(b"x", 0).unwrap();
    assert!(!is_bare(s, "open"));
    m.chmod("written", 0o600);
    m.append("written", "+");
    let unlinked = m.open("unlinked", OFlags::RDWR);
    m.chmod("unlinked", 0o600);
    m.unlink("unlinked");
    unlinked.write_all_at(b"x", DATA.len() as u64).unwrap();
    let mut read = vec![0; DATA.len() + 1];
    unlinked.read_exact_at(&mut read, 0).unwrap();
    assert!(read == [DATA, b"x"].concat());
    let moved = m.open("moved", OFlags::RDWR);
    m.rename("moved", "elsewhere");
    moved.write_all_at(b"x", 1).unwrap();
    m.chmod("cut", 0o600);
    m.truncate("cut", 3);
    let check = |m: &Tree| {
        assert!(m.read("open") == [b"x", &DATA[1..]].concat());
        assert!(m.read("written") == [DATA, b"+"].concat());
        assert!(m.read("elsewhere") == [&DATA[..1], b"x", &DATA[2..]].concat());
        assert!(m.read("cut") == DATA[..3] && !m.exists("unlinked"));
    };
    check(&m);
    drop((open, unlinked, moved));
    check(&s.remount());
}

fn no_open_and_index(s: &mut Sandbox) {
    s.lower().file("a", "1").dir("d").link("a", "d/b").link("a", "c");
    s.lower().file("e", "2").link("e", "f");
    let Some(m) = mount(s, &["no_open", "index=on"]) else { return };
    let (a, e) = (m.open("a", OFlags::RDWR), m.open("e", OFlags::RDWR));
    m.unlink("a");
    a.write_all_at(b"x", 1).unwrap();
    assert_eq!((m.text("d/b"), m.text("c"), m.nlink("c")), ("1x".into(), "1x".into(), 2));
    m.unlink("e");
    m.unlink("f");
    e.write_all_at(b"x", 1).unwrap();
    drop((a, e));
    let m = s.remount();
    assert_eq!((m.text("d/b"), m.text("c")), ("1x".into(), "1x".into()));
    assert_eq!((m.ino("c"), m.nlink("c"), m.exists("f")), (m.ino("d/b"), 2, false));
}

fn copies_and_index(s: &mut Sandbox) {
    s.lower().file("d/a", "1").link("d/a", "d/b").link("d/a", "outside").dir("d/sub");
    let Some(m) = mount(s, &["redirect_dir=copy", "index=on"]) else { return };
    s.ignore_inodes();
    m.rename("d", "e");
    m.append("e/b", "+");
    m.rename("e", "sub");
    m.append("outside", "-");
    let check = |m: &Tree| {
        for name in ["sub/a", "sub/b", "outside"] {
            assert_eq!((m.text(name), m.nlink(name)), ("1+-".into(), 3), "{name}");
            assert_eq!(m.ino(name), m.ino("outside"));
        }
        assert_eq!(m.walk(""), ["outside", "sub/", "sub/a", "sub/b", "sub/sub/"]);
    };
    check(&m);
    check(&s.remount());
}

/// What a directory needs of a data-only layer is copied up with it.
fn copies_and_data_only(s: &mut Sandbox) {
    s.add_data().file("x", DATA);
    let lower = s.lower();
    lower.dir("d/sub");
    bare(s, &lower, "d/sub/f", "/x");
    let Some(m) = mount(s, &["redirect_dir=copy"]) else { return };
    m.rename("d", "e");
    assert!(s.upper().read("e/sub/f") == DATA && !is_bare(s, "e/sub/f"));
    s.ignore_inodes();
    assert!(s.remount().read("e/sub/f") == DATA);
}

fn passthrough_and_data_only(s: &mut Sandbox) {
    s.add_data().file("x", DATA);
    let lower = s.lower();
    lower.file("plain", "plain").link("plain", "again");
    bare(s, &lower, "f", "/x");
    bare(s, &lower, "d/g", "/x");
    s.without_upper();
    let Some(m) = mount(s, &["passthrough"]) else { return };
    let (first, second) = (m.open("f", OFlags::RDONLY), m.open("f", OFlags::RDONLY));
    let mut read = vec![0; DATA.len()];
    first.read_exact_at(&mut read, 0).unwrap();
    drop(first);
    assert!(read == DATA && m.read("d/g") == DATA);
    second.read_exact_at(&mut read, 0).unwrap();
    assert!(read == DATA);
    assert_eq!((m.text("plain"), m.text("again")), ("plain".into(), "plain".into()));
}
