//! Files of upper, which as root the kernel reads and writes itself: what it does not tell of is
//! seen all the same.

use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, OFlags, fadvise, fcntl_setfl};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::common::scratch::Filesystem;
use crate::common::sys::{Map, write_memory};
use crate::common::{Caller, Sandbox, caller::ALICE, caller::BOB, wait};

mounted_tests! {
    [root userns]:
        times_while_a_mapping_is_written, a_mapping_after_the_file_was_closed,
        a_large_file_is_read_and_written,
        set_id_bits_of_a_file_open_by_root_too, set_id_bits_given_to_an_open_file,
        set_id_bits_through_the_same_file, read_ahead_before_it_is_written,
        appending_begun_and_ended, direct_io_begun_and_ended, upper_is_free_again,
        opened_in_all_ways_at_once, open_for_reading_when_copied_up;
    [root]:
        set_id_bits_stay_when_root_writes, set_id_bits_go_without_the_capability,
        set_id_bits_stay_when_capabilities_go, room_of_what_was_replaced;
}

const PAGE: usize = 4096;

/// The times of a file that is written through a mapping, while and after that is possible.
fn times_while_a_mapping_is_written(s: &mut Sandbox) {
    s.lower().file("low", vec![b'x'; PAGE]);
    let m = s.mount();
    m.file("new", vec![b'x'; PAGE]);
    for name in ["low", "new"] {
        let file = m.open(name, OFlags::RDWR);
        for round in 0..2 {
            m.mtime(name, 1, 1);
            assert_eq!(m.mtime_of(name), (1, 1));
            let map = Map::new(&file, PAGE, true, true).unwrap();
            map.write(0, b"mapped");
            map.sync().unwrap();
            assert!(m.mtime_of(name).0 > 1, "{name}, round {round}");
            assert_eq!(&m.read(name)[..6], b"mapped");
        }
        m.mtime(name, 1, 1);
        let map = Map::new(&file, PAGE, true, true).unwrap();
        map.write(0, b"closed");
        drop((map, file));
        assert!(m.mtime_of(name).0 > 1, "{name} after it was closed");
        assert_eq!(m.mtime_of(name), s.upper().mtime_of(name));
    }
}

/// A mapping is the file as it is for everybody, after the last who had it open closed it too.
fn a_mapping_after_the_file_was_closed(s: &mut Sandbox) {
    let m = s.mount();
    for (name, first) in [("rw", OFlags::RDWR), ("w", OFlags::WRONLY), ("r", OFlags::RDONLY)] {
        m.file(name, vec![b'0'; PAGE]);
        let before = m.open(name, first);
        let file = m.open(name, OFlags::RDWR);
        let map = Map::new(&file, PAGE, true, true).unwrap();
        drop((before, file));
        map.write(0, b"mapped");
        assert_eq!(&m.read(name)[..7], b"mapped0", "{name}");
        for access in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::APPEND] {
            let other = m.open(name, access);
            other.write_all_at(b"written", 100).unwrap();
            let expected: &[u8] = match access.contains(OFlags::APPEND) {
                true => &[b'0'; 7],
                false => b"written",
            };
            assert_eq!(map.read(100, 7), expected, "{name}, {access:?}");
            map.write(100, &[b'0'; 7]);
        }
        let other = m.open(name, OFlags::RDWR);
        let second = Map::new(&other, PAGE, true, true).unwrap();
        drop(other);
        map.write(8, b"one");
        second.write(16, b"two");
        assert_eq!((second.read(8, 3), map.read(16, 3)), (b"one".to_vec(), b"two".to_vec()));
        m.truncate(name, 10);
        m.truncate(name, PAGE as u64);
        assert_eq!(map.read(8, 5), b"on\0\0\0");
        map.write(20, b"three");
        drop((map, second));
        assert_eq!(&m.read(name)[..25], b"mapped00on\0\0\0\0\0\0\0\0\0\0three");
        assert_eq!(m.read(name), s.upper().read(name));
    }
}

