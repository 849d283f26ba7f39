//! `redirect_dir=copy`: renaming directories that have parts in lower layers by copying them up.
//!
//! There is nothing like it in the kernel, which mounts what it leaves behind without any option.

use std::io::{Read, Seek, Write};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::common::{Backend, Sandbox, Tree, assert_errno, backend};

mounted_tests! {
    [root userns user]:
        lower_directory, merged_directory_with_whiteouts, as_package_managers_do;
    [root userns]:
        across_directories, exchanged, over_an_empty_directory, not_over_a_full_one, there_and_back,
        many_layers, parts_made_before, deep_and_wide, open_files_go_on, changes_inside_meanwhile,
        read_only_directories, hard_links_inside, hard_links_in_use, unchanged_when_it_fails, with_few_descriptors, killed_on_the_way;
    [root]: numbers_and_attributes_stay, drops_an_old_redirect, metadata_only, every_type, failed_after_clearing;
}

/// Mounts with `redirect_dir=copy`; `None` where the kernel is asked, which knows no such thing.
fn mount(s: &mut Sandbox) -> Option<Tree> {
    if backend() == Backend::Kernel {
        return None;
    }
    s.option("redirect_dir=copy");
    // A directory that nothing is below any more shows the number it has in upper.
    s.ignore_inodes();
    Some(s.mount())
}

fn plain(m: &Tree, from: &str, to: &str) -> rustix::io::Result<()> {
    renameat_with(CWD, m.at(from), CWD, m.at(to), RenameFlags::empty())
}

fn exchange(m: &Tree, a: &str, b: &str) {
    renameat_with(CWD, m.at(a), CWD, m.at(b), RenameFlags::EXCHANGE).unwrap();
}

/// Asserts that `path` of upper is the whole directory: opaque, no redirect, no whiteout in it.
#[track_caller]
fn assert_detached(s: &Sandbox, path: &str, want: &[&str]) {
    let upper = s.upper();
    assert_eq!(upper.walk(path), want);
    assert_eq!(upper.xattr(path, s.overlay_xattr("opaque")).as_deref(), Some(&b"y"[..]));
    assert_eq!(upper.xattr(path, s.overlay_xattr("redirect")), None);
    for name in want {
        assert!(!upper.is_whiteout(format!("{path}/{}", name.trim_end_matches('/'))), "{name}");
    }
}

/// Asserts what the view holds, now and after a remount.
#[track_caller]
fn assert_walk(s: &mut Sandbox, want: &[&str]) {
    assert_eq!(s.merged().walk(""), want);
    assert_eq!(s.remount().walk(""), want, "after a remount");
}

fn lower_directory(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/sub/g", "g").mtime("d", 1_000_000_000, 7).chmod("d", 0o750);
    s.lower().mtime("d/sub", 1_000_000_000, 9);
    let Some(m) = mount(s) else { return };
    m.rename("d", "e");
    assert_eq!((m.mode("e"), m.mtime_of("e")), (0o750, (1_000_000_000, 7)));
    assert_eq!(m.mtime_of("e/sub"), (1_000_000_000, 9));
    assert_detached(s, "e", &["f", "sub/", "sub/g"]);
    assert!(s.upper().is_whiteout("d"));
    assert_walk(s, &["e/", "e/f", "e/sub/", "e/sub/g"]);
    assert_eq!(s.merged().text("e/sub/g"), "g");
}

fn merged_directory_with_whiteouts(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/gone", "").file("d/sub/g", "g").file("d/sub/gone", "");
    s.lower().file("d/old/x", "");
    let Some(m) = mount(s) else { return };
    m.unlink("d/gone");
    m.unlink("d/sub/gone");
    m.remove_all("d/old");
    m.write("d/new", "new");
    let times = (m.mtime_of("d"), m.mtime_of("d/sub"));
    m.rename("d", "e");
    assert_eq!((m.mtime_of("e"), m.mtime_of("e/sub")), times);
    assert_detached(s, "e", &["f", "new", "sub/", "sub/g"]);
    // Nothing lies below: no whiteout is needed any more.
    m.unlink("e/f");
    m.mkdir("e/f");
    m.rmdir("e/f");
    m.unlink("e/sub/g");
    assert_eq!((m.nlink("e"), m.nlink("e/sub")), (3, 2));
    assert_detached(s, "e", &["new", "sub/"]);
    assert_walk(s, &["e/", "e/new", "e/sub/"]);
}

