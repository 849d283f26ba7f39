//! Small limits and large numbers: descriptors, layers, space, names.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::common::scratch::Filesystem;
use crate::common::{Backend, Sandbox, assert_errno, backend, wait};

mounted_tests! {
    [root userns]:
        few_descriptors_many_directories, few_descriptors_many_open_files,
        few_descriptors_many_removed_files, descriptors_are_given_back,
        many_layers, paths_longer_than_path_max, many_links_of_a_whiteout;
    [root]:
        no_space_in_copy_up, no_space_for_writing, no_inodes, no_inodes_for_links_of_whiteouts,
        no_inodes_for_more_links_of_a_whiteout, no_space_for_fallocate, full_upper_is_mounted_again, statfs_is_the_uppers;
}

fn few_descriptors_many_directories(s: &mut Sandbox) {
    for directory in 0..400 {
        s.lower().file(format!("{directory}/sub/f"), "x");
    }
    s.max_descriptors(256);
    let m = s.mount();
    assert_eq!(m.walk("").len(), 1200);
    for directory in 0..400 {
        m.append(format!("{directory}/sub/f"), "+");
    }
    for directory in 0..400 {
        assert_eq!(m.text(format!("{directory}/sub/f")), "x+");
        m.rename(format!("{directory}/sub/f"), format!("{directory}/g"));
        m.rmdir(format!("{directory}/sub"));
    }
    assert_eq!(m.walk("").len(), 800);
}

/// The daemon runs out before its clients do: an error, and all is well once they close.
fn few_descriptors_many_open_files(s: &mut Sandbox) {
    for index in 0..500 {
        s.lower().file(format!("f{index}"), "x");
    }
    s.max_descriptors(256);
    let m = s.mount();
    let mut open: Vec<File> = Vec::new();
    for index in 0..500 {
        match rustix::fs::open(m.at(format!("f{index}")), OFlags::RDWR, Mode::empty()) {
            Ok(file) => open.push(file.into()),
            Err(error) => assert!(error == Errno::MFILE || error == Errno::NFILE, "{error}"),
        }
    }
    assert!(open.len() >= 100, "only {} files could be open at once", open.len());
    for mut file in &open {
        file.write_all(b"y").unwrap();
    }
    drop(open);
    for index in 0..500 {
        let opened =
            || rustix::fs::open(m.at(format!("f{index}")), OFlags::RDWR, Mode::empty()).is_ok();
        wait::until("the daemon has its descriptors back", opened);
        m.append(format!("f{index}"), "+");
    }
    assert_eq!(m.names("").len(), 500);
}

/// What is removed while it is open takes a descriptor of the daemon for itself. When they run out
/// the file cannot be removed; it is never lost to who has it open.
fn few_descriptors_many_removed_files(s: &mut Sandbox) {
    for index in 0..100 {
        s.lower().file(format!("f{index}"), format!("lower {index}"));
    }
    s.max_descriptors(64);
    let m = s.mount();
    let access = |index| if index % 2 == 0 { OFlags::RDONLY } else { OFlags::RDWR };
    let open: Vec<File> = (0..100).map(|i| m.open(format!("f{i}"), access(i))).collect();
    let removed = |index: usize| match std::fs::remove_file(m.at(format!("f{index}"))) {
        Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => false,
        done => done.map(|()| true).unwrap(),
    };
    let count = (0..100).filter(|&index| removed(index)).count();
    assert!(count >= 20, "only {count} files could be removed");
    for (index, file) in open.iter().enumerate() {
        let mut content = [0; 20];
        let read = rustix::io::pread(file, &mut content, 0).unwrap();
        assert_eq!(content[..read], *format!("lower {index}").as_bytes());
    }
    // Others can be worked with meanwhile.
    m.write("new", "new");
    m.rename("new", "d");
    drop(open);
    for name in m.names("") {
        wait::until("the daemon has its descriptors back", || {
            std::fs::remove_file(m.at(&name)).is_ok()
        });
    }
    assert_eq!(m.names(""), [""; 0]);
}

fn descriptors_are_given_back(s: &mut Sandbox) {
    for index in 0..300 {
        s.lower().file(format!("d{}/f{index}", index % 7), "x");
    }
    let m = s.mount();
    let exercise = || {
        for index in 0..300 {
            let path = format!("d{}/f{index}", index % 7);
            let held = m.open(&path, OFlags::RDWR | OFlags::CREATE);
            m.unlink(&path);
            drop(held);
            m.write(&path, "new");
            m.rename(&path, "moved");
            m.rename("moved", &path);
        }
        assert_eq!(m.walk("").len(), 307);
    };
    exercise();
    let Some(before) = s.descriptors() else { return };
    for _ in 0..3 {
        exercise();
    }
    wait::until("no descriptor is left behind", || {
        s.descriptors().is_some_and(|now| now <= before + 8)
    });
}

