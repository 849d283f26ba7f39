//! Signals of a serving daemon: SIGTERM and SIGINT unmount, SIGHUP means nothing,
//! and a file that may not grow (SIGXFSZ) is an error of the write, `EFBIG`.
//!
//! SIGPIPE is ignored by the Rust runtime already.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::mounts::OwnMount;

/// The signals, caught but not yet answered.
///
/// One that arrives before [`Caught::unmount_on_signal`] is answered then.
#[derive(Debug)]
pub struct Caught(Signals);

impl Caught {
    /// Catches the signals from now on. Starts no thread.
    ///
    /// # Errors
    /// Those of sigaction(2) and of making a socket pair.
    pub fn new() -> io::Result<Self> {
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ]).map(Self)
    }

    /// Starts the thread that unmounts `mount` when told to; the daemon then
    /// ends because its mount is gone.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn unmount_on_signal(mut self, mount: OwnMount) -> io::Result<()> {
        let answer = move || {
            for signal in self.0.forever().filter(|signal| [SIGTERM, SIGINT].contains(signal)) {
                log::info!("unmounting on signal {signal}");
                if let Err(error) = mount.unmount() {
                    log::error!("signal {signal}: the mount cannot be unmounted: {error}");
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(answer).map(drop)
    }
}
