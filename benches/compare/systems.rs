//! The file systems that are compared: how each is mounted, unmounted and looked into.
//!
//! Knows nothing of workloads. A [`Mounted`] unmounts itself when dropped, also after an error.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::Result;
use crate::args::Args;
use crate::namespace::wait_until;

/// What is measured when nothing is named.
const DEFAULT: [&str; 4] = ["native", "kernel", "fuse-overlayfs", "ovlfuse"];

/// How a system is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No union: the same files in one tree.
    Native,
    /// The kernel's overlayfs.
    Kernel,
    /// fuse-overlayfs, any version.
    FuseOverlayfs,
    /// ovlfuse.
    Ovlfuse,
}

impl Kind {
    /// Whether a daemon answers.
    pub fn is_fuse(self) -> bool {
        matches!(self, Kind::FuseOverlayfs | Kind::Ovlfuse)
    }

    /// The kind a name stands for, suffixes allowed.
    fn of(name: &str) -> Result<Kind> {
        let known = [
            ("native", Kind::Native),
            ("kernel", Kind::Kernel),
            ("fuse-overlayfs", Kind::FuseOverlayfs),
            ("ovlfuse", Kind::Ovlfuse),
        ];
        known
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map(|(_, kind)| kind)
            .ok_or_else(|| format!("system `{name}` begins with none of {DEFAULT:?}").into())
    }
}

/// One column of the report.
#[derive(Debug)]
pub struct System {
    /// As the user wrote it.
    pub name: String,
    /// How it is called.
    pub kind: Kind,
    /// Whether the user asked for it by name.
    pub named: bool,
    binary: PathBuf,
    options: Vec<String>,
    userxattr: bool,
}

/// Layers of one mount, bottom to top.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The lower layers.
    pub lowers: Vec<PathBuf>,
    /// Upper and work; without them the mount is read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
}

/// The systems that `args` asks for, in order.
pub fn from_args(args: &Args) -> Result<Vec<System>> {
    let mut names = args.systems.clone();
    if names.is_empty() {
        names.extend(DEFAULT.map(str::to_owned));
    }
    for (name, _) in args.binary.iter().chain(&args.option) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.iter().map(|name| System::new(name, args)).collect()
}

impl System {
    fn new(name: &str, args: &Args) -> Result<System> {
        let kind = Kind::of(name)?;
        let given = args.binary.iter().find(|(of, _)| of == name);
        let binary = match given {
            Some((_, path)) => fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))?,
            None if kind == Kind::Ovlfuse => PathBuf::from(env!("CARGO_BIN_EXE_ovlfuse")),
            None => PathBuf::from("fuse-overlayfs"),
        };
        let options = args.option.iter().filter(|(of, _)| of == name);
        let options: Vec<_> = options.map(|(_, text)| text.clone()).collect();
        Ok(System {
            name: name.to_owned(),
            kind,
            named: !args.systems.is_empty() || given.is_some() || !options.is_empty(),
            binary,
            options,
            userxattr: args.user,
        })
    }

    /// What its program says about its version; `None` without a program.
    pub fn version(&self) -> Option<String> {
        if !self.kind.is_fuse() {
            return None;
        }
        let out = Command::new(&self.binary).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).replace('\n', "; ");
        Some(text.trim_end_matches("; ").to_owned())
    }

    /// Mounts `stack` on the empty folder `merged`; returns when it answers.
    ///
    /// `log` takes what the program writes to stderr.
    pub fn mount(&self, stack: &Stack, merged: &Path, log: &Path) -> Result<Mounted> {
        let fail = |e: Box<dyn std::error::Error>| format!("mounting {}: {e}", self.name);
        match self.kind {
            Kind::Native => return Err("native is not mounted".into()),
            Kind::Kernel => self.mount_kernel(stack, merged).map_err(fail)?,
            Kind::FuseOverlayfs => {
                self.command(&self.fuse_overlayfs_words(stack, merged), log).map_err(fail)?
            }
            Kind::Ovlfuse => self.command(&self.ovlfuse_words(stack, merged), log).map_err(fail)?,
        }
        Ok(Mounted {
            kind: self.kind,
            binary: self.binary.clone(),
            merged: merged.to_owned(),
            live: true,
        })
    }

    /// With fsopen(2): mount(2) takes one page of options, too short for 500 layers.
    fn mount_kernel(&self, stack: &Stack, merged: &Path) -> Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fd = context.as_fd();
        for lower in stack.lowers.iter().rev() {
            fsconfig_set_string(fd, "lowerdir+", lower.as_path())?;
        }
        if let Some((upper, work)) = &stack.upper {
            fsconfig_set_string(fd, "upperdir", upper.as_path())?;
            fsconfig_set_string(fd, "workdir", work.as_path())?;
        }
        if self.userxattr {
            fsconfig_set_flag(fd, "userxattr")?;
        }
        for option in self.options.iter().flat_map(|o| o.split(',')) {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(fd, key, value)?,
                None => fsconfig_set_flag(fd, option)?,
            }
        }
        fsconfig_create(fd)?;
        let mount = fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(mount.as_fd(), "", CWD, merged, flags)?)
    }

    fn fuse_overlayfs_words(&self, stack: &Stack, merged: &Path) -> Vec<OsString> {
        let mut options = OsString::from("lowerdir=");
        options.push(join(stack.lowers.iter().rev()));
        if let Some((upper, work)) = &stack.upper {
            options.push(",upperdir=");
            options.push(upper);
            options.push(",workdir=");
            options.push(work);
        }
        for option in &self.options {
            options.push(",");
            options.push(option);
        }
        vec!["-o".into(), options, merged.into()]
    }

    fn ovlfuse_words(&self, stack: &Stack, merged: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["mount".into()];
        for option in &self.options {
            words.extend(["-o".into(), option.into()]);
        }
        if stack.upper.is_none() {
            words.push("--read-only".into());
        }
        let upper = stack.upper.iter().map(|(upper, _)| upper);
        words.push(join(stack.lowers.iter().chain(upper)));
        words.push(merged.into());
        words
    }

    /// Runs the program until it has detached. Its stderr is a file: a daemon that kept a pipe open
    /// would be waited for.
    fn command(&self, words: &[OsString], log: &Path) -> Result<()> {
        let status = Command::new(&self.binary)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .status()
            .map_err(|e| format!("{}: {e}", self.binary.display()))?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(log)?;
        Err(format!("{status}: {}", said.trim()).into())
    }
}

