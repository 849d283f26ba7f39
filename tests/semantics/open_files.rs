//! Descriptors that outlive what they were opened as: removed, copied up, renamed.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags, fstat};
use rustix::io::Errno;

use crate::common::{Backend, Sandbox, Tree, assert_errno, backend, dirents, sys::Map};

mounted_tests! {
    [root userns user]:
        unlinked_file_works_in_every_call, old_reader_sees_what_is_written_after_copy_up,
        lower_is_not_written_through_an_old_reader, unlinked_reader_of_lower;
    [root userns]:
        unlinked_file_is_reopened_through_proc, many_unlinked_files, reader_during_copy_up_by_other_calls,
        old_reader_after_truncate, old_reader_sees_metadata, old_mapping_after_copy_up, removed_directory_is_empty,
        removed_directory_as_working_directory, unlinked_then_made_again, path_descriptors,
        unlinked_last_link_of_several, o_tmpfile, replaced_file_stays_readable, descriptors_after_parent_rename,
        unlinked_before_the_first_write, unlinked_while_mapped, reader_of_removed_hard_link,
        files_that_nobody_opened;
}

/// Everything a descriptor is good for, on one whose name is gone.
fn use_unlinked(file: &mut File, before: &str) {
    assert_eq!(fstat(&*file).unwrap().st_nlink, 0);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, before);
    file.write_all(b"+more").unwrap();
    let size = u64::try_from(before.len()).unwrap() + 5;
    assert_eq!(file.metadata().unwrap().len(), size);
    file.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    rustix::fs::fchown(&*file, Some(rustix::process::getuid()), None).unwrap();
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 7 };
    rustix::fs::futimens(&*file, &Timestamps { last_access: time, last_modification: time })
        .unwrap();
    assert_eq!(fstat(&*file).unwrap().st_mtime_nsec, 7);
    rustix::fs::fsetxattr(&*file, "user.a", b"1", XattrFlags::empty()).unwrap();
    // The kernel's overlay wants room for the names that it hides as well.
    let mut value = [0; 256];
    assert_eq!(rustix::fs::fgetxattr(&*file, "user.a", &mut value).unwrap(), 1);
    assert_eq!(rustix::fs::flistxattr(&*file, &mut value).unwrap(), "user.a\0".len());
    rustix::fs::fremovexattr(&*file, "user.a").unwrap();
    rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, 100).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(fstat(&*file).unwrap().st_size, 4);
    file.sync_all().unwrap();
    rustix::fs::flock(&*file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(fstat(&*file).unwrap().st_nlink, 0);
}

/// With `no_open` the daemon knows of no open file: the first change copies up.
fn files_that_nobody_opened(s: &mut Sandbox) {
    s.lower().file("changed", "lower").file("unlinked", "lower").file("unchanged", "lower");
    s.lower().file("cut", "lower").file("large", vec![b'l'; 3 << 20]);
    for index in 0..300 {
        s.lower().file(format!("many/f{index}"), "x");
    }
    s.option("no_open");
    s.max_descriptors(256);
    let m = s.mount();
    let reader = m.open("changed", OFlags::RDONLY);
    assert_eq!(m.text("changed"), "lower");
    m.append("changed", "+more");
    let mut text = [0; 20];
    let read = reader.read_at(&mut text, 0).unwrap();
    assert_eq!(&text[..read], b"lower+more");
    drop(m.open("unchanged", OFlags::RDWR));
    assert_eq!(s.upper().exists("unchanged"), backend() == Backend::Kernel);
    let mut unlinked = m.open("unlinked", OFlags::RDWR);
    m.unlink("unlinked");
    use_unlinked(&mut unlinked, "lower");
    assert!(s.upper().is_whiteout("unlinked"));
    drop(m.open("cut", OFlags::WRONLY | OFlags::TRUNC));
    assert_eq!((m.text("cut"), s.upper().text("cut")), (String::new(), String::new()));
    let large = m.open("large", OFlags::RDWR);
    large.write_all_at(b"end", 3 << 20).unwrap();
    assert_eq!(
        (m.read("large").len(), s.upper().read("large").len()),
        ((3 << 20) + 3, (3 << 20) + 3)
    );
    let copy = m.open("copy", OFlags::CREATE | OFlags::RDWR);
    let copied = rustix::fs::copy_file_range(&large, None, &copy, None, 1 << 20).unwrap();
    assert_eq!(m.read("copy").len(), copied);
    let closed = m.open("closed", OFlags::CREATE | OFlags::WRONLY);
    closed.set_permissions(PermissionsExt::from_mode(0o000)).unwrap();
    closed.write_all_at(b"still open", 0).unwrap();
    closed.sync_all().unwrap();
    drop(closed);
    m.chmod("closed", 0o600);
    assert_eq!(m.text("closed"), "still open");
    // More at once than the daemon may have descriptors.
    let many: Vec<_> =
        (0..300).map(|index| m.open(format!("many/f{index}"), OFlags::RDWR)).collect();
    for file in &many {
        file.write_all_at(b"y", 1).unwrap();
    }
    for index in 0..300 {
        assert_eq!(m.text(format!("many/f{index}")), "xy");
    }
}

