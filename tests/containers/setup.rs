//! What container tools need: a root file system, a program, and a machine that lets them work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::scratch::run;
use crate::common::{Context, context, debian};

/// The scripts.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers");
/// The program that ovlfuse is to replace.
pub const FUSE_OVERLAYFS: &str = "/usr/bin/fuse-overlayfs";

/// What is not needed of the root file system, for the sake of time: patterns of tar(1).
const LEFT_OUT: &str = "./dev/* ./usr/share/locale* ./usr/share/zoneinfo* ./usr/share/perl/* \
                        ./usr/share/doc/git* ./usr/share/man/man1/git* ./usr/bin/git* \
                        ./usr/lib/git-core* ./usr/lib/*/perl* ./usr/bin/*lto-dump* \
                        ./usr/lib/gcc/*/*/lto*";

/// crun refuses a machine where some controllers are version 1's and others version 2's: the latter
/// are hidden from $@.
const WITHOUT_MIXED_CGROUPS: &str = r#"
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified && exec "$@""#;

/// Puts the root file system and the context of builds into `directory`, for everybody to read.
fn provide(directory: &Path) -> PathBuf {
    let files = directory.join("files");
    let context = files.join("context");
    std::fs::create_dir_all(&context).unwrap();
    debian::provide(&context);
    let whole = context.join(debian::ROOT);
    let mut trim = Command::new("tar");
    trim.args(["--wildcards", "--delete", "-f", "-"]).args(LEFT_OUT.split_whitespace());
    trim.stdin(File::open(&whole).unwrap());
    trim.stdout(File::create(files.join(debian::ROOT)).unwrap());
    assert!(trim.status().unwrap().success(), "{trim:?}");
    std::fs::remove_file(whole).unwrap();
    run(Command::new("cp").args(["-r", &format!("{FOLDER}/."), "-t"]).arg(&context));
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&files));
    files
}

/// Runs `script` with the folder `files` and `arguments` in the new folder `name` beside it, which it
/// gives, as root or as the ordinary user.
pub fn script(
    who: Context,
    files: &Path,
    name: &str,
    script: &str,
    arguments: &[&Path],
) -> PathBuf {
    let folder = files.with_file_name(name);
    std::fs::create_dir(&folder).unwrap();
    let inner = who.command("bash");
    if who == Context::user {
        let (uid, gid) = context::user();
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c", WITHOUT_MIXED_CGROUPS, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let set = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(set).arg(files.join("context").join(script)).arg(files).args(arguments);
    run(command.current_dir(&folder));
    folder
}

/// The files and the program, both where the ordinary user can read them.
pub fn prepare(directory: &Path) -> (PathBuf, PathBuf) {
    context::require_root();
    let program = context::stage(directory, env!("CARGO_BIN_EXE_ovlfuse").as_ref());
    (provide(directory), program)
}
