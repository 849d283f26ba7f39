//! What reviews found wrong once, each as small as it can be shown.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use crate::common::mount::{Mount, assert_refused};
use crate::common::scratch::{self, Filesystem};
use crate::common::{
    Backend, Caller, Context, Sandbox, Tree, assert_errno, backend, caller::ALICE, dirents, wait,
};

mounted_tests! {
    [root userns user]:
        upper_hard_links_are_one_file, dirty_volatile_work_is_refused, file_size_limit_of_the_daemon,
        default_acl_of_work_stays_there, mount_point_in_a_lower, entries_of_a_copied_hard_link,
        change_times_after_origins, closed_directory_keeps_its_mode, reading_goes_on_after_chmod_0,
        few_descriptors_while_files_are_open;
    [userns user]: unlistable_directory_of_many_layers, read_only_file_gets_an_origin;
    [root userns]:
        full_directories_stay_while_listings_go, upper_mounted_below_a_lower, big_copy_ups_delay_no_lookup,
        unlink_during_copy_up, changes_while_data_is_copied;
    [root]: read_error_is_no_end_of_file, lower_without_acls, half_copied_data_is_refused, removed_directories_are_closed;
}

fn mount_of(s: &Sandbox) -> Mount {
    Mount::new(backend(), s.spec(), &s.scratch().at("log"))
}

/// Two lookups at once must not make two nodes, with two caches, of one file.
fn upper_hard_links_are_one_file(s: &mut Sandbox) {
    let upper = s.upper();
    upper.dir("B");
    for index in 0..300 {
        upper.file(format!("A/f{index}"), "old").link(format!("A/f{index}"), format!("B/f{index}"));
    }
    let m = s.mount();
    let step = Barrier::new(2);
    std::thread::scope(|scope| {
        for directory in ["A", "B"] {
            let (step, m) = (&step, &m);
            scope.spawn(move || {
                for index in 0..300 {
                    step.wait();
                    m.stat(format!("{directory}/f{index}"));
                }
            });
        }
    });
    for index in 0..300 {
        let (a, b) = (format!("A/f{index}"), format!("B/f{index}"));
        assert_eq!(m.text(&b), "old");
        m.write(&a, "written");
        assert_eq!(m.text(&b), "written", "{b} after a write to {a}");
        assert_eq!(m.ino(&a), m.ino(&b));
    }
    m.unlink("A/f0");
    drop(m.open("A/f0", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY));
    assert_eq!((m.text("A/f0"), m.text("B/f0")), (String::new(), "written".into()));
    assert_eq!(m.nlink("B/f0"), 1);
}

/// Other directories' listings push the one out that rmdir looks at.
fn full_directories_stay_while_listings_go(s: &mut Sandbox) {
    const BIG: usize = 6;
    let memory = Filesystem::tmpfs("size=1g");
    let [bottom, top] = ["bottom", "top"].map(|name| Tree::new(memory.path().join(name)));
    let end = "n".repeat(240);
    for (layer, name) in [(&bottom, "b"), (&top, "t")] {
        for big in 0..BIG {
            layer.dir(format!("big{big}"));
            let directory = layer.open(format!("big{big}"), OFlags::DIRECTORY);
            for index in 0..20_000 {
                rustix::fs::symlinkat("t", &directory, format!("{name}{index}{end}")).unwrap();
            }
        }
    }
    for index in 0..20 {
        bottom.file(format!("d{index}/low"), "low").file(format!("d{index}/gone"), "");
        top.dir(format!("d{index}"));
    }
    s.add_lower_at(bottom.path());
    s.add_lower_at(top.path());
    s.option("xino=on");
    let mount = mount_of(s);
    let (m, done, listed) = (s.merged(), AtomicBool::new(false), Barrier::new(3));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (m, end, done, listed) = (&m, &end, &done, &listed);
            scope.spawn(move || {
                listed.wait();
                for round in 0.. {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    let big = (round * 2 + reader) % BIG;
                    m.stat(format!("big{big}/b{round}{end}"));
                    let count = dirents::all(m.at(format!("big{big}")), OFlags::RDONLY).len();
                    assert_eq!(count, 40_002);
                }
            });
        }
        listed.wait();
        let end = Instant::now() + Duration::from_millis(1500);
        for index in 0..20 {
            m.unlink(format!("d{index}/gone"));
        }
        for index in (0..20).cycle().take_while(|_| Instant::now() < end) {
            let directory = format!("d{index}");
            assert_errno(std::fs::remove_dir(m.at(&directory)), Errno::NOTEMPTY);
            assert_eq!(m.text(format!("{directory}/low")), "low");
            m.write(format!("{directory}/new"), "new");
            assert_errno(std::fs::remove_dir(m.at(&directory)), Errno::NOTEMPTY);
            assert_eq!(m.names(&directory), ["low", "new"]);
            assert_eq!(m.text(format!("{directory}/new")), "new");
            m.unlink(format!("{directory}/new"));
        }
        done.store(true, Ordering::SeqCst);
    });
    mount.unmount();
}

