//! `metacopy=on`: changes of metadata copy no data up.

use std::io::Write;
use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, OFlags, RenameFlags, XattrFlags, fstat, renameat_with};
use rustix::io::Errno;

use crate::common::{Sandbox, assert_errno};

mounted_tests! {
    [root userns user]:
        metadata_changes_leave_the_data, writing_brings_the_data, redirects;
    [root userns]:
        empty_file, truncating_open, truncate_to_a_length, open_files_follow, set_id_bits_stay,
        redirect_of_a_hard_link, exchange, below_renamed_directories, names_of_one_file,
        unlinked, listed_first, through_lowers, hidden_data, malformed, redirects_that_lead_nowhere,
        sync, seeks_and_copies, holes, ordinary_names, two_threads, out_of_descriptors, replaced, read_only;
    [root]: capability_stays, on_disk, off_refuses, number_of_the_path;
    [userns]: default_refuses;
}

const DATA: &[u8] = &[7; 100_000];

/// Whether `path` of upper holds metadata only.
#[track_caller]
fn is_bare(s: &Sandbox, path: &str) -> bool {
    let mark = s.upper().xattr(path, s.overlay_xattr("metacopy"));
    assert!(mark.as_ref().is_none_or(Vec::is_empty), "{mark:?}");
    mark.is_some()
}

#[track_caller]
fn redirect(s: &Sandbox, path: &str) -> Option<String> {
    let value = s.upper().xattr(path, s.overlay_xattr("redirect"))?;
    Some(String::from_utf8(value).unwrap())
}

fn metadata_changes_leave_the_data(s: &mut Sandbox) {
    let names = ["chmod", "mtime", "xattr", "link", "rename", "chown"];
    for name in names {
        s.lower().file(name, DATA).mtime(name, 1_000_000_000, 7);
    }
    let blocks = s.lower().stat("chmod").st_blocks;
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    let inos = names.map(|name| m.ino(name));
    m.chmod("chmod", 0o600);
    m.mtime("mtime", 1_000_000_000, 8);
    m.set_xattr("xattr", "user.a", "1");
    m.link("link", "linked");
    m.rename("rename", "renamed");
    rustix::fs::chown(m.at("chown"), Some(rustix::process::getuid()), None).unwrap();
    for (name, ino) in ["chmod", "mtime", "xattr", "linked", "renamed", "chown"].iter().zip(inos) {
        assert!(is_bare(s, name), "{name}");
        let upper = s.upper().stat(name);
        assert!((upper.st_size, upper.st_blocks < blocks) == (100_000, true), "{name}");
        assert_eq!((m.ino(name), m.stat(name).st_blocks), (ino, blocks), "{name}");
        assert!(m.read(name) == DATA, "{name}");
    }
    let m = s.remount();
    assert_eq!((m.mode("chmod"), m.mtime_of("chmod")), (0o600, (1_000_000_000, 7)));
    for name in ["chmod", "mtime", "xattr", "link", "linked", "renamed", "chown"] {
        assert_eq!(m.stat(name).st_blocks, blocks, "{name}");
        assert!(m.read(name) == DATA, "{name}");
    }
}

fn empty_file(s: &mut Sandbox) {
    s.lower().file("f", "").mtime("f", 1_000_000_000, 7);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o600);
    assert!(is_bare(s, "f"));
    assert_eq!(m.stat("f").st_blocks, 0);
    drop(m.open("f", OFlags::WRONLY));
    assert!(!is_bare(s, "f"));
    assert_eq!(m.mtime_of("f"), (1_000_000_000, 7));
}

