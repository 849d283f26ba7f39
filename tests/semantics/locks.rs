//! flock(2) and byte ranges.

use rustix::fs::{FlockOperation as Op, OFlags, flock};
use rustix::io::Errno;

use crate::common::sys::{Lock, in_child, lock_holder, ofd_lock, process_lock};
use crate::common::{Sandbox, assert_errno, wait};

mounted_tests! {
    [root userns user]: flock_excludes, ranges_exclude;
    [root userns]:
        flock_is_shared_and_upgraded, flock_holds_over_copy_up, flock_is_waited_for, closing_unlocks,
        process_locks_are_the_processes, locks_on_names_of_one_file, locks_on_an_unlinked_file;
}

fn flock_excludes(s: &mut Sandbox) {
    s.lower().file("low", "");
    let m = s.mount();
    m.write("up", "");
    for path in ["low", "up"] {
        let (one, two) = (m.open(path, OFlags::RDONLY), m.open(path, OFlags::RDONLY));
        flock(&one, Op::NonBlockingLockExclusive).unwrap();
        assert_errno(flock(&two, Op::NonBlockingLockExclusive), Errno::AGAIN);
        assert_errno(flock(&two, Op::NonBlockingLockShared), Errno::AGAIN);
        flock(&one, Op::Unlock).unwrap();
        flock(&two, Op::NonBlockingLockExclusive).unwrap();
    }
}

fn flock_is_shared_and_upgraded(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let (one, two) = (m.open("f", OFlags::RDONLY), m.open("f", OFlags::RDONLY));
    flock(&one, Op::NonBlockingLockShared).unwrap();
    flock(&two, Op::NonBlockingLockShared).unwrap();
    assert_errno(flock(&one, Op::NonBlockingLockExclusive), Errno::AGAIN);
    flock(&two, Op::Unlock).unwrap();
    flock(&one, Op::NonBlockingLockExclusive).unwrap();
}

fn flock_holds_over_copy_up(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    let m = s.mount();
    let reader = m.open("f", OFlags::RDONLY);
    flock(&reader, Op::NonBlockingLockExclusive).unwrap();
    let writer = m.open("f", OFlags::RDWR | OFlags::APPEND);
    std::io::Write::write_all(&mut &writer, b"+").unwrap();
    assert_errno(flock(&writer, Op::NonBlockingLockExclusive), Errno::AGAIN);
    drop(reader);
    unlocked(|| flock(&writer, Op::NonBlockingLockExclusive).is_ok());
}

/// Waits until `lock` succeeds after what held it was closed: a child of another test may hold this
/// test's descriptors between its fork and exec.
fn unlocked(lock: impl FnMut() -> bool) {
    wait::until("unlocked", lock);
}

fn flock_is_waited_for(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let held = m.open("f", OFlags::RDONLY);
    flock(&held, Op::LockExclusive).unwrap();
    let (asked, got) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = m.open("f", OFlags::RDWR);
            asked.wait();
            flock(&file, Op::LockExclusive).unwrap();
            got.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        asked.wait();
        m.append("f", "the mount serves others meanwhile");
        assert!(!got.load(std::sync::atomic::Ordering::SeqCst));
        flock(&held, Op::Unlock).unwrap();
    });
    assert!(got.into_inner());
}

fn closing_unlocks(s: &mut Sandbox) {
    s.lower().file("f", "");
    let m = s.mount();
    let other = m.open("f", OFlags::RDWR);
    let held = m.open("f", OFlags::RDWR);
    flock(&held, Op::NonBlockingLockExclusive).unwrap();
    drop(held);
    unlocked(|| flock(&other, Op::NonBlockingLockExclusive).is_ok());
    let ranges = m.open("f", OFlags::RDWR);
    ofd_lock(&ranges, Lock::Write, 0, 10).unwrap();
    drop(ranges);
    unlocked(|| ofd_lock(&other, Lock::Write, 0, 10).is_ok());
}

fn ranges_exclude(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let (one, two) = (m.open("f", OFlags::RDWR), m.open("f", OFlags::RDWR));
    ofd_lock(&one, Lock::Write, 0, 5).unwrap();
    assert_errno(ofd_lock(&two, Lock::Read, 4, 1), Errno::AGAIN);
    ofd_lock(&two, Lock::Write, 5, 5).unwrap();
    ofd_lock(&one, Lock::Unlock, 2, 3).unwrap();
    ofd_lock(&two, Lock::Read, 2, 3).unwrap();
    assert_errno(ofd_lock(&two, Lock::Read, 0, 0), Errno::AGAIN);
    assert_errno(ofd_lock(&m.open("f", OFlags::RDONLY), Lock::Write, 20, 1), Errno::BADF);
}

fn process_locks_are_the_processes(s: &mut Sandbox) {
    s.lower().file("f", "0123456789");
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    process_lock(&file, Lock::Write, 3, 4).unwrap();
    let parent = i32::try_from(std::process::id()).unwrap();
    let in_other_process = in_child(|| {
        let refused = process_lock(&file, Lock::Write, 6, 1).is_err();
        let free = process_lock(&file, Lock::Write, 7, 1).is_ok();
        let holder = matches!(lock_holder(&file, Lock::Read, 0, 0), Ok(Some(pid)) if pid == parent);
        i32::from(refused) + 2 * i32::from(free) + 4 * i32::from(holder)
    });
    assert_eq!(in_other_process, 7, "refused, free, holder: as bits");
    process_lock(&file, Lock::Write, 7, 1).expect("the child's locks ended with it");
    drop(m.open("f", OFlags::RDONLY));
    let released = in_child(|| i32::from(process_lock(&file, Lock::Write, 3, 4).is_ok()));
    assert_eq!(released, 1, "closing any descriptor of the file drops the process's locks");
}

fn locks_on_names_of_one_file(s: &mut Sandbox) {
    let m = s.mount();
    m.write("a", "x");
    m.link("a", "b");
    let (one, two) = (m.open("a", OFlags::RDWR), m.open("b", OFlags::RDWR));
    flock(&one, Op::NonBlockingLockExclusive).unwrap();
    assert_errno(flock(&two, Op::NonBlockingLockExclusive), Errno::AGAIN);
    ofd_lock(&one, Lock::Write, 0, 1).unwrap();
    assert_errno(ofd_lock(&two, Lock::Write, 0, 1), Errno::AGAIN);
}

fn locks_on_an_unlinked_file(s: &mut Sandbox) {
    s.lower().file("f", "x");
    let m = s.mount();
    let file = m.open("f", OFlags::RDWR);
    m.unlink("f");
    flock(&file, Op::NonBlockingLockExclusive).unwrap();
    ofd_lock(&file, Lock::Write, 0, 1).unwrap();
    ofd_lock(&file, Lock::Unlock, 0, 1).unwrap();
}