fn read_error_is_no_end_of_file(s: &mut Sandbox) {
    let image = Filesystem::image("ext4", 64);
    let lower = Tree::new(image.path().join("layer"));
    lower.file("big", vec![7; 16 << 20]);
    s.add_lower_at(lower.path());
    s.option("xino=on");
    let mount = mount_of(s);
    let m = s.merged();
    let file = lower.open("big", OFlags::RDONLY);
    rustix::fs::syncfs(&file).unwrap();
    // What is beyond the end of the image cannot be read from the loop device.
    File::options().write(true).open(image.image_file()).unwrap().set_len(1 << 20).unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let opened = m.open("big", OFlags::RDONLY);
    assert_errno(opened.read_at(&mut [0; 4096], 9 << 20), Errno::IO);
    assert_errno((&opened).read_to_end(&mut Vec::new()), Errno::IO);
    assert_errno(std::fs::read(m.at("big")), Errno::IO);
    assert_eq!(m.stat("big").st_size, 16 << 20);
    assert_errno(rustix::fs::open(m.at("big"), OFlags::WRONLY, Mode::empty()), Errno::IO);
    assert!(!s.upper().exists("big"));
    drop((opened, file));
    mount.unmount();
}

fn lower_without_acls(s: &mut Sandbox) {
    let ramfs = Filesystem::ramfs();
    // Without file handles a copy gets a number of its own at the next mount.
    s.ignore_inodes();
    let lower = s.add_lower_at(ramfs.path().join("layer"));
    lower.file("d/f", "text").file("closed", "").chmod("closed", 0o600);
    s.option("xino=on");
    let m = s.mount();
    Caller::user(ALICE).run(|| {
        assert_eq!(m.names(""), ["closed", "d"]);
        assert_eq!(m.names("d"), ["f"]);
        assert_eq!(m.text("d/f"), "text");
        assert_errno(std::fs::read(m.at("closed")), Errno::ACCESS);
    });
    m.append("d/f", "+");
    assert_eq!(Caller::user(ALICE).run(|| m.text("d/f")), "text+");
    s.finish();
}

fn dirty_volatile_work_is_refused(s: &mut Sandbox) {
    let work = s.work();
    work.dir("work/incompat/volatile/dirty").chmod("work", 0);
    assert_refused(backend(), &s.spec(), 4);
    work.chmod("work", 0o700);
    assert!(work.exists("work/incompat/volatile/dirty"), "the mark is gone");
}

fn file_size_limit_of_the_daemon(s: &mut Sandbox) {
    let allowed = |result: std::io::Result<()>| match result {
        Ok(()) => {}
        error => assert_errno(error, Errno::FBIG),
    };
    s.lower().file("big", vec![1; 1 << 20]);
    s.max_file_size(100 << 10);
    let m = s.mount();
    let mut file = m.open("new", OFlags::CREATE | OFlags::WRONLY);
    allowed(file.write_all(&vec![2; 1 << 20]));
    drop(file);
    let opened = rustix::fs::open(m.at("big"), OFlags::WRONLY, Mode::empty());
    allowed(opened.map(drop).map_err(Into::into));
    assert_eq!(m.names(""), ["big", "new"]);
    assert_eq!(m.stat("big").st_size, 1 << 20);
    m.write("small", "still answers");
    assert_eq!(m.text("small"), "still answers");
}

