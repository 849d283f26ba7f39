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
    let mut command = match context {
        Context::root => own_mounts(),
        _ => context.command("env"),
    };
    command
        .args(["timeout", "--kill-after=5", "120", "bash", "-c"])
        .arg(format!("{PRELUDE}\n{script}\n"));
    command.env("OVLFUSE", tree.at("bin/ovlfuse")).env("CONTEXT", context.name());
    command.env("IMAGE", tree.at("bin/image.py"));
    command.env("TMPDIR", tree.at("tmp")).current_dir(directory.path());
    let output = command.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "in context {}: {}\n{shown}", context.name(), output.status);
}

/// Root's scripts get a mount namespace too: what they leave vanishes with it.
fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command
}
