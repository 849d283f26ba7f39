//! Files made anew by who opened them for writing only, which go past the page cache, beside other
//! descriptors of them.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::common::scratch::Filesystem;
use crate::common::{Backend, Context, Sandbox, assert_errno, backend, sys, sys::Map};

mounted_tests! {
    [root userns user]: readers_beside_a_writer, all_descriptors_see_the_same;
    [root userns]: cached_before_and_after, unmapped_memory, memory_of_the_kernel;
    [root]: synced_writes_are_on_the_disk, without_passthrough;
}

const PAGE: usize = 4096;

/// Whoever reads after a write has returned sees it, or a later one.
fn readers_beside_a_writer(s: &mut Sandbox) {
    const BLOCK: usize = 3 * PAGE + 100;
    let m = s.mount();
    let writer = m.open("f", OFlags::CREATE | OFlags::WRONLY);
    writer.write_all_at(&[0; BLOCK], 0).unwrap();
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (m, written, done) = (&m, &written, &done);
            scope.spawn(move || {
                let file = m.open("f", if number == 0 { OFlags::RDWR } else { OFlags::RDONLY });
                let mut bytes = [0; 8];
                let mut at = number * 1000;
                while !done.load(Ordering::Acquire) {
                    let before = written.load(Ordering::Acquire);
                    at = (at + 808) % (BLOCK - 8) / 8 * 8;
                    file.read_exact_at(&mut bytes, at as u64).unwrap();
                    let seen = u64::from_ne_bytes(bytes);
                    assert!(seen >= before, "{seen} at {at} after {before} was written");
                }
            });
        }
        for generation in 1..=3000_u64 {
            writer.write_all_at(&generation.to_ne_bytes().repeat(BLOCK / 8), 0).unwrap();
            written.store(generation, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}

fn all_descriptors_see_the_same(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let mut writer = m.open("f", OFlags::WRONLY | OFlags::TRUNC);
    writer.write_all(&[b'l'; 3 * PAGE]).unwrap();
    let (reader, both) = (m.open("f", OFlags::RDONLY), m.open("f", OFlags::RDWR));
    let shared = Map::new(&both, 4 * PAGE, true, true).unwrap();
    let private = Map::new(&reader, 4 * PAGE, false, false).unwrap();
    let at = |file: &std::fs::File, at: usize| {
        let mut byte = [0; 4];
        let read = file.read_at(&mut byte, at as u64).unwrap();
        String::from_utf8_lossy(&byte[..read]).into_owned()
    };
    assert_eq!((at(&reader, 3 * PAGE - 2), at(&both, 0)), ("ll".into(), "llll".into()));
    for (round, text) in ["1111", "2222", "3333"].into_iter().enumerate() {
        let end = 3 * PAGE + 4 * round;
        writer.write_all(text.as_bytes()).unwrap();
        assert_eq!((at(&reader, end), at(&both, end)), (text.into(), text.into()));
        assert_eq!((shared.read(end, 4), private.read(end, 4)), (text.into(), text.into()));
        assert_eq!(m.stat("f").st_size, end as i64 + 4);
    }
    shared.write(PAGE, b"mmap");
    shared.sync().unwrap();
    assert_eq!((at(&reader, PAGE), at(&both, PAGE)), ("mmap".into(), "mmap".into()));
    both.write_all_at(b"both", PAGE as u64 + 4).unwrap();
    let overwriter = m.open("f", OFlags::WRONLY);
    overwriter.write_all_at(b"over", PAGE as u64 + 8).unwrap();
    assert_eq!(shared.read(PAGE, 12), b"mmapbothover");
    drop((writer, overwriter, shared, private, reader, both));
    assert_eq!(&m.read("f")[PAGE..PAGE + 12], b"mmapbothover");
    assert_eq!(&m.read("f")[3 * PAGE..], b"111122223333");
    assert_eq!(m.read("f"), s.upper().read("f"));
}

/// What is in the cache when a file is written past it, and what is read afterwards.
fn cached_before_and_after(s: &mut Sandbox) {
    let m = s.mount();
    m.write("f", vec![b'1'; 10 * PAGE]);
    for round in 0..20 {
        let mut expected = m.read("f");
        let (from, text) = (round * 1777, vec![b'a' + round as u8; 1 + round * 500]);
        if round % 3 == 0 {
            m.open("f", OFlags::WRONLY | OFlags::TRUNC).write_all_at(b"anew", 0).unwrap();
            expected = b"anew".to_vec();
            assert!(m.read("f") == expected, "round {round}, made anew");
        }
        m.open("f", OFlags::WRONLY).write_all_at(&text, from as u64).unwrap();
        expected.resize(expected.len().max(from + text.len()), 0);
        expected[from..from + text.len()].copy_from_slice(&text);
        assert!(m.read("f") == expected, "round {round}");
        m.open("f", OFlags::RDWR).write_all_at(b"cached", from as u64).unwrap();
        expected.resize(expected.len().max(from + 6), 0);
        expected[from..from + 6].copy_from_slice(b"cached");
        assert!(m.read("f") == expected, "round {round}, written through the cache");
    }
    m.truncate("f", 100);
    assert_eq!(m.read("f").len(), 100);
}

/// As the others, for root too.
fn without_passthrough(s: &mut Sandbox) {
    s.option("passthrough=off");
    cached_before_and_after(s);
}

/// The part before memory that is not there is written.
fn unmapped_memory(s: &mut Sandbox) {
    let m = s.mount();
    let memory = std::fs::File::options().read(true).write(true).open("/dev/zero").unwrap();
    let mut map = Map::new(&memory, 2 * PAGE, true, false).unwrap();
    map.write(0, &vec![b'x'; 2 * PAGE]);
    map.unmap_from(PAGE);
    let write = |name: &str, from: usize, len: usize| {
        let file = m.open(name, OFlags::CREATE | OFlags::WRONLY);
        sys::write_memory(file, map.address(from), len)
    };
    assert_eq!(write("page", 0, 2 * PAGE).unwrap(), PAGE);
    assert_eq!(write("end", PAGE - 100, 1000).unwrap(), 100);
    assert_errno(write("nothing", PAGE, 10), Errno::FAULT);
    assert_eq!(
        (m.stat("page").st_size, m.stat("end").st_size, m.stat("nothing").st_size),
        (PAGE as i64, 100, 0)
    );
}

/// FUSE pins the memory that it hands on, which the kernel's own pages and a device's cannot be;
/// not of files that the kernel writes itself.
fn memory_of_the_kernel(s: &mut Sandbox) {
    let m = s.mount();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vvar]")).expect("the kernel's clock");
    let address = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    for (name, access, refused) in [("w", OFlags::WRONLY, true), ("rw", OFlags::RDWR, false)] {
        let file = m.open(name, OFlags::CREATE | access);
        let written = sys::write_memory(file, address, 8);
        match refused && backend() == Backend::Ovlfuse && s.context() != Context::root {
            true => assert_errno(written, Errno::FAULT),
            false => assert_eq!(written.unwrap(), 8, "{name}"),
        }
    }
}

