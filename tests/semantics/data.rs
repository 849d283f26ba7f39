//! What is in files: read, write, truncate, holes, ranges, mappings.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use crate::common::{Backend, Sandbox, assert_errno, backend, scratch, sys, sys::Map, wait};

mounted_tests! {
    [root userns user]:
        write_and_read_back, append_goes_to_the_end, truncate_down_and_up, shared_mapping_is_written,
        copy_file_range_within, seek_to_data_and_holes, two_descriptors_see_each_other;
    [root userns]:
        write_far_beyond_the_end, appenders_do_not_overwrite, private_mapping_is_not_written,
        read_only_mapping_of_lower, shared_mapping_of_lower_is_copied_up, fallocate_modes,
        fallocate_on_a_lower_file, wrong_descriptor_mode, copy_file_range_from_lower, sendfile_and_splice,
        direct_io, sync_in_every_form, executable_in_use, positioned_io, truncating_open_of_open_file,
        sharing_room_copies_nothing_up, sqlite_in_a_lower_database, timestamps_of_writes, vectored_io, file_of_five_gigabytes, concurrent_writes_to_one_file;
    [root]: copy_between_filesystems, reflink_upper;
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap()).collect()
}

fn write_and_read_back(s: &mut Sandbox) {
    let content = pattern(1_234_567);
    let m = s.mount();
    for chunk in [1000, 4096, 65_536, 1 << 20] {
        let mut file = m.open("f", OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR);
        for part in content.chunks(chunk) {
            file.write_all(part).unwrap();
        }
        file.rewind().unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        assert!(back == content, "chunks of {chunk}");
        assert!(s.upper().read("f") == content, "chunks of {chunk} in upper");
    }
}

fn append_goes_to_the_end(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDWR | OFlags::APPEND);
    file.rewind().unwrap();
    file.write_all(b"+1").unwrap();
    assert_eq!(file.stream_position().unwrap(), 7);
    m.append("f", "+2");
    file.write_all(b"+3").unwrap();
    assert_eq!(m.text("f"), "lower+1+2+3");
}

