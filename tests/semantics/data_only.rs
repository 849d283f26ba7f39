//! Data-only layers: reached by redirects of metadata-only files, and by nothing else.

use std::io::Write;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::{Sandbox, assert_errno};

mounted_tests! {
    [root userns]:
        reading, not_merged, missing_data, only_files_and_no_links, first_of_several_layers,
        changes_copy_everything, only_absolute_redirects, only_from_the_lowest_layer, without_upper,
        nofollow, changes_with_metacopy, listing_and_names;
}

fn reading(s: &mut Sandbox) {
    let data = s.add_data();
    data.file("ab/cd", [7; 100_000]).file("top", "top");
    let lower = s.lower();
    s.metadata_only(&lower, "d/f", 100_000, "/ab/cd");
    s.metadata_only(&lower, "g", 100_000, "/ab/cd");
    s.metadata_only(&lower, "t", 3, "/top");
    lower.chmod("g", 0o640);
    let m = s.mount();
    assert_eq!(m.stat("d/f").st_blocks, 25 * 8);
    assert!(m.read("d/f") == [7; 100_000] && m.read("g") == [7; 100_000]);
    assert_eq!((m.text("t"), m.mode("g")), ("top".into(), 0o640));
    assert_eq!(m.stat("g").st_blocks, data.stat("ab/cd").st_blocks);
    assert_eq!((m.ino("g"), m.ino("d/f")), (lower.ino("g"), lower.ino("d/f")));
}

fn not_merged(s: &mut Sandbox) {
    s.add_data().file("f", "data").file("d/data", "data");
    s.lower().file("d/lower", "");
    s.upper().dir("d");
    let m = s.mount();
    assert_eq!(m.walk(""), ["d/", "d/lower"]);
    assert_errno(rustix::fs::stat(m.at("f")).map(drop), Errno::NOENT);
    m.write("f", "new");
    m.unlink("f");
    assert_eq!(s.upper().names(""), ["d"], "no whiteout");
}

fn missing_data(s: &mut Sandbox) {
    s.add_data();
    let lower = s.lower();
    s.metadata_only(&lower, "f", 5000, "/none");
    let m = s.mount();
    assert_eq!((m.stat("f").st_size, m.stat("f").st_blocks), (5000, 16));
    assert_errno(std::fs::read(m.at("f")), Errno::NOENT);
    assert_errno(rustix::fs::chmod(m.at("f"), 0o600.into()), Errno::NOENT);
    assert_errno(std::fs::rename(m.at("f"), m.at("g")), Errno::NOENT);
    assert_eq!(s.upper().names(""), [""; 0]);
    m.unlink("f");
    assert!(s.upper().is_whiteout("f"));
}

fn only_files_and_no_links(s: &mut Sandbox) {
    s.add_data()
        .dir("dir")
        .file("f", "")
        .symlink("f", "link")
        .symlink("dir", "way")
        .file("dir/sub/f", "");
    let lower = s.lower();
    let cases = [
        ("dir", Errno::NOENT),
        ("link", Errno::NOENT),
        ("way/sub/f", Errno::LOOP),
        ("f/x", Errno::NOTDIR),
    ];
    for (index, (path, _)) in cases.iter().enumerate() {
        s.metadata_only(&lower, &index.to_string(), 4, &format!("/{path}"));
    }
    let m = s.mount();
    for (index, (_, errno)) in cases.iter().enumerate() {
        assert_eq!(m.stat(index.to_string()).st_size, 4);
        assert_errno(std::fs::read(m.at(index.to_string())), *errno);
    }
    s.unmount();
}

fn first_of_several_layers(s: &mut Sandbox) {
    s.add_data().file("a", "first_").dir("c");
    s.add_data().file("a", "second").file("b", "second").dir("c").whiteout("c/d");
    s.add_data().file("b", "third").file("c/d", "third_");
    let lower = s.lower();
    for name in ["a", "b", "c/d"] {
        s.metadata_only(&lower, name, 6, &format!("/{name}"));
    }
    let m = s.mount();
    assert_eq!((m.text("b"), m.text("c/d")), ("second".into(), "third_".into()));
    assert_eq!(m.text("a"), "first_");
}

