//! One mount of one backend, which ends with its guard.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::context::{self, Backend, Context};
use super::wait;

/// Options of ovlfuse that the kernel's overlayfs does not have and can do without.
const OWN_OPTIONS: [&str; 4] = ["no_open", "passthrough", "threads", "whiteouts"];

/// What to mount.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Lower layers, bottom to top.
    pub lowers: Vec<PathBuf>,
    /// Data-only layers, topmost first.
    pub data: Vec<PathBuf>,
    /// Upper and work directory.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Further options, in the kernel's words.
    pub options: Vec<String>,
    /// Where.
    pub merged: PathBuf,
    /// Who mounts.
    pub context: Context,
    /// `RLIMIT_NOFILE` of the daemon, when not the test's own.
    pub max_descriptors: Option<u64>,
    /// `RLIMIT_FSIZE` of the daemon, when not the test's own.
    pub max_file_size: Option<u64>,
    /// After this time the daemon is killed, so that a hanging request fails its test.
    pub patience: Duration,
}

/// A mounted merged view.
pub struct Mount {
    spec: Spec,
    daemon: Option<Daemon>,
    mounted: bool,
}

/// The serving process, run in the foreground with its log in a file.
struct Daemon {
    child: Child,
    log: PathBuf,
    watchdog: Option<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `spec` with `backend` and returns when the mount is there. The log goes to `log`.
    #[track_caller]
    pub fn new(backend: Backend, spec: Spec, log: &Path) -> Self {
        match backend {
            Backend::Kernel => {
                // With `index=on` a mount that another test's child inherited counts until that execs.
                wait::until("the kernel's overlay", || match mount_kernel(&spec) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => false,
                    done => {
                        done.unwrap_or_else(|error| panic!("kernel overlay: {error}: {spec:?}"));
                        true
                    }
                });
                Self { spec, daemon: None, mounted: true }
            }
            Backend::Ovlfuse => {
                let daemon = Daemon::start(&spec, log);
                Self { spec, daemon: Some(daemon), mounted: true }
            }
        }
    }

    /// The daemon's process id; `None` with the kernel's overlayfs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(|daemon| daemon.child.id())
    }

    /// How many descriptors the daemon has open.
    pub fn descriptors(&self) -> Option<usize> {
        let directory = format!("/proc/{}/fd", self.pid()?);
        Some(std::fs::read_dir(directory).expect("the daemon's descriptors").count())
    }

    /// Unmounts and waits until the daemon has ended without complaint.
    #[track_caller]
    pub fn unmount(mut self) {
        self.mounted = false;
        // A child of another test may hold this test's descriptors between its fork and exec.
        wait::until("umount", || self.try_unmount());
        if let Some(daemon) = self.daemon.take() {
            daemon.expect_end();
        }
    }

    /// Kills the daemon, as a crash would end it, and clears the dead mount away.
    #[track_caller]
    pub fn crash(mut self) {
        self.mounted = false;
        let mut daemon = self.daemon.take().expect("a daemon to kill");
        daemon.kill();
        self.detach();
    }

    /// Unmounts; false when the mount is busy.
    #[track_caller]
    fn try_unmount(&self) -> bool {
        let merged = &self.spec.merged;
        if self.daemon.is_some() && self.spec.context == Context::user {
            let output =
                Command::new("fusermount3").arg("-u").arg(merged).output().expect("fusermount3");
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() || message.contains("busy"),
                "fusermount3 -u: {message}"
            );
            return output.status.success();
        }
        match rustix::mount::unmount(merged, UnmountFlags::empty()) {
            Ok(()) => true,
            Err(rustix::io::Errno::BUSY) => false,
            Err(error) => panic!("umount {}: {error}", merged.display()),
        }
    }

    fn detach(&self) {
        let gone = if self.spec.context == Context::user {
            Command::new("fusermount3")
                .arg("-uz")
                .arg(&self.spec.merged)
                .status()
                .is_ok_and(|s| s.success())
        } else {
            rustix::mount::unmount(&self.spec.merged, UnmountFlags::DETACH).is_ok()
        };
        if !gone {
            eprintln!("left mounted: {}", self.spec.merged.display());
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            self.detach();
        }
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
            daemon.print_log();
        }
    }
}