/// A package is unpacked beside the old one, the directories are swapped, the old one goes.
fn as_package_managers_do(s: &mut Sandbox) {
    s.lower().file("lib/pkg/old.js", "1").file("lib/pkg/deep/er/f", "1").file("lib/pkg/same", "1");
    let Some(m) = mount(s) else { return };
    m.rename("lib/pkg", "lib/.pkg-old");
    m.mkdir("lib/pkg");
    m.write("lib/pkg/same", "2");
    m.remove_all("lib/.pkg-old");
    assert_eq!(m.walk("lib"), ["pkg/", "pkg/same"]);
    // And once more, with what is now in upper, and back as after an error.
    m.rename("lib/pkg", "lib/.pkg-old");
    m.rename("lib/.pkg-old", "lib/pkg");
    m.rename("lib", "usr-lib");
    m.symlink("usr-lib", "lib");
    assert_walk(s, &["lib", "usr-lib/", "usr-lib/pkg/", "usr-lib/pkg/same"]);
    assert_eq!(s.merged().text("lib/pkg/same"), "2");
    assert_eq!(s.upper().names(""), ["lib", "usr-lib"]);
}

fn across_directories(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("q/d/other", "").dir("r");
    let Some(m) = mount(s) else { return };
    m.rename("p/d", "r/d");
    assert_detached(s, "r/d", &["f"]);
    m.rename("q", "r/d/q");
    assert_walk(s, &["p/", "r/", "r/d/", "r/d/f", "r/d/q/", "r/d/q/d/", "r/d/q/d/other"]);
    let m = s.merged();
    assert_errno(plain(&m, "r", "r/d/r"), Errno::INVAL);
}

fn exchanged(s: &mut Sandbox) {
    s.lower().file("a/f", "a").file("b/g", "b").file("b/f", "below").file("file", "file");
    let Some(m) = mount(s) else { return };
    exchange(&m, "a", "b");
    assert_detached(s, "a", &["f", "g"]);
    assert_detached(s, "b", &["f"]);
    assert_eq!((m.text("a/f"), m.text("b/f")), ("below".into(), "a".into()));
    exchange(&m, "a", "file");
    assert_walk(s, &["a", "b/", "b/f", "file/", "file/f", "file/g"]);
    assert_eq!(s.merged().text("a"), "file");
}

fn over_an_empty_directory(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("e/x", "").dir("g");
    let Some(m) = mount(s) else { return };
    m.unlink("e/x");
    m.rename("d", "e");
    m.rename("e", "g");
    assert_detached(s, "g", &["f"]);
    assert_walk(s, &["g/", "g/f"]);
}

fn not_over_a_full_one(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("e/x", "").file("file", "");
    let Some(m) = mount(s) else { return };
    assert_errno(plain(&m, "d", "e"), Errno::NOTEMPTY);
    assert_errno(plain(&m, "d", "file"), Errno::NOTDIR);
    assert_errno(plain(&m, "file", "d"), Errno::ISDIR);
    let noreplace = renameat_with(CWD, m.at("d"), CWD, m.at("e"), RenameFlags::NOREPLACE);
    assert_errno(noreplace, Errno::EXIST);
    assert_eq!(s.upper().names(""), [""; 0], "nothing was copied for it");
}

fn there_and_back(s: &mut Sandbox) {
    s.lower().file("d/f", "f").file("d/gone", "").file("d/sub/g", "");
    let Some(m) = mount(s) else { return };
    m.unlink("d/gone");
    m.rename("d", "e");
    m.rename("e", "d");
    assert_detached(s, "d", &["f", "sub/", "sub/g"]);
    m.rename("d/sub", "sub");
    assert_walk(s, &["d/", "d/f", "sub/", "sub/g"]);
    assert_eq!(s.upper().names(""), ["d", "sub"]);
}

fn many_layers(s: &mut Sandbox) {
    s.lower().file("d/0", "0").file("d/s/0", "0").file("d/same", "0").file("d/hidden/x", "");
    for i in 1..6 {
        let lower = s.add_lower();
        lower.file(format!("d/{i}"), i.to_string()).file(format!("d/s/{i}"), "");
        lower.file("d/same", i.to_string());
    }
    s.add_lower().dir("d").whiteout("d/0").file("d/hidden", "");
    s.upper().file("d/u", "u");
    let Some(m) = mount(s) else { return };
    m.rename("d", "e");
    let want = [
        "1", "2", "3", "4", "5", "hidden", "s/", "s/0", "s/1", "s/2", "s/3", "s/4", "s/5", "same",
        "u",
    ];
    assert_detached(s, "e", &want);
    assert_eq!((m.text("e/same"), m.text("e/3")), ("5".into(), "3".into()));
    assert_eq!(s.remount().walk("e"), want);
}