fn many_layers(s: &mut Sandbox) {
    s.lower().file("f", "0").file("d/0", "");
    for layer in 1..500 {
        s.add_lower().file(format!("d/{layer}"), "").file("f", layer.to_string());
    }
    let m = s.mount();
    assert_eq!(m.text("f"), "499");
    assert_eq!(m.names("d").len(), 500);
    m.append("d/0", "x");
    m.unlink("d/250");
    m.unlink("f");
    assert!(!m.exists("f"));
    assert_errno(std::fs::read(m.at("d/never")), Errno::NOENT);
    assert_eq!(m.names("d").len(), 499);
    assert_eq!(s.upper().names("d"), ["0", "250"]);
}

fn paths_longer_than_path_max(s: &mut Sandbox) {
    let m = s.mount();
    let name = "n".repeat(200);
    let mut directory = m.open("", OFlags::DIRECTORY);
    let mut above = Vec::new();
    for _ in 0..40 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        let below =
            rustix::fs::openat(&directory, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        above.push(std::mem::replace(&mut directory, below.into()));
    }
    let made =
        rustix::fs::openat(&directory, "f", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).unwrap();
    File::from(made).write_all(b"deep").unwrap();
    assert_eq!(crate::common::dirents::rest(&directory, 4096).len(), 3);
    rustix::fs::unlinkat(&directory, "f", rustix::fs::AtFlags::empty()).unwrap();
    for parent in above.iter().rev() {
        rustix::fs::unlinkat(parent, &name, rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
    assert_eq!(m.names(""), [""; 0]);
}

fn many_links_of_a_whiteout(s: &mut Sandbox) {
    for index in 0..1000 {
        drop(s.lower().open(index.to_string(), OFlags::CREATE | OFlags::WRONLY));
    }
    let m = s.mount();
    for index in 0..1000 {
        m.unlink(index.to_string());
    }
    assert_eq!(s.upper().nlink("0"), 1001);
    assert_eq!(m.names(""), [""; 0]);
}

/// A copy-up that does not fit must fail whole: the lower file stays visible, work is clean.
fn no_space_in_copy_up(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("size=1m");
    s.upper_in(small.path());
    s.option("xino=on");
    s.lower().file("big", vec![7; 4 << 20]).file("d/small", "x");
    let m = s.mount();
    let opened = rustix::fs::open(m.at("big"), OFlags::WRONLY, Mode::empty());
    assert_errno(opened, Errno::NOSPC);
    assert_errno(
        std::fs::set_permissions(m.at("big"), std::os::unix::fs::PermissionsExt::from_mode(0o600)),
        Errno::NOSPC,
    );
    assert_errno(std::fs::rename(m.at("big"), m.at("moved")), Errno::NOSPC);
    assert!(m.read("big") == vec![7; 4 << 20]);
    assert!(!s.upper().exists("big"));
    m.append("d/small", "+");
    assert_eq!(m.text("d/small"), "x+");
    drop(m.open("big", OFlags::WRONLY | OFlags::TRUNC));
    assert_eq!(m.text("big"), "");
    s.finish();
}

fn no_space_for_writing(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("size=1m");
    s.upper_in(small.path());
    s.option("xino=on");
    s.lower().file("low", "x");
    let m = s.mount();
    let mut file = m.open("f", OFlags::CREATE | OFlags::RDWR);
    let mut written = 0;
    let error = loop {
        match file.write(&[1; 65_536]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    assert!((512 << 10..=1 << 20).contains(&written));
    drop(file);
    assert_eq!(m.stat("f").st_size, i64::try_from(written).unwrap());
    assert!(m.read("f").iter().all(|byte| *byte == 1));
    m.unlink("f");
    m.append("low", "+");
    assert_eq!(m.text("low"), "x+");
    s.finish();
}

fn no_inodes(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("nr_inodes=16");
    s.upper_in(small.path());
    s.option("xino=on");
    s.lower().file("low", "x").file("low2", "x").dir("d");
    let m = s.mount();
    let mut made = 0;
    while rustix::fs::open(m.at(format!("f{made}")), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)
        .is_ok()
    {
        made += 1;
    }
    assert!((5..16).contains(&made), "{made} files");
    assert_errno(std::fs::write(m.at("more"), ""), Errno::NOSPC);
    assert_errno(std::fs::create_dir(m.at("d/more")), Errno::NOSPC);
    assert_errno(rustix::fs::open(m.at("low"), OFlags::WRONLY, Mode::empty()), Errno::NOSPC);
    assert_eq!((m.text("low"), m.text("low2")), ("x".into(), "x".into()));
    for index in 0..made {
        m.unlink(format!("f{index}"));
    }
    m.append("low", "+");
    assert_eq!(m.text("low"), "x+");
    s.finish();
}

/// Takes all inodes of `filesystem`, with files beside the layers.
fn take_all_inodes(filesystem: &Filesystem) -> Vec<PathBuf> {
    let name = |number: usize| filesystem.path().join(format!("filler{number}"));
    (0..).map(name).take_while(|path| File::create(path).is_ok()).collect()
}

/// Removes one of the files of [`take_all_inodes`].
fn give_one_back(fillers: &mut Vec<PathBuf>) {
    std::fs::remove_file(fillers.pop().unwrap()).unwrap();
}

/// On tmpfs a link takes an inode too.
fn no_inodes_for_links_of_whiteouts(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("nr_inodes=20");
    s.upper_in(small.path());
    s.option("xino=on");
    let names = ["a", "b", "c", "d"];
    for name in names {
        s.lower().file(name, "");
    }
    let m = s.mount();
    let mut fillers = take_all_inodes(&small);
    for name in names {
        assert_errno(std::fs::remove_file(m.at(name)), Errno::NOSPC);
        give_one_back(&mut fillers);
        m.unlink(name);
        assert_eq!(s.upper().nlink(name), 1);
        assert!(s.upper().is_whiteout(name), "{name}");
    }
    while !fillers.is_empty() {
        give_one_back(&mut fillers);
    }
    s.finish();
}

/// The one whiteout that others are linked to takes the place of the first that cannot be.
fn no_inodes_for_more_links_of_a_whiteout(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("nr_inodes=20");
    s.upper_in(small.path());
    s.option("xino=on");
    s.lower().file("a", "").file("b", "").file("c", "");
    let m = s.mount();
    m.unlink("a");
    let mut fillers = take_all_inodes(&small);
    m.unlink("b");
    assert_eq!(s.upper().ino("a"), s.upper().ino("b"));
    assert_errno(std::fs::remove_file(m.at("c")), Errno::NOSPC);
    give_one_back(&mut fillers);
    m.unlink("c");
    assert_ne!(s.upper().ino("a"), s.upper().ino("c"));
    while !fillers.is_empty() {
        give_one_back(&mut fillers);
    }
    s.finish();
}

/// The kernel, which makes a new directory in work, mounts it read-only.
fn full_upper_is_mounted_again(s: &mut Sandbox) {
    let small = Filesystem::image("ext4", 8);
    s.upper_in(small.path());
    s.option("xino=on");
    let m = s.mount();
    m.write("kept", "kept");
    for size in [65_536, 1] {
        let mut file = m.open(format!("f{size}"), OFlags::CREATE | OFlags::WRONLY);
        while file.write(&vec![1; size]).is_ok() {}
    }
    let mut dirs = 0;
    while std::fs::create_dir(m.at(format!("d{dirs}"))).is_ok() {
        dirs += 1;
    }
    drop(m);
    s.unmount();
    let m = s.mount();
    assert_eq!(m.text("kept"), "kept");
    if backend() == Backend::Ovlfuse {
        m.unlink("f65536");
        m.append("kept", "+");
        assert_eq!(m.text("kept"), "kept+");
    }
    drop(m);
    s.unmount();
    s.upper().unlink("f1");
    s.finish();
}

/// What ext4 has allocated when room runs out may belong to the file already.
fn no_space_for_fallocate(s: &mut Sandbox) {
    let small = Filesystem::image("ext4", 16);
    s.upper_in(small.path());
    s.option("xino=on");
    let m = s.mount();
    m.write("f", vec![1; 10_000]);
    let file = m.open("f", OFlags::RDWR);
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 30);
    assert_errno(allocated, Errno::NOSPC);
    let size = s.upper().stat("f").st_size;
    assert!(size > 10_000, "{size}");
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, size);
    assert_eq!(m.stat("f").st_size, size);
    drop(file);
    s.finish();
}

fn statfs_is_the_uppers(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("size=3m,nr_inodes=77");
    s.upper_in(small.path());
    s.option("xino=on");
    s.lower().file("low", "x");
    let m = s.mount();
    let (got, upper) =
        (rustix::fs::statvfs(m.path()).unwrap(), rustix::fs::statvfs(small.path()).unwrap());
    assert_eq!(got.f_blocks * got.f_frsize, upper.f_blocks * upper.f_frsize);
    assert_eq!((got.f_files, got.f_namemax), (77, 255));
    assert_eq!(got.f_bavail * got.f_frsize, upper.f_bavail * upper.f_frsize);
    s.finish();
}
