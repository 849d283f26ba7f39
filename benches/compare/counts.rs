//! FUSE requests and system calls of a daemon, counted with tracefs: exact where time is noisy.
//!
//! Two trace instances of our own, so that nobody else's tracing is touched: one sees the requests of
//! one connection (`events/fuse/fuse_request_send`), the other the system calls of one daemon's threads
//! (`events/syscalls`). Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;

const TRACEFS: &str = "/sys/kernel/tracing";
/// Of each processor's buffer; an event takes some 40 bytes.
const BUFFER_KIB: &str = "32768";
/// How long requests may trail behind the call that caused them: RELEASE and FORGET do.
const TRAIL: Duration = Duration::from_millis(100);

/// How often each request and system call happened.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// By opcode.
    pub requests: BTreeMap<String, u64>,
    /// By system call; the daemon's reads and writes of /dev/fuse are among them.
    pub syscalls: BTreeMap<String, u64>,
}

/// Counts for one mount at a time.
#[derive(Debug)]
pub struct Counter {
    requests: Instance,
    syscalls: Instance,
}

/// Mounts tracefs where it belongs if it is not there; to be called in a private mount namespace.
pub fn mount_tracefs() -> Result<()> {
    if Path::new(TRACEFS).join("events").exists() {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tracefs", TRACEFS, "tracefs", flags, None)
        .map_err(|e| format!("--count: mounting tracefs: {e}").into())
}

impl Counter {
    /// Makes the trace instances.
    pub fn new() -> Result<Counter> {
        let requests = Instance::new("requests")?;
        requests.set("events/fuse/fuse_request_send/enable", "1")?;
        let syscalls = Instance::new("syscalls")?;
        // Threads that the daemon starts are followed.
        syscalls.set("options/event-fork", "1")?;
        for event in fs::read_dir(syscalls.folder.join("events/syscalls"))? {
            let event = event?.file_name();
            let event = event.to_string_lossy();
            if event.starts_with("sys_enter_") {
                syscalls.set(&format!("events/syscalls/{event}/enable"), "1")?;
            }
        }
        Ok(Counter { requests, syscalls })
    }

    /// Counts from here: requests of the mount with this minor device number, system calls of this
    /// process.
    pub fn start(&self, device: u32, daemon: u32) -> Result<()> {
        let filter = format!("connection == {device}");
        self.requests.set("events/fuse/fuse_request_send/filter", &filter)?;
        let mut threads = String::new();
        for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
            threads.push_str(&task?.file_name().to_string_lossy());
            threads.push(' ');
        }
        self.syscalls.set("set_event_pid", &threads)?;
        self.syscalls.start()?;
        self.requests.start()
    }

    /// What happened since [`Counter::start`].
    pub fn stop(&self) -> Result<Counts> {
        std::thread::sleep(TRAIL);
        Ok(Counts {
            requests: self.requests.stop(request_name)?,
            syscalls: self.syscalls.stop(syscall_name)?,
        })
    }
}

/// `… fuse_request_send: connection 45 req 2 opcode 1 (FUSE_LOOKUP) len 47`.
fn request_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" opcode ")?;
    let (number, rest) = rest.split_once(' ')?;
    let name = rest.strip_prefix("(FUSE_").and_then(|r| r.split_once(')'));
    Some(name.map_or(number, |(name, _)| name))
}

/// `… 123.456789: sys_openat(dfd: …)`.
fn syscall_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(": sys_")?;
    rest.split_once('(').map(|(name, _)| name)
}

/// A trace instance; it goes away when dropped.
#[derive(Debug)]
struct Instance {
    folder: PathBuf,
}

impl Instance {
    fn new(what: &str) -> Result<Instance> {
        let name = format!("instances/compare-{}-{what}", std::process::id());
        let folder = Path::new(TRACEFS).join(name);
        fs::create_dir(&folder).map_err(|e| format!("--count: {}: {e}", folder.display()))?;
        let instance = Instance { folder };
        instance.set("tracing_on", "0")?;
        instance.set("buffer_size_kb", BUFFER_KIB)?;
        Ok(instance)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.folder.join(file);
        let fail = |e| format!("--count: {}: {e}", path.display());
        let mut file = fs::File::options().write(true).truncate(true).open(&path).map_err(fail)?;
        Ok(file.write_all(value.as_bytes()).map_err(fail)?)
    }

    fn start(&self) -> Result<()> {
        self.set("trace", "")?;
        self.set("tracing_on", "1")
    }

    fn stop(&self, name: fn(&str) -> Option<&str>) -> Result<BTreeMap<String, u64>> {
        self.set("tracing_on", "0")?;
        let trace = fs::read(self.folder.join("trace"))?;
        let trace = String::from_utf8_lossy(&trace);
        if let Some((kept, written)) = buffer_use(&trace)
            && kept != written
        {
            return Err(format!("--count: only {kept} of {written} events were kept").into());
        }
        let mut counts = BTreeMap::new();
        let events = trace.lines().filter(|line| !line.starts_with('#'));
        for name in events.filter_map(name) {
            if let Some(count) = counts.get_mut(name) {
                *count += 1;
            } else {
                counts.insert(name.to_owned(), 1);
            }
        }
        Ok(counts)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("compare: {} stays: {error}", self.folder.display());
        }
    }
}

/// `# entries-in-buffer/entries-written: 12/12   #P:2`.
fn buffer_use(trace: &str) -> Option<(&str, &str)> {
    let (_, rest) = trace.split_once("entries-written: ")?;
    rest.split_whitespace().next()?.split_once('/')
}