fn changes_copy_everything(s: &mut Sandbox) {
    s.add_data().file("x", [7; 50_000]);
    let lower = s.lower();
    for name in ["chmod", "rename", "append", "truncate"] {
        s.metadata_only(&lower, name, 50_000, "/x");
        lower.chmod(name, 0o644).set_xattr(name, "user.a", "1");
    }
    let m = s.mount();
    let old = m.open("append", OFlags::RDONLY);
    m.chmod("chmod", 0o600);
    m.rename("rename", "renamed");
    m.append("append", "+");
    m.truncate("truncate", 10);
    for name in ["chmod", "renamed", "append", "truncate"] {
        let upper = s.upper();
        assert_eq!(upper.xattr(name, s.overlay_xattr("metacopy")), None, "{name}");
        assert_eq!(upper.xattr(name, s.overlay_xattr("redirect")), None, "{name}");
        assert_eq!(upper.xattr(name, "user.a").as_deref(), Some(&b"1"[..]), "{name}");
    }
    let mut last = [0; 2];
    old.read_exact_at(&mut last, 49_999).unwrap();
    assert_eq!(&last, b"\x07+");
    drop(old);
    let m = s.remount();
    assert!(m.read("chmod") == [7; 50_000] && m.read("renamed") == [7; 50_000]);
    assert!(m.read("truncate") == [7; 10] && m.read("append").len() == 50_001);
}

fn only_absolute_redirects(s: &mut Sandbox) {
    s.add_data().file("f", "").file("g", "");
    let lower = s.lower();
    s.metadata_only(&lower, "f", 4, "");
    s.metadata_only(&lower, "h", 4, "g");
    let m = s.mount();
    for name in ["f", "h"] {
        assert_errno(rustix::fs::stat(m.at(name)).map(drop), Errno::PERM);
    }
    s.unmount();
}

fn only_from_the_lowest_layer(s: &mut Sandbox) {
    s.add_data().file("x", "data");
    s.lower().dir("d");
    let top = s.add_lower();
    s.metadata_only(&top, "f", 4, "/x");
    s.metadata_only(&top, "only/f", 4, "/x");
    let upper = s.upper();
    s.metadata_only(&upper, "u", 4, "/x");
    let m = s.mount();
    for name in ["f", "only/f", "u"] {
        assert_errno(rustix::fs::stat(m.at(name)).map(drop), Errno::PERM);
    }
    s.unmount();
}

fn without_upper(s: &mut Sandbox) {
    s.add_data().file("x", "data");
    let lower = s.lower();
    s.metadata_only(&lower, "f", 4, "/x");
    s.without_upper();
    let m = s.mount();
    assert_eq!(m.text("f"), "data");
}

fn nofollow(s: &mut Sandbox) {
    s.add_data().file("x", "data");
    let lower = s.lower();
    s.metadata_only(&lower, "f", 4, "/x");
    s.option("redirect_dir=nofollow");
    let m = s.mount();
    assert_eq!(m.text("f"), "data");
    m.append("f", "+");
    assert_eq!(m.text("f"), "data+");
}

fn changes_with_metacopy(s: &mut Sandbox) {
    s.add_data().file("x", "data").file("y", "more");
    s.lower().dir("d");
    let top = s.add_lower();
    s.metadata_only(&top, "f", 4, "/x");
    s.metadata_only(&top, "g", 4, "/y");
    s.metadata_only(&top, "lost", 4, "/none");
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.chmod("f", 0o600);
    m.rename("f", "d/f");
    assert_errno(rustix::fs::chmod(m.at("lost"), 0o600.into()), Errno::NOENT);
    assert!(s.upper().xattr("d/f", s.overlay_xattr("metacopy")).is_some());
    assert_eq!(s.upper().xattr("d/f", s.overlay_xattr("redirect")).as_deref(), Some(&b"/f"[..]));
    let m = s.remount();
    assert_eq!((m.text("d/f"), m.text("g")), ("data".into(), "more".into()));
    m.open("d/f", OFlags::WRONLY).write_all(b"D").unwrap();
    m.append("g", "+");
    assert!(s.upper().xattr("d/f", s.overlay_xattr("metacopy")).is_none());
    let m = s.remount();
    assert_eq!((m.text("d/f"), m.text("g")), ("Data".into(), "more+".into()));
    m.unlink("lost");
}

fn listing_and_names(s: &mut Sandbox) {
    s.add_data().file("x", "data");
    let lower = s.lower();
    for index in 0..20 {
        s.metadata_only(&lower, &format!("d/{index}"), 4, "/x");
    }
    s.kernel_splits_links();
    let m = s.mount();
    assert_eq!(m.names("d").len(), 20);
    for index in 0..20 {
        assert_eq!(m.text(format!("d/{index}")), "data");
    }
    m.rename("d/1", "d/2");
    m.link("d/3", "d/new");
    assert_eq!(
        (m.text("d/2"), m.text("d/new"), m.names("d").len()),
        ("data".into(), "data".into(), 20)
    );
}
