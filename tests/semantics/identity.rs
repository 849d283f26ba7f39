//! Inode numbers, link counts, device numbers.

use rustix::fs::{OFlags, fstat};

use crate::common::scratch::Filesystem;
use crate::common::{Backend, Sandbox, backend, dirents, wait};

mounted_tests! {
    [root userns user]: numbers_survive_copy_up, entries_carry_the_same_numbers, lower_hard_links_share_a_number;
    [root userns]:
        copy_up_breaks_lower_hard_links, new_hard_links, link_counts_of_directories, one_device_number,
        single_layer_numbers_are_the_layers, dot_and_dotdot, links_made_and_removed, open_descriptor_keeps_its_number,
        links_across_directories, hard_link_limit_and_refusals;
    [root]: numbers_survive_remount, layers_on_several_filesystems, hard_links_after_remount,
        numbers_of_what_was_forgotten;
    [root userns user]: identifier_of_a_new_upper;
    [root userns]: identifier_of_an_old_upper, identifier_only_when_asked_for,
        origins_without_file_system;
}

fn numbers_survive_copy_up(s: &mut Sandbox) {
    s.lower().file("f", "x").dir("d").file("d/g", "x").fifo("p").symlink("t", "l");
    let m = s.mount();
    let paths = ["f", "d", "d/g", "p"];
    let before = paths.map(|path| m.ino(path));
    // What is forgotten, as in another test, shows the copy's number without an origin.
    let _remembered = paths.map(|path| m.open(path, OFlags::PATH));
    m.append("f", "+");
    m.chmod("p", 0o600);
    m.append("d/g", "+");
    m.chmod("d", 0o700);
    assert_eq!(paths.map(|path| m.ino(path)), before);
    assert_eq!(before[0], s.lower().ino("f"));
    assert_ne!(s.upper().ino("f"), before[0], "upper has a file of its own");
}

fn numbers_survive_remount(s: &mut Sandbox) {
    s.lower().file("f", "x").dir("d").file("d/g", "x").symlink("t", "l").fifo("p");
    s.add_lower().file("d/h", "x");
    let m = s.mount();
    let paths = ["f", "d", "d/g", "d/h", "l", "p"];
    let before = paths.map(|path| m.ino(path));
    m.append("f", "+");
    m.chmod("d", 0o700);
    m.append("d/h", "+");
    m.chown("l", 3001, 3001);
    m.chmod("p", 0o600);
    assert_eq!(paths.map(|path| m.ino(path)), before, "after copy-up");
    let m = s.remount();
    assert_eq!(paths.map(|path| m.ino(path)), before, "after the remount");
    m.rename("f", "renamed");
    assert_eq!(m.ino("renamed"), before[0]);
    let m = s.remount();
    assert_eq!(m.ino("renamed"), before[0]);
}

/// Without an origin a copy shows its own number once the kernel has forgotten the inode; so do
/// the listings that it has not forgotten.
fn numbers_of_what_was_forgotten(s: &mut Sandbox) {
    s.lower().file("d/f", "x");
    s.option("userxattr");
    let m = s.mount();
    let _remembered = m.open("d", OFlags::RDONLY | OFlags::DIRECTORY);
    m.chmod("d/f", 0o600);
    let listed = || {
        let entries = dirents::all(m.at("d"), OFlags::RDONLY);
        entries.into_iter().find(|entry| entry.name == *"f").expect("the file").ino
    };
    assert_eq!(listed(), m.ino("d/f"));
    wait::until("the file is forgotten", || {
        std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        // As root the kernel stores an origin beside userxattr, too.
        backend() == Backend::Kernel || m.ino("d/f") == s.upper().ino("d/f")
    });
    wait::until("the listing has the number of the copy", || listed() == m.ino("d/f"));
}

fn entries_carry_the_same_numbers(s: &mut Sandbox) {
    s.lower()
        .file("d/low", "")
        .file("d/copied", "")
        .dir("d/sub")
        .file("d/renamed", "")
        .symlink("t", "d/l");
    s.add_lower().file("d/middle", "").dir("d/sub");
    s.upper().file("d/up", "");
    let m = s.mount();
    m.append("d/copied", "+");
    m.rename("d/renamed", "d/new-name");
    m.write("d/new", "");
    m.mkdir("d/new-dir");
    m.chmod("d/sub", 0o700);
    for entry in dirents::all(m.at("d"), OFlags::empty()) {
        if entry.name != ".." {
            assert_eq!(entry.ino, m.ino(m.at("d").join(&entry.name)), "{:?}", entry.name);
        }
    }
}

