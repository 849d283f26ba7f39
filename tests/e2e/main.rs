//! The main job on real input: three layers of a Debian root file system, real work in the merged
//! tree, and then the kernel's overlayfs on the upper that it leaves.
//!
//! The work is `work.sh`, run inside the tree by its own programs. Afterwards
//! [`common::Sandbox::finish`] takes a snapshot of every file through the mount, unmounts, mounts
//! the same layers with the kernel's overlayfs and compares. Each test runs in every context, and
//! with `OVLFUSE_TEST_BACKEND=kernel` against the kernel alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod rootfs;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::mount::Mount;
use common::snapshot::{Options, Snapshot};
use common::{Backend, Context, Sandbox, Tree, backend, context};

const WORK: &str = include_str!("work.sh");

/// Long enough for a slow machine and a build without optimisation.
const PATIENCE: Duration = Duration::from_secs(900);

/// Makes `/dev` and `/proc` seen in the tree $1, in a mount namespace of its own, and runs bash there.
const ENTER: &str = r#"
mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" && exec chroot "$1" /bin/bash -s"#;

#[test]
fn root() {
    run(Context::root, "e2e::root");
}

#[test]
fn user() {
    run(Context::user, "e2e::user");
}

#[test]
fn userns() {
    run(Context::userns, "e2e::userns");
}

fn run(context: Context, name: &str) {
    context::run_prepared(context, name, common::debian::provide, work_in_the_merged_tree);
}

fn work_in_the_merged_tree(s: &mut Sandbox) {
    s.patience(PATIENCE);
    // The layers of an ordinary user belong to that user: there is nobody else to give them to.
    rootfs::build_layers(s, s.context() == Context::user);
    let merged = s.mount();
    work(s.context(), &merged);
    let compare = s.context() == Context::root && backend() == Backend::Ovlfuse;
    let seen = compare.then(|| comparable(&merged));
    s.finish();
    if let Some(seen) = seen {
        seen.assert_same(&on_the_kernel(s), "the work on ovlfuse / the work on the kernel's mount");
    }
}

/// Runs `work.sh` inside the tree `merged`.
fn work(context: Context, merged: &Tree) {
    let mut command = Command::new("unshare");
    if context == Context::user {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "sh"]);
    command.arg(merged.path()).env("OTHER", if context == Context::user { "0" } else { "33" });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().expect("unshare");
    let mut stdin = shell.stdin.take().expect("a pipe");
    // bash reads a script from a pipe byte by byte; its children must find nothing of it.
    let script = format!("{{\n{WORK}\nexit 0\n}} </dev/null\n");
    let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
    let output = shell.wait_with_output().expect("the shell's output");
    let written = writer.join().expect("the writer");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && written.is_ok(), "{}: {text}", output.status);
    assert!(text.contains("step: the end"), "the script ended early: {text}");
}

/// The same work in an upper that the kernel's overlayfs has from the beginning.
fn on_the_kernel(s: &Sandbox) -> Snapshot {
    let mut spec = s.spec();
    let scratch = s.scratch();
    scratch.dir("upper-kernel").dir("work-kernel");
    spec.upper = Some((scratch.at("upper-kernel"), scratch.at("work-kernel")));
    let mount = Mount::new(Backend::Kernel, spec, &scratch.at("log"));
    work(s.context(), &s.merged());
    let seen = comparable(&s.merged());
    mount.unmount();
    seen
}

/// What two runs of the work at different times have in common.
fn comparable(merged: &Tree) -> Snapshot {
    let options = Options {
        without_inodes: true,
        without_times: true,
        any_dotdot: true,
        ..Options::default()
    };
    Snapshot::of(merged.path(), options).map(|path, fields: &mut BTreeMap<String, String>| {
        let has_times = path.ends_with(".git/index")
            || path.starts_with("var/log/")
            || path.starts_with("root/etc.tar")
            || path.ends_with(".pyc")
            || path.starts_with("root/base.sqlite")
            || path.ends_with("FETCH_HEAD");
        if has_times {
            fields.remove("content");
        }
    })
}