/// Directories inside that were made, moved and removed before.
fn parts_made_before(s: &mut Sandbox) {
    s.lower().file("d/a/f", "a").file("d/b/f", "b").file("d/c/f", "c").file("x/f", "x");
    let Some(m) = mount(s) else { return };
    m.remove_all("d/a");
    m.mkdir("d/a");
    m.write("d/a/new", "");
    m.rename("x", "d/x");
    m.rename("d/b", "d/moved");
    m.rename("d", "e");
    assert_walk(
        s,
        &["e/", "e/a/", "e/a/new", "e/c/", "e/c/f", "e/moved/", "e/moved/f", "e/x/", "e/x/f"],
    );
    assert_eq!(s.merged().text("e/moved/f"), "b");
}

fn deep_and_wide(s: &mut Sandbox) {
    let deep = vec!["n"; 100].join("/");
    s.lower().file(format!("d/{deep}/f"), "deep");
    for i in 0..500 {
        s.lower().file(format!("d/wide/{i}"), i.to_string());
    }
    let Some(m) = mount(s) else { return };
    let before = s.descriptors();
    m.rename("d", "e");
    assert!(s.descriptors() <= before.map(|n| n + 150), "{:?} after {before:?}", s.descriptors());
    assert_eq!((m.names("e/wide").len(), m.text("e/wide/499")), (500, "499".into()));
    assert_eq!(s.remount().text(format!("e/{deep}/f")), "deep");
}

fn with_few_descriptors(s: &mut Sandbox) {
    let deep = vec!["n"; 100].join("/");
    s.lower().file(format!("d/{deep}/f"), "deep").file("d/g", "");
    s.max_descriptors(64);
    let Some(m) = mount(s) else { return };
    m.rename("d", "e");
    assert_eq!(m.text(format!("e/{deep}/f")), "deep");
}

fn open_files_go_on(s: &mut Sandbox) {
    s.lower().file("d/sub/f", "lower").file("d/sub/g", "lower");
    let Some(m) = mount(s) else { return };
    let mut reader = m.open("d/sub/f", OFlags::RDONLY);
    let mut writer = m.open("d/sub/g", OFlags::RDWR);
    let directory = m.open("d/sub", OFlags::RDONLY);
    let number = m.ino("d/sub/f");
    m.rename("d", "e");
    m.write("e/sub/f", "new in upper");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "new in upper");
    writer.write_all(b"written").unwrap();
    writer.rewind().unwrap();
    assert_eq!(s.upper().text("e/sub/g"), "written");
    let seen = rustix::fs::statat(&directory, "f", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!((seen.st_ino, m.ino("e/sub/f")), (number, number));
    m.rename("e/sub", "out");
    rustix::fs::statat(&directory, "g", rustix::fs::AtFlags::empty()).unwrap();
}

/// Others read and change the tree while it moves to and fro.
fn changes_inside_meanwhile(s: &mut Sandbox) {
    for i in 0..40 {
        s.lower().file(format!("d{i}/a/f"), "lower").file(format!("d{i}/b/f"), "lower");
    }
    let Some(m) = mount(s) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..40 {
                m.rename(format!("d{i}"), format!("e{i}"));
            }
        });
        scope.spawn(|| {
            for i in 0..40 {
                let either = |tail: &str| {
                    let paths = ["d", "e"].map(|at| m.at(format!("{at}{i}/{tail}")));
                    paths
                        .into_iter()
                        .find_map(|p| std::fs::OpenOptions::new().append(true).open(p).ok())
                };
                // The rename may come between the two tries.
                let file = either("a/f").or_else(|| either("a/f"));
                file.unwrap().write_all(b"+").unwrap();
            }
        });
    });
    for i in 0..40 {
        assert_eq!(m.text(format!("e{i}/a/f")), "lower+", "e{i}");
        assert_eq!(m.text(format!("e{i}/b/f")), "lower");
    }
    assert_eq!(s.remount().text("e39/a/f"), "lower+");
}

fn read_only_directories(s: &mut Sandbox) {
    s.lower().file("d/sub/f", "f").file("d/sub/g", "g");
    s.lower().chmod("d/sub", 0o555).chmod("d", 0o555);
    let Some(m) = mount(s) else { return };
    m.unlink("d/sub/g");
    m.rename("d", "e");
    assert_eq!((m.mode("e"), m.mode("e/sub")), (0o555, 0o555));
    assert_detached(s, "e", &["sub/", "sub/f"]);
}