fn synced_writes_are_on_the_disk(s: &mut Sandbox) {
    let disk = Filesystem::image("ext4", 16);
    s.upper_in(disk.path());
    s.option("xino=on");
    let on_disk = |marker: &[u8]| {
        let image = std::fs::read(disk.image_file()).unwrap();
        image.chunks(512).any(|sector| sector == &marker[..512])
    };
    let m = s.mount();
    let dsync = OFlags::from_bits_retain(libc::O_DSYNC as u32);
    let no = ReadWriteFlags::empty();
    let ways = [(OFlags::SYNC, no), (dsync, no), (OFlags::empty(), ReadWriteFlags::DSYNC)];
    for (number, (flags, per_write)) in ways.into_iter().enumerate() {
        for access in [OFlags::WRONLY, OFlags::RDWR] {
            let name = format!("{number} {access:?}");
            // Beside one that is for writing only, the other goes past the cache too.
            let _beside = m.open(&name, OFlags::CREATE | OFlags::WRONLY);
            let file = m.open(&name, access | flags);
            let marker = name.repeat(1000);
            let bytes = [std::io::IoSlice::new(marker.as_bytes())];
            let written = rustix::io::pwritev2(&file, &bytes, 0, per_write).unwrap();
            assert_eq!(written, marker.len(), "{name}");
            assert!(on_disk(marker.as_bytes()), "{name} is nowhere but in memory");
        }
    }
    let marker = "nobody asked".repeat(100);
    m.write("f", &marker);
    assert!(!on_disk(marker.as_bytes()), "it is there before anybody asked for it");
    s.unmount();
}
