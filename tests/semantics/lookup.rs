//! Which layer a name comes from.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, lstat};
use rustix::io::Errno;

use crate::common::{Sandbox, assert_errno};

mounted_tests! {
    [root userns user]:
        upper_hides_lower, topmost_lower_wins, merged_directory_lists_all_layers_once,
        whiteout_hides_all_below, opaque_hides_all_below, names_of_255_bytes, names_of_256_bytes,
        names_of_any_bytes, symlinks_are_shown_as_they_are;
    [root userns]:
        whiteout_between_lowers, whiteouts_are_not_shown, damage_below_a_directory, opaque_between_lowers,
        file_above_directory_ends_the_search, directory_above_file_ends_merging,
        file_between_directories_ends_merging, topmost_directory_gives_the_attributes,
        xattr_whiteout_in_lower, dot_wh_names_are_ordinary, deep_directories,
        missing_names_stay_missing_until_made, types_are_shown_as_they_are,
        root_shows_the_upper_roots_attributes, opaque_upper_root_hides_nothing, path_through_a_file,
        path_through_a_merged_symlink;
    [root]: device_nodes_of_lower;
}

fn upper_hides_lower(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("d/lower", "");
    s.upper().file("f", "upper").file("d/upper", "");
    let m = s.mount();
    assert_eq!(m.text("f"), "upper");
    assert_eq!(m.names("d"), ["lower", "upper"]);
    assert_eq!(m.names(""), ["d", "f"]);
}

fn topmost_lower_wins(s: &mut Sandbox) {
    s.lower().file("f", "bottom").file("only-bottom", "b");
    s.add_lower().file("f", "middle").file("only-middle", "m");
    s.add_lower().file("f", "top");
    let m = s.mount();
    assert_eq!(m.text("f"), "top");
    assert_eq!(m.text("only-bottom"), "b");
    assert_eq!(m.text("only-middle"), "m");
}

fn merged_directory_lists_all_layers_once(s: &mut Sandbox) {
    s.lower().file("d/a", "0").file("d/b", "0").file("d/sub/x", "0");
    s.add_lower().file("d/b", "1").file("d/c", "1").file("d/sub/y", "1");
    s.upper().file("d/c", "2").file("d/d", "2").file("d/sub/z", "2");
    let m = s.mount();
    assert_eq!(m.names("d"), ["a", "b", "c", "d", "sub"]);
    assert_eq!(m.names("d/sub"), ["x", "y", "z"]);
    let contents = ["d/a", "d/b", "d/c", "d/d"].map(|path| m.text(path));
    assert_eq!(contents, ["0", "1", "2", "2"]);
}

fn whiteout_hides_all_below(s: &mut Sandbox) {
    s.lower().file("f", "0").file("d/x", "0");
    s.add_lower().file("f", "1").file("d/y", "1");
    s.upper().whiteout("f").whiteout("d");
    let m = s.mount();
    assert_errno(lstat(m.at("f")), Errno::NOENT);
    assert_errno(lstat(m.at("d")), Errno::NOENT);
    assert_errno(lstat(m.at("d/x")), Errno::NOENT);
    assert_eq!(m.names(""), [""; 0]);
}

fn whiteout_between_lowers(s: &mut Sandbox) {
    s.lower().file("gone", "0").file("back", "0").file("d/x", "0");
    s.add_lower().whiteout("gone").whiteout("back").whiteout("d");
    s.add_lower().file("back", "2").file("d/y", "2");
    let m = s.mount();
    assert_errno(lstat(m.at("gone")), Errno::NOENT);
    assert_eq!(m.text("back"), "2");
    assert_eq!(m.names("d"), ["y"], "a whiteout between two directories keeps them apart");
}

fn whiteouts_are_not_shown(s: &mut Sandbox) {
    s.lower().dir("d").file("d/kept", "");
    s.upper().dir("d").whiteout("d/never-there").whiteout("never-there");
    let m = s.mount();
    assert_eq!(m.names(""), ["d"]);
    assert_eq!(m.names("d"), ["kept"]);
    assert_errno(lstat(m.at("d/never-there")), Errno::NOENT);
}