fn writing_brings_the_data(s: &mut Sandbox) {
    for name in ["opened", "appended", "written", "shared"] {
        s.lower().file(name, DATA);
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for name in ["opened", "appended", "written", "shared"] {
        m.chmod(name, 0o600);
    }
    drop(m.open("opened", OFlags::WRONLY));
    m.append("appended", "+");
    m.open("written", OFlags::WRONLY).write_all_at(b"new", 50_000).unwrap();
    let mut written = DATA.to_vec();
    written[50_000..50_003].copy_from_slice(b"new");
    let want = [DATA.to_vec(), [DATA, b"+"].concat(), written];
    for round in ["at once", "after a remount"] {
        for (name, want) in ["opened", "appended", "written"].iter().zip(&want) {
            assert!(!is_bare(s, name), "{name} {round}");
            assert!(
                s.upper().read(name) == *want && s.merged().read(name) == *want,
                "{name} {round}"
            );
            assert_eq!(s.merged().mode(name), 0o600);
        }
        assert!(is_bare(s, "shared"));
        s.remount();
    }
}

fn truncating_open(s: &mut Sandbox) {
    s.lower().file("bare", DATA).file("low", DATA);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("bare", 0o640);
    for name in ["bare", "low"] {
        m.open(name, OFlags::WRONLY | OFlags::TRUNC).write_all(b"new").unwrap();
        assert!(!is_bare(s, name), "{name}");
        assert_eq!((m.text(name), s.upper().text(name)), ("new".into(), "new".into()));
    }
    assert_eq!(s.remount().text("bare"), "new");
}

fn truncate_to_a_length(s: &mut Sandbox) {
    let sizes = [0, 1, 4096, 99_999, 100_000, 100_001, 200_000];
    for size in sizes {
        s.lower().file(format!("{size}"), DATA).mtime(format!("{size}"), 1_000_000_000, 7);
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for size in sizes {
        let name = size.to_string();
        m.chmod(&name, 0o600);
        m.truncate(&name, size);
        let mut want = DATA.to_vec();
        want.resize(usize::try_from(size).unwrap(), 0);
        assert!(m.read(&name) == want && s.upper().read(&name) == want, "{size}");
        assert!(!is_bare(s, &name), "{size}");
        assert_ne!(m.mtime_of(&name), (1_000_000_000, 7), "{size}");
    }
}

fn open_files_follow(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    let read = |file: &std::fs::File| {
        let mut bytes = [0; 16];
        let len = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let before = m.open("f", OFlags::RDONLY);
    m.chmod("f", 0o600);
    let between = m.open("f", OFlags::RDONLY);
    assert_eq!((read(&before), read(&between)), ("lower".into(), "lower".into()));
    assert_eq!(fstat(&before).unwrap().st_mode & 0o7777, 0o600);
    let writer = m.open("f", OFlags::RDWR);
    writer.write_all_at(b"UP", 0).unwrap();
    for file in [&before, &between, &writer] {
        assert_eq!(read(file), "UPwer");
    }
    m.truncate("f", 1);
    assert_eq!((read(&before), read(&between)), ("U".into(), "U".into()));
}

fn set_id_bits_stay(s: &mut Sandbox) {
    s.lower().file("f", DATA).chmod("f", 0o6755).file("low", DATA).chmod("low", 0o4711);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.mtime("f", 1, 1);
    drop(m.open("f", OFlags::WRONLY));
    drop(m.open("low", OFlags::WRONLY));
    assert!(!is_bare(s, "f"));
    assert_eq!((s.upper().mode("f"), m.mode("f"), m.mode("low")), (0o6755, 0o6755, 0o4711));
}

fn capability_stays(s: &mut Sandbox) {
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    s.lower().file("f", DATA).set_xattr("f", "security.capability", &capability);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o711);
    assert_eq!(m.xattr("f", "security.capability").as_ref(), Some(&capability));
    drop(m.open("f", OFlags::WRONLY));
    assert_eq!(s.upper().xattr("f", "security.capability").as_ref(), Some(&capability));
    assert!(!is_bare(s, "f"));
}

fn redirects(s: &mut Sandbox) {
    s.lower().file("same", "same").file("cross", "cross").file("p/link", "link").dir("q");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.rename("same", "renamed");
    m.rename("cross", "q/crossed");
    m.link("p/link", "q/linked");
    assert_eq!(redirect(s, "renamed").as_deref(), Some("same"));
    assert_eq!(redirect(s, "q/crossed").as_deref(), Some("/cross"));
    assert_eq!(redirect(s, "q/linked").as_deref(), Some("/p/link"));
    let shown = ["p/", "p/link", "q/", "q/crossed", "q/linked", "renamed"];
    assert_eq!(m.walk(""), shown);
    let m = s.remount();
    assert_eq!(m.walk(""), shown);
    assert_eq!((m.text("renamed"), m.text("q/crossed")), ("same".into(), "cross".into()));
    assert_eq!(m.ino("p/link"), m.ino("q/linked"));
    m.rename("renamed", "again");
    assert_eq!(redirect(s, "again").as_deref(), Some("same"));
    m.rename("again", "p/again");
    assert_eq!(redirect(s, "p/again").as_deref(), Some("/same"));
    m.rename("p/again", "same");
    assert_eq!(s.remount().text("same"), "same");
}

fn redirect_of_a_hard_link(s: &mut Sandbox) {
    s.lower().file("d/a", "x").link("d/a", "d/b");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.rename("d/a", "d/c");
    assert_eq!(redirect(s, "d/c").as_deref(), Some("/d/a"));
    assert_eq!((m.nlink("d/c"), m.nlink("d/b"), m.text("d/c")), (1, 2, "x".into()));
    assert_eq!(s.remount().text("d/c"), "x");
}

fn exchange(s: &mut Sandbox) {
    s.lower().file("a", "a").file("d/b", "b").file("low/x", "");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    renameat_with(CWD, m.at("a"), CWD, m.at("d/b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((redirect(s, "a"), redirect(s, "d/b")), (Some("/d/b".into()), Some("/a".into())));
    renameat_with(CWD, m.at("a"), CWD, m.at("low"), RenameFlags::EXCHANGE).unwrap();
    let m = s.remount();
    assert_eq!(
        (m.text("low"), m.text("d/b"), m.names("a")),
        ("b".into(), "a".into(), vec!["x".into()])
    );
}

fn below_renamed_directories(s: &mut Sandbox) {
    s.lower().file("p/d/f", "f").file("p/d/g", "g").dir("q");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("p/d/f", 0o600);
    m.rename("p/d", "p/e");
    m.rename("p", "q/r");
    m.rename("q/r/e/g", "g");
    assert_eq!(redirect(s, "g").as_deref(), Some("/p/d/g"));
    m.link("q/r/e/f", "f");
    assert_eq!(redirect(s, "f").as_deref(), Some("/p/d/f"));
    let m = s.remount();
    assert_eq!(m.walk(""), ["f", "g", "q/", "q/r/", "q/r/e/", "q/r/e/f"]);
    assert_eq!((m.text("f"), m.text("g"), m.text("q/r/e/f")), ("f".into(), "g".into(), "f".into()));
}

fn names_of_one_file(s: &mut Sandbox) {
    s.lower().file("a", "data");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.link("a", "b");
    let m = s.remount();
    let reader = m.open("a", OFlags::RDONLY);
    m.append("b", "+");
    assert_eq!((m.text("a"), m.text("b"), m.nlink("a")), ("data+".into(), "data+".into(), 2));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "data+");
    assert!(!is_bare(s, "a"));
    assert_eq!(s.remount().text("a"), "data+");
}

fn unlinked(s: &mut Sandbox) {
    s.lower().file("read", "read").file("change", "change").file("write", "write");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for name in ["read", "change", "write"] {
        m.chmod(name, 0o640);
    }
    let [read, change, write] =
        ["read", "change", "write"].map(|name| m.open(name, OFlags::RDONLY));
    for name in ["read", "change", "write"] {
        m.unlink(name);
    }
    assert_eq!(std::io::read_to_string(&read).unwrap(), "read");
    rustix::fs::fchmod(&change, 0o600.into()).unwrap();
    rustix::fs::fsetxattr(&change, "user.a", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(fstat(&change).unwrap().st_mode & 0o7777, 0o600);
    assert_eq!(std::io::read_to_string(&change).unwrap(), "change");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"+").unwrap();
    assert_eq!(std::io::read_to_string(&write).unwrap(), "write+");
    drop((read, change, write));
    assert_eq!(m.names(""), [""; 0]);
}

fn listed_first(s: &mut Sandbox) {
    for index in 0..6 {
        s.add_lower().file(format!("d/{index}"), index.to_string());
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for index in 0..6 {
        m.chmod(format!("d/{index}"), 0o600);
    }
    let m = s.remount();
    assert_eq!(m.names("d").len(), 6);
    for index in 0..6 {
        assert_eq!(m.text(format!("d/{index}")), index.to_string());
        assert_eq!(m.mode(format!("d/{index}")), 0o600);
    }
}

/// Metadata of one layer, data of another.
fn through_lowers(s: &mut Sandbox) {
    s.lower().file("x/f", "data").file("g", "lower").file("old", "moved");
    let middle = s.add_lower();
    s.metadata_only(&middle, "f", 4, "/x/f");
    s.metadata_only(&middle, "g", 5, "");
    s.metadata_only(&middle, "new", 5, "old");
    middle.chmod("g", 0o640).whiteout("old");
    let top = s.add_lower();
    s.metadata_only(&top, "deep/f", 4, "/f");
    top.chmod("deep/f", 0o604);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    let texts = ["f", "g", "new", "deep/f"].map(|path| m.text(path));
    assert_eq!(texts, ["data", "lower", "moved", "data"]);
    assert_eq!((m.mode("g"), m.mode("deep/f")), (0o640, 0o604));
    assert_eq!(m.stat("g").st_blocks, s.lower().stat("g").st_blocks);
    m.chmod("g", 0o600);
    m.rename("new", "x/newer");
    m.rename("deep/f", "deep/e");
    assert!(["g", "x/newer", "deep/e"].iter().all(|path| is_bare(s, path)));
    assert_eq!(redirect(s, "x/newer").as_deref(), Some("/new"));
    m.append("f", "+");
    let m = s.remount();
    let texts = ["f", "g", "x/newer", "deep/e"].map(|path| m.text(path));
    assert_eq!(texts, ["data+", "lower", "moved", "data"]);
    m.append("deep/e", "+");
    m.append("x/newer", "+");
    assert_eq!((m.text("deep/e"), s.upper().text("x/newer")), ("data+".into(), "moved+".into()));
}

fn hidden_data(s: &mut Sandbox) {
    s.lower().file("gone", "").file("opaque/f", "").fifo("fifo").dir("dir").file("ok", "ok");
    let middle = s.add_lower();
    middle.whiteout("gone");
    let upper = s.upper();
    for name in ["gone", "opaque/f", "fifo", "dir", "nowhere", "pure/f"] {
        s.metadata_only(&upper, name, 5, "");
    }
    upper.set_xattr("opaque", s.overlay_xattr("opaque"), "y");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for name in ["gone", "opaque/f", "fifo", "dir", "nowhere", "pure/f"] {
        assert_errno(rustix::fs::stat(m.at(name)).map(drop), Errno::IO);
    }
    assert_eq!(m.names("").len(), 7);
    // What is refused cannot be compared.
    s.unmount();
}

fn malformed(s: &mut Sandbox) {
    let name = s.overlay_xattr("metacopy");
    for (index, value) in
        [&b"\0"[..], b"abc", b"\0\x04\0\0", b"\x01\x04\0\0", b"\0\x09\0\0\0\0"].iter().enumerate()
    {
        s.lower().file(index.to_string(), "lower");
        s.upper().file(index.to_string(), "").set_xattr(index.to_string(), &name, value);
        s.upper().truncate(index.to_string(), 5);
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for index in ["0", "1"] {
        assert_errno(rustix::fs::stat(m.at(index)).map(drop), Errno::IO);
    }
    for index in ["2", "3", "4"] {
        assert_eq!(m.text(index), "lower");
    }
    s.unmount();
}

fn redirects_that_lead_nowhere(s: &mut Sandbox) {
    s.lower().file("f", "data").dir("d").symlink("f", "link");
    let upper = s.upper();
    let cases = [
        ("/f/x", Errno::IO),
        ("/d", Errno::IO),
        ("/link", Errno::IO),
        ("none", Errno::IO),
        ("/", Errno::INVAL),
        ("/d//f", Errno::INVAL),
        ("d/f", Errno::INVAL),
    ];
    for (index, (path, _)) in cases.iter().enumerate() {
        s.metadata_only(&upper, &index.to_string(), 4, path);
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    for (index, (_, errno)) in cases.iter().enumerate() {
        assert_errno(rustix::fs::stat(m.at(index.to_string())).map(drop), *errno);
    }
    s.unmount();
}

fn sync(s: &mut Sandbox) {
    s.lower().file("f", DATA);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o600);
    let file = m.open("f", OFlags::RDONLY);
    rustix::fs::fsync(&file).unwrap();
    rustix::fs::fdatasync(&file).unwrap();
    m.unlink("f");
    rustix::fs::fsync(&file).unwrap();
}

fn seeks_and_copies(s: &mut Sandbox) {
    s.lower().file("f", DATA).truncate("f", 1 << 20);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o600);
    let file = m.open("f", OFlags::RDONLY);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(0));
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert!((100_000..1 << 20).contains(&hole), "{hole}");
    m.write("copy", "");
    let copy = m.open("copy", OFlags::RDWR);
    let (mut from, mut to) = (10, 0);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 1000);
    assert_eq!(copied, Ok(1000));
    assert!(m.read("copy") == [7; 1000] && is_bare(s, "f"));
}

fn holes(s: &mut Sandbox) {
    s.lower().file("f", "").truncate("f", 64 << 20);
    s.lower().open("f", OFlags::WRONLY).write_all_at(b"middle", 20 << 20).unwrap();
    let blocks = s.lower().stat("f").st_blocks;
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o600);
    assert_eq!(m.stat("f").st_blocks, blocks);
    drop(m.open("f", OFlags::WRONLY));
    assert!(s.upper().stat("f").st_blocks <= blocks + 4096);
    let mut bytes = [0; 8];
    m.open("f", OFlags::RDONLY).read_exact_at(&mut bytes, (20 << 20) - 1).unwrap();
    assert_eq!(&bytes, b"\0middle\0");
    assert_eq!(m.stat("f").st_size, 64 << 20);
}

/// The names of overlay's attributes are ordinary ones to users of the mount.
fn ordinary_names(s: &mut Sandbox) {
    let name = s.overlay_xattr("metacopy");
    s.lower().file("f", "lower").file("low", "lower").set_xattr(
        "low",
        s.overlay_xattr("overlay.metacopy"),
        "v",
    );
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.set_xattr("f", &name, "value");
    assert_eq!(m.xattr("f", &name).as_deref(), Some(&b"value"[..]));
    assert_eq!(m.xattr("low", &name).as_deref(), Some(&b"v"[..]));
    assert!(is_bare(s, "f"));
    m.remove_xattr("f", &name);
    m.chmod("low", 0o600);
    assert_eq!(m.xattr("f", &name), None);
    let m = s.remount();
    assert_eq!((m.text("f"), m.text("low")), ("lower".into(), "lower".into()));
    assert_eq!(m.xattr("low", &name).as_deref(), Some(&b"v"[..]));
}

fn two_threads(s: &mut Sandbox) {
    for index in 0..40 {
        s.lower().file(index.to_string(), DATA);
    }
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    // It may be away for a moment, under its other name.
    let chmod = |name: String| match rustix::fs::chmod(m.at(name), 0o600.into()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => panic!("chmod: {error}"),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..40).for_each(|index| chmod(index.to_string())));
        scope.spawn(|| {
            for index in 0..40 {
                m.rename(index.to_string(), format!("r{index}"));
                m.append(format!("r{index}"), "+");
            }
        });
        scope.spawn(|| {
            for index in 0..40 {
                match std::fs::read(m.at(index.to_string())) {
                    Ok(bytes) => assert!(bytes.starts_with(DATA), "{index}"),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                }
            }
        });
    });
    let m = s.remount();
    for index in 0..40 {
        assert!(m.read(format!("r{index}")) == [DATA, b"+"].concat(), "{index}");
        assert!(!is_bare(s, &format!("r{index}")));
    }
}

