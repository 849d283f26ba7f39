//! `index=on`: the names of a lower file stay names of one file when it is copied up.

use std::collections::HashMap;
use std::io::{Read, Seek};

use rustix::fs::{CWD, OFlags, RenameFlags, fstat, renameat_with};

use crate::common::{Backend, Context, Sandbox, Tree, assert_errno, backend, mount, wait};

mounted_tests! {
    [root userns]:
        names_stay_one_file, open_files_follow, removed_one_after_another, removed_while_open,
        renamed_away, renamed_over, exchanged, linked_again, in_directories_of_their_own,
        found_after_a_remount, one_name_has_no_entry, in_two_layers, special_files,
        new_directory_is_opaque, in_a_moved_directory, other_layers_are_refused, foreign_entries_are_refused,
        leftovers_are_removed, entry_without_names_in_upper, read_only_files, killed_at_any_moment,
        many_at_once;
    [root]: each_in_turn, on_disk_as_the_kernel, counted_from_the_lower_file, off_again, useless_without_upper;
    [user]: refused_to_ordinary_users;
}

/// A file with the names `a`, `b` and `d/c`.
fn three_names(s: &Sandbox) {
    s.lower().file("a", "x").dir("d").link("a", "b").link("a", "d/c");
}

/// Asserts that `names` are one file with this content, and that it has no other.
#[track_caller]
fn assert_one(m: &Tree, names: &[&str], text: &str) {
    for name in names {
        assert_eq!(m.text(name), text, "{name}");
        assert_eq!((m.ino(name), m.nlink(name)), (m.ino(names[0]), names.len() as u64), "{name}");
    }
}

/// The names of the entries in the index, whiteouts left out.
#[track_caller]
fn entries(s: &Sandbox) -> Vec<String> {
    let mut names = s.work().names("index");
    names.retain(|name| !name.starts_with('#'));
    names
}

/// What `overlay.nlink` says on the only entry.
#[track_caller]
fn nlink(s: &Sandbox) -> String {
    let entries = entries(s);
    assert_eq!(entries.len(), 1, "{entries:?}");
    let value = s.work().sub("index").xattr(&entries[0], s.overlay_xattr("nlink")).unwrap();
    String::from_utf8(value).unwrap()
}

fn names_stay_one_file(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    assert_one(&m, &["a", "b", "d/c"], "x");
    let number = m.ino("a");
    m.append("b", "+");
    assert_one(&m, &["a", "b", "d/c"], "x+");
    assert_eq!(m.ino("a"), number);
    m.chmod("d/c", 0o600).set_xattr("a", "user.x", "1");
    assert_eq!((m.mode("a"), m.xattr("b", "user.x")), (0o600, Some(b"1".to_vec())));
    assert_eq!((entries(s).len(), nlink(s).starts_with('U')), (1, true));
    assert_one(&s.remount(), &["d/c", "b", "a"], "x+");
}

fn open_files_follow(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    let mut readers = ["a", "b", "d/c"].map(|name| m.open(name, OFlags::RDONLY));
    m.append("d/c", "+");
    for mut reader in &readers {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x+");
        assert_eq!(fstat(reader).unwrap().st_ino, m.ino("a"));
    }
    m.unlink("a");
    m.write("b", "new");
    for reader in &mut readers {
        let mut text = String::new();
        reader.rewind().unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fstat(&reader).unwrap().st_nlink), ("new", 2));
    }
}

fn removed_one_after_another(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.unlink("b");
    assert_one(&m, &["a", "d/c"], "x");
    assert!(s.upper().is_whiteout("b"));
    assert_eq!((entries(s).len(), nlink(s).as_str()), (1, "U+1"));
    let m = s.remount();
    assert_one(&m, &["a", "d/c"], "x");
    m.append("d/c", "+");
    m.unlink("a");
    assert_one(&m, &["d/c"], "x+");
    let m = s.remount();
    assert_one(&m, &["d/c"], "x+");
    m.unlink("d/c");
    assert_eq!((m.walk(""), entries(s)), (vec!["d/".into()], vec![]));
    m.write("a", "another");
    assert_one(&s.remount(), &["a"], "another");
}

fn removed_while_open(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    let mut file = m.open("a", OFlags::RDWR);
    for (left, name) in [(2, "a"), (1, "d/c"), (0, "b")] {
        m.unlink(name);
        assert_eq!(fstat(&file).unwrap().st_nlink, left);
    }
    assert_eq!(entries(s), [""; 0]);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
    assert_eq!(rustix::io::write(&file, b"more"), Ok(4));
    assert_eq!(fstat(&file).unwrap().st_size, 5);
}