/// What is handed over to be read only: a mapping of it sees what others do later, in all ways.
fn a_large_file_is_read_and_written(s: &mut Sandbox) {
    const LARGE: usize = 65 << 20;
    s.lower().file("low", vec![b'0'; LARGE]);
    let m = s.mount();
    m.append("low", "");
    m.file("new", vec![b'0'; LARGE]);
    for name in ["low", "new"] {
        let mut reader = Some(m.open(name, OFlags::RDONLY));
        let map = Map::new(reader.as_ref().unwrap(), LARGE, false, true).unwrap();
        assert_eq!(map.read(LARGE - 1, 1), b"0");
        // While it is open, and when it is closed.
        for _ in 0..2 {
            for (at, access) in [(0, OFlags::WRONLY), (9, OFlags::RDWR)] {
                m.open(name, access).write_all_at(b"written", at).unwrap();
                assert_eq!(map.read(at as usize, 7), b"written");
                let mut bytes = *b"written";
                let read = reader.as_ref().map(|reader| reader.read_exact_at(&mut bytes, at));
                read.transpose().unwrap();
                assert_eq!(&bytes, b"written");
            }
            let writer = m.open(name, OFlags::RDWR);
            let writable = Map::new(&writer, LARGE, true, true).unwrap();
            drop(writer);
            writable.write(LARGE - 8, b"mapped");
            assert_eq!(map.read(LARGE - 8, 6), b"mapped");
            m.truncate(name, 8);
            m.truncate(name, LARGE as u64);
            assert_eq!(map.read(0, 10), b"written0\0\0");
            assert_eq!(map.read(LARGE - 8, 6), [0; 6]);
            drop(reader.take());
        }
        assert_eq!(m.read(name), s.upper().read(name));
    }
}

/// Pages that are read ahead through a file that the kernel writes itself do not stay.
fn read_ahead_before_it_is_written(s: &mut Sandbox) {
    let m = s.mount();
    for (name, access) in [("rw", OFlags::RDWR), ("w", OFlags::WRONLY)] {
        m.file(name, vec![b'0'; 4 * PAGE]);
        let file = m.open(name, access);
        fadvise(&file, 0, None, Advice::WillNeed).unwrap();
        let reader = m.open(name, OFlags::RDONLY);
        fadvise(&reader, 0, None, Advice::WillNeed).unwrap();
        file.write_all_at(&vec![b'1'; 4 * PAGE], 0).unwrap();
        let mut bytes = vec![0; 4 * PAGE];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|&byte| byte == b'1'), "{name}");
        drop((file, reader));
        assert!(m.read(name).iter().all(|&byte| byte == b'1'), "{name} afterwards");
    }
}

/// fcntl(2) makes an open file one that is appended to, and the other way round.
fn appending_begun_and_ended(s: &mut Sandbox) {
    let m = s.mount();
    for beside in [None, Some(OFlags::WRONLY), Some(OFlags::RDWR)] {
        for access in [OFlags::WRONLY, OFlags::RDWR] {
            m.file("f", "0000");
            let other = beside.map(|access| m.open("f", access));
            let file = m.open("f", access | OFlags::APPEND);
            file.write_all_at(b"1", 0).unwrap();
            fcntl_setfl(&file, OFlags::empty()).unwrap();
            file.write_all_at(b"2", 1).unwrap();
            drop(file);
            let file = m.open("f", access);
            file.write_all_at(b"3", 2).unwrap();
            fcntl_setfl(&file, OFlags::APPEND).unwrap();
            file.write_all_at(b"4", 0).unwrap();
            assert_eq!(m.read("f"), b"023014", "{beside:?}, {access:?}");
            drop((file, other));
            assert_eq!((m.read("f"), s.upper().read("f")), (b"023014".into(), b"023014".into()));
        }
    }
}

/// The last bytes of `dd oflag=direct` are not as many as the file system asks for.
fn direct_io_begun_and_ended(s: &mut Sandbox) {
    let m = s.mount();
    m.file("memory", vec![b'1'; PAGE]);
    let memory = Map::new(m.open("memory", OFlags::RDONLY), PAGE, false, false).unwrap();
    for beside in [None, Some(OFlags::WRONLY), Some(OFlags::RDWR)] {
        for access in [OFlags::WRONLY, OFlags::RDWR] {
            m.file("f", "");
            let other = beside.map(|access| m.open("f", access));
            let file = m.open("f", access | OFlags::DIRECT);
            assert_eq!(write_memory(&file, memory.address(0), PAGE).unwrap(), PAGE);
            fcntl_setfl(&file, OFlags::empty()).unwrap();
            file.write_all_at(b"22222", PAGE as u64).unwrap();
            if access == OFlags::RDWR {
                file.read_exact_at(&mut [0; 3], PAGE as u64 + 1).unwrap();
            }
            drop((file, other));
            let expected = [vec![b'1'; PAGE], b"22222".into()].concat();
            assert_eq!(m.read("f"), expected, "{beside:?}, {access:?}");
        }
    }
}