fn unlinked_file_works_in_every_call(s: &mut Sandbox) {
    s.lower().file("low", "lower").file("copied", "lower").file("d/low", "lower");
    let m = s.mount();
    m.append("copied", "+1");
    m.write("up", "upper");
    for (path, content) in
        [("low", "lower"), ("copied", "lower+1"), ("up", "upper"), ("d/low", "lower")]
    {
        let mut file = m.open(path, OFlags::RDWR);
        m.unlink(path);
        use_unlinked(&mut file, content);
        assert!(!m.exists(path));
    }
    assert_eq!(m.walk(""), ["d/"]);
    s.unmount();
    s.assert_work_clean();
    s.mount();
}

fn unlinked_reader_of_lower(s: &mut Sandbox) {
    s.lower().file("f", "lower").file("g", "lower");
    let m = s.mount();
    let (mut early, late) = (m.open("f", OFlags::RDONLY), m.open("g", OFlags::RDONLY));
    m.unlink("f");
    m.append("g", "+");
    m.unlink("g");
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert_eq!(text, "lower");
    // The kernel's overlay shows the lower file's own count here.
    assert!(fstat(&early).unwrap().st_nlink <= 1);
    assert_eq!(std::io::read_to_string(&late).unwrap(), "lower+");
    assert_eq!(fstat(&late).unwrap().st_nlink, 0);
}

fn unlinked_before_the_first_write(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDONLY);
    m.unlink("f");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reader = std::fs::read_to_string(&path).unwrap();
    assert_eq!(reader, "lower");
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "lower");
}

fn unlinked_file_is_reopened_through_proc(s: &mut Sandbox) {
    s.lower().file("low", "lower");
    let m = s.mount();
    m.write("up", "lower");
    for path in ["low", "up"] {
        let first = m.open(path, OFlags::RDWR);
        m.unlink(path);
        let again = std::fs::OpenOptions::new()
            .append(true)
            .read(true)
            .open(format!("/proc/self/fd/{}", first.as_raw_fd()))
            .unwrap();
        (&again).write_all(b"+again").unwrap();
        assert_eq!(std::io::read_to_string(&first).unwrap(), "lower+again");
        assert_eq!(fstat(&again).unwrap().st_ino, fstat(&first).unwrap().st_ino);
    }
}

fn many_unlinked_files(s: &mut Sandbox) {
    for index in 0..100 {
        s.lower().file(format!("f{index}"), format!("{index}"));
    }
    let m = s.mount();
    let files: Vec<File> =
        (0..100).map(|index| m.open(format!("f{index}"), OFlags::RDWR)).collect();
    for index in 0..100 {
        m.unlink(format!("f{index}"));
    }
    for (index, file) in files.iter().enumerate() {
        file.write_all_at(b"x", 10).unwrap();
        let mut text = vec![0; 11];
        file.read_exact_at(&mut text, 0).unwrap();
        assert!(text.starts_with(index.to_string().as_bytes()) && text.ends_with(b"x"));
    }
    assert_eq!(m.names(""), [""; 0]);
}

fn old_reader_sees_what_is_written_after_copy_up(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut reader = m.open("f", OFlags::RDONLY);
    let mut first = [0; 3];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"low");
    m.append("f", "+appended");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "er+appended");
    assert_eq!(reader.metadata().unwrap().len(), 14);
    m.write("f", "new");
    reader.rewind().unwrap();
    assert_eq!(std::io::read_to_string(&reader).unwrap(), "new");
    assert_eq!(reader.metadata().unwrap().len(), 3);
}