fn appenders_do_not_overwrite(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let m = &m;
            scope.spawn(move || {
                let mut file = m.open("f", OFlags::WRONLY | OFlags::APPEND);
                for line in 0..200 {
                    file.write_all(format!("{writer}:{line:03}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let text = m.text("f");
    assert_eq!(text.len(), 4 * 200 * 6);
    for writer in 0..4 {
        let own: Vec<&str> =
            text.lines().filter(|line| line.starts_with(&format!("{writer}:"))).collect();
        assert_eq!(own.len(), 200);
        assert!(own.is_sorted());
    }
}

fn truncate_down_and_up(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    file.set_len(4).unwrap();
    assert_eq!(m.text("f"), "0123");
    file.set_len(8).unwrap();
    assert_eq!(m.text("f"), "0123\0\0\0\0", "what was cut off does not come back");
    assert_eq!(file.metadata().unwrap().len(), 8);
    assert_eq!(s.upper().text("f"), "0123\0\0\0\0");
    assert_errno(rustix::fs::ftruncate(m.open("f", OFlags::RDONLY), 1), Errno::INVAL);
    assert_errno(rustix::fs::ftruncate(&file, u64::MAX), Errno::INVAL);
}

fn write_far_beyond_the_end(s: &mut Sandbox) {
    s.lower().file("f", "start");
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    file.write_all_at(b"end", 10 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (10 << 20) + 3);
    let mut middle = [1; 4096];
    file.read_exact_at(&mut middle, 5 << 20).unwrap();
    assert_eq!(middle, [0; 4096]);
    assert!(s.upper().stat("f").st_blocks < 100);
}

fn two_descriptors_see_each_other(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let (reader, writer) = (m.open("f", OFlags::RDONLY), m.open("f", OFlags::RDWR));
    writer.write_all_at(b"AB", 2).unwrap();
    let mut text = [0; 10];
    reader.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"01AB456789");
    writer.set_len(3).unwrap();
    assert_eq!(reader.read_at(&mut text, 0).unwrap(), 3);
    assert_eq!(reader.metadata().unwrap().len(), 3);
}

fn positioned_io(s: &mut Sandbox) {
    s.lower().file("f", pattern(20_000));
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    let mut bytes = [0; 100];
    assert_eq!(file.read_at(&mut bytes, 19_950).unwrap(), 50);
    assert_eq!(file.read_at(&mut bytes, 20_000).unwrap(), 0);
    assert_eq!(file.read_at(&mut bytes, 1 << 40).unwrap(), 0);
    assert_eq!(file.write_at(b"", 5).unwrap(), 0);
    assert_eq!(m.read("f"), pattern(20_000));
}

fn vectored_io(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let mut file = m.open("f", OFlags::RDWR);
    let parts = [std::io::IoSlice::new(b"ab"), std::io::IoSlice::new(b"cde")];
    assert_eq!(file.write_vectored(&parts).unwrap(), 5);
    file.rewind().unwrap();
    let (mut one, mut two) = ([0; 3], [0; 7]);
    let mut into = [std::io::IoSliceMut::new(&mut one), std::io::IoSliceMut::new(&mut two)];
    assert_eq!(file.read_vectored(&mut into).unwrap(), 10);
    assert_eq!((&one, &two), (b"abc", b"de56789"));
}

fn wrong_descriptor_mode(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    assert_errno(m.open("f", OFlags::RDONLY).write(b"x"), Errno::BADF);
    assert_errno(m.open("f", OFlags::WRONLY).read(&mut [0]), Errno::BADF);
    assert_errno(m.open("f", OFlags::PATH).read(&mut [0]), Errno::BADF);
    assert_errno(m.open("", OFlags::RDONLY).read(&mut [0]), Errno::ISDIR);
}

fn truncating_open_of_open_file(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut held = m.open("f", OFlags::RDWR);
    held.seek(SeekFrom::End(0)).unwrap();
    drop(m.open("f", OFlags::WRONLY | OFlags::TRUNC));
    assert_eq!(held.metadata().unwrap().len(), 0);
    held.write_all(b"x").unwrap();
    assert_eq!(m.text("f"), "\0\0\0\0\0x");
}

fn seek_to_data_and_holes(s: &mut Sandbox) {
    let fill = |file: File| {
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[1; 4096], 4 << 20).unwrap();
    };
    s.lower().file("low", "");
    fill(s.lower().open("low", OFlags::WRONLY));
    let m = s.mount();
    fill(m.open("up", OFlags::WRONLY | OFlags::CREATE));
    // Copy-up may round what it copies to 1 MiB, as the kernel's does.
    for (name, flags, round) in
        [("low", OFlags::RDONLY, 0), ("up", OFlags::RDWR, 0), ("low", OFlags::RDWR, 1 << 20)]
    {
        use rustix::fs::{SeekFrom, seek};
        let file = m.open(name, flags);
        assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 4 << 20);
        assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 0);
        let hole = seek(&file, SeekFrom::Hole(4 << 20)).unwrap();
        assert!(
            hole >= (4 << 20) + 4096 && hole <= ((4 << 20) + 4096).max((4 << 20) + round),
            "{name}: {hole}"
        );
        assert_errno(seek(&file, SeekFrom::Data(hole)), Errno::NXIO);
        assert_errno(seek(&file, SeekFrom::Hole(8 << 20)), Errno::NXIO);
        assert_eq!(seek(&file, SeekFrom::End(-1)).unwrap(), (8 << 20) - 1);
    }
}

fn fallocate_modes(s: &mut Sandbox) {
    let m = s.mount();
    m.write("f", pattern(64 << 10));
    let file = m.open("f", OFlags::RDWR);
    fallocate(&file, FallocateFlags::empty(), 0, 128 << 10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 128 << 10);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 128 << 10);
    assert!(s.upper().stat("f").st_blocks >= 2048);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 8192).unwrap();
    let mut expected = pattern(64 << 10);
    expected[4096..12_288].fill(0);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 20_000, 1000).unwrap();
    expected[20_000..21_000].fill(0);
    expected.resize(128 << 10, 0);
    assert!(m.read("f") == expected);
    assert_errno(fallocate(&file, FallocateFlags::empty(), 0, 0), Errno::INVAL);
    assert_errno(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 1), Errno::OPNOTSUPP);
    assert_errno(
        fallocate(m.open("f", OFlags::RDONLY), FallocateFlags::empty(), 0, 1),
        Errno::BADF,
    );
}

fn fallocate_on_a_lower_file(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    fallocate(m.open("f", OFlags::WRONLY), FallocateFlags::empty(), 0, 8).unwrap();
    assert_eq!(m.text("f"), "lower\0\0\0");
    assert_eq!(s.upper().text("f"), "lower\0\0\0");
}