fn dot_and_dotdot(s: &mut Sandbox) {
    s.lower().dir("a/b/c").dir("low");
    s.upper().dir("a/b").dir("pure/sub");
    let m = s.mount();
    m.chmod("a/b/c", 0o700);
    for (path, above) in
        [("a", ""), ("a/b", "a"), ("a/b/c", "a/b"), ("pure", ""), ("pure/sub", "pure")]
    {
        let entries = dirents::all(m.at(path), OFlags::empty());
        let number = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().ino;
        assert_eq!((number("."), number("..")), (m.ino(path), m.ino(above)), "{path}");
    }
}

fn lower_hard_links_share_a_number(s: &mut Sandbox) {
    s.lower().file("a", "x").dir("d").link("a", "b").link("a", "d/c");
    let m = s.mount();
    assert_eq!(m.ino("a"), m.ino("b"));
    assert_eq!(m.ino("a"), m.ino("d/c"));
    assert_eq!((m.nlink("a"), m.nlink("d/c")), (3, 3));
}

fn copy_up_breaks_lower_hard_links(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b").link("a", "c");
    let m = s.mount();
    let number = m.ino("a");
    m.append("a", "+");
    assert_eq!((m.text("a"), m.text("b"), m.text("c")), ("x+".into(), "x".into(), "x".into()));
    assert_ne!(m.ino("a"), number, "a file of its own");
    assert_eq!((m.ino("b"), m.ino("c")), (number, number));
    assert_eq!((m.nlink("a"), m.nlink("b")), (1, 3));
    m.chmod("b", 0o600);
    assert_ne!(m.ino("b"), m.ino("a"));
    assert_eq!(m.ino("c"), number);
    assert_eq!(m.mode("c"), 0o644);
}

fn hard_links_after_remount(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b").file("single", "x");
    let m = s.mount();
    m.append("a", "+");
    m.link("single", "double");
    let before = ["a", "b", "single", "double"].map(|path| m.ino(path));
    let m = s.remount();
    assert_eq!(["a", "b", "single", "double"].map(|path| m.ino(path)), before);
    assert_eq!(before[2], before[3]);
}

fn new_hard_links(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    m.write("a", "x");
    m.link("a", "b").link("b", "d/c");
    for path in ["a", "b", "d/c"] {
        assert_eq!((m.ino(path), m.nlink(path)), (m.ino("a"), 3));
        assert_eq!(s.upper().ino(path), s.upper().ino("a"));
    }
    m.append("d/c", "y");
    assert_eq!(m.text("a"), "xy");
    m.chmod("b", 0o600);
    assert_eq!(m.mode("a"), 0o600);
    let m = s.remount();
    assert_eq!((m.ino("a"), m.nlink("a")), (m.ino("d/c"), 3));
}

fn links_made_and_removed(s: &mut Sandbox) {
    s.lower().file("low", "x");
    let m = s.mount();
    m.write("up", "x");
    for (name, own) in [("low", "l"), ("up", "u")] {
        for count in 2..10_u64 {
            m.link(name, format!("{own}{count}"));
            assert_eq!(m.nlink(name), count);
        }
        for count in (2..10_u64).rev() {
            m.unlink(format!("{own}{count}"));
            assert_eq!(m.nlink(name), count - 1);
        }
    }
}

fn links_across_directories(s: &mut Sandbox) {
    s.lower().file("p/f", "x").dir("q");
    let m = s.mount();
    m.link("p/f", "q/f");
    m.unlink("p/f");
    assert!(s.upper().is_whiteout("p/f"));
    assert_eq!((m.text("q/f"), m.nlink("q/f")), ("x".into(), 1));
    assert_eq!(m.walk(""), ["p/", "q/", "q/f"]);
}

fn hard_link_limit_and_refusals(s: &mut Sandbox) {
    use crate::common::assert_errno;
    use rustix::io::Errno;
    s.lower().file("f", "").dir("d").file("gone", "");
    let m = s.mount();
    m.unlink("gone");
    assert_errno(std::fs::hard_link(m.at("d"), m.at("x")), Errno::PERM);
    assert_errno(std::fs::hard_link(m.at("f"), m.at("d")), Errno::EXIST);
    assert_errno(std::fs::hard_link(m.at("f"), m.at("f")), Errno::EXIST);
    assert_errno(std::fs::hard_link(m.at("gone"), m.at("x")), Errno::NOENT);
    assert_errno(std::fs::hard_link(m.at("f"), s.scratch().at("outside")), Errno::XDEV);
    assert_eq!(m.names(""), ["d", "f"]);
}

