//! `ovlfuse run`: commands in a Debian root file system.
//!
//! The tests are scripts; each runs in the contexts it names, with the `prelude.sh` of all scripts
//! in front. `$TREE` is the root file system, unpacked by the ordinary user; the working
//! directory belongs to who runs the script, and `$TMPDIR` in it is where changes are thrown away.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use common::{Context, Tree, context, debian, scratch};
use tempfile::TempDir;

/// `[CONTEXT…] NAME: SCRIPT;` makes the tests `NAME::CONTEXT`.
macro_rules! scripts {
    ($([$($context:ident)+] $name:ident: $script:expr;)+) => {
        $(mod $name {
            $(
                #[test]
                fn $context() {
                    crate::run(crate::common::Context::$context, $script);
                }
            )+
        })+
    };
}

mod commands;
mod ends;

/// The helpers of scripts, and `run`: the command in the tree, with this test's name on it.
const PRELUDE: &str = concat!(
    include_str!("../common/prelude.sh"),
    r#"
run() { "$OVLFUSE" run -v "$here:/here" "$TREE" -- "$@"; }
# The exit code of a command that prints nothing.
code() { local expected=$1 got=0; shift; "$@" || got=$?; is "$expected" echo "$got"; }
nothing_left() {
    is '' ls -A tmp
    is '' daemons
    ! grep ovlfuse-run /proc/self/mountinfo
}
"#
);

/// The program for tests at a terminal.
const TERMINAL: &str = include_str!("terminal.py");

/// The directory with the tree, which the tests that run at a time have in common.
fn tree() -> Arc<TempDir> {
    static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("no test failed while it made the tree");
    shared.upgrade().unwrap_or_else(|| {
        let directory = Arc::new(scratch::directory());
        unpack(directory.path());
        *shared = Arc::downgrade(&directory);
        directory
    })
}

/// Unpacks the archive with all owners, which the ordinary user has in a user namespace only.
fn unpack(directory: &Path) {
    let (uid, gid) = context::user();
    debian::provide(directory);
    std::os::unix::fs::chown(directory, Some(uid), Some(gid)).expect("chown of the folder");
    let mut tar = Context::userns.command("sh");
    tar.args(["-c", "mkdir tree && tar -C tree -xpf root.tar --numeric-owner --exclude='./dev/*'"]);
    scratch::run(tar.current_dir(directory));
}

/// Runs `script` as bash does.
fn run(context: Context, script: &str) {
    context::require_root();
    let tree = tree();
    let (uid, gid) = context::user();
    let directory = scratch::directory();
    context::stage(directory.path(), env!("CARGO_BIN_EXE_ovlfuse").as_ref());
    let own = Tree::new(directory.path());
    own.dir("tmp").dir("merged").file("terminal.py", TERMINAL);
    if context != Context::root {
        for path in ["", "tmp", "merged", "terminal.py"] {
            own.chown(path, uid, gid);
        }
    }
    let mut command = context.command("timeout");
    command.args(["--kill-after=5", "240", "bash", "-c"]).arg(format!("{PRELUDE}\n{script}\n"));
    command.env("OVLFUSE", own.at("bin/ovlfuse")).env("TREE", tree.path().join("tree"));
    command.env("PACKAGE", tree.path().join(debian::PACKAGE_FILE));
    command.env("TMPDIR", own.at("tmp")).current_dir(directory.path());
    let output = command.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "in context {}: {}\n{shown}", context.name(), output.status);
}
