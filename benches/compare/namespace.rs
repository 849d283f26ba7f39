//! The namespaces the bench runs in: it starts itself again inside them.
//!
//! Mounts are made in a private mount namespace, so that nobody else sees them. For root, `--user` adds
//! a user namespace in which ids 0 to 65535 are themselves; an ordinary user gets what /etc/subuid
//! grants, or root alone. Stages: outside -> [`PRIVATE`] (root) -> [`USER`] (with `--user`).

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::Args;
use crate::counts;
use crate::workloads::programs::run;

const STAGE: &str = "OVLFUSE_COMPARE_STAGE";
const PRIVATE: &str = "private";
const USER: &str = "user";

/// Where the measuring happens.
pub enum Place {
    /// In this process.
    Here,
    /// In another one, which has ended.
    Elsewhere(ExitCode),
}

/// Moves to the namespaces that `args` asks for.
pub fn enter(args: &Args) -> Result<Place> {
    let stage = std::env::var(STAGE).unwrap_or_default();
    match (stage.as_str(), rustix::process::geteuid().is_root()) {
        (USER, _) => Ok(Place::Here),
        (PRIVATE, _) => {
            if args.xfs {
                mount_xfs(args)?;
            }
            if args.count {
                counts::mount_tracefs()?;
            }
            if args.user { enter_user_as_root().map(Place::Elsewhere) } else { Ok(Place::Here) }
        }
        (_, false) if args.xfs => Err("--xfs needs root".into()),
        (_, true) => again(&["-m", "--propagation", "private"], PRIVATE),
        (_, false) if args.user => {
            let auto = ["-U", "-r", "-m", "--map-auto"];
            let works = Command::new("unshare")
                .args(auto)
                .arg("true")
                .stderr(Stdio::null())
                .status()?
                .success();
            again(if works { &auto } else { &auto[..3] }, USER)
        }
        (_, false) => Err("mounting needs root, or --user for a user namespace".into()),
    }
}

/// Mounts a new xfs over `--dir`. Its file has no name any more when it is mounted, and goes with
/// the mount namespace.
fn mount_xfs(args: &Args) -> Result<()> {
    let image = tempfile::NamedTempFile::new_in(&args.dir)?;
    // The big file is there in a layer and once for each system's copy.
    image.as_file().set_len((8 * args.size_mib as u64 + 2048) << 20)?;
    run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(image.path()))?;
    run(Command::new("mount").args(["-t", "xfs", "-o", "loop"]).args([image.path(), &args.dir]))
}

/// The command line that starts this program again.
fn own_command() -> Result<Vec<OsString>> {
    let mut words = vec![std::env::current_exe()?.into_os_string()];
    words.extend(std::env::args_os().skip(1));
    Ok(words)
}

/// Replaces this process by itself under `unshare`; returns only when that fails.
fn again(unshare: &[&str], stage: &str) -> Result<Place> {
    let error = Command::new("unshare").args(unshare).args(own_command()?).env(STAGE, stage).exec();
    Err(format!("cannot run unshare(1) of util-linux: {error}").into())
}

/// Runs this program in a user namespace whose maps root writes: `unshare --map-auto` has none for
/// a root without a line in /etc/subuid.
fn enter_user_as_root() -> Result<ExitCode> {
    let mut child = Command::new("unshare")
        .args(["-U", "-m", "--propagation", "private"])
        .args(["sh", "-c", r#"read _ && exec "$@""#, "sh"])
        .args(own_command()?)
        .env(STAGE, USER)
        .stdin(Stdio::piped())
        .spawn()?;
    let proc = format!("/proc/{}", child.id());
    let own = fs::read_link("/proc/self/ns/user")?;
    wait_until("the user namespace", || {
        Ok(fs::read_link(Path::new(&proc).join("ns/user"))? != own)
    })?;
    for map in ["uid_map", "gid_map"] {
        fs::write(Path::new(&proc).join(map), "0 0 65536")?;
    }
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    let code = child.wait()?.code().unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Polls until `state` holds; an error after ten seconds.
pub fn wait_until(what: &str, mut state: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !state()? {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("waited 10 s in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