fn renamed_away(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.rename("b", "d/e");
    assert_one(&m, &["a", "d/c", "d/e"], "x");
    assert!(s.upper().is_whiteout("b") && !s.upper().exists("a"));
    m.rename("a", "d/e");
    assert_one(&m, &["a", "d/c", "d/e"], "x");
    m.append("d/e", "+");
    m.rename("d/c", "b");
    assert_one(&s.remount(), &["a", "b", "d/e"], "x+");
}

fn renamed_over(s: &mut Sandbox) {
    three_names(s);
    s.lower().file("other", "other").link("other", "d/more");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.write("new", "new");
    m.rename("new", "b");
    assert_one(&m, &["a", "d/c"], "x");
    m.rename("other", "a");
    assert_one(&m, &["d/c"], "x");
    assert_one(&m, &["a", "d/more"], "other");
    m.rename("a", "d/c");
    assert_one(&m, &["d/c", "d/more"], "other");
    assert_eq!((entries(s).len(), nlink(s).as_str()), (1, "U+0"));
    let m = s.remount();
    assert_one(&m, &["d/c", "d/more"], "other");
    assert!(m.text("b") == "new" && !m.exists("a"));
}

fn exchanged(s: &mut Sandbox) {
    three_names(s);
    s.lower().file("other", "other").link("other", "d/more");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    renameat_with(CWD, m.at("a"), CWD, m.at("d/more"), RenameFlags::EXCHANGE).unwrap();
    assert_one(&m, &["b", "d/c", "d/more"], "x");
    assert_one(&m, &["a", "other"], "other");
    m.append("other", "+");
    let m = s.remount();
    assert_one(&m, &["b", "d/c", "d/more"], "x");
    assert_one(&m, &["a", "other"], "other+");
}

fn linked_again(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.link("b", "d/e");
    assert_one(&m, &["a", "b", "d/c", "d/e"], "x");
    m.unlink("a");
    m.link("d/c", "a");
    assert_one(&m, &["a", "b", "d/c", "d/e"], "x");
    m.append("a", "+");
    let m = s.remount();
    assert_one(&m, &["a", "b", "d/c", "d/e"], "x+");
    for name in ["a", "b", "d/c"] {
        m.unlink(name);
    }
    assert_one(&m, &["d/e"], "x+");
    m.link("d/e", "a");
    assert_one(&s.remount(), &["a", "d/e"], "x+");
    s.merged().remove_all("d");
    s.merged().unlink("a");
    assert_eq!(entries(s), [""; 0]);
}

fn in_directories_of_their_own(s: &mut Sandbox) {
    s.lower().file("p/q/a", "x").dir("r/s").link("p/q/a", "r/s/b").mtime("r/s", 1_000_000_000, 7);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("r/s/b", "+");
    assert_eq!(m.mtime_of("r/s"), (1_000_000_000, 7));
    assert_eq!(m.names("p/q"), ["a"]);
    assert_eq!(s.upper().walk(""), ["r/", "r/s/", "r/s/b"]);
    m.remove_all("r");
    assert_one(&m, &["p/q/a"], "x+");
    assert_one(&s.remount(), &["p/q/a"], "x+");
    assert_errno(rustix::fs::rmdir(s.merged().at("p/q")), rustix::io::Errno::NOTEMPTY);
    s.merged().remove_all("p");
    assert_eq!((s.merged().walk(""), entries(s)), (vec![], vec![]));
}

fn found_after_a_remount(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("a", "+");
    for first in ["a", "b", "d/c"] {
        let m = s.remount();
        let number = m.ino(first);
        assert_eq!((m.nlink(first), m.text(first).as_str()), (3, "x+"), "{first}");
        assert_eq!([m.ino("a"), m.ino("b"), m.ino("d/c")], [number; 3]);
    }
    if s.context() == Context::root {
        assert_eq!(s.merged().ino("a"), s.lower().ino("a"));
    }
    let m = s.remount();
    m.append("b", "+");
    assert_one(&m, &["a", "b", "d/c"], "x++");
}

fn one_name_has_no_entry(s: &mut Sandbox) {
    s.lower().file("f", "x").dir("d").symlink("t", "l");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("f", "+");
    m.chmod("d", 0o700).chown("l", 0, 0);
    m.link("f", "g");
    m.unlink("l");
    assert_eq!(entries(s), [""; 0]);
    assert_one(&m, &["f", "g"], "x+");
}