/// Paths joined by colons; a colon, comma or backslash inside one is escaped.
fn join<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> OsString {
    let mut joined = Vec::new();
    for (i, path) in paths.enumerate() {
        if i > 0 {
            joined.push(b':');
        }
        for &byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                joined.push(b'\\');
            }
            joined.push(byte);
        }
    }
    OsString::from_vec(joined)
}

/// A live mount.
#[derive(Debug)]
pub struct Mounted {
    kind: Kind,
    binary: PathBuf,
    merged: PathBuf,
    live: bool,
}

impl Mounted {
    /// The daemon's process: the one with the mount point among its arguments.
    pub fn daemon(&self) -> Result<u32> {
        self.find_daemon()?
            .ok_or_else(|| format!("no daemon serves {}", self.merged.display()).into())
    }

    fn find_daemon(&self) -> Result<Option<u32>> {
        if !self.kind.is_fuse() {
            return Ok(None);
        }
        let wanted = self.merged.as_os_str().as_bytes();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = number(&entry.file_name()) else {
                continue;
            };
            // A process may end meanwhile.
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            if line.split(|&b| b == 0).any(|word| word == wanted) {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }

    /// Unmounts and waits until the daemon is gone, so that its end disturbs nobody.
    pub fn unmount(mut self) -> Result<()> {
        self.live = false;
        let daemon = self.find_daemon()?;
        if self.kind == Kind::Ovlfuse {
            let words = [OsStr::new("umount"), self.merged.as_os_str()];
            let out = Command::new(&self.binary).args(words).output()?;
            if !out.status.success() {
                self.live = true;
                let said = String::from_utf8_lossy(&out.stderr);
                return Err(format!("unmounting: {}", said.trim()).into());
            }
        } else {
            unmount(&self.merged, UnmountFlags::empty()).map_err(|e| format!("unmounting: {e}"))?;
        }
        match daemon {
            Some(pid) => wait_until("the daemon's end", || Ok(has_ended(pid))),
            None => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.live {
            return;
        }
        if let Err(error) = unmount(&self.merged, UnmountFlags::DETACH) {
            eprintln!("compare: {} stays mounted: {error}", self.merged.display());
        }
    }
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// Whether a process is gone, or waits only for its parent to notice.
fn has_ended(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}
