//! The public conformance program pjdfstest, on the kernel's overlayfs and on ovlfuse: whatever
//! passes there passes here.
//!
//! `tests/run` installs the program and tells where in `OVLFUSE_TEST_TOOLS`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
#[macro_use]
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::mount::Mount;
use common::scratch::Filesystem;
use common::{Backend, Context, Sandbox, Tree, assert_errno, backend, context, tools};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

mounted_tests! {
    [root userns user]: names_of_255_bytes;
}

/// Two users with a group of their own; a nap longer than the clock's tick (10 ms with HZ=100).
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = true

[dummy_auth]
entries = [["nobody", "nogroup"], ["ovltest", "ovltest"]]
"#;

/// pjdfstest remounts with mount(8), which asks the helper of the type `fuse.ovlfuse`; a read-only
/// mount is the kernel's doing.
const MOUNT_WITHOUT_HELPER: &str = "#!/bin/sh\nexec /usr/bin/mount --internal-only \"$@\"\n";

#[test]
fn pjdfstest_as_root() {
    pjdfstest(Context::root, "conformance::pjdfstest_as_root");
}

#[test]
fn pjdfstest_in_a_user_namespace() {
    pjdfstest(Context::userns, "conformance::pjdfstest_in_a_user_namespace");
}

fn pjdfstest(context: Context, name: &str) {
    context::user();
    context::run_prepared(context, name, |directory| tools::stage("pjdfstest", directory), compare);
}

fn compare(s: &mut Sandbox) {
    let scratch = s.scratch();
    scratch.file("pjdfstest.toml", CONFIGURATION).file("wrappers/mount", MOUNT_WITHOUT_HELPER);
    scratch.chmod("wrappers/mount", 0o755);
    let other = Filesystem::tmpfs("size=64m");
    let merged = s.mount();
    let ours = results(&scratch, &merged, other.path());
    s.ignore_inodes();
    s.finish();
    if backend() == Backend::Kernel {
        return;
    }

    scratch.dir("upper-kernel").dir("work-kernel");
    let mut spec = s.spec();
    spec.upper = Some((scratch.at("upper-kernel"), scratch.at("work-kernel")));
    let mount = Mount::new(Backend::Kernel, spec, &scratch.at("log"));
    let kernels = results(&scratch, &merged, other.path());
    mount.unmount();
    judge(&ours, &kernels);
}

fn judge(ours: &BTreeMap<String, Outcome>, kernels: &BTreeMap<String, Outcome>) {
    let passed = |results: &BTreeMap<String, Outcome>| {
        results.values().filter(|outcome| outcome.passed).count()
    };
    eprintln!(
        "pjdfstest: {} on ovlfuse, {} on the kernel's overlayfs, of {}",
        passed(ours),
        passed(kernels),
        kernels.len()
    );
    assert!(passed(kernels) > 250, "the program did not run as it should: {kernels:?}");
    let worse: Vec<String> = kernels
        .iter()
        .filter(|(_, outcome)| outcome.passed)
        .filter_map(|(name, _)| match ours.get(name) {
            Some(outcome) if outcome.passed => None,
            Some(outcome) => Some(format!("{name}: {}", outcome.message)),
            None => Some(format!("{name}: not run")),
        })
        .collect();
    assert!(
        worse.is_empty(),
        "the kernel's overlayfs passes, ovlfuse does not:\n{}",
        worse.join("\n")
    );
}

#[derive(Debug)]
struct Outcome {
    passed: bool,
    message: String,
}

/// Runs pjdfstest in `merged` and reads its lines: `NAME … ok|FAILED|skipped`, reasons below.
fn results(scratch: &Tree, merged: &Tree, other: &Path) -> BTreeMap<String, Outcome> {
    let mut command = Command::new(scratch.at("bin/pjdfstest"));
    command.arg("-c").arg(scratch.at("pjdfstest.toml"));
    command.arg("-p").arg(merged.path()).arg("-s").arg(other);
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", scratch.at("wrappers").display()));
    let output = command.output().expect("pjdfstest");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, verdict @ ("ok" | "FAILED" | "skipped")] = words[..]
            && !line.starts_with('\t')
        {
            let outcome = Outcome { passed: verdict == "ok", message: verdict.into() };
            found.insert(name.into(), outcome);
            last = Some(name.into());
        } else if let Some(outcome) = last.take().and_then(|name| found.get_mut(&name)) {
            outcome.message = line.trim().into();
        }
    }
    let total: usize = text
        .lines()
        .rev()
        .find(|line| line.starts_with("Summary"))
        .and_then(|line| line.rsplit(' ').nth(1)?.parse().ok())
        .unwrap_or_else(|| {
            panic!("pjdfstest: {}\n{text}", String::from_utf8_lossy(&output.stderr))
        });
    assert_eq!(found.len(), total, "not every line was understood:\n{text}");
    found
}

/// The longest name works everywhere; one byte more is refused everywhere, by the same error.
fn names_of_255_bytes(s: &mut Sandbox) {
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    s.lower().file(&longest, "lower").file("f", "x").dir("d");
    s.lower().file(format!("d/{}", "m".repeat(255)), "x");
    let m = s.mount();
    assert_eq!(m.names("").len(), 3);
    m.append(&longest, "+");
    assert_eq!(m.text(&longest), "lower+");
    m.rename(&longest, "short");
    m.rename("short", &longest);
    m.unlink(&longest);
    assert!(!m.exists(&longest));
    m.mkdir(&longest);
    m.rmdir(&longest);
    m.symlink("target", &longest);
    m.unlink(&longest);
    m.link("f", &longest);
    m.remove_all("d");
    assert_eq!(m.names(""), ["f", &longest]);

    let long = m.at(&longer);
    let open = |flags| rustix::fs::open(&long, flags, Mode::RUSR);
    assert_errno(open(OFlags::RDONLY), Errno::NAMETOOLONG);
    assert_errno(open(OFlags::CREATE | OFlags::WRONLY), Errno::NAMETOOLONG);
    assert_errno(std::fs::create_dir(&long), Errno::NAMETOOLONG);
    assert_errno(std::fs::remove_dir(&long), Errno::NAMETOOLONG);
    assert_errno(std::fs::remove_file(&long), Errno::NAMETOOLONG);
    assert_errno(std::fs::hard_link(m.at("f"), &long), Errno::NAMETOOLONG);
    assert_errno(std::fs::hard_link(&long, m.at("g")), Errno::NAMETOOLONG);
    assert_errno(std::fs::rename(m.at("f"), &long), Errno::NAMETOOLONG);
    assert_errno(std::fs::rename(&long, m.at("g")), Errno::NAMETOOLONG);
    assert_errno(std::os::unix::fs::symlink("x", &long), Errno::NAMETOOLONG);
    assert_errno(std::fs::symlink_metadata(&long), Errno::NAMETOOLONG);
}