fn in_two_layers(s: &mut Sandbox) {
    s.lower().file("a", "x").file("hidden", "below");
    let top = s.add_lower();
    std::fs::hard_link(s.lower().at("a"), top.at("b")).unwrap();
    top.whiteout("hidden");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    assert_one(&m, &["a", "b"], "x");
    m.append("b", "+");
    assert_one(&m, &["a", "b"], "x+");
    m.unlink("b");
    assert_one(&m, &["a"], "x+");
    assert_one(&s.remount(), &["a"], "x+");
}

fn special_files(s: &mut Sandbox) {
    s.lower().symlink("t", "l").fifo("p").link("l", "l2").link("p", "p2");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.chmod("p", 0o600).chown("l2", 1, 1);
    if s.context() == Context::root {
        assert_eq!((m.mode("p2"), m.owner("l")), (0o600, (1, 1)));
        assert_eq!((m.ino("p"), m.ino("l")), (m.ino("p2"), m.ino("l2")));
        assert_eq!((m.nlink("p2"), m.nlink("l"), entries(s).len()), (2, 2, 2));
    } else {
        // They cannot carry `user.` attributes: the links are broken.
        assert_eq!((m.mode("p2"), m.owner("l")), (0o644, (0, 0)));
        assert_eq!(entries(s), [""; 0]);
    }
    for name in ["p", "l", "p2", "l2"] {
        m.unlink(name);
    }
    assert_eq!(entries(s), [""; 0]);
}

fn new_directory_is_opaque(s: &mut Sandbox) {
    s.lower().dir("d");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.mkdir("d/new");
    m.mkdir("d/new/sub");
    let opaque = |path| s.upper().xattr(path, s.overlay_xattr("opaque")).is_some();
    assert!(opaque("d/new") && !opaque("d/new/sub"));
}

fn in_a_moved_directory(s: &mut Sandbox) {
    s.lower().file("d/a", "x").dir("e").link("d/a", "d/b").link("d/a", "e/c");
    s.option("redirect_dir=on");
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.rename("d", "moved");
    m.append("moved/b", "+");
    assert_one(&m, &["e/c", "moved/a", "moved/b"], "x+");
    m.rename("moved", "e/again");
    m.unlink("e/again/a");
    let m = s.remount();
    assert_one(&m, &["e/again/b", "e/c"], "x+");
    m.rename("e/again/b", "b");
    m.unlink("e/c");
    assert_one(&s.remount(), &["b"], "x+");
}

fn other_layers_are_refused(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("a", "+");
    s.unmount();
    let spec = s.spec();
    s.scratch().dir("other").dir("upper2");
    let mut over_another = spec.clone();
    over_another.lowers.push(s.scratch().at("other"));
    mount::assert_refused(backend(), &over_another, 3);
    let mut another_upper = spec;
    another_upper.upper = Some((s.scratch().at("upper2"), s.work().at("")));
    mount::assert_refused(backend(), &another_upper, 4);
    assert_one(&s.mount(), &["a", "b", "d/c"], "x+");
}

fn foreign_entries_are_refused(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("a", "+");
    s.unmount();
    let index = s.work().sub("index");
    for name in ["foreign", "00"] {
        index.file(name, "");
        mount::assert_refused(backend(), &s.spec(), 4);
        index.unlink(name);
    }
    s.mount();
}

fn leftovers_are_removed(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("a", "+");
    s.unmount();
    let index = s.work().sub("index");
    let name = entries(s).remove(0);
    index.file("#1", "half a copy").dir("#2").file("#2/x", "");
    // The copy of another file, whose names are gone.
    let mut other = name.clone().into_bytes();
    other[43] = if other[43] == b'0' { b'1' } else { b'0' };
    let other = String::from_utf8(other).unwrap();
    let origin = index.xattr(&name, s.overlay_xattr("origin")).unwrap();
    index.file(&other, "").set_xattr(&other, s.overlay_xattr("origin"), &origin);
    let m = s.mount();
    assert_eq!((entries(s), index.names("").len()), (vec![name.clone()], 1));
    assert_one(&m, &["a", "b", "d/c"], "x+");
    // No name is left, and the daemon ended before it removed the entry.
    s.unmount();
    s.upper().unlink("a");
    index.set_xattr(&name, s.overlay_xattr("nlink"), "U-1");
    let m = s.mount();
    assert_eq!(entries(s), [""; 0]);
    assert_one(&m, &["a", "b", "d/c"], "x");
}

fn entry_without_names_in_upper(s: &mut Sandbox) {
    three_names(s);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.append("a", "+");
    s.unmount();
    // As a crash between the two links leaves it.
    s.upper().unlink("a");
    let index = s.work().sub("index");
    index.set_xattr(&entries(s)[0], s.overlay_xattr("nlink"), "U+2");
    let m = s.mount();
    assert_one(&m, &["a", "b", "d/c"], "x+");
    m.unlink("b");
    assert_one(&m, &["a", "d/c"], "x+");
    assert_one(&s.remount(), &["a", "d/c"], "x+");
}

