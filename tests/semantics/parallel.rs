//! Many clients at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::common::{Backend, Sandbox, backend, sys};

mounted_tests! {
    [root userns]:
        exclusive_creation_has_one_winner, copy_up_of_one_file_by_many, mkdir_has_one_winner,
        each_in_its_own_directory, renames_of_one_name, lookups_during_changes, removal_by_several,
        exchanges_lose_nothing, slow_copy_up_delays_nobody, copy_up_of_one_directory_by_many,
        times_of_a_directory_during_copy_up, small_files_read_while_changed;
}

/// Runs `work(number)` on `count` threads at once.
fn together(count: usize, work: impl Fn(usize) + Sync) {
    let start = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        for number in 0..count {
            let (work, start) = (&work, &start);
            scope.spawn(move || {
                start.wait();
                work(number);
            });
        }
    });
}

fn exclusive_creation_has_one_winner(s: &mut Sandbox) {
    for index in 0..50 {
        s.lower().file(format!("w{index}"), "");
    }
    let m = s.mount();
    for index in 0..50 {
        m.unlink(format!("w{index}"));
    }
    for name in (0..50).flat_map(|index| [format!("n{index}"), format!("w{index}")]) {
        let winners = AtomicUsize::new(0);
        together(4, |_| {
            let made = std::fs::OpenOptions::new().write(true).create_new(true).open(m.at(&name));
            winners.fetch_add(usize::from(made.is_ok()), Ordering::SeqCst);
        });
        assert_eq!(winners.into_inner(), 1, "{name}");
    }
}

fn mkdir_has_one_winner(s: &mut Sandbox) {
    s.lower().dir("low");
    let m = s.mount();
    m.rmdir("low");
    for name in ["low", "a", "b", "c", "d", "e"] {
        let winners = AtomicUsize::new(0);
        together(4, |_| {
            winners
                .fetch_add(usize::from(std::fs::create_dir(m.at(name)).is_ok()), Ordering::SeqCst);
        });
        assert_eq!(winners.into_inner(), 1, "{name}");
    }
}

fn copy_up_of_one_file_by_many(s: &mut Sandbox) {
    for index in 0..20 {
        s.lower().file(format!("d/{index}"), vec![b'x'; 200_000]);
    }
    let m = s.mount();
    for index in 0..20 {
        together(4, |number| m.append(format!("d/{index}"), number.to_string()));
        let content = m.read(format!("d/{index}"));
        assert_eq!(content.len(), 200_004);
        let mut ends = content[200_000..].to_vec();
        ends.sort_unstable();
        assert_eq!(ends, b"0123");
    }
}

/// Whoever opens a small file of a lower layer for the first time leaves nothing old in the cache.
fn small_files_read_while_changed(s: &mut Sandbox) {
    let old = |index: usize| vec![b'o'; 1 + index * 37 % 9000];
    for index in 0..600 {
        s.lower().file(format!("d/{index}"), old(index));
    }
    let m = s.mount();
    for index in 0..600 {
        let (path, old) = (format!("d/{index}"), old(index));
        let appended = [&*old, b"+"].concat();
        let new = if index % 2 == 0 { appended } else { b"new".to_vec() };
        together(4, |number| match number {
            0 if index % 2 == 0 => m.append(&path, "+"),
            0 => m.write(&path, "new"),
            _ => {
                let seen = m.read(&path);
                // One that is emptied and written again may show anything for a moment.
                let whole = seen == old || seen == new;
                assert!(whole || index % 2 == 1, "{path}: {} bytes", seen.len());
            }
        });
        assert!(m.read(&path) == new, "{path}");
        assert!(s.upper().read(&path) == new, "{path} in upper");
    }
}

fn copy_up_of_one_directory_by_many(s: &mut Sandbox) {
    s.lower().dir("a/b/c/d");
    let m = s.mount();
    together(8, |number| m.write(format!("a/b/c/d/{number}"), ""));
    assert_eq!(m.names("a/b/c/d").len(), 8);
    assert_eq!(s.upper().names("a/b/c/d").len(), 8);
}

/// Copying up puts the times of the directory back. The kernel's overlayfs then loses a time that
/// was set meanwhile; here none is lost.
fn times_of_a_directory_during_copy_up(s: &mut Sandbox) {
    const ROUNDS: usize = 300;
    for path in (0..ROUNDS).flat_map(|round| [1, 2].map(|file| format!("{round}/{file}"))) {
        s.lower().file(path, "x");
    }
    let m = s.mount();
    if backend() == Backend::Kernel {
        return;
    }
    for round in 0..ROUNDS {
        let directory = round.to_string();
        // The directory itself is in upper, and known to the client.
        m.chmod(&directory, 0o775);
        together(3, |number| match number {
            0 => {
                m.mtime(&directory, 1_234_567_890, 5).chmod(&directory, 0o755);
            }
            file => {
                m.chmod(format!("{directory}/{file}"), 0o600);
            }
        });
        assert_eq!(m.mtime_of(&directory), (1_234_567_890, 5), "{directory}");
        assert_eq!(m.mode(&directory), 0o755, "{directory}");
    }
}