fn copy_range(from: &File, to: &File, len: usize) -> usize {
    let (mut off_in, mut off_out) = (0, 0);
    let mut left = len;
    while left > 0 {
        let done =
            rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), left)
                .unwrap();
        if done == 0 {
            break;
        }
        left -= done;
    }
    len - left
}

fn copy_file_range_within(s: &mut Sandbox) {
    let m = s.mount();
    m.write("a", pattern(300_000));
    m.write("b", "x");
    let copied = copy_range(&m.open("a", OFlags::RDONLY), &m.open("b", OFlags::RDWR), 400_000);
    assert_eq!(copied, 300_000);
    assert!(m.read("b") == pattern(300_000));
    assert!(s.upper().read("b") == pattern(300_000));
}

fn copy_file_range_from_lower(s: &mut Sandbox) {
    s.lower().file("a", pattern(300_000)).file("b", "lower");
    let m = s.mount();
    assert_eq!(
        copy_range(&m.open("a", OFlags::RDONLY), &m.open("b", OFlags::WRONLY), 200_000),
        200_000
    );
    assert!(s.upper().read("b") == pattern(300_000)[..200_000]);
    assert!(!s.upper().exists("a"));
    std::fs::copy(m.at("a"), m.at("c")).unwrap();
    assert!(m.read("c") == pattern(300_000));
}

fn copy_between_filesystems(s: &mut Sandbox) {
    s.lower().file("a", pattern(300_000));
    let m = s.mount();
    s.scratch().file("outside", pattern(100_000));
    std::fs::copy(s.scratch().at("outside"), m.at("in")).unwrap();
    std::fs::copy(m.at("a"), s.scratch().at("out")).unwrap();
    assert!(m.read("in") == pattern(100_000));
    assert!(s.scratch().read("out") == pattern(300_000));
}

/// FUSE carries neither; copy_file_range(2) shares room where the layers' file system can.
fn sharing_room_copies_nothing_up(s: &mut Sandbox) {
    s.lower().file("low", pattern(65536));
    s.upper().file("up", pattern(65536));
    let m = s.mount();
    let (from, to) = (m.open("up", OFlags::RDONLY), m.open("low", OFlags::RDONLY));
    let shared = sys::dedupe(&from, &to, 65536);
    match backend() {
        Backend::Ovlfuse => assert_errno(shared, Errno::OPNOTSUPP),
        Backend::Kernel => assert_eq!(shared.unwrap(), -Errno::PERM.raw_os_error()),
    }
    assert!(!s.upper().exists("low"));
    let cloned = rustix::fs::ioctl_ficlone(m.open("new", OFlags::CREATE | OFlags::WRONLY), &from);
    if backend() == Backend::Ovlfuse {
        assert_errno(cloned, Errno::OPNOTSUPP);
    }
}

/// Two connections, in both ways that SQLite writes, on a database that starts in the lower layer.
fn sqlite_in_a_lower_database(s: &mut Sandbox) {
    const MAKE: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('create table t(n integer, v blob)')
db.executemany('insert into t values(?, randomblob(900))', [(n,) for n in range(500)])
db.commit()";
    const CHANGE: &str = "import sqlite3, sys
one = sqlite3.connect(sys.argv[1])
mode = one.execute('pragma journal_mode=' + sys.argv[2]).fetchone()[0]
assert mode == sys.argv[2], mode
one.execute('pragma mmap_size=1000000')
other = sqlite3.connect(sys.argv[1])
assert other.execute('select count(*), sum(n) from t').fetchone() == (500, 124750)
for n in range(20):
    one.execute('update t set v = randomblob(1900) where n % 20 = ?', (n,))
    one.commit()
    other.execute('update t set n = n + 1 where n >= 480')
    other.commit()
    assert one.execute('select sum(n) from t').fetchone()[0] == 124750 + 20 * (n + 1)
other.execute('update t set n = n - 20 where n >= 480')
other.commit()
for db in one, other:
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
    db.close()";
    let python = |script: &str, arguments: &[&std::ffi::OsStr]| {
        scratch::run(std::process::Command::new("python3").args(["-c", script]).args(arguments));
    };
    for mode in ["delete", "wal"] {
        python(MAKE, &[s.lower().at(mode).as_ref()]);
    }
    for _ in 0..2 {
        let m = s.mount();
        for mode in ["delete", "wal"] {
            python(CHANGE, &[m.at(mode).as_ref(), mode.as_ref()]);
        }
        s.unmount();
    }
    s.mount();
}

