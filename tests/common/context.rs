//! Who runs a test, and against what.
//!
//! The body of a test runs in this process as root, or in a copy of the test
//! program that is started as the ordinary user [`USER`], inside a user
//! namespace or not, with only that test selected.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::sandbox::Sandbox;
use super::scratch;

/// The ordinary user of the tests; made when missing.
pub const USER: &str = "ovltest";

/// Set in the copy that runs a body: the name of its context.
const INNER: &str = "OVLFUSE_TEST_INNER";
/// Set in the copy: the sandbox's directory, which the outer process owns.
const INNER_DIR: &str = "OVLFUSE_TEST_INNER_DIR";

/// What serves the merged view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The program under test.
    Ovlfuse,
    /// The kernel's overlayfs, as the oracle.
    Kernel,
}

/// The backend that `OVLFUSE_TEST_BACKEND` asks for.
pub fn backend() -> Backend {
    match std::env::var("OVLFUSE_TEST_BACKEND").as_deref() {
        Err(_) | Ok("" | "ovlfuse") => Backend::Ovlfuse,
        Ok("kernel") => Backend::Kernel,
        Ok(other) => panic!("OVLFUSE_TEST_BACKEND={other}: neither ovlfuse nor kernel"),
    }
}

/// Who mounts and makes the calls.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Root of the machine: mount(2), `trusted.overlay.`.
    root,
    /// Root of a user namespace of an ordinary user: mount(2), `user.overlay.`.
    userns,
    /// An ordinary user: fusermount3, `user.overlay.`.
    user,
}

impl Context {
    /// The name, as in `OVLFUSE_TEST_INNER`.
    pub fn name(self) -> &'static str {
        match self {
            Self::root => "root",
            Self::userns => "userns",
            Self::user => "user",
        }
    }

    /// The full name of the overlay xattr `name`.
    pub fn overlay_xattr(self, name: &str) -> String {
        let namespace = if self == Self::root { "trusted" } else { "user" };
        format!("{namespace}.overlay.{name}")
    }

    /// The command that runs `program` in this context.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_within(600, program)
    }

    /// The same, for what may take so many seconds.
    pub fn command_within(self, seconds: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self == Self::root {
            return Command::new(program);
        }
        // A body that hangs, as on a pipe, must not hang the whole suite.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &seconds.to_string(), "setpriv"]);
        command.args([
            &format!("--reuid={USER}"),
            &format!("--regid={USER}"),
            "--init-groups",
            "--",
        ]);
        if self == Self::userns {
            command.args(["unshare", "--mount", "--map-root-user", "--map-auto", "--"]);
        }
        command.arg(program).env("HOME", format!("/home/{USER}")).env("USER", USER);
        // Not root's, which may lead through folders that are closed to others.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// Runs the test `name` (with its crate's name in front) in `context`.
pub fn run(context: Context, name: &str, body: fn(&mut Sandbox)) {
    run_prepared(context, name, |_| {}, body);
}

/// The same, where root first puts what the test needs into the sandbox's directory.
pub fn run_prepared(context: Context, name: &str, prepare: fn(&Path), body: fn(&mut Sandbox)) {
    let name = name.split_once("::").expect("a crate's name first").1;
    if let Ok(inner) = std::env::var(INNER) {
        assert_eq!(inner, context.name(), "started for another context");
        let directory = std::env::var_os(INNER_DIR).expect("set with the context");
        run_body(Sandbox::at(Path::new(&directory), context), body);
        return;
    }
    require_root();
    let directory = scratch::directory();
    prepare(directory.path());
    if context == Context::root {
        run_body(Sandbox::at(directory.path(), context), body);
    } else if context == Context::user && backend() == Backend::Kernel {
        eprintln!("{name}: not run, an ordinary user cannot mount the kernel's overlayfs");
    } else {
        run_copy(context, name, directory.path());
        if context == Context::user {
            Sandbox::at(directory.path(), context).compare_as_root();
        }
    }
}

fn run_body(mut sandbox: Sandbox, body: fn(&mut Sandbox)) {
    body(&mut sandbox);
    sandbox.finish();
}

/// Runs the test `name` in a copy of this program, which must report one test passed.
fn run_copy(context: Context, name: &str, directory: &Path) {
    let (uid, gid) = user();
    let program = stage(directory, &std::env::current_exe().expect("this program's path"));
    stage(directory, Path::new(env!("CARGO_BIN_EXE_ovlfuse")));
    std::os::unix::fs::chown(directory, Some(uid), Some(gid)).expect("chown of the sandbox");
    let output = context
        .command(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INNER, context.name())
        .env(INNER_DIR, directory)
        .current_dir("/")
        .output()
        .expect("setpriv");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && stdout.contains("test result: ok. 1 passed");
    assert!(passed, "in context {}: {}\n{stdout}\n{stderr}", context.name(), output.status);
    eprint!("{stderr}");
}

/// Puts `program` where the ordinary user can execute it.
pub fn stage(directory: &Path, program: &Path) -> PathBuf {
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin).expect("a folder for programs");
    let staged = bin.join(program.file_name().expect("a program's name"));
    if std::fs::hard_link(program, &staged).is_err() {
        std::fs::copy(program, &staged).expect("a copy of the program");
    }
    staged
}

/// The program under test: the staged copy, or cargo's.
pub fn ovlfuse() -> PathBuf {
    let directory = std::env::var_os(INNER_DIR);
    directory.map_or_else(
        || env!("CARGO_BIN_EXE_ovlfuse").into(),
        |dir| Path::new(&dir).join("bin/ovlfuse"),
    )
}

/// Fails with the reason when this is not root, and opens /dev/fuse to everybody.
pub fn require_root() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `sudo tests/run`");
        let fuse = Path::new("/dev/fuse");
        assert!(fuse.exists(), "needs /dev/fuse: `modprobe fuse`");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(fuse, mode).expect("chmod 666 /dev/fuse");
    });
}

/// Ids of the ordinary user, who is made when missing.
pub fn user() -> (u32, u32) {
    static IDS: OnceLock<(u32, u32)> = OnceLock::new();
    *IDS.get_or_init(|| {
        find_user().unwrap_or_else(|| {
            scratch::run(Command::new("useradd").args([
                "--create-home",
                "--shell",
                "/bin/bash",
                USER,
            ]));
            find_user().expect("the user just made")
        })
    })
}

fn find_user() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with(&format!("{USER}:")))?;
    let mut fields = line.split(':').skip(2).map(|id| id.parse().expect("an id"));
    Some((fields.next()?, fields.next()?))
}