fn out_of_descriptors(s: &mut Sandbox) {
    for index in 0..100 {
        s.lower().file(format!("{}/{index}", index % 10), index.to_string());
    }
    s.max_descriptors(64);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    let path = |index: i32| format!("{}/{index}", index % 10);
    for index in 0..100 {
        m.chmod(path(index), 0o600);
    }
    let files: Vec<_> = (0..100).map(|index| m.open(path(index), OFlags::RDONLY)).collect();
    (0..100).step_by(7).for_each(|index| m.append(path(index), "+"));
    for (index, file) in files.iter().enumerate() {
        let more = if index % 7 == 0 { "+" } else { "" };
        assert_eq!(std::io::read_to_string(file).unwrap(), format!("{index}{more}"));
    }
}

fn replaced(s: &mut Sandbox) {
    s.lower().file("a", "a").file("b", "b");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("a", 0o600);
    let old = m.open("b", OFlags::RDONLY);
    m.rename("a", "b");
    assert_eq!((m.text("b"), std::io::read_to_string(old).unwrap()), ("a".into(), "b".into()));
    m.write("a", "new");
    m.unlink("b");
    m.write("b", "new");
    assert_eq!(redirect(s, "b"), None);
    let m = s.remount();
    assert_eq!((m.text("a"), m.text("b")), ("new".into(), "new".into()));
}

