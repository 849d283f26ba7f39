//! Real container tools with ovlfuse as their mount program: podman and buildah of an ordinary user,
//! without a network. The scripts beside this file say what they do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod setup;

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::Context;
use common::scratch::{self, run};
use setup::{FOLDER, FUSE_OVERLAYFS, prepare, script};

/// What is in the image `archive`: a line for each file of each layer, and of the image.
fn content(archive: &Path, began: u64) -> Vec<String> {
    let mut command = Command::new("python3");
    command.arg(format!("{FOLDER}/image.py")).arg(archive).arg(began.to_string());
    run(&mut command).lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(what: &str, (ours, theirs): (&[String], &[String])) {
    let only = |a: &[String], b: &[String]| {
        let b: std::collections::HashSet<_> = b.iter().collect();
        a.iter().filter(|line| !b.contains(line)).take(20).cloned().collect::<Vec<_>>()
    };
    assert!(ours.len() > 1000, "{what}: only {} files", ours.len());
    let (ours_only, theirs_only) = (only(ours, theirs), only(theirs, ours));
    assert!(ours == theirs, "{what}\nonly with ovlfuse: {ours_only:#?}\nmissing: {theirs_only:#?}");
}

/// fuse-overlayfs is to make the same layers; the kernel's overlayfs tells deletions in other words,
/// so that the images are compared, and is root's, so that owners are what the archive says.
#[test]
fn images_are_those_of_fuse_overlayfs_and_of_the_kernel() {
    let directory = scratch::directory();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (files, ovlfuse) = prepare(directory.path());
    let build = |who, name, storage: &Path| script(who, &files, name, "build.sh", &[storage]);
    let (ours, theirs, kernel) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| build(Context::user, "ours", &ovlfuse));
        let theirs = scope.spawn(|| build(Context::user, "theirs", FUSE_OVERLAYFS.as_ref()));
        let kernel = build(Context::root, "kernel", "kernel".as_ref());
        (ours.join().unwrap(), theirs.join().unwrap(), kernel)
    });
    for image in ["one.tar", "two.tar", "three.tar"] {
        let [ours, theirs, kernel] =
            [&ours, &theirs, &kernel].map(|folder| content(&folder.join(image), began));
        assert_same(&format!("{image}, fuse-overlayfs"), (&ours, &theirs));
        let whole = |lines: Vec<String>| {
            lines.into_iter().filter(|line| line.starts_with("image: ")).collect::<Vec<_>>()
        };
        assert_same(&format!("{image}, kernel"), (&whole(ours), &whole(kernel)));
    }
    run(Command::new("cmp").arg(ours.join("said")).arg(theirs.join("said")));
}

#[test]
fn storage_is_shared_with_fuse_overlayfs_and_the_kernel() {
    let directory = scratch::directory();
    let (files, ovlfuse) = prepare(directory.path());
    let arguments = [ovlfuse.as_path(), FUSE_OVERLAYFS.as_ref()];
    script(Context::user, &files, "shared", "share.sh", &arguments);
}

#[test]
fn containers_run_with_owners_of_their_own() {
    let directory = scratch::directory();
    let (files, ovlfuse) = prepare(directory.path());
    script(Context::user, &files, "run", "run.sh", &[&ovlfuse]);
}