fn default_acl_of_work_stays_there(s: &mut Sandbox) {
    let (lower, upper, work) = (s.lower(), s.upper(), s.work());
    lower.file("f", "x").chmod("f", 0o644).file("d/g", "x").dir("d/e").dir("moved");
    let give = |directory: &Path| {
        scratch::run(Command::new("setfacl").args(["-d", "-m", "u:3001:rwx"]).arg(directory));
    };
    give(s.scratch().path());
    work.rmdir("");
    work.mkdir("");
    give(work.path());
    let m = s.mount();
    m.append("f", "+");
    m.append("d/g", "+");
    m.chmod("d/e", 0o750);
    m.mkdir("made");
    m.rmdir("moved");
    m.mkdir("moved");
    m.write("written", "");
    for path in ["f", "d", "d/g", "d/e", "made", "moved", "written"] {
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!(upper.xattr(path, name), None, "{name} of {path}");
            assert_eq!(m.xattr(path, name), None, "{name} of {path}");
        }
    }
    assert_eq!((upper.mode("f"), upper.mode("d/e"), upper.mode("d")), (0o644, 0o750, 0o755));
}

fn mount_point_in_a_lower(s: &mut Sandbox) {
    s.lower().dir("m/inner").file("f", "x").chmod("m", 0o755);
    let mut spec = s.spec();
    spec.merged = s.lower().at("m");
    if s.context() == Context::user {
        // Without a private copy of the lower's mount the daemon would meet itself.
        return assert_refused(backend(), &spec, 5);
    }
    let mount = Mount::new(backend(), spec, &s.scratch().at("log"));
    let m = s.lower().sub("m");
    assert_eq!(m.walk(""), ["f", "m/", "m/inner/"], "the directory below, not the mount");
    m.write("m/new", "");
    assert_eq!(m.names("m"), ["inner", "new"]);
    assert_eq!(s.upper().walk(""), ["m/", "m/new"]);
    mount.unmount();
    assert_eq!(s.lower().walk(""), ["f", "m/", "m/inner/"]);
}

/// Copies of 300 MB on threads of their own must leave the others to answer.
fn big_copy_ups_delay_no_lookup(s: &mut Sandbox) {
    s.lower().file("big", vec![1; 300 << 20]);
    for index in 0..200 {
        s.lower().file(format!("d/{index}"), "");
    }
    let mut worst = Duration::ZERO;
    // On a busy machine one round may wait for processor or disk; three do not.
    for round in 0..3 {
        let mount = mount_of(s);
        worst = worst_lookup_during_copy_up(&s.merged());
        mount.unmount();
        if worst < Duration::from_millis(250) {
            return;
        }
        eprintln!("round {round}: {worst:?}");
        s.upper().unlink("big");
    }
    panic!("a lookup waited {worst:?}");
}

fn worst_lookup_during_copy_up(m: &Tree) -> Duration {
    let (step, mut worst) = (Barrier::new(11), Duration::ZERO);
    std::thread::scope(|scope| {
        let open = || {
            step.wait();
            drop(m.open("big", OFlags::WRONLY));
        };
        let writers: Vec<_> = (0..10).map(|_| scope.spawn(open)).collect();
        step.wait();
        for index in (0..200).cycle() {
            let start = Instant::now();
            m.stat(format!("d/{index}"));
            assert!(!m.exists(format!("d/missing-{index}")));
            if writers.iter().all(|writer| writer.is_finished()) {
                break;
            }
            worst = worst.max(start.elapsed());
        }
    });
    assert_eq!(m.stat("big").st_size, 300 << 20);
    worst
}