fn read_only_files(s: &mut Sandbox) {
    three_names(s);
    s.lower().chmod("a", 0o400).mtime("a", 1_000_000_000, 7);
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    m.unlink("b");
    m.link("a", "e");
    assert_eq!((m.mode("d/c"), m.mtime_of("d/c"), m.nlink("e")), (0o400, (1_000_000_000, 7), 3));
    assert_one(&s.remount(), &["a", "d/c", "e"], "x");
}

/// Changes every name of the files `range` in turn.
fn change_names(m: &Tree, range: std::ops::Range<u32>) -> std::io::Result<()> {
    for i in range {
        let name = |letter: &str| m.at(format!("{letter}{i}"));
        std::fs::write(name("b"), "y")?;
        std::fs::hard_link(name("d/c"), name("new"))?;
        std::fs::remove_file(name("a"))?;
        std::fs::rename(name("new"), name("other"))?;
        std::fs::rename(name("b"), name("a"))?;
        std::fs::remove_file(name("d/c"))?;
    }
    Ok(())
}

/// Asserts that the names that are left of file `i` are one file that counts them.
#[track_caller]
fn assert_counted(m: &Tree, i: u32, exact: bool) {
    let names = ["a", "b", "new", "d/c", "other"].map(|letter| format!("{letter}{i}"));
    let is_other = m.text(&names[4]) == "other";
    let names: Vec<&String> =
        names.iter().take(if is_other { 4 } else { 5 }).filter(|name| m.exists(name)).collect();
    for name in &names {
        assert_eq!(m.ino(name), m.ino(names[0]), "{name} of {names:?}");
        let (counted, there) = (m.nlink(name), names.len() as u64);
        assert!(counted == there || !exact && counted > there, "{name}: {counted} of {names:?}");
    }
}

fn killed_at_any_moment(s: &mut Sandbox) {
    if backend() == Backend::Kernel {
        eprintln!("not run: the kernel's overlayfs has no daemon to kill");
        return;
    }
    s.lower().dir("d");
    for i in 0..240 {
        let lower = s.lower();
        lower.file(format!("a{i}"), "x").file(format!("other{i}"), "other");
        lower.link(format!("a{i}"), format!("b{i}")).link(format!("a{i}"), format!("d/c{i}"));
    }
    s.mount_where_trusted("index=on");
    // Without privileges a crash may leave a name too many in the count.
    let exact = s.context() == Context::root;
    for round in 0..4 {
        let (m, upper) = (s.merged(), s.upper());
        let (first, end) = (round * 60, round * 60 + 60);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| change_names(&m, first..end));
            wait::until("the moment to kill", || {
                upper.exists(format!("other{}", first + round * 7)) || worker.is_finished()
            });
            s.crash();
        });
        s.assert_lowers_untouched();
        let m = s.mount();
        for i in 0..240 {
            assert_counted(&m, i, exact);
        }
        s.work().sub("index").names("").iter().for_each(|name| assert!(name.len() > 40, "{name}"));
    }
}

/// Gives and takes names of all files; another thread may have done so before.
fn mix_names(m: &Tree, thread: u32) {
    for step in 0..60 {
        let i = step % 20;
        let name = |letter: &str| m.at(format!("{letter}{i}"));
        let own = |letter: &str| m.at(format!("{letter}{i}.{thread}.{step}"));
        let done = match (thread + step * 5 + step / 20) % 6 {
            0 => std::fs::hard_link(name("a"), own("d/new")),
            1 => std::fs::remove_file(name("d/b")),
            2 => std::fs::rename(name("e/c"), own("d/moved")),
            3 => std::fs::write(name("a"), "written"),
            4 => std::fs::write(own("t"), "").and_then(|()| std::fs::rename(own("t"), name("e/c"))),
            _ => std::fs::hard_link(name("e/c"), own("k")),
        };
        if let Err(error) = done {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{thread}, {step}: {error}");
        }
    }
}

/// Asserts that every file has as many names as it says.
#[track_caller]
fn assert_all_counted(m: &Tree) {
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    for path in m.walk("").into_iter().filter(|path| !path.ends_with('/')) {
        names.entry(m.ino(&path)).or_default().push(path);
    }
    for names in names.values() {
        names.iter().for_each(|name| assert_eq!(m.nlink(name), names.len() as u64, "{names:?}"));
    }
}