fn each_in_its_own_directory(s: &mut Sandbox) {
    for number in 0..4 {
        for index in 0..30 {
            s.lower().file(format!("{number}/low-{index}"), "x");
        }
    }
    let m = s.mount();
    together(4, |number| {
        for index in 0..30 {
            m.append(format!("{number}/low-{index}"), "+");
            m.write(format!("{number}/new-{index}"), "y");
            m.rename(format!("{number}/low-{index}"), format!("{number}/moved-{index}"));
            m.unlink(format!("{number}/new-{index}"));
            assert_eq!(m.text(format!("{number}/moved-{index}")), "x+");
        }
        assert_eq!(m.names(number.to_string()).len(), 30);
    });
    assert_eq!(m.walk("").len(), 124);
}

fn renames_of_one_name(s: &mut Sandbox) {
    s.lower().dir("d");
    for index in 0..50 {
        s.lower().file(format!("d/{index}"), index.to_string());
    }
    let m = s.mount();
    for index in 0..50 {
        let winners = AtomicUsize::new(0);
        together(3, |number| {
            let moved =
                std::fs::rename(m.at(format!("d/{index}")), m.at(format!("d/{index}-{number}")));
            winners.fetch_add(usize::from(moved.is_ok()), Ordering::SeqCst);
        });
        assert_eq!(winners.into_inner(), 1);
    }
    assert_eq!(m.names("d").len(), 50);
}

fn exchanges_lose_nothing(s: &mut Sandbox) {
    for name in ["a", "b", "c"] {
        s.lower().file(name, name);
    }
    let m = s.mount();
    together(3, |number| {
        let (one, two) = [("a", "b"), ("b", "c"), ("c", "a")][number];
        for _ in 0..30 {
            renameat_with(CWD, m.at(one), CWD, m.at(two), RenameFlags::EXCHANGE).unwrap();
        }
    });
    let mut contents = ["a", "b", "c"].map(|name| m.text(name));
    contents.sort();
    assert_eq!(contents, ["a", "b", "c"]);
}

fn lookups_during_changes(s: &mut Sandbox) {
    s.lower().file("d/always", "here");
    let m = s.mount();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(m.text("d/always"), "here");
                    assert!(m.names("d").contains(&"always".to_owned()));
                }
            });
        }
        for index in 0..200 {
            m.write(format!("d/{index}"), "");
            m.rename(format!("d/{index}"), "d/last");
            m.chmod("d/always", if index % 2 == 0 { 0o600 } else { 0o644 });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(m.names("d"), ["always", "last"]);
}

fn removal_by_several(s: &mut Sandbox) {
    for index in 0..200 {
        s.lower().file(format!("d/{}/{index}", index % 10), "");
    }
    let m = s.mount();
    let removed = AtomicUsize::new(0);
    together(3, |_| {
        for index in 0..200 {
            let gone = std::fs::remove_file(m.at(format!("d/{}/{index}", index % 10))).is_ok();
            removed.fetch_add(usize::from(gone), Ordering::SeqCst);
        }
    });
    assert_eq!(removed.into_inner(), 200);
    m.remove_all("d");
    assert!(s.upper().is_whiteout("d"));
}

/// While a large file is copied up, other names answer.
fn slow_copy_up_delays_nobody(s: &mut Sandbox) {
    s.lower().file("big", vec![1; 256 << 20]);
    for index in 0..50 {
        s.lower().file(format!("d/{index}"), "x");
    }
    let m = s.mount();
    let copied = std::sync::atomic::AtomicBool::new(false);
    let before_the_end = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(m.open("big", OFlags::WRONLY));
            copied.store(true, Ordering::SeqCst);
        });
        for index in 0..50 {
            m.append(format!("d/{index}"), "+");
            m.write(format!("new-{index}"), "");
            before_the_end.fetch_add(usize::from(!copied.load(Ordering::SeqCst)), Ordering::SeqCst);
        }
    });
    assert!(before_the_end.into_inner() > 0, "every other call waited for the copy-up");
    let map = sys::Map::new(m.open("big", OFlags::RDONLY), 4096, false, true).unwrap();
    assert_eq!(map.read(0, 4), [1; 4]);
}