/// Who opened it first gets it, then it is removed.
fn unlink_during_copy_up(s: &mut Sandbox) {
    const SIZE: u64 = 192 << 20;
    let memory = Filesystem::tmpfs("size=1g");
    s.upper_in(memory.path());
    s.option("xino=on");
    s.lower().file("big", vec![1; SIZE as usize]);
    let free = || {
        let stat = rustix::fs::statvfs(memory.path()).unwrap();
        stat.f_bfree * stat.f_frsize
    };
    for copied in [1, 4, 64] {
        let mount = mount_of(s);
        let (m, before) = (s.merged(), free());
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| {
                let file = m.open("big", OFlags::RDWR);
                file.write_all_at(b"new", SIZE).unwrap();
                let mut end = [0; 5];
                file.read_exact_at(&mut end, SIZE - 2).unwrap();
                assert_eq!(&end, b"\x01\x01new");
                file
            });
            wait::until("the copy-up is under way", || free() + (copied << 20) <= before);
            m.unlink("big");
            let file = opener.join().unwrap();
            assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
        });
        assert!(!m.exists("big") && s.upper().is_whiteout("big"));
        mount.unmount();
        s.upper().unlink("big");
    }
}

fn entries_of_a_copied_hard_link(s: &mut Sandbox) {
    s.kernel_splits_links();
    s.lower().file("d/a", "x").link("d/a", "d/b").file("d/c", "x");
    let m = s.mount();
    let agree = |when: &str| {
        for entry in dirents::all(m.at("d"), OFlags::RDONLY).iter().filter(|e| e.name != "..") {
            let ino = m.ino(Path::new("d").join(&entry.name));
            assert_eq!(entry.ino, ino, "{} {when}", entry.name.display());
        }
    };
    agree("at first");
    m.append("d/a", "+");
    agree("after the copy-up of a");
    m.chmod("d/c", 0o600);
    m.append("d/b", "+");
    agree("after the copy-up of b and c");
}

/// A lookup that finds upper's directory without an origin writes one.
fn change_times_after_origins(s: &mut Sandbox) {
    let directories = ["", "p", "p/d"];
    s.lower().file("p/d/low", "");
    s.upper().dir("p/d");
    let made = SystemTime::now();
    let later = || made.elapsed().is_ok_and(|age| age > Duration::from_millis(50));
    wait::until("a change time that differs from the directories'", later);
    let m = s.mount();
    let times = || {
        directories.map(|path| {
            let stat = m.stat(path);
            (path, stat.st_ctime, stat.st_ctime_nsec)
        })
    };
    times();
    assert_eq!(m.names("p/d"), ["low"]);
    let before = times();
    s.remount();
    assert_eq!(before, times(), "before and after the remount");
}

/// The daemon tries what it cannot list by name.
fn unlistable_directory_of_many_layers(s: &mut Sandbox) {
    for _ in 0..3 {
        s.add_lower();
    }
    for (index, layer) in s.spec().lowers.iter().enumerate() {
        let layer = Tree::new(layer);
        for name in (0..20).filter(|name| name % 4 == index) {
            layer.file(format!("d/{name}"), name.to_string());
        }
        layer.chmod("d", 0o311);
    }
    let mount = mount_of(s);
    let m = s.merged();
    for name in 0..20 {
        assert_eq!(m.text(format!("d/{name}")), name.to_string());
    }
    assert!(!m.exists("d/20"));
    if s.context() == Context::user {
        assert_errno(std::fs::read_dir(m.at("d")).map(drop), Errno::ACCESS);
    }
    mount.unmount();
}

fn closed_directory_keeps_its_mode(s: &mut Sandbox) {
    let lower = s.lower();
    lower.file("d/f", "x").file("d/g", "x").chmod("d/f", 0o644).chmod("d/g", 0o644);
    lower.chmod("d", 0o555);
    let m = s.mount();
    m.chmod("d/f", 0o600);
    m.append("d/g", "+");
    assert_eq!((m.mode("d/f"), m.text("d/g")), (0o600, "x+".into()));
    assert_eq!((m.mode("d"), s.upper().mode("d")), (0o555, 0o555));
}

/// The reader goes over to the copy, which an ordinary user's daemon could not open then.
fn reading_goes_on_after_chmod_0(s: &mut Sandbox) {
    s.lower().file("f", vec![3; 4 << 20]);
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDONLY);
    file.read_exact(&mut [0; 10]).unwrap();
    m.chmod("f", 0);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest == vec![3; (4 << 20) - 10]);
    assert_eq!(s.upper().mode("f"), 0);
    m.chmod("f", 0o644);
}