fn read_only(s: &mut Sandbox) {
    s.lower().file("f", "data").file("x", "");
    let top = s.add_lower();
    s.metadata_only(&top, "f", 4, "");
    s.metadata_only(&top, "lost", 4, "");
    s.without_upper();
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    assert_eq!(m.text("f"), "data");
    assert_errno(rustix::fs::stat(m.at("lost")).map(drop), Errno::IO);
    assert_errno(rustix::fs::chmod(m.at("f"), 0o600.into()), Errno::ROFS);
    s.unmount();
}

fn on_disk(s: &mut Sandbox) {
    s.lower().file("d/f", DATA).file("d/k", "").link("d/k", "d/l").dir("e");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("d/f", 0o600);
    m.rename("d/f", "e/f");
    m.rename("d/k", "d/m");
    let marks = |path: &str| {
        let names = s.upper().xattr_names(path);
        let own = names.iter().filter_map(|name| name.strip_prefix("trusted.overlay."));
        own.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        ["d", "e", "e/f", "d/m"].map(marks),
        ["impure origin", "impure origin", "metacopy origin redirect", "metacopy redirect"]
    );
    m.append("e/f", "+");
    assert_eq!(marks("e/f"), "origin redirect");
    assert!(s.remount().read("e/f") == [DATA, b"+"].concat());
}

/// What was mounted with it cannot be used without.
fn off_refuses(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("g", "lower");
    let upper = s.upper();
    s.metadata_only(&upper, "f", 5, "");
    s.metadata_only(&upper, "lost", 5, "");
    let m = s.mount();
    assert_errno(rustix::fs::stat(m.at("f")).map(drop), Errno::PERM);
    assert_errno(rustix::fs::stat(m.at("lost")).map(drop), Errno::PERM);
    m.chmod("g", 0o600);
    assert_eq!(s.upper().text("g"), "lower");
    s.unmount();
}

fn default_refuses(s: &mut Sandbox) {
    off_refuses(s);
}

/// The number is that of the file a path leads to, whatever origin says.
fn number_of_the_path(s: &mut Sandbox) {
    s.lower().file("f", "f").file("g", "g");
    let upper = s.upper();
    s.metadata_only(&upper, "h", 1, "/g");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    assert_eq!(m.ino("h"), s.lower().ino("g"));
    m.rename("f", "r");
    let m = s.remount();
    assert_eq!((m.ino("r"), m.ino("h")), (s.lower().ino("f"), s.lower().ino("g")));
    s.unmount();
}