/// Nothing of a file of upper is held once everybody has closed it.
fn upper_is_free_again(s: &mut Sandbox) {
    let m = s.mount();
    m.file("p", std::fs::read("/bin/true").unwrap()).chmod("p", 0o755);
    let writers = [OFlags::RDWR, OFlags::WRONLY].map(|access| m.open("p", access));
    let program = s.upper().at("p");
    let run = || std::process::Command::new(&program).status();
    assert_eq!(run().unwrap_err().raw_os_error(), Some(Errno::TXTBSY.raw_os_error()));
    drop(writers);
    wait::until("it runs", || run().is_ok_and(|status| status.success()));
}

/// What rsync does: a new file in place of one as large, neither of which leaves room for a third.
fn room_of_what_was_replaced(s: &mut Sandbox) {
    let small = Filesystem::tmpfs("size=4m");
    s.upper_in(small.path());
    let m = s.mount();
    let flags = OFlags::CREATE | OFlags::RDWR;
    for _ in 0..20 {
        m.open("new", flags).write_all_at(&vec![1; 1900 << 10], 0).unwrap();
        m.rename("new", "big");
    }
    s.finish();
}

/// Capabilities go when root writes, set-id bits do not.
fn set_id_bits_stay_when_capabilities_go(s: &mut Sandbox) {
    // VFS_CAP_REVISION_2, cap_net_raw permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let m = s.mount();
    for access in [OFlags::WRONLY, OFlags::RDWR] {
        m.file("f", "program").chown("f", BOB, BOB);
        let file = m.open("f", access);
        m.set_xattr("f", "security.capability", capability).chmod("f", 0o6755);
        file.write_all_at(b"X", 0).unwrap();
        assert_eq!((m.mode("f"), m.xattr("f", "security.capability")), (0o6755, None));
        assert_eq!(s.upper().mode("f"), 0o6755);
    }
}

/// Whoever writes takes the bits or does not, whoever opened the file.
fn set_id_bits_through_the_same_file(s: &mut Sandbox) {
    let m = s.mount();
    for (name, access) in [("w", OFlags::WRONLY), ("rw", OFlags::RDWR)] {
        m.file(name, "program").chmod(name, 0o755);
        let file = m.open(name, access);
        m.chmod(name, 0o6755);
        Caller::user(ALICE).run(|| file.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode(name), s.upper().mode(name)), (0o755, 0o755), "{name}");
        m.chmod(name, 0o2745).chown(name, BOB, ALICE).chmod(name, 0o2745);
        Caller::user(ALICE).run(|| file.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode(name), s.upper().mode(name)), (0o2745, 0o2745), "{name}, own group");
        Caller::user(BOB).run(|| file.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode(name), s.upper().mode(name)), (0o745, 0o745), "{name}, another group");
    }
}

/// Of root too, where it lacks `CAP_FSETID`.
fn set_id_bits_go_without_the_capability(s: &mut Sandbox) {
    let m = s.mount();
    m.file("f", "program");
    let file = m.open("f", OFlags::WRONLY);
    m.chmod("f", 0o6755);
    std::thread::scope(|scope| {
        let write = || {
            let mut caps = capabilities(None).unwrap();
            caps.effective.remove(CapabilitySet::FSETID);
            set_capabilities(None, caps).unwrap();
            file.write_all_at(b"X", 0).unwrap();
        };
        scope.spawn(write).join().unwrap();
    });
    assert_eq!((m.mode("f"), s.upper().mode("f")), (0o755, 0o755));
}

/// Who has a file open for writing takes set-id bits away that it got since.
fn set_id_bits_given_to_an_open_file(s: &mut Sandbox) {
    let m = s.mount();
    for (name, access) in [("w", OFlags::WRONLY), ("rw", OFlags::RDWR)] {
        m.file(name, "program").chown(name, BOB, BOB).chmod(name, 0o777);
        let file = Caller::user(ALICE).run(|| m.open(name, access));
        assert_eq!(m.mode(name), 0o777);
        m.chmod(name, 0o6777);
        assert_eq!(m.mode(name), 0o6777);
        Caller::user(ALICE).run(|| file.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode(name), s.upper().mode(name)), (0o777, 0o777), "{name}");
        drop(file);
        assert_eq!(m.mode(name), 0o777);
    }
}