fn sendfile_and_splice(s: &mut Sandbox) {
    s.lower().file("a", pattern(100_000));
    let m = s.mount();
    let (from, to) = (m.open("a", OFlags::RDONLY), m.open("b", OFlags::CREATE | OFlags::RDWR));
    let mut offset = 0;
    while rustix::fs::sendfile(&to, &from, Some(&mut offset), 1 << 20).unwrap() > 0 {}
    assert!(m.read("b") == pattern(100_000));
}

fn shared_mapping_is_written(s: &mut Sandbox) {
    let m = s.mount();
    m.write("f", pattern(10_000));
    let file = m.open("f", OFlags::RDWR);
    let map = Map::new(&file, 10_000, true, true).unwrap();
    assert_eq!(map.read(0, 10_000), pattern(10_000));
    map.write(5000, b"mapped");
    let mut back = [0; 6];
    file.read_exact_at(&mut back, 5000).unwrap();
    assert_eq!(&back, b"mapped");
    map.sync().unwrap();
    assert_eq!(&s.upper().read("f")[5000..5006], b"mapped");
    file.write_all_at(b"write", 0).unwrap();
    assert_eq!(map.read(0, 5), b"write");
    map.write(9990, b"late");
    drop((map, file));
    assert_eq!(&m.read("f")[9990..9994], b"late");
}

fn shared_mapping_of_lower_is_copied_up(s: &mut Sandbox) {
    s.lower().file("f", pattern(10_000));
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    let map = Map::new(&file, 10_000, true, true).unwrap();
    map.write(1, b"mapped");
    map.sync().unwrap();
    assert_eq!(&s.upper().read("f")[1..7], b"mapped");
    let refused = Map::new(m.open("f", OFlags::RDONLY), 10_000, true, true);
    assert_errno(refused.map(|_| ()), Errno::ACCESS);
}

fn private_mapping_is_not_written(s: &mut Sandbox) {
    s.lower().file("f", pattern(10_000));
    let m = s.mount();
    let map = Map::new(m.open("f", OFlags::RDONLY), 10_000, true, false).unwrap();
    map.write(0, b"private");
    assert_eq!(map.read(0, 7), b"private");
    assert_eq!(m.read("f"), pattern(10_000));
    assert!(!s.upper().exists("f"));
}

fn read_only_mapping_of_lower(s: &mut Sandbox) {
    s.lower().file("f", pattern(1 << 20));
    let m = s.mount();
    let map = Map::new(m.open("f", OFlags::RDONLY), 1 << 20, false, true).unwrap();
    assert!(map.read(0, 1 << 20) == pattern(1 << 20));
    assert!(!s.upper().exists("f"));
    m.append("f", "x");
    assert!(map.read(0, 1 << 20) == pattern(1 << 20));
}

fn direct_io(s: &mut Sandbox) {
    s.lower().file("f", pattern(8192));
    let m = s.mount();
    #[repr(align(4096))]
    struct Aligned([u8; 4096]);
    let mut block = Aligned([0; 4096]);
    m.open("f", OFlags::RDONLY | OFlags::DIRECT).read_exact_at(&mut block.0, 4096).unwrap();
    assert_eq!(block.0[..], pattern(8192)[4096..]);
    m.open("f", OFlags::WRONLY | OFlags::DIRECT).write_all_at(&block.0, 0).unwrap();
    assert_eq!(m.read("f")[..4096], pattern(8192)[4096..]);
    assert_eq!(s.upper().read("f")[..4096], pattern(8192)[4096..]);
}

fn sync_in_every_form(s: &mut Sandbox) {
    s.lower().file("low", "x").dir("d");
    let m = s.mount();
    let mut up = m.open("up", OFlags::CREATE | OFlags::RDWR | OFlags::SYNC);
    up.write_all(b"x").unwrap();
    for file in
        [up, m.open("low", OFlags::RDONLY), m.open("d", OFlags::RDONLY), m.open("", OFlags::RDONLY)]
    {
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fdatasync(&file).unwrap();
        rustix::fs::syncfs(&file).unwrap();
    }
    assert!(!s.upper().exists("low"));
}