fn opaque_hides_all_below(s: &mut Sandbox) {
    s.lower().file("d/x", "0").file("d/sub/x", "0");
    s.add_lower().file("d/y", "1");
    s.upper().file("d/z", "2").dir("d/sub").set_xattr("d", s.overlay_xattr("opaque"), "y");
    let m = s.mount();
    assert_eq!(m.names("d"), ["sub", "z"]);
    assert_eq!(m.names("d/sub"), [""; 0]);
    assert_errno(lstat(m.at("d/x")), Errno::NOENT);
    assert_errno(lstat(m.at("d/sub/x")), Errno::NOENT);
}

fn opaque_between_lowers(s: &mut Sandbox) {
    let opaque = s.overlay_xattr("opaque");
    s.lower().file("d/bottom", "");
    s.add_lower().file("d/middle", "").set_xattr("d", opaque, "y");
    s.add_lower().file("d/top", "");
    s.upper().file("d/upper", "");
    let m = s.mount();
    assert_eq!(m.names("d"), ["middle", "top", "upper"]);
    assert_errno(lstat(m.at("d/bottom")), Errno::NOENT);
}

fn file_above_directory_ends_the_search(s: &mut Sandbox) {
    s.lower().file("d/x", "");
    s.upper().file("d", "a file");
    let m = s.mount();
    assert_eq!(m.text("d"), "a file");
    assert_errno(lstat(m.at("d/x")), Errno::NOTDIR);
}

fn directory_above_file_ends_merging(s: &mut Sandbox) {
    s.lower().file("d", "a file");
    s.upper().file("d/x", "");
    let m = s.mount();
    assert_eq!(m.names("d"), ["x"]);
}

fn file_between_directories_ends_merging(s: &mut Sandbox) {
    s.lower().file("d/bottom", "").file("e/bottom", "");
    s.add_lower().file("d", "a file").symlink("d", "e");
    s.add_lower().file("d/top", "").file("e/top", "");
    let m = s.mount();
    assert_eq!(m.names("d"), ["top"]);
    assert_eq!(m.names("e"), ["top"]);
}

fn topmost_directory_gives_the_attributes(s: &mut Sandbox) {
    s.lower()
        .dir("d")
        .chmod("d", 0o700)
        .set_xattr("d", "user.layer", "0")
        .set_xattr("d", "user.low", "x");
    let top = s.add_lower();
    top.dir("d").chmod("d", 0o1751).set_xattr("d", "user.layer", "1").chown("d", 3001, 3002);
    top.mtime("d", 1_000_000_000, 123_456_789);
    let m = s.mount();
    assert_eq!(m.mode("d"), 0o1751);
    assert_eq!(m.owner("d"), (3001, 3002));
    assert_eq!(m.mtime_of("d"), (1_000_000_000, 123_456_789));
    assert_eq!(m.xattr("d", "user.layer").unwrap(), b"1");
    assert_eq!(m.xattr("d", "user.low"), None, "xattrs are not merged");
}

/// The second form of a whiteout: an empty file with an xattr, in a directory marked `x`.
fn xattr_whiteout_in_lower(s: &mut Sandbox) {
    let (opaque, whiteout) = (s.overlay_xattr("opaque"), s.overlay_xattr("whiteout"));
    s.lower().file("d/gone", "0").file("d/kept", "0");
    let top = s.add_lower();
    top.file("d/gone", "").set_xattr("d/gone", whiteout, "").set_xattr("d", opaque, "x");
    top.file("d/empty", "");
    let m = s.mount();
    assert_eq!(m.names("d"), ["empty", "kept"]);
    assert_errno(lstat(m.at("d/gone")), Errno::NOENT);
}