fn hard_links_inside(s: &mut Sandbox) {
    let low = s.lower();
    low.dir("d/sub")
        .file("d/a", "1")
        .link("d/a", "d/sub/b")
        .link("d/a", "d/c")
        .link("d/a", "outside");
    low.symlink("to", "d/l").link("d/l", "d/m").mtime("d/sub", 1_000_000_000, 9);
    let Some(m) = mount(s) else { return };
    // All the names are known to the kernel.
    m.walk("");
    let all = |m: &Tree| ["e/a", "e/sub/b", "e/c"].map(|path| (m.ino(path), m.nlink(path)));
    assert_eq!((m.nlink("d/a"), m.nlink("outside")), (4, 4));
    m.rename("d", "e");
    let [first, second, third] = all(&m);
    assert!(first == second && second == third && first.1 == 3, "{first:?} {second:?} {third:?}");
    assert_ne!(m.ino("outside"), first.0);
    assert_eq!(m.mtime_of("e/sub"), (1_000_000_000, 9));
    m.append("e/sub/b", "+");
    m.append("e/c", "-");
    assert_eq!(
        ["e/a", "e/sub/b", "e/c", "outside"].map(|path| m.text(path)),
        ["1+-", "1+-", "1+-", "1"]
    );
    assert_eq!((m.nlink("e/l"), m.ino("e/l")), (2, m.ino("e/m")));
    m.unlink("e/c");
    assert_eq!((m.nlink("e/a"), m.nlink("e/sub/b")), (2, 2));
    m.rename("e/sub/b", "e/a");
    m.unlink("e/a");
    let m = s.remount();
    assert_eq!((m.nlink("e/sub/b"), m.text("e/sub/b")), (1, "1+-".into()));
}

/// Names that somebody uses by all means while they are joined.
fn hard_links_in_use(s: &mut Sandbox) {
    for name in ["a", "b", "c", "d", "e", "f"] {
        s.lower().file(format!("d/{name}"), name);
        for i in 0..3 {
            s.lower().link(format!("d/{name}"), format!("d/{name}{i}"));
        }
    }
    let Some(m) = mount(s) else { return };
    m.walk("");
    let mut open = m.open("d/a1", OFlags::RDONLY);
    m.rename("d", "e");
    // First uses of names that were joined: each is looked up again.
    for i in 0..3 {
        m.append(format!("e/b{i}"), "+");
        m.chmod(format!("e/c{i}"), 0o640 + i);
        m.truncate(format!("e/d{i}"), u64::from(i));
        m.link(format!("e/e{i}"), format!("e/new{i}"));
        m.rename(format!("e/f{i}"), format!("e/moved{i}"));
    }
    assert_eq!((m.text("e/b"), m.mode("e/c"), m.read("e/d").len()), ("b+++".into(), 0o642, 2));
    assert_eq!((m.nlink("e/e"), m.nlink("e/new1"), m.nlink("e/f")), (7, 7, 4));
    m.append("e/a1", "+");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a+", "what is open goes on with its own file");
}

/// A file that may not be copied whole: all is as it was, under the old name.
fn unchanged_when_it_fails(s: &mut Sandbox) {
    s.lower().file("d/a/f", "f").file("d/z/big", vec![1; 1 << 20]).file("d/z/gone", "");
    s.max_file_size(64 << 10);
    let Some(m) = mount(s) else { return };
    m.unlink("d/z/gone");
    assert_errno(plain(&m, "d", "e"), Errno::FBIG);
    m.append("d/a/f", "+");
    assert_walk(s, &["d/", "d/a/", "d/a/f", "d/z/", "d/z/big"]);
    let m = s.merged();
    assert_eq!((m.text("d/a/f"), m.read("d/z/big").len()), ("f+".into(), 1 << 20));
    m.unlink("d/z/big");
    m.rename("d", "e");
    assert_detached(s, "e", &["a/", "a/f", "z/"]);
}

/// Killed at any moment it leaves the whole tree under one of the two names.
fn killed_on_the_way(s: &mut Sandbox) {
    for i in 0..30 {
        s.lower().file(format!("d/{i}/f"), "lower").file(format!("d/{i}/gone"), "");
    }
    let Some(m) = mount(s) else { return };
    (0..30).for_each(|i| m.unlink(format!("d/{i}/gone")));
    let mut want = m.walk("d");
    for (round, seen) in ["d/29/f", "d/17/f", "d/5/f", "d/0/f"].into_iter().enumerate() {
        let renaming = {
            let m = s.merged();
            // The daemon dies, or the rename is done.
            std::thread::spawn(move || plain(&m, "d", "e").is_ok())
        };
        while !s.upper().at(seen).exists() && !s.upper().at("e").exists() {
            std::thread::yield_now();
        }
        s.crash();
        let done = renaming.join().unwrap();
        let m = s.mount();
        let names = m.names("");
        assert!(names == ["e"] || names == ["d"] && !done, "{names:?} in round {round}");
        assert_eq!(m.walk(&names[0]), want);
        if names == ["e"] {
            m.rename("e", "d");
        }
        m.write(format!("d/new{round}"), "");
        want = m.walk("d");
    }
}