fn read_only_file_gets_an_origin(s: &mut Sandbox) {
    s.lower().file("f", "x").chmod("f", 0o444);
    let m = s.mount();
    m.mtime("f", 1, 2);
    assert_eq!(s.upper().mode("f"), 0o444);
    assert_eq!(s.upper().xattr("f", s.overlay_xattr("origin")), Some(Vec::new()));
}

fn few_descriptors_while_files_are_open(s: &mut Sandbox) {
    s.add_lower();
    for index in 0..60 {
        for layer in s.spec().lowers {
            Tree::new(layer).dir(format!("d{index}")).file(format!("f{index}"), "x");
        }
        s.lower().file(format!("d{index}/f"), "x");
    }
    s.max_descriptors(48);
    let m = s.mount();
    let held: Vec<File> = (0..12).map(|i| m.open(format!("f{i}"), OFlags::RDONLY)).collect();
    for index in 0..60 {
        let directory = format!("d{index}");
        assert_eq!(m.names(&directory), ["f"]);
        assert_errno(std::fs::remove_dir(m.at(&directory)), Errno::NOTEMPTY);
        m.unlink(format!("{directory}/f"));
        m.rmdir(&directory);
    }
    for file in &held {
        file.read_exact_at(&mut [0], 0).unwrap();
    }
    assert_eq!(m.names("").len(), 60);
}

fn upper_mounted_below_a_lower(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("size=4m");
    let lower = s.add_lower_at(small.path().parent().unwrap());
    lower.file("d/f", "x");
    s.upper_in(small.path());
    s.option("xino=on");
    let mount = mount_of(s);
    let m = s.merged();
    m.append("d/f", "+");
    assert_eq!(m.walk(""), ["d/", "d/f", "fs/"], "fs is what lies below the mount");
    assert_eq!((m.text("d/f"), s.upper().text("d/f")), ("x+".into(), "x+".into()));
    assert_eq!(lower.text("d/f"), "x");
    mount.unmount();
}

fn removed_directories_are_closed(s: &mut Sandbox) {
    for index in 0..20 {
        s.lower().file(format!("low{index}/sub/f"), "x");
    }
    let m = s.mount();
    for index in 0..20 {
        m.append(format!("low{index}/sub/f"), "+");
        m.file(format!("new{index}/sub/f"), "x");
        m.rename(format!("new{index}/sub/f"), format!("low{index}/g"));
    }
    assert_eq!(m.walk("").len(), 120);
    for name in m.names("") {
        m.remove_all(name);
    }
    let Some(daemon) = s.daemon() else { return assert_eq!(backend(), Backend::Kernel) };
    let scratch = s.scratch();
    let deleted = || {
        let open = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        let mut paths = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        paths.any(|path| {
            path.starts_with(scratch.path()) && path.to_str().unwrap().ends_with(" (deleted)")
        })
    };
    // Names and inodes that nobody uses, for the kernel to let go.
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    wait::until("no removed directory is open", || !deleted());
}

/// Data that was half copied when the power went may fill a metadata-only file.
fn half_copied_data_is_refused(s: &mut Sandbox) {
    let data = [7; 100_000];
    s.lower().file("f", data);
    s.upper().file("f", data).set_xattr("f", s.overlay_xattr("metacopy"), "");
    let m = s.mount();
    assert_errno(rustix::fs::stat(m.at("f")).map(drop), Errno::PERM);
    s.unmount();
}

/// What is changed while data is copied stays changed, though copying puts back what it takes away.
fn changes_while_data_is_copied(s: &mut Sandbox) {
    s.lower().file("f", vec![1; 256 << 20]).chmod("f", 0o6755);
    let Some(m) = s.mount_where_trusted("metacopy=on") else { return };
    m.mtime("f", 1, 1);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| drop(m.open("f", OFlags::WRONLY)));
        while s.upper().stat("f").st_blocks < 8 && !opening.is_finished() {
            std::thread::yield_now();
        }
        m.chmod("f", 0o600);
    });
    assert_eq!(s.upper().xattr("f", s.overlay_xattr("metacopy")), None);
    assert_eq!((m.mode("f"), s.upper().mode("f")), (0o600, 0o600));
}