fn names_of_255_bytes(s: &mut Sandbox) {
    let (low, new) = ("l".repeat(255), "n".repeat(255));
    s.lower().file(&low, "lower");
    let m = s.mount();
    assert_eq!(m.text(&low), "lower");
    m.write(&low, "copied up");
    m.write(&new, "new");
    assert_eq!(m.names(""), [low.clone(), new.clone()]);
    m.unlink(&low);
    assert!(s.upper().is_whiteout(&low));
    m.rename(&new, "r".repeat(255));
    assert_eq!(m.names(""), ["r".repeat(255)]);
    m.mkdir("d".repeat(255));
}

fn names_of_256_bytes(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let long = "x".repeat(256);
    assert_errno(lstat(m.at(&long)), Errno::NAMETOOLONG);
    assert_errno(std::fs::write(m.at(&long), ""), Errno::NAMETOOLONG);
    assert_errno(std::fs::create_dir(m.at(&long)), Errno::NAMETOOLONG);
    assert_errno(std::fs::rename(m.at("f"), m.at(&long)), Errno::NAMETOOLONG);
    assert_errno(std::fs::hard_link(m.at("f"), m.at(&long)), Errno::NAMETOOLONG);
    assert_errno(std::fs::remove_file(m.at(&long)), Errno::NAMETOOLONG);
    assert_eq!(m.names(""), ["f"]);
}

fn names_of_any_bytes(s: &mut Sandbox) {
    let names: [&[u8]; 6] = [b"\xff\xfe", b"new\nline", b"a:b,c\\d", b" ", b"...", b"\x01\x7f"];
    for name in names {
        s.lower().file(OsStr::from_bytes(name), name);
    }
    let m = s.mount();
    let mut expected = names.map(|name| name.escape_ascii().to_string());
    expected.sort();
    assert_eq!(m.names(""), expected);
    for name in names {
        let path = OsStr::from_bytes(name);
        assert_eq!(m.read(path), name);
        m.append(path, "+");
        m.rename(path, "elsewhere");
        assert!(s.upper().is_whiteout(path));
        m.rename("elsewhere", path);
        assert_eq!(s.upper().read(path), [name, b"+"].concat());
    }
    assert_eq!(m.names(""), expected);
}

fn dot_wh_names_are_ordinary(s: &mut Sandbox) {
    s.lower().file("f", "lower").file(".wh.f", "").file("d/x", "").file("d/.wh..wh..opq", "");
    let m = s.mount();
    assert_eq!(m.names(""), [".wh.f", "d", "f"]);
    assert_eq!(m.names("d"), [".wh..wh..opq", "x"]);
    m.write(".wh.new", "1");
    m.unlink(".wh.f");
    assert!(s.upper().is_whiteout(".wh.f"));
    assert_eq!(s.upper().text(".wh.new"), "1");
}

fn deep_directories(s: &mut Sandbox) {
    let path = vec!["d"; 200].join("/");
    s.lower().file(format!("{path}/f"), "deep");
    let m = s.mount();
    assert_eq!(m.text(format!("{path}/f")), "deep");
    m.append(format!("{path}/f"), "er");
    assert_eq!(s.upper().text(format!("{path}/f")), "deeper");
}

fn symlinks_are_shown_as_they_are(s: &mut Sandbox) {
    let long = "t".repeat(4095);
    s.lower()
        .symlink("nowhere", "dangling")
        .symlink("/etc/passwd", "absolute")
        .symlink(&long, "long");
    s.lower().file("f", "through").symlink("f", "relative");
    let m = s.mount();
    assert_eq!(m.target("dangling").to_str(), Some("nowhere"));
    assert_eq!(m.target("absolute").to_str(), Some("/etc/passwd"));
    assert_eq!(m.target("long").to_str(), Some(long.as_str()));
    assert_eq!(m.text("relative"), "through");
    assert_eq!(m.stat("absolute").st_size, 11);
}

fn missing_names_stay_missing_until_made(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    for name in ["n", "d/n"] {
        assert_errno(lstat(m.at(name)), Errno::NOENT);
        assert_errno(lstat(m.at(name)), Errno::NOENT);
        m.write(name, "made");
        assert_eq!(m.text(name), "made");
        m.unlink(name);
        assert_errno(lstat(m.at(name)), Errno::NOENT);
        m.mkdir(name);
        assert_eq!(m.names(name), [""; 0]);
    }
}

