//! The transport: the only folder that names `fuser`.
//!
//! | module | holds |
//! | --- | --- |
//! | `adapter` | the crate's callbacks: unpack, one call of [`Fs`], reply |
//! | `init` | what is asked of the kernel |
//! | `convert` | the crate's values to those of the file system |
//! | `view` | owners and link counts that are shown otherwise |
//! | `replies` | sending those that carry attributes |
//! | `wire` | replies in the kernel's format |
//! | `channel` | sending them, and notifications |
//! | `mount` | mount(2) and fusermount3 |

mod adapter;
mod channel;
mod convert;
mod init;
mod ioctl;
mod mount;
mod replies;
mod view;
mod wire;

use crate::config::{Config, Passthrough};
use crate::error::{Failure, MountError};
use crate::fs::Fs;
use crate::layer;
use crate::sys::{self, identity};
use adapter::Adapter;
use channel::Channel;
use fuser::{Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Mounts what `config` asks for and serves it until it is unmounted.
///
/// Opens and checks the layers, mounts, agrees with the kernel, starts the reader
/// threads, then calls `ready` once and goes on serving. Returns when the mount is
/// gone. An error before `ready` means that nothing is mounted.
/// SIGTERM and SIGINT must be handled by the caller, who unmounts.
///
/// # Errors
/// A [`MountError`] with the reason and the remedy.
pub fn serve(config: &Config, ready: impl FnOnce()) -> Result<(), MountError> {
    sys::memory::tune();
    raise_limits();
    reserve_descriptors();
    mount::check_mountpoint(&config.mountpoint)?;
    check_options(config)?;
    let layers = layer::open::open(config)?;
    let fs = Arc::new(Fs::new(layers, config)?);
    let device = mount::mount(config)?;
    let session = start_session(Arc::clone(&fs), device, config)
        .inspect_err(|_| mount::undo(&config.mountpoint))?;
    let server = std::thread::Builder::new()
        .name("session".into())
        .spawn(move || session.run())
        .map_err(|e| internal(format!("cannot start a thread: {e}")))
        .inspect_err(|_| mount::undo(&config.mountpoint))?;
    ready();
    let served = match server.join() {
        Ok(Ok(())) => Ok(()),
        // The mount went away while a request, as for a file that was just closed, was being read.
        Ok(Err(e)) if e.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => Ok(()),
        Ok(Err(e)) => Err(internal(format!("serving ended: {e}"))),
        Err(_) => Err(internal("serving ended in an unforeseen way".into())),
    };
    served.and(finish(fs))
}

/// Brings all that was changed to the disk. Others may use the layers meanwhile, unless a request
/// is still under way, as after an abort.
fn finish(mut fs: Arc<Fs>) -> Result<(), MountError> {
    if let Some(unused) = Arc::get_mut(&mut fs) {
        unused.retire();
    }
    fs.sync().map_err(|e| internal(format!("what was changed may not be on the disk: {e}")))
}

fn start_session(
    fs: Arc<Fs>,
    device: OwnedFd,
    config: &Config,
) -> Result<Session<Adapter>, MountError> {
    let failed = |e| internal(format!("cannot start the FUSE session: {e}"));
    let slot = Arc::new(OnceLock::new());
    let adapter = Adapter::new(Arc::clone(&fs), config, Arc::clone(&slot));
    let mut options = fuser::Config::default();
    options.n_threads = Some(config.threads.max(1));
    // The kernel itself lets in whom the mount options allow.
    let session = Session::from_fd(adapter, device, SessionACL::All, options).map_err(failed)?;
    let copy = session.as_fd().try_clone_to_owned().map_err(failed)?;
    let channel = slot.get_or_init(|| Channel::new(copy));
    fs.set_notify(Arc::new(channel.clone()));
    Ok(session)
}

/// Checks that the kernel can be given what the options leave to it.
fn check_options(config: &Config) -> Result<(), MountError> {
    if config.no_open && !identity::may_chown() {
        return Err(MountError::new(
            Failure::Usage,
            "option 'no_open' needs root or a user namespace: files are opened later than their permissions were checked; leave it out",
        ));
    }
    let why = match () {
        () if config.passthrough != Passthrough::On => return Ok(()),
        () if config.no_open => "needs OPEN, which 'no_open' does without",
        () if !identity::is_initial_admin() => {
            "needs root of the machine (CAP_SYS_ADMIN outside of user namespaces)"
        }
        () => return Ok(()),
    };
    Err(MountError::new(Failure::Usage, format!("option 'passthrough' {why}; leave it out")))
}

/// Every open file takes a descriptor, and files are as large as clients make
/// them: use as much as the administrator allows.
fn raise_limits() {
    for resource in [Resource::Nofile, Resource::Fsize] {
        let limit = getrlimit(resource);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = setrlimit(resource, raised) {
            log::debug!("{resource:?} stays at {:?}: {e}", limit.current);
        }
    }
}

/// Makes the table of descriptors as large as it becomes with all directories and many files open.
/// It grows when it is full, and once there are threads the kernel waits for all processors then, some
/// 15 ms each time (`fs/file.c: expand_fdtable`).
fn reserve_descriptors() {
    const EXPECTED: u64 = 4096;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = EXPECTED.min(limit).saturating_sub(1) as i32;
    let any = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    if let Err(e) = any.and_then(|fd| fcntl_dupfd_cloexec(fd, last)) {
        log::debug!("no room is kept for {last} descriptors: {e}");
    }
}

fn internal(what: String) -> MountError {
    MountError::new(Failure::Internal, what)
}
