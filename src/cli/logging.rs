//! Where log lines go: to stderr, and after detaching to syslog.
//!
//! Which ones: `RUST_LOG` decides when it is set, else warnings, or more with `-v`.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use env_logger::{Builder, Env};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::say;

/// Where syslog(3) sends its datagrams.
const SYSLOG_SOCKET: &str = "/dev/log";

/// The facility of daemons, shifted to its place (`LOG_DAEMON` in syslog.h).
const FACILITY: u8 = 3 << 3;

/// The switch from stderr to syslog of a daemon's logger.
#[derive(Debug)]
pub struct Detach(&'static OnceLock<Option<Syslog>>);

impl Detach {
    /// From now on lines go to syslog, or nowhere if there is none.
    pub fn switch_to_syslog(self) {
        let syslog = Syslog::open().inspect_err(|error| log::debug!("no syslog: {error}"));
        if self.0.set(syslog.ok()).is_err() {
            log::debug!("lines went to syslog already");
        }
    }
}

/// Logs to stderr for good, with times.
pub fn to_stderr(verbosity: u8) {
    install(Box::new(builder(verbosity).build()), verbosity);
}

/// Logs to stderr, one sentence a line, until the daemon detaches.
pub fn until_detached(verbosity: u8) -> Detach {
    static SYSLOG: OnceLock<Option<Syslog>> = OnceLock::new();
    let filter = builder(verbosity).build();
    install(Box::new(DaemonLog { filter, syslog: &SYSLOG }), verbosity);
    Detach(&SYSLOG)
}

fn builder(verbosity: u8) -> Builder {
    Builder::from_env(Env::default().default_filter_or(default_filter(verbosity)))
}

/// The filter without `RUST_LOG`: other crates' lines only where every detail is wanted.
fn default_filter(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "error,ovlfuse=warn",
        1 => "error,ovlfuse=info",
        _ => "debug",
    }
}

fn default_level(verbosity: u8) -> LevelFilter {
    match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    }
}

fn install(logger: Box<dyn Log>, verbosity: u8) {
    match log::set_boxed_logger(logger) {
        // The filter of RUST_LOG may let more through than the level of -v.
        Ok(()) if env::var_os(env_logger::DEFAULT_FILTER_ENV).is_some() => {
            log::set_max_level(LevelFilter::Trace);
        }
        Ok(()) => log::set_max_level(default_level(verbosity)),
        Err(error) => say(format_args!("warning: no log: {error}")),
    }
}

/// A daemon's logger.
struct DaemonLog {
    filter: env_logger::Logger,
    /// Empty until the daemon detaches.
    syslog: &'static OnceLock<Option<Syslog>>,
}

impl Log for DaemonLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        match self.syslog.get() {
            None => say(format_args!("{}: {}", label(record.level()), record.args())),
            Some(None) => {}
            Some(Some(syslog)) => syslog.send(record),
        }
    }

    fn flush(&self) {}
}

/// A sender of RFC 3164 datagrams. They carry no time: the receiver stamps them.
#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
}

impl Syslog {
    fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A line may be lost, a request may not wait for the log.
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Sends one line. A line that nobody takes is lost: there is no log to say so.
    fn send(&self, record: &Record<'_>) {
        let line = syslog_line(record.level(), std::process::id(), &record.args().to_string());
        if self.socket.send_to(line.as_bytes(), SYSLOG_SOCKET).is_err() {
            // Nothing is connected, so a later line finds a syslog that came back.
        }
    }
}

fn syslog_line(level: Level, pid: u32, message: &str) -> String {
    let priority = FACILITY | severity(level);
    format!("<{priority}>ovlfuse[{pid}]: {}", message.replace('\n', " "))
}

/// The severities of syslog.h.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn label(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_opens_the_filter() {
        for (verbosity, level) in [(0, Level::Warn), (1, Level::Info), (2, Level::Debug)] {
            let filter = Builder::new().parse_filters(default_filter(verbosity)).build();
            let enabled = |level, target| {
                filter.enabled(&Metadata::builder().level(level).target(target).build())
            };
            assert!(enabled(level, "ovlfuse::fs"), "{verbosity}");
            assert_eq!(enabled(Level::Warn, "fuser::session"), verbosity == 2);
            assert_eq!(default_level(verbosity), level.to_level_filter());
        }
    }

    #[test]
    fn syslog_lines_have_priority_tag_and_one_line() {
        assert_eq!(syslog_line(Level::Error, 7, "a\nb"), "<27>ovlfuse[7]: a b");
        assert_eq!(syslog_line(Level::Warn, 7, "a"), "<28>ovlfuse[7]: a");
        assert_eq!(syslog_line(Level::Debug, 7, "a"), "<31>ovlfuse[7]: a");
    }
}
