//! Real container tools with ovlfuse as their mount program: podman and buildah of an ordinary user,
//! without a network; and what podman, umoci, bubblewrap and runc do beside and on top of it. The scripts
//! beside this file say what they do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod setup;

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::Context;
use common::scratch::{self, run};
use setup::{FOLDER, FUSE_OVERLAYFS, script, shared};

/// The archives that `build.sh` leaves.
const ARCHIVES: [&str; 3] = ["one.tar", "two.tar", "three.tar"];

/// What is in the archives in `folder`: a line for each file of each layer, and of each image.
fn content(folder: &Path, began: u64) -> Vec<String> {
    let mut command = Command::new("python3");
    command.arg(format!("{FOLDER}/image.py")).arg(began.to_string()).args(ARCHIVES);
    run(command.current_dir(folder)).lines().map(str::to_owned).collect()
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
    let (directory, shared) = (scratch::directory(), shared());
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let build = |who, name, storage: &Path| {
        let folder = directory.path().join(name);
        script(who, &shared.files, &folder, "build.sh", &[storage]);
        content(&folder, began)
    };
    let (ours, theirs, kernel) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| build(Context::user, "ours", &shared.program));
        let theirs = scope.spawn(|| build(Context::user, "theirs", FUSE_OVERLAYFS.as_ref()));
        let kernel = build(Context::root, "kernel", "kernel".as_ref());
        (ours.join().unwrap(), theirs.join().unwrap(), kernel)
    });
    assert_same("fuse-overlayfs", (&ours, &theirs));
    let whole = |lines: Vec<String>| {
        lines.into_iter().filter(|line| line.contains(".tar image: ")).collect::<Vec<_>>()
    };
    assert_same("kernel", (&whole(ours), &whole(kernel)));
    let said = |name| directory.path().join(name).join("said");
    run(Command::new("cmp").arg(said("ours")).arg(said("theirs")));
}

/// Runs `script` with the program under test and `others`.
fn run_as(who: Context, name: &str, others: &[&Path]) {
    let (directory, shared) = (scratch::directory(), shared());
    let arguments = [&[shared.program.as_path()], others].concat();
    script(who, &shared.files, &directory.path().join("here"), name, &arguments);
}

fn as_user(name: &str, others: &[&Path]) {
    run_as(Context::user, name, others);
}

#[test]
fn images_to_layers_and_back() {
    run_as(Context::root, "images.sh", &[]);
}

#[test]
fn bubblewrap_and_runc_run_in_a_mount() {
    run_as(Context::root, "clients.sh", &[]);
    as_user("clients.sh", &[]);
}

#[test]
fn storage_is_shared_with_fuse_overlayfs_and_the_kernel() {
    as_user("share.sh", &[FUSE_OVERLAYFS.as_ref()]);
}

#[test]
fn containers_run_with_owners_of_their_own() {
    as_user("run.sh", &[]);
}

#[test]
fn owners_are_stored_in_attributes_for_force_mask() {
    as_user("mask.sh", &[]);
}