/// Once seen to go wrong elsewhere: the write reached the lower layer.
fn lower_is_not_written_through_an_old_reader(s: &mut Sandbox) {
    s.lower().file("f", "lower content");
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    let mut bytes = [0; 5];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    let writer = m.open("f", OFlags::RDWR);
    writer.write_all_at(b"UPPER", 0).unwrap();
    writer.sync_all().unwrap();
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"UPPER");
    assert_eq!(s.lower().text("f"), "lower content");
    assert_eq!(s.upper().text("f"), "UPPER content");
}

fn reader_during_copy_up_by_other_calls(s: &mut Sandbox) {
    s.kernel_splits_links();
    for name in ["chmod", "rename", "link", "xattr", "mtime"] {
        s.lower().file(name, "lower");
    }
    let m = s.mount();
    let change = |name: &str, m: &Tree| match name {
        "chmod" => drop(m.chmod(name, 0o600).clone()),
        "link" => drop(m.link(name, "linked").clone()),
        "xattr" => drop(m.set_xattr(name, "user.a", "1").clone()),
        "mtime" => drop(m.mtime(name, 1, 1).clone()),
        _ => m.rename(name, "renamed"),
    };
    for name in ["chmod", "rename", "link", "xattr", "mtime"] {
        let reader = m.open(name, OFlags::RDONLY);
        change(name, &m);
        assert_eq!(std::io::read_to_string(&reader).unwrap(), "lower");
        let now = if name == "rename" { "renamed" } else { name };
        m.append(now, "+");
        let mut byte = [0];
        reader.read_exact_at(&mut byte, 5).unwrap();
        assert_eq!(&byte, b"+", "{name}");
    }
}

fn old_reader_after_truncate(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    let mut bytes = [0; 10];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    m.truncate("f", 4);
    assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 4);
    assert_eq!(reader.metadata().unwrap().len(), 4);
    m.truncate("f", 6);
    assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 6);
    assert_eq!(&bytes[..6], b"0123\0\0");
}

fn old_reader_sees_metadata(s: &mut Sandbox) {
    s.lower().file("f", "lower").set_xattr("f", "user.a", "1");
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    m.chmod("f", 0o640);
    m.mtime("f", 5, 5);
    m.set_xattr("f", "user.a", "22");
    let stat = fstat(&reader).unwrap();
    assert_eq!((stat.st_mode & 0o777, stat.st_mtime, stat.st_nlink), (0o640, 5, 1));
    let mut value = [0; 4];
    assert_eq!(rustix::fs::fgetxattr(&reader, "user.a", &mut value).unwrap(), 2);
    rustix::fs::fchmod(&reader, Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(s.upper().mode("f"), 0o600);
}

fn old_mapping_after_copy_up(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    let map = Map::new(&reader, 5, false, true).unwrap();
    assert_eq!(map.read(0, 5), b"lower");
    m.write("f", "UPPER");
    // The kernel's overlay keeps showing the lower pages, a FUSE file its only page cache.
    let expected: &[u8] = if backend() == Backend::Kernel { b"lower" } else { b"UPPER" };
    assert_eq!(map.read(0, 5), expected);
    assert_eq!(Map::new(m.open("f", OFlags::RDONLY), 5, false, true).unwrap().read(0, 5), b"UPPER");
}

fn removed_directory_is_empty(s: &mut Sandbox) {
    s.lower().dir("low").dir("merged").file("full/f", "");
    s.upper().dir("merged");
    let m = s.mount();
    m.mkdir("up");
    for name in ["low", "merged", "up"] {
        let held = m.open(name, OFlags::DIRECTORY);
        m.rmdir(name);
        let left = dirents::batch(&held, 4096).unwrap_or_default();
        assert!(
            left.iter().all(|entry| entry.name == "." || entry.name == ".."),
            "{name}: {left:?}"
        );
        assert_errno(rustix::fs::statat(&held, "x", AtFlags::empty()), Errno::NOENT);
        assert_errno(rustix::fs::openat(&held, "x", OFlags::CREATE, Mode::RUSR), Errno::NOENT);
    }
    let held = m.open("full", OFlags::DIRECTORY);
    m.remove_all("full");
    assert_errno(rustix::fs::statat(&held, "f", AtFlags::empty()), Errno::NOENT);
}

fn removed_directory_as_working_directory(s: &mut Sandbox) {
    s.lower().dir("d/e");
    let m = s.mount();
    let script = "cd d/e && rmdir ../e && ! ls x 2>/dev/null && ! touch x 2>/dev/null && cd .. && ls -A | wc -l";
    let output = crate::common::scratch::run(
        std::process::Command::new("sh").args(["-c", script]).current_dir(m.path()),
    );
    assert_eq!(output.trim(), "0");
}

fn unlinked_then_made_again(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut old = m.open("f", OFlags::RDWR);
    m.unlink("f");
    m.write("f", "second");
    old.write_all(b"old").unwrap();
    assert_eq!(m.text("f"), "second");
    assert_ne!(fstat(&old).unwrap().st_ino, m.ino("f"));
    m.unlink("f");
    m.write("f", "third");
    assert_eq!(old.metadata().unwrap().len(), 5);
    assert_eq!(m.text("f"), "third");
}

fn path_descriptors(s: &mut Sandbox) {
    s.lower().file("d/f", "lower").symlink("t", "d/l");
    let m = s.mount();
    let file = m.open("d/f", OFlags::PATH);
    let link = m.open("d/l", OFlags::PATH | OFlags::NOFOLLOW);
    m.append("d/f", "+");
    assert_eq!(fstat(&file).unwrap().st_size, 6);
    assert_eq!(rustix::fs::readlinkat(&link, "", Vec::new()).unwrap().to_bytes(), b"t");
    let opened = std::fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(opened, "lower+");
    m.unlink("d/f");
    assert_eq!(fstat(&file).unwrap().st_nlink, 0);
}

fn unlinked_last_link_of_several(s: &mut Sandbox) {
    let m = s.mount();
    m.write("a", "x");
    m.link("a", "b");
    let mut held = m.open("a", OFlags::RDWR);
    m.unlink("a");
    assert_eq!(fstat(&held).unwrap().st_nlink, 1);
    held.seek(std::io::SeekFrom::End(0)).unwrap();
    held.write_all(b"y").unwrap();
    assert_eq!(m.text("b"), "xy");
    m.unlink("b");
    use_unlinked(&mut held, "xy");
}

/// What fuser cannot carry yet must be refused, so that callers fall back.
fn o_tmpfile(s: &mut Sandbox) {
    s.lower().dir("d");
    let m = s.mount();
    let opened =
        rustix::fs::open(m.at("d"), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o640));
    if backend() == Backend::Ovlfuse {
        assert_errno(opened, Errno::OPNOTSUPP);
        return;
    }
    let mut file: File = opened.unwrap().into();
    file.write_all(b"x").unwrap();
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(
        rustix::fs::CWD,
        from,
        rustix::fs::CWD,
        m.at("d/f"),
        AtFlags::SYMLINK_FOLLOW,
    )
    .unwrap();
    assert_eq!((m.text("d/f"), m.mode("d/f")), ("x".into(), 0o640));
}

