//! What container tools need: a root file system, a program, and a machine that lets them work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use tempfile::TempDir;

use crate::common::scratch::{self, run};
use crate::common::{Context, context, debian};

/// The scripts.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers");
/// The program that ovlfuse is to replace.
pub const FUSE_OVERLAYFS: &str = "/usr/bin/fuse-overlayfs";

/// What is not needed of the root file system, for the sake of time: patterns of tar(1).
const LEFT_OUT: &str = "./dev/* ./usr/share/locale* ./usr/share/zoneinfo* ./usr/share/perl/* \
                        ./usr/share/doc/git* ./usr/share/man/man1/git* ./usr/bin/git* \
                        ./usr/lib/git-core* ./usr/lib/*/perl* ./usr/bin/*lto-dump* \
                        ./usr/lib/gcc/*/*/lto* *san*.a *san.so* ./usr/lib/*/libc.a ./usr/lib/*/libm*.a \
                        *gprofng* ./usr/bin/*gold ./usr/bin/scalar";

/// crun refuses a machine where some controllers are version 1's and others version 2's: the latter
/// are hidden from $@.
const WITHOUT_MIXED_CGROUPS: &str = r#"
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified && exec "$@""#;

/// Seconds that a script may take, also on a machine that does much else.
const LIMIT: u32 = 3600;

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
    let prelude = format!("{FOLDER}/../common/prelude.sh");
    run(Command::new("cp").args(["-r", &format!("{FOLDER}/."), &prelude, "-t"]).arg(&context));
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&files));
    files
}

/// Runs `script` with the folder `files` and `arguments` in the new folder `folder`, as root or as the
/// ordinary user.
pub fn script(who: Context, files: &Path, folder: &Path, script: &str, arguments: &[&Path]) {
    std::fs::create_dir(folder).unwrap();
    let inner = who.command_within(LIMIT, "bash");
    if who == Context::user {
        let (uid, gid) = context::user();
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c", WITHOUT_MIXED_CGROUPS, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let set = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(set).arg(files.join("context").join(script)).arg(files).args(arguments);
    run(command.current_dir(folder));
}

/// What tests share while they run, where the ordinary user can read it.
pub struct Shared {
    /// The root file system and the context of builds.
    pub files: PathBuf,
    /// The program under test.
    pub program: PathBuf,
    _directory: TempDir,
}

/// The files and the program, made by the first test that wants them.
pub fn shared() -> Arc<Shared> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        context::require_root();
        let directory = scratch::directory();
        let program = context::stage(directory.path(), env!("CARGO_BIN_EXE_ovlfuse").as_ref());
        let files = provide(directory.path());
        let made = Arc::new(Shared { files, program, _directory: directory });
        *shared = Arc::downgrade(&made);
        made
    })
}
