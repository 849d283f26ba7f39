//! The kernel's overlayfs and ovlfuse, side by side on equal layers under equal random calls.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `OVLFUSE_DIFF_SEEDS` | how many cases; without it, as many as fit into the time |
//! | `OVLFUSE_DIFF_SECONDS` | that time, 20 |
//! | `OVLFUSE_DIFF_OPS` | calls of a case, 120 |
//! | `OVLFUSE_DIFF_SEED` | the first case's seed, to repeat a run |
//! | `OVLFUSE_DIFF_FS` | `tmpfs` (default), `dir` (what `OVLFUSE_TEST_DIR` is on), and as root `ext4`, `xfs`, `btrfs` in a loop mount |
//! | `OVLFUSE_DIFF_OPTIONS` | mount options of the random cases, separated by commas, in the kernel's words; those of ovlfuse alone are compared with the kernel's next to them |
//! | `OVLFUSE_DIFF_DATA` | set: always with data-only layers, which `metacopy=on` has now and then |
//! | `OVLFUSE_DIFF_NESTED` | set: the lowest layer is an overlay of the kernel's |
//! | `OVLFUSE_DIFF_KEEP_GOING` | set: report every kind of difference once instead of stopping |
//! | `OVLFUSE_DIFF_SCRIPT` | a script to run instead of random ones |
//! | `OVLFUSE_DIFF_PARALLEL` | seconds of the parallel mode, 10 |
//! | `OVLFUSE_DIFF_THREADS` | its threads, 4 |
//!
//! A case that differs is made short and printed as a script; put it into `regressions/`.
//! What may differ, and why, is in `allowed.rs` and `docs/SEMANTICS.md`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod acl;
mod allowed;
mod calls;
mod case;
mod generate;
mod layers;
mod parallel;
mod phantom;
mod rng;
mod script;
mod shrink;
mod view;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use case::Place;
use common::scratch::Filesystem;
use common::{Context, Sandbox};
use script::Script;

mounted_tests! {
    [root userns]: random_cases, regressions, parallel_threads;
}

/// How long a failing case may be shrunk.
const SHRINKING: Duration = Duration::from_secs(30);

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Where this run's layers lie; the file system lives as long as the second value.
fn place(s: &Sandbox) -> (Place, Option<Filesystem>) {
    if s.context() == Context::root {
        common::sys::unshare_mounts().expect("unshare(CLONE_NEWNS)");
    }
    let wanted = std::env::var("OVLFUSE_DIFF_FS").unwrap_or_else(|_| "tmpfs".into());
    let filesystem = match wanted.as_str() {
        "dir" => None,
        "tmpfs" => Some(Filesystem::tmpfs("size=1g,mode=0755")),
        kind => Some(Filesystem::image(kind, 1024)),
    };
    let sandbox = s.scratch().path().to_path_buf();
    let directory = filesystem.as_ref().map_or(sandbox, |made| made.path().to_path_buf());
    (Place { directory, context: s.context(), blocks: wanted == "tmpfs" }, filesystem)
}

fn random_cases(s: &mut Sandbox) {
    let (place, _filesystem) = place(s);
    if let Some(path) = std::env::var_os("OVLFUSE_DIFF_SCRIPT") {
        return replay(Path::new(&path), &place);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.expect("after 1970").as_millis() % 1_000_000_000_000;
    let first = variable("OVLFUSE_DIFF_SEED").unwrap_or(u64::try_from(fresh).expect("small"));
    let count = variable("OVLFUSE_DIFF_SEEDS");
    let calls = usize::try_from(variable("OVLFUSE_DIFF_OPS").unwrap_or(120)).expect("a count");
    let budget = Duration::from_secs(variable("OVLFUSE_DIFF_SECONDS").unwrap_or(20));
    let start = Instant::now();
    eprintln!("differential, {}: OVLFUSE_DIFF_SEED={first}", place.context.name());
    let mut kinds = BTreeSet::new();
    let mut done = 0;
    while count.map_or_else(|| start.elapsed() < budget, |count| done < count) {
        one_case(first + done, calls, &place, &mut kinds);
        done += 1;
    }
    eprintln!("{done} cases of {calls} calls in {:?}", start.elapsed());
    assert!(kinds.is_empty(), "{} kinds of differences: {kinds:#?}", kinds.len());
}

fn one_case(seed: u64, calls: usize, place: &Place, kinds: &mut BTreeSet<String>) {
    let script = generate::script(seed, calls, place.context);
    let Some(found) = case::run(&script, place) else { return };
    if !kinds.insert(found.kind.clone()) {
        eprintln!("seed {seed} again: {}", found.text);
        return;
    }
    eprintln!("seed {seed} differs, making it short: {}", found.text);
    let (short, why) = shrink::shrink(&script, &found, place, Instant::now() + SHRINKING);
    let report = format!("# seed {seed}: {}\n{short}---\n{}\n", why.kind, why.text);
    eprintln!("=== a difference\n{report}===");
    let keep_going = std::env::var_os("OVLFUSE_DIFF_KEEP_GOING").is_some();
    assert!(keep_going, "seed {seed} differs:\n{report}");
}

fn parallel_threads(s: &mut Sandbox) {
    let (place, _filesystem) = place(s);
    let seconds = variable("OVLFUSE_DIFF_PARALLEL").unwrap_or(10);
    let threads = usize::try_from(variable("OVLFUSE_DIFF_THREADS").unwrap_or(4)).expect("a count");
    parallel::run(&place, Duration::from_secs(seconds), threads);
}

fn replay(path: &Path, place: &Place) {
    if let Some(found) = differs(path, place) {
        panic!("{found}");
    }
}

/// What differs when the script at `path` runs.
fn differs(path: &Path, place: &Place) -> Option<String> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let found = case::run(&Script::parse(&text), place)?;
    Some(format!("{}: {}", path.display(), found.text))
}

/// Every script of `regressions/`; one whose name starts with `root-` or `userns-` only there.
fn regressions(s: &mut Sandbox) {
    let (place, _filesystem) = place(s);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/regressions");
    let entries = std::fs::read_dir(&folder).expect("the regressions");
    let mut scripts: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    scripts.sort();
    let mut failed = Vec::new();
    for path in scripts {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let other = if place.context == Context::root { "userns-" } else { "root-" };
        if !name.starts_with(other) {
            failed.extend(differs(&path, &place));
        }
    }
    assert!(failed.is_empty(), "{} regressions:\n{}", failed.len(), failed.join("\n"));
}
