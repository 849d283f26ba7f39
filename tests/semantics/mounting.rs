//! What a mount asks of its layers and of its work directory.

use std::path::Path;

use rustix::fs::{Mode, OFlags, chmod, link, mkdir, open, rename, unlink};
use rustix::io::Errno;

use crate::common::mount::{Mount, assert_refused};
use crate::common::scratch::Filesystem;
use crate::common::{Backend, Context, Sandbox, Tree, assert_errno, backend, context, wait};

mounted_tests! {
    [root userns user]: mark_of_an_unknown_feature_is_refused;
    [root userns]: work_is_closed_to_others, work_that_cannot_be_emptied, over_its_own_lower;
    [root userns]: unmounted_right_after_files_are_closed;
    [root]: unmounting_brings_all_to_the_disk;
}

fn work_is_closed_to_others(s: &mut Sandbox) {
    s.mount();
    assert_eq!(s.work().mode("work"), 0);
}

fn mark_of_an_unknown_feature_is_refused(s: &mut Sandbox) {
    let work = s.work();
    work.dir("work/incompat/feature");
    assert_refused(backend(), &s.spec(), 4);
    assert!(work.exists("work/incompat/feature"), "the mark is gone");
}

/// The kernel's overlayfs mounts read-only then, which is easily overlooked.
fn work_that_cannot_be_emptied(s: &mut Sandbox) {
    let (work, lower) = (s.work(), s.lower());
    work.dir("work/busy");
    let busy = work.at("work/busy");
    rustix::mount::mount_bind(lower.path(), &busy).unwrap();
    match backend() {
        Backend::Ovlfuse => assert_refused(backend(), &s.spec(), 4),
        Backend::Kernel => {
            let mount = Mount::new(backend(), s.spec(), &s.scratch().at("log"));
            assert_errno(std::fs::create_dir(s.merged().at("d")), Errno::ROFS);
            mount.unmount();
        }
    }
    rustix::mount::unmount(&busy, rustix::mount::UnmountFlags::empty()).unwrap();
}

fn over_its_own_lower(s: &mut Sandbox) {
    s.lower().file("d/f", "lower").file("gone", "");
    let mut spec = s.spec();
    spec.merged = s.lower().path().into();
    let mount = Mount::new(backend(), spec, &s.scratch().at("log"));
    let m = s.lower();
    m.append("d/f", "+");
    m.unlink("gone");
    assert_eq!((m.text("d/f"), m.walk("")), ("lower+".into(), vec!["d/".into(), "d/f".into()]));
    assert_eq!(s.upper().text("d/f"), "lower+");
    mount.unmount();
    assert_eq!((s.lower().text("d/f"), s.lower().text("gone")), ("lower".into(), String::new()));
}

/// Files of root, who is nobody inside the namespace.
fn foreign_files(directory: &Path) {
    let lower = Tree::new(directory.join("lower0"));
    lower.file("f", "x").file("d/g", "x").chmod("f", 0o666).chmod("d", 0o777).chmod("", 0o777);
}

#[test]
fn owner_without_mapping() {
    let name = concat!(module_path!(), "::owner_without_mapping");
    context::run_prepared(Context::userns, name, foreign_files, |s| {
        let mount = Mount::new(backend(), s.spec(), &s.scratch().at("log"));
        let m = s.merged();
        assert_eq!((m.text("f"), m.text("d/g")), ("x".into(), "x".into()));
        assert_errno(open(m.at("f"), OFlags::WRONLY, Mode::empty()), Errno::OVERFLOW);
        assert_errno(rename(m.at("f"), m.at("n")), Errno::OVERFLOW);
        assert_errno(link(m.at("f"), m.at("n")), Errno::OVERFLOW);
        assert_errno(mkdir(m.at("d/new"), Mode::RWXU), Errno::OVERFLOW);
        assert_errno(unlink(m.at("d/g")), Errno::OVERFLOW);
        let chmod = chmod(m.at("f"), Mode::RUSR);
        match backend() {
            // Nothing tells FUSE that the owner shown is not the real one.
            Backend::Ovlfuse => assert_errno(chmod, Errno::OVERFLOW),
            Backend::Kernel => assert_errno(chmod, Errno::PERM),
        }
        unlink(m.at("f")).unwrap();
        mount.unmount();
        assert_eq!(s.upper().names(""), ["f"]);
        assert!(s.upper().is_whiteout("f"));
    });
}

/// Nobody syncs: what is written is on the disk all the same once the mount is gone.
fn unmounting_brings_all_to_the_disk(s: &mut Sandbox) {
    let disk = Filesystem::image("ext4", 16);
    s.upper_in(disk.path());
    s.option("xino=on");
    let marker = b"written and never synced".repeat(100);
    let on_disk = || {
        let image = std::fs::read(disk.image_file()).unwrap();
        image.chunks(512).any(|sector| sector == &marker[..512])
    };
    let m = s.mount();
    m.write("f", &marker);
    assert!(!on_disk(), "it is there before anybody asked for it");
    s.unmount();
    // A mount namespace that another test makes just now has the kernel's mount for a moment.
    match backend() {
        Backend::Ovlfuse => assert!(on_disk(), "it is nowhere but in memory"),
        Backend::Kernel => wait::until("it is on the disk", on_disk),
    }
}

/// Closing waits for nobody, so that the daemon may just be reading of it when the mount goes away.
fn unmounted_right_after_files_are_closed(s: &mut Sandbox) {
    s.lower().file("f", "lower");
    for _ in 0..150 {
        let m = s.mount();
        let files: Vec<_> = (0..50).map(|_| m.open("f", OFlags::RDWR)).collect();
        drop(files);
        s.unmount();
    }
}