impl Daemon {
    #[track_caller]
    fn start(spec: &Spec, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        let mut command = Command::new(context::ovlfuse());
        command
            .args(arguments(spec))
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or("info".into()));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("dup")).stderr(output);
        super::sys::before_exec(&mut command, super::sys::die_with_parent);
        let limits =
            [(Resource::Nofile, spec.max_descriptors), (Resource::Fsize, spec.max_file_size)];
        for (resource, max) in limits.into_iter().filter(|(_, max)| max.is_some()) {
            let limit = Rlimit { current: max, maximum: max };
            super::sys::before_exec(&mut command, move || Ok(setrlimit(resource, limit)?));
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let patience = spec.patience;
        let pid = child.id();
        let pidfd = wait::pidfd(pid);
        let watchdog = std::thread::spawn(move || {
            if !wait::poll_until(&pidfd, PollFlags::IN, Instant::now() + patience) {
                eprintln!("killing the daemon {pid}: the test took longer than {patience:?}");
                kill(&pidfd);
            }
        });
        let mut daemon = Self { child, log: log.into(), watchdog: Some(watchdog) };
        daemon.wait_until_mounted(&spec.merged, &command);
        daemon
    }

    #[track_caller]
    fn wait_until_mounted(&mut self, merged: &Path, command: &Command) {
        let mountinfo = File::open("/proc/thread-self/mountinfo").expect("mountinfo");
        let pidfd = wait::pidfd(self.child.id());
        let deadline = Instant::now() + wait::DEADLINE;
        while !is_mounted(merged) {
            let ended = self.child.try_wait().expect("wait for the daemon");
            let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))
                .expect("short");
            let late = Instant::now() >= deadline;
            if ended.is_some() || late {
                self.kill();
                self.print_log();
                panic!(
                    "{command:?}: not mounted ({})",
                    ended.map_or("too late".into(), |s| s.to_string())
                );
            }
            let mut fds =
                [PollFd::new(&mountinfo, PollFlags::PRI), PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut fds, Some(&timeout)).expect("poll");
        }
        // The mount is in the table before the daemon serves it; this waits for its first answer.
        rustix::fs::statvfs(merged).unwrap_or_else(|error| panic!("{}: {error}", merged.display()));
    }

    /// Waits for the end after an unmount; it must be a success.
    #[track_caller]
    fn expect_end(mut self) {
        let pidfd = wait::pidfd(self.child.id());
        if !wait::poll_until(pidfd.as_fd(), PollFlags::IN, Instant::now() + wait::DEADLINE) {
            self.kill();
            self.print_log();
            panic!("the daemon is still there {:?} after the unmount", wait::DEADLINE);
        }
        let status = self.child.wait().expect("wait for the daemon");
        self.join_watchdog();
        let log = std::fs::read_to_string(&self.log).expect("the log");
        assert!(status.success() && !log.contains("panicked"), "daemon: {status}\n{log}");
    }

    /// Kills the daemon when it still runs.
    fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            eprintln!("kill the daemon: {error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("wait for the daemon: {error}");
        }
        self.join_watchdog();
    }

    fn join_watchdog(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.join().expect("the watchdog");
        }
    }

    fn print_log(&self) {
        let log = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        eprintln!("--- the daemon's log\n{log}---");
    }
}

fn kill(pidfd: impl AsFd) {
    use rustix::process::{Signal, pidfd_send_signal};
    if let Err(error) = pidfd_send_signal(pidfd, Signal::KILL) {
        eprintln!("kill: {error}");
    }
}

