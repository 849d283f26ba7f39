//! Tests that are scripts, as what is tested is what a shell sees; each runs in the contexts it
//! names, with `prelude.sh` in front.

use std::process::Command;

use super::{Context, Tree, context, scratch};

/// `[CONTEXT…] NAME: SCRIPT;` makes the tests `NAME::CONTEXT`.
#[macro_export]
macro_rules! scripts {
    ($([$($context:ident)+] $name:ident: $script:expr;)+) => {
        $(mod $name {
            $(
                #[test]
                fn $context() {
                    $crate::common::scripts::run($crate::common::Context::$context, $script);
                }
            )+
        })+
    };
}

/// What every script starts with.
const PRELUDE: &str = include_str!("prelude.sh");

/// Runs `script` as bash does, in a directory with layers that belong to who runs it. `$IMAGE` is
/// `image.py`, which makes images.
pub fn run(context: Context, script: &str) {
    context::require_root();
    let (uid, gid) = context::user();
    let directory = scratch::directory();
    context::stage(directory.path(), env!("CARGO_BIN_EXE_ovlfuse").as_ref());
    let tree = Tree::new(directory.path());
    tree.dir("upper").dir("work").dir("merged").dir("tmp");
    tree.file("lower/f", "lower\n").file("lower2/g", "lower2\n").file("lower2/d/h", "h\n");
    tree.file("bin/image.py", include_str!("image.py"));
    if context != Context::root {
        tree.chown("", uid, gid);
        for path in tree.walk("") {
            if !path.starts_with("bin/") {
                tree.chown(path.trim_end_matches('/'), uid, gid);
            }
        }
    }
    let mut inner = context.command("timeout");
    inner.args(["--kill-after=5", "120", "bash", "-c"]).arg(format!("{PRELUDE}\n{script}\n"));
    let mut command = in_own_mounts(inner);
    command.env("OVLFUSE", tree.at("bin/ovlfuse")).env("CONTEXT", context.name());
    command.env("IMAGE", tree.at("bin/image.py"));
    command.env("TMPDIR", tree.at("tmp")).current_dir(directory.path());
    let output = command.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "in context {}: {}\n{shown}", context.name(), output.status);
}

/// The same in a mount namespace of its own: what it leaves vanishes with it, and no other test's
/// namespace starts with a copy of its mounts, which would keep their daemons alive.
fn in_own_mounts(inner: Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