/// Also where a reader came first.
fn set_id_bits_stay_when_root_writes(s: &mut Sandbox) {
    let m = s.mount();
    m.file("f", "program").chmod("f", 0o4755);
    let reader = m.open("f", OFlags::RDONLY);
    let writer = m.open("f", OFlags::RDWR);
    let before = m.mode("f");
    writer.write_all_at(b"P", 0).unwrap();
    let mut bytes = [0; 7];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, before), (b"Program", 0o4755));
    assert_eq!((m.mode("f"), s.upper().mode("f")), (0o4755, 0o4755));
    let maker = m.open("new", OFlags::CREATE | OFlags::RDWR);
    m.chmod("new", 0o6755);
    maker.write_all_at(b"x", 0).unwrap();
    assert_eq!((m.mode("new"), s.upper().mode("new")), (0o6755, 0o6755));
}

/// Whoever has the file open beside root, since before or after it got the bits, takes them.
fn set_id_bits_of_a_file_open_by_root_too(s: &mut Sandbox) {
    let m = s.mount();
    m.file("f", "program").chmod("f", 0o777);
    let root = m.open("f", OFlags::WRONLY);
    for round in 0..2 {
        let before = Caller::user(ALICE).run(|| m.open("f", OFlags::WRONLY));
        m.chmod("f", 0o6777);
        Caller::user(ALICE).run(|| before.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode("f"), s.upper().mode("f")), (0o777, 0o777), "before, round {round}");
        drop(before);
        m.chmod("f", 0o6777);
        let after = Caller::user(ALICE).run(|| m.open("f", OFlags::RDWR));
        Caller::user(ALICE).run(|| after.write_all_at(b"X", 0).unwrap());
        assert_eq!((m.mode("f"), s.upper().mode("f")), (0o777, 0o777), "after, round {round}");
    }
    drop(root);
}

/// What is open from before the copy-up does not keep others from the copy, nor itself.
fn open_for_reading_when_copied_up(s: &mut Sandbox) {
    s.kernel_disagrees("who has the lower file open goes on reading that");
    s.lower().file("f", vec![b'l'; 3 * PAGE]);
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    let map = Map::new(&reader, PAGE, false, false).unwrap();
    assert_eq!(map.read(0, 1), b"l");
    let writer = m.open("f", OFlags::WRONLY);
    let both = m.open("f", OFlags::RDWR);
    writer.write_all_at(b"upper", 10).unwrap();
    let mut bytes = [0; 5];
    for file in [&reader, &both] {
        file.read_exact_at(&mut bytes, 10).unwrap();
        assert_eq!(&bytes, b"upper");
    }
    drop((reader, map, writer, both));
    m.open("f", OFlags::RDWR).write_all_at(b"again", 20).unwrap();
    assert_eq!(&m.read("f")[10..25], b"upperlllllagain");
    assert_eq!(m.read("f"), s.upper().read("f"));
}

/// Opens for reading and writing, copy-ups, truncations and removals of the same few files: no
/// error but of a name that is not there, and nobody reads what was never written.
fn opened_in_all_ways_at_once(s: &mut Sandbox) {
    const FILES: usize = 5;
    for number in 0..FILES {
        s.lower().file(format!("f{number}"), vec![b'0'; 2 * PAGE]);
    }
    let m = s.mount();
    let ways = [
        OFlags::RDONLY,
        OFlags::WRONLY,
        OFlags::RDWR,
        OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC,
        OFlags::CREATE | OFlags::RDWR,
        OFlags::WRONLY | OFlags::APPEND,
    ];
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let m = &m;
            scope.spawn(move || {
                for round in 0..400 {
                    let name = m.at(format!("f{}", (round * 7 + thread) % FILES));
                    let flags = ways[(round / 3 + thread) % ways.len()];
                    let file = match rustix::fs::open(&name, flags, 0o644.into()) {
                        Ok(file) => std::fs::File::from(file),
                        // Of a lower file that is removed meanwhile, as the kernel says too.
                        Err(Errno::NOENT | Errno::EXIST) => continue,
                        Err(e) => panic!("{name:?} with {flags:?}: {e}"),
                    };
                    let mut bytes = [b'0'; 100];
                    match flags & OFlags::ACCMODE {
                        OFlags::WRONLY => file.write_all_at(&[b'0'; 100], 50).unwrap(),
                        _ => drop(file.read_at(&mut bytes, 70).unwrap()),
                    }
                    assert!(bytes.iter().all(|byte| matches!(byte, b'0' | 0)));
                    if round % 50 == thread {
                        match rustix::fs::unlink(&name) {
                            Ok(()) | Err(Errno::NOENT) => {}
                            Err(e) => panic!("{name:?}: {e}"),
                        }
                    }
                }
            });
        }
    });
}