/// Whether something is mounted exactly at `path`.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// `mount -f [--read-only] [--work DIR] [-o OPTS] LOWER[:LOWER…][:UPPER] MERGED`, or all layers
/// as options where there are data-only ones.
pub fn arguments(spec: &Spec) -> Vec<std::ffi::OsString> {
    if !spec.data.is_empty() {
        return layer_options(spec);
    }
    let mut arguments: Vec<std::ffi::OsString> = vec!["mount".into(), "-f".into()];
    let mut layers: Vec<&Path> = spec.lowers.iter().map(PathBuf::as_path).collect();
    match &spec.upper {
        Some((upper, work)) => {
            layers.push(upper);
            arguments.extend(["--work".into(), work.into()]);
        }
        None => arguments.push("--read-only".into()),
    }
    if !spec.options.is_empty() {
        arguments.extend(["-o".into(), spec.options.join(",").into()]);
    }
    if let Some(options) = std::env::var_os("OVLFUSE_TEST_OPTIONS") {
        arguments.extend(["-o".into(), options]);
    }
    let mut joined = std::ffi::OsString::new();
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            joined.push(":");
        }
        joined.push(layer);
    }
    arguments.extend([joined, spec.merged.clone().into()]);
    arguments
}

fn layer_options(spec: &Spec) -> Vec<std::ffi::OsString> {
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut options: Vec<String> =
        spec.lowers.iter().rev().map(|path| option("lowerdir+", path)).collect();
    options.extend(spec.data.iter().map(|path| option("datadir+", path)));
    if let Some((upper, work)) = &spec.upper {
        options.extend([option("upperdir", upper), option("workdir", work)]);
    }
    options.extend(spec.options.iter().cloned());
    let options = options.join(",").into();
    vec!["mount".into(), "-f".into(), "-o".into(), options, spec.merged.clone().into()]
}

/// Asserts that `backend` refuses `spec`; ovlfuse with the exit code `code`.
#[track_caller]
pub fn assert_refused(backend: Backend, spec: &Spec, code: i32) {
    match backend {
        Backend::Kernel => {
            mount_kernel(spec).expect_err("the kernel mounted it");
        }
        Backend::Ovlfuse => {
            let mut command = Command::new("timeout");
            command.arg("20").arg(context::ovlfuse()).args(arguments(spec)).stdin(Stdio::null());
            let output = command.output().expect("timeout");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
        }
    }
}

/// Mounts the kernel's overlayfs. Outside the root context with `userxattr`.
fn mount_kernel(spec: &Spec) -> std::io::Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| fsconfig_set_string(fs.as_fd(), key, value);
    set("source", Path::new("overlay"))?;
    for lower in spec.lowers.iter().rev() {
        set("lowerdir+", lower)?;
    }
    match &spec.upper {
        Some((upper, work)) => {
            set("upperdir", upper)?;
            set("workdir", work)?;
        }
        // The kernel refuses a lone lower layer; an empty one below changes nothing.
        None if spec.data.is_empty() => set("lowerdir+", &spec.merged)?,
        None => {}
    }
    for data in &spec.data {
        set("datadir+", data)?;
    }
    if spec.context != Context::root {
        fsconfig_set_flag(fs.as_fd(), "userxattr")?;
    }
    for option in &spec.options {
        match option.split_once('=') {
            Some((key, _)) if OWN_OPTIONS.contains(&key) => {}
            Some((key, value)) => set(key, Path::new(value))?,
            None if OWN_OPTIONS.contains(&option.as_str()) => {}
            None => fsconfig_set_flag(fs.as_fd(), option.as_str())?,
        }
    }
    fsconfig_create(fs.as_fd())?;
    let read_only = spec.options.iter().any(|option| option == "ro");
    let attributes =
        if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        mount.as_fd(),
        "",
        rustix::fs::CWD,
        &spec.merged,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}
