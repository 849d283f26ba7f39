//! Long random work: fsx on single files, stress-ng on the whole mount.
//!
//! `tests/run` installs both. `OVLFUSE_ENDURANCE` is the time for stress-ng in seconds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
mod common;

use std::process::Command;
use std::time::Duration;

use common::{Context, Sandbox, context, tools, wait};

/// Every operation that fsx has, mmap included; the weights are relative.
const OPERATIONS: &str = "
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 1
punch_hole = 1
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

/// The same without what changes the size: the file keeps its lower content's length.
const OPERATIONS_IN_PLACE: &str = "
blockmode = true
[weights]
close_open = 0
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 0
fsync = 0.1
posix_fallocate = 0
punch_hole = 1
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

const LENGTH: usize = 256 << 10;

#[test]
fn fsx_on_a_lower_file_as_root() {
    fsx(Context::root, "endurance::fsx_on_a_lower_file_as_root");
}

#[test]
fn fsx_on_a_lower_file_as_a_user() {
    fsx(Context::user, "endurance::fsx_on_a_lower_file_as_a_user");
}

fn fsx(context: Context, name: &str) {
    context::run_prepared(
        context,
        name,
        |directory| tools::stage("fsx", directory),
        |s| {
            s.patience(Duration::from_secs(600));
            s.lower().file("d/grows", vec![1; LENGTH]).file("d/in-place", vec![2; LENGTH]);
            s.scratch().file("grows.toml", OPERATIONS).file("in-place.toml", OPERATIONS_IN_PLACE);
            let m = s.mount();
            run_fsx(s, "d/grows", "grows.toml", 100_000, 1);
            run_fsx(s, "d/in-place", "in-place.toml", 20_000, 2);
            m.file("upper", vec![3; LENGTH]);
            for seed in 10..15 {
                run_fsx(s, "upper", "grows.toml", 10_000, seed);
            }
            s.remount();
            run_fsx(s, "d/grows", "grows.toml", 10_000, 3);
            s.finish();
        },
    );
}

/// Runs fsx on the merged file `path`; it compares every read with what it wrote.
fn run_fsx(s: &Sandbox, path: &str, configuration: &str, operations: u32, seed: u32) {
    let scratch = s.scratch();
    let mut command = Command::new(scratch.at("bin/fsx"));
    command.arg("-f").arg(scratch.at(configuration)).arg("-P").arg(scratch.path());
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    let output = command.arg(s.merged().at(path)).output().expect("fsx");
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let skipped = text.lines().count().saturating_sub(40);
        text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    };
    let passed = output.status.success();
    assert!(passed, "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// stress-ng's stressors of files and directories that need nothing but a directory, with options
/// that keep them small.
const STRESSORS: &[&str] = &[
    "--access 1",
    "--chdir 1 --chdir-dirs 256",
    "--chmod 1",
    "--chown 1",
    "--copy-file 1 --copy-file-bytes 128M",
    "--dentry 1 --dentries 256",
    "--dir 1 --dir-dirs 256",
    "--dirdeep 1 --dirdeep-inodes 4096 --dirdeep-bytes 4M",
    "--dirmany 1",
    "--dup 1",
    "--fallocate 1 --fallocate-bytes 16M",
    "--filename 1",
    "--flock 1",
    "--fpunch 1",
    "--fsize 1",
    "--fstat 1",
    "--getdent 1",
    "--hdd 1 --hdd-bytes 16M",
    "--iomix 1 --iomix-bytes 16M",
    "--link 1",
    "--lockf 1",
    "--locka 1",
    "--lockofd 1",
    "--mknod 1",
    "--mmap 1 --mmap-file --mmap-bytes 8M",
    "--msync 1 --msync-bytes 4M",
    "--open 1",
    "--readahead 1 --readahead-bytes 8M",
    "--rename 1",
    "--revio 1 --revio-bytes 8M",
    "--seek 1 --seek-size 8M",
    "--sendfile 1",
    "--symlink 1",
    "--sync-file 1 --sync-file-bytes 8M",
    "--touch 1",
    "--utime 1",
    "--xattr 1",
];

#[test]
fn stress_as_root() {
    context::run(Context::root, "endurance::stress_as_root", stress);
}

#[test]
fn stress_in_a_user_namespace() {
    context::run(Context::userns, "endurance::stress_in_a_user_namespace", stress);
}

/// All stressors at once; afterwards the mount answers, and the daemon is where it was.
fn stress(s: &mut Sandbox) {
    let seconds =
        std::env::var("OVLFUSE_ENDURANCE").map_or(20, |text| text.parse().expect("seconds"));
    s.patience(Duration::from_secs(seconds * 3 + 300));
    for index in 0..200 {
        s.lower().file(format!("d{}/f{index}", index % 7), vec![5; index * 100]);
    }
    let m = s.mount();
    assert_eq!(m.walk("").len(), 207);
    let before = s.descriptors();
    let mut command = Command::new("stress-ng");
    command.args(["--temp-path"]).arg(m.path()).args(["--timeout", &format!("{seconds}s")]);
    command.args(["--metrics-brief", "--verify"]).args(STRESSORS.iter().flat_map(|s| s.split(' ')));
    let output = command.current_dir(m.path()).output().expect("stress-ng");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{text}");
    assert!(output.status.success(), "{}: {text}", output.status);

    let left: Vec<String> = m.walk("").into_iter().filter(|path| !path.starts_with('d')).collect();
    assert_eq!(left, [""; 0], "left by the stressors");
    m.append("d3/f3", "+");
    assert_eq!(m.read("d3/f3").len(), 301);
    if let Some(before) = before {
        wait::until("the daemon has closed what the stressors opened", || {
            s.descriptors().is_some_and(|now| now <= before + 8)
        });
        eprintln!("descriptors: {before} before, {:?} after", s.descriptors());
    }
    s.finish();
}