fn executable_in_use(s: &mut Sandbox) {
    s.lower().dir("bin");
    std::fs::copy("/bin/sleep", s.lower().at("bin/sleep")).unwrap();
    let m = s.mount();
    let mut running = std::process::Command::new(m.at("bin/sleep")).arg("1000").spawn().unwrap();
    m.chmod("bin/sleep", 0o700);
    let cut = OFlags::RDONLY | OFlags::TRUNC;
    assert_errno(
        rustix::fs::open(m.at("bin/sleep"), cut, rustix::fs::Mode::empty()),
        Errno::TXTBSY,
    );
    let whole = m.read("bin/sleep") == s.lower().read("bin/sleep");
    let busy = std::fs::OpenOptions::new().write(true).open(m.at("bin/sleep"));
    let expected =
        std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", running.id()));
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(whole, "nothing was cut off");
    assert_eq!(busy.is_err(), expected.is_err(), "as the path of the running program itself");
    let writing = m.open("bin/sleep", OFlags::WRONLY);
    assert_errno(std::process::Command::new(m.at("bin/sleep")).spawn().map(|_| ()), Errno::TXTBSY);
    drop(writing);
    // A child of another test may hold this test's descriptors between its fork and exec.
    wait::until("nobody has it open for writing", || {
        match std::process::Command::new(m.at("bin/sleep")).arg("0").status() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => false,
            status => status.unwrap().success(),
        }
    });
}

fn timestamps_of_writes(s: &mut Sandbox) {
    s.lower().file("f", "lower").mtime("f", 1_000_000_000, 1);
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    assert_eq!(m.mtime_of("f"), (1_000_000_000, 1), "opening changes no time");
    file.write_all_at(b"x", 0).unwrap();
    let written = m.mtime_of("f");
    assert!(written.0 > 1_600_000_000);
    file.read_at(&mut [0], 0).unwrap();
    drop(file);
    assert_eq!(m.mtime_of("f"), written, "closing changes no time");
    assert_eq!(s.upper().mtime_of("f"), written);
    m.mtime("f", 5, 5);
    m.truncate("f", 1);
    assert!(m.mtime_of("f") >= written);
}

fn file_of_five_gigabytes(s: &mut Sandbox) {
    s.kernel_disagrees("reading five gigabytes of holes takes too long");
    s.lower().file("f", "").open("f", OFlags::WRONLY).set_len(5 << 30).unwrap();
    let mount = crate::common::mount::Mount::new(
        crate::common::backend(),
        s.spec(),
        &s.scratch().at("log"),
    );
    let m = s.merged();
    let file = m.open("f", OFlags::RDWR);
    file.write_all_at(b"far", (5 << 30) - 3).unwrap();
    let mut far = [0; 4];
    file.read_exact_at(&mut far, (5 << 30) - 4).unwrap();
    assert_eq!(&far, b"\0far");
    assert_eq!(m.stat("f").st_size, 5 << 30);
    assert!(s.upper().stat("f").st_blocks < 100);
    drop(file);
    mount.unmount();
}

fn concurrent_writes_to_one_file(s: &mut Sandbox) {
    s.lower().file("f", vec![0; 1 << 20]);
    let m = s.mount();
    std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let m = &m;
            scope.spawn(move || {
                let file = m.open("f", OFlags::RDWR);
                for block in (writer..256).step_by(4) {
                    let byte = u8::try_from(block % 255 + 1).unwrap();
                    file.write_all_at(&[byte; 4096], block as u64 * 4096).unwrap();
                }
            });
        }
    });
    let content = m.read("f");
    for (block, bytes) in content.chunks(4096).enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == block % 255 + 1), "block {block}");
    }
}

/// On btrfs copy-up shares the data, and FICLONE works where the kernel's overlay has it.
fn reflink_upper(s: &mut Sandbox) {
    let btrfs = crate::common::scratch::Filesystem::image("btrfs", 200);
    let tree = crate::common::Tree::new(btrfs.path());
    tree.dir("lower");
    let lower = s.add_lower_at(tree.at("lower"));
    s.upper_in(btrfs.path());
    s.option("xino=on");
    // On btrfs the kernel shows the upper file's own number after copy-up.
    s.ignore_inodes();
    lower.file("f", pattern(30 << 20));
    let m = s.mount();
    rustix::fs::syncfs(tree.open("", OFlags::RDONLY)).unwrap();
    let free = || rustix::fs::statvfs(tree.path()).unwrap().f_bavail;
    let before = free();
    m.chmod("f", 0o600);
    rustix::fs::syncfs(tree.open("", OFlags::RDONLY)).unwrap();
    let used_mib = (before.saturating_sub(free()) * 4096) >> 20;
    assert!(used_mib < 10, "copy-up of 30 MiB used {used_mib} MiB");
    assert!(s.upper().read("f") == pattern(30 << 20));
    s.finish();
}