fn replaced_file_stays_readable(s: &mut Sandbox) {
    s.lower().file("config", "old");
    let m = s.mount();
    let old = m.open("config", OFlags::RDONLY);
    for version in 0..5 {
        m.write("config.new", format!("version {version}"));
        m.rename("config.new", "config");
        assert_eq!(m.text("config"), format!("version {version}"));
    }
    assert_eq!(std::io::read_to_string(&old).unwrap(), "old");
    assert_eq!(m.names(""), ["config"]);
}

fn descriptors_after_parent_rename(s: &mut Sandbox) {
    let m = s.mount();
    m.mkdir("a");
    m.mkdir("a/sub");
    m.write("a/sub/f", "1");
    let mut file = m.open("a/sub/f", OFlags::RDWR | OFlags::APPEND);
    let directory = m.open("a/sub", OFlags::DIRECTORY);
    m.rename("a", "b");
    file.write_all(b"2").unwrap();
    let made =
        rustix::fs::openat(&directory, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    drop(made);
    assert_eq!(
        (m.text("b/sub/f"), m.names("b/sub")),
        ("12".into(), vec!["f".into(), "new".into()])
    );
}

fn unlinked_while_mapped(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let map = Map::new(m.open("f", OFlags::RDWR), 5, true, true).unwrap();
    m.unlink("f");
    map.write(0, b"L");
    map.sync().unwrap();
    assert_eq!(map.read(0, 5), b"Lower");
    drop(map);
    assert!(!m.exists("f"));
}

fn reader_of_removed_hard_link(s: &mut Sandbox) {
    s.lower().file("a", "x").link("a", "b");
    let m = s.mount();
    let reader = m.open("a", OFlags::RDONLY);
    m.unlink("a");
    m.append("b", "+");
    assert_eq!(std::io::read_to_string(&reader).unwrap(), "x");
    assert_eq!(m.text("b"), "x+");
}