fn many_at_once(s: &mut Sandbox) {
    s.lower().dir("d").dir("e");
    for i in 0..20 {
        let a = format!("a{i}");
        s.lower().file(&a, "x").link(&a, format!("d/b{i}")).link(&a, format!("e/c{i}"));
    }
    let Some(m) = s.mount_where_trusted("index=on") else { return };
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| {
            scope.spawn({
                let m = &m;
                move || mix_names(m, thread)
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_all_counted(&m);
    assert_all_counted(&s.remount());
}

fn each_in_turn(s: &mut Sandbox) {
    three_names(s);
    s.lower().file("p", "p").link("p", "d/q").link("p", "r");
    s.option("index=on");
    let (one, other) = match backend() {
        Backend::Ovlfuse => (Backend::Ovlfuse, Backend::Kernel),
        Backend::Kernel => (Backend::Kernel, Backend::Ovlfuse),
    };
    let m = s.mount_as(one);
    m.append("b", "1");
    m.unlink("p");
    s.unmount();
    let m = s.mount_as(other);
    assert_one(&m, &["a", "b", "d/c"], "x1");
    assert_one(&m, &["d/q", "r"], "p");
    m.append("d/c", "2");
    m.link("a", "new");
    m.unlink("b");
    m.rename("r", "p");
    s.unmount();
    let m = s.mount_as(one);
    assert_one(&m, &["a", "d/c", "new"], "x12");
    assert_one(&m, &["d/q", "p"], "p");
    m.rename("new", "d/q");
    m.link("d/q", "b");
    m.append("p", "3");
    s.unmount();
    let m = s.mount_as(other);
    assert_one(&m, &["a", "b", "d/c", "d/q"], "x12");
    assert_one(&m, &["p"], "p3");
    m.unlink("p");
    for name in ["a", "b", "d/c"] {
        m.unlink(name);
    }
    s.unmount();
    let m = s.mount();
    assert_one(&m, &["d/q"], "x12");
    m.unlink("d/q");
    assert_eq!(entries(s), [""; 0]);
}

fn on_disk_as_the_kernel(s: &mut Sandbox) {
    three_names(s);
    s.option("index=on");
    let (m, upper) = (s.mount(), s.upper());
    assert_eq!((entries(s), s.work().mode("index")), (vec![], 0));
    m.append("b", "+");
    let origin = upper.xattr("b", "trusted.overlay.origin").unwrap();
    let hex: String = origin.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((entries(s), nlink(s).as_str()), (vec![hex], "U+1"));
    assert_eq!((upper.walk(""), upper.nlink("b")), (vec!["b".to_owned()], 2));
    m.unlink("a");
    assert_eq!((nlink(s).as_str(), upper.nlink("b")), ("U+0", 2));
    assert!(upper.is_whiteout("a"));
    m.link("b", "a");
    assert_eq!((nlink(s).as_str(), upper.nlink("b")), ("U+0", 3));
    m.rename("d/c", "e");
    assert_eq!((nlink(s).as_str(), upper.nlink("b"), upper.ino("e")), ("U-1", 4, upper.ino("b")));
    let handle =
        |path: Tree, name: &str| path.xattr("", format!("trusted.overlay.{name}")).unwrap();
    let (lower, itself) = (handle(upper, "origin"), handle(s.work().sub("index"), "upper"));
    assert_eq!((lower[3], itself[3]), (0, 4));
}

fn counted_from_the_lower_file(s: &mut Sandbox) {
    three_names(s);
    s.option("index=on");
    s.mount().append("a", "+");
    s.merged().unlink("b");
    s.unmount();
    // As a crash leaves it while a name is linked.
    s.work().sub("index").set_xattr(&entries(s)[0], "trusted.overlay.nlink", "L-1");
    let m = s.mount();
    assert_one(&m, &["a", "d/c"], "x+");
    m.unlink("a");
    assert_one(&m, &["d/c"], "x+");
    m.unlink("d/c");
    assert_eq!(entries(s), [""; 0]);
}

fn off_again(s: &mut Sandbox) {
    three_names(s);
    s.option("index=on");
    s.mount().append("a", "+");
    s.unmount();
    s.option("index=off");
    let m = s.mount();
    assert_eq!((m.text("a"), m.text("b"), m.nlink("a")), ("x+".into(), "x".into(), 2));
}

fn useless_without_upper(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b");
    s.add_lower();
    s.without_upper();
    s.option("index=on");
    assert_eq!(s.mount().nlink("a"), 2);
}

fn refused_to_ordinary_users(s: &mut Sandbox) {
    s.option("index=on");
    mount::assert_refused(Backend::Ovlfuse, &s.spec(), 2);
}