fn types_are_shown_as_they_are(s: &mut Sandbox) {
    s.lower().file("f", "").dir("d").symlink("f", "l").fifo("p");
    s.lower().mknod("s", FileType::Socket, 0o755, (0, 0));
    let m = s.mount();
    let kinds = ["f", "d", "l", "p", "s"].map(|name| FileType::from_raw_mode(m.stat(name).st_mode));
    let expected = [
        FileType::RegularFile,
        FileType::Directory,
        FileType::Symlink,
        FileType::Fifo,
        FileType::Socket,
    ];
    assert_eq!(kinds, expected);
}

fn root_shows_the_upper_roots_attributes(s: &mut Sandbox) {
    s.lower().chmod("", 0o700).set_xattr("", "user.layer", "lower");
    s.upper().chmod("", 0o2775).set_xattr("", "user.layer", "upper").mtime("", 1_234_567_890, 1);
    let m = s.mount();
    assert_eq!(m.mode(""), 0o2775);
    assert_eq!(m.xattr("", "user.layer").unwrap(), b"upper");
    assert_eq!(m.mtime_of(""), (1_234_567_890, 1));
}

fn device_nodes_of_lower(s: &mut Sandbox) {
    s.lower().mknod("null", FileType::CharacterDevice, 0o666, (1, 3));
    s.lower().mknod("loop", FileType::BlockDevice, 0o660, (7, 0));
    let m = s.mount();
    assert_eq!(m.stat("null").st_rdev, rustix::fs::makedev(1, 3));
    assert_eq!(m.stat("loop").st_rdev, rustix::fs::makedev(7, 0));
    m.write("null", "swallowed");
    assert_eq!(m.read("null"), b"");
    assert!(!s.upper().exists("null"), "writing to a device copies nothing up");
}

fn opaque_upper_root_hides_nothing(s: &mut Sandbox) {
    s.lower().file("low", "");
    s.upper().file("up", "").set_xattr("", s.overlay_xattr("opaque"), "y");
    let m = s.mount();
    assert_eq!(m.names(""), ["low", "up"], "the root is always merged");
}

fn path_through_a_file(s: &mut Sandbox) {
    s.lower().file("f", "").symlink("f", "l");
    let m = s.mount();
    assert_errno(lstat(m.at("f/x")), Errno::NOTDIR);
    assert_errno(lstat(m.at("l/x")), Errno::NOTDIR);
    assert_errno(std::fs::write(m.at("f/x"), ""), Errno::NOTDIR);
}

fn path_through_a_merged_symlink(s: &mut Sandbox) {
    s.lower().file("real/f", "lower").symlink("real", "link").symlink("loop", "loop");
    let m = s.mount();
    m.write("link/f", "written");
    m.write("link/new", "new");
    assert_eq!(s.upper().text("real/f"), "written");
    assert_eq!(s.upper().names(""), ["real"]);
    assert_errno(std::fs::read(m.at("loop/x")), Errno::LOOP);
}

/// What is hidden may be damaged in whatever way, and where a mark leads that is not followed.
fn damage_below_a_directory(s: &mut Sandbox) {
    s.option("redirect_dir=nofollow");
    let (lower, upper, metacopy) = (s.lower(), s.upper(), s.overlay_xattr("metacopy"));
    lower.file("d", "").file("f", "").dir("r");
    lower.set_xattr("d", &metacopy, "ab").set_xattr("f", &metacopy, "ab");
    upper.file("d/in", "in").file("f", "f").dir("r");
    upper.set_xattr("r", s.overlay_xattr("redirect"), "/d");
    let m = s.mount();
    assert_eq!((m.names("d"), m.text("d/in")), (vec!["in".into()], "in".into()));
    assert_errno(rustix::fs::stat(m.at("r")), Errno::PERM);
    m.unlink("d/in");
    m.rmdir("d");
    m.unlink("f");
    assert!(!m.exists("d") && !m.exists("f"));
    s.unmount();
}