fn link_counts_of_directories(s: &mut Sandbox) {
    s.lower().dir("low/a").dir("low/b").dir("merged/a");
    s.upper().dir("merged/b").dir("pure/a");
    let m = s.mount();
    assert_eq!(m.nlink("merged"), 1);
    assert_eq!(m.nlink("low"), s.lower().nlink("low"));
    assert_eq!(m.nlink("pure"), s.upper().nlink("pure"));
    assert_eq!(m.nlink(""), 1);
}

fn one_device_number(s: &mut Sandbox) {
    s.lower().file("low", "").dir("d").symlink("t", "l");
    let m = s.mount();
    m.write("up", "");
    let device = m.stat("").st_dev;
    for path in ["low", "d", "l", "up"] {
        assert_eq!(m.stat(path).st_dev, device, "{path}");
    }
}

fn single_layer_numbers_are_the_layers(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("t", "l");
    s.upper().file("up", "");
    let m = s.mount();
    for path in ["f", "d", "l"] {
        assert_eq!(m.ino(path), s.lower().ino(path));
    }
    assert_eq!(m.ino("up"), s.upper().ino("up"));
}

fn open_descriptor_keeps_its_number(s: &mut Sandbox) {
    s.lower().file("f", "x");
    let m = s.mount();
    let held = m.open("f", OFlags::RDONLY);
    let number = fstat(&held).unwrap().st_ino;
    m.append("f", "+");
    assert_eq!(fstat(&held).unwrap().st_ino, number);
    assert_eq!(m.ino("f"), number);
    let again = m.open("f", OFlags::RDWR);
    assert_eq!(fstat(&again).unwrap().st_ino, number);
}

/// Equal numbers in different layers must not become equal in the view.
fn layers_on_several_filesystems(s: &mut Sandbox) {
    let filesystems: Vec<Filesystem> = (0..3).map(|_| Filesystem::tmpfs("size=16m")).collect();
    for (index, filesystem) in filesystems.iter().take(2).enumerate() {
        let tree = crate::common::Tree::new(filesystem.path());
        tree.dir("lower");
        let lower = s.add_lower_at(tree.at("lower"));
        for name in 0..20 {
            lower.file(format!("{index}-{name}"), "");
        }
    }
    s.upper_in(filesystems[2].path());
    s.option("xino=on");
    for name in 0..20 {
        s.lower().file(format!("low-{name}"), "");
        s.upper().file(format!("up-{name}"), "");
    }
    let m = s.mount();
    let names = m.names("");
    let mut numbers: Vec<u64> = names.iter().map(|name| m.ino(name)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 80);
    let before = m.ino("0-3");
    m.append("0-3", "+");
    assert_eq!(m.ino("0-3"), before);
    let m = s.remount();
    assert_eq!(m.ino("0-3"), before);
    s.finish();
}

fn identifier_of_a_new_upper(s: &mut Sandbox) {
    s.lower().file("d/f", "lower");
    let uuid = s.overlay_xattr("uuid");
    s.mount();
    let first = s.upper().xattr("", &uuid).expect("an identifier");
    assert_eq!(first.len(), 16);
    let m = s.remount();
    assert_eq!(s.upper().xattr("", &uuid), Some(first), "it stays");
    assert_eq!(m.xattr_names(""), [""; 0]);
}

fn identifier_of_an_old_upper(s: &mut Sandbox) {
    s.lower().file("d/f", "lower");
    let (uuid, impure) = (s.overlay_xattr("uuid"), s.overlay_xattr("impure"));
    s.upper().set_xattr("", &impure, "y");
    s.mount();
    assert_eq!(s.upper().xattr("", &uuid), None);
    s.unmount();
    s.option("uuid=on");
    s.mount();
    assert_eq!(s.upper().xattr("", &uuid).expect("an identifier").len(), 16);
}

fn identifier_only_when_asked_for(s: &mut Sandbox) {
    s.lower().file("d/f", "lower");
    s.option("uuid=null");
    let m = s.mount();
    m.append("d/f", "+");
    assert_eq!(s.upper().xattr("", s.overlay_xattr("uuid")), None);
}

fn origins_without_file_system(s: &mut Sandbox) {
    s.lower().file("d/f", "lower");
    s.option("uuid=off");
    let m = s.mount();
    let ino = m.stat("d/f").st_ino;
    m.append("d/f", "+");
    assert_eq!(s.upper().xattr("", s.overlay_xattr("uuid")), None);
    let origin = s.upper().xattr("d/f", s.overlay_xattr("origin")).expect("an origin");
    if !origin.is_empty() {
        assert_eq!(origin[5..21], [0; 16], "{origin:?}");
        assert_eq!(s.remount().stat("d/f").st_ino, ino);
    }
}