fn numbers_and_attributes_stay(s: &mut Sandbox) {
    let low = s.lower();
    low.file("d/f", "f").chown("d/f", 7, 8).chmod("d/f", 0o4755).set_xattr("d/f", "user.a", "1");
    low.dir("d/sub").chown("d/sub", 9, 9).chmod("d/sub", 0o2770).set_xattr("d/sub", "user.b", "2");
    low.file("d/sparse", "").truncate("d/sparse", 64 << 20);
    let Some(m) = mount(s) else { return };
    let before = ["d", "d/f", "d/sub", "d/sparse"].map(|path| m.ino(path));
    m.rename("d", "e");
    assert_eq!(["e", "e/f", "e/sub", "e/sparse"].map(|path| m.ino(path)), before);
    assert_eq!((m.mode("e/f"), m.owner("e/f")), (0o4755, (7, 8)));
    assert_eq!((m.mode("e/sub"), m.owner("e/sub")), (0o2770, (9, 9)));
    assert_eq!(m.xattr("e/f", "user.a").unwrap(), b"1");
    assert_eq!(m.xattr("e/sub", "user.b").unwrap(), b"2");
    assert!(s.upper().stat("e/sparse").st_blocks < 64);
    let m = s.remount();
    assert_eq!(["e/f", "e/sparse"].map(|path| m.ino(path)), [before[1], before[3]]);
}

fn drops_an_old_redirect(s: &mut Sandbox) {
    s.lower().file("old/f", "f").file("old/sub/g", "g");
    s.upper().dir("d").whiteout("old");
    s.upper().set_xattr("d", s.overlay_xattr("redirect"), "old");
    let Some(m) = mount(s) else { return };
    assert_eq!(m.walk("d"), ["f", "sub/", "sub/g"]);
    m.rename("d", "e");
    assert_detached(s, "e", &["f", "sub/", "sub/g"]);
    assert_walk(s, &["e/", "e/f", "e/sub/", "e/sub/g"]);
}

/// The data of a file that has but its metadata in upper would be lost.
fn metadata_only(s: &mut Sandbox) {
    s.lower().file("d/f", "data").file("d/g", "");
    s.upper().file("d/f", "").truncate("d/f", 4);
    s.upper().set_xattr("d/f", s.overlay_xattr("metacopy"), "");
    let Some(m) = mount(s) else { return };
    assert!(plain(&m, "d", "e").is_err(), "the file cannot be read");
    assert_eq!(s.upper().xattr("d", s.overlay_xattr("opaque")), None);
    assert_eq!(s.upper().names(""), ["d"]);
    s.unmount();
}

fn every_type(s: &mut Sandbox) {
    let low = s.lower();
    low.file("d/f", "f").fifo("d/p").symlink("to", "d/l");
    low.mknod("d/c", rustix::fs::FileType::CharacterDevice, 0o600, (1, 3));
    let Some(m) = mount(s) else { return };
    m.rename("d", "e");
    assert_detached(s, "e", &["c", "f", "l", "p"]);
    assert_eq!(m.target("e/l"), std::path::PathBuf::from("to"));
    let device = m.stat("e/c").st_rdev;
    assert_eq!(device, rustix::fs::makedev(1, 3));
}

/// What has emptied a directory of whiteouts in upper knows that nothing is below it then, even
/// if the rename over it fails.
fn failed_after_clearing(s: &mut Sandbox) {
    let long = vec!["n".repeat(100); 3].join("/");
    s.lower().file(format!("{long}/d/f"), "f").file("e/x/deep", "");
    s.option("redirect_dir=on");
    let m = s.mount();
    m.remove_all("e/x");
    assert_eq!(m.nlink("e"), 1);
    assert_errno(plain(&m, &format!("{long}/d"), "e"), Errno::XDEV);
    assert_eq!((m.nlink("e"), m.names("e")), (2, vec![]));
    m.mkdir("e/x");
    assert_eq!(m.names("e/x"), [""; 0]);
    assert_eq!(s.remount().names("e/x"), [""; 0]);
    s.ignore_inodes();
}
