//! Files of upper, which as root the kernel reads and writes itself: what it does not tell of is
//! seen all the same.

use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::{Caller, Sandbox, caller::ALICE, caller::BOB, sys::Map};

mounted_tests! {
    [root userns]:
        times_while_a_mapping_is_written, set_id_bits_of_a_file_open_by_root_too,
        set_id_bits_given_to_an_open_file,
        opened_in_all_ways_at_once, open_for_reading_when_copied_up;
    [root]: set_id_bits_stay_when_root_writes;
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
                        Err(Errno::NOENT) => continue,
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
