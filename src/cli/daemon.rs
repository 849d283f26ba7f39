//! Serving a mount: in the foreground, or in a child that detaches once the
//! mount answers.
//!
//! The parent waits at a pipe. The child writes one byte [`MOUNTED`] when the
//! mount answers, or the exit code and the sentence of its error; the parent
//! ends with that. Until then the child keeps the caller's stderr; afterwards it
//! holds none of the standard descriptors, because callers wait for their end.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, chdir, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::forms::MountRequest;
use super::internal;
use super::logging::{self, Detach};
use super::mounts::{OwnMount, real_path};
use super::signals::Caught;
use crate::config::Config;
use crate::error::{Failure, MountError};
use crate::fuse::serve;
use crate::sys::process::{Fork, fork};

/// What the child writes when the mount answers; no error has this exit code.
const MOUNTED: u8 = 0;

/// Mounts and serves. Returns when the mount answers, in the foreground when it is gone.
///
/// # Errors
/// A [`MountError`] to be printed: nothing is mounted then.
pub fn run(request: &MountRequest) -> Result<ExitCode, MountError> {
    if let Some(namespace) = &request.namespace {
        enter_mount_namespace(namespace)?;
    }
    let config = with_real_mountpoint(&request.config);
    if request.foreground {
        logging::to_stderr(request.verbosity);
        return serve_in_foreground(&config).map(|()| ExitCode::SUCCESS);
    }
    start(&config, request.verbosity, || Ok(())).map(|_| ExitCode::SUCCESS)
}

/// Starts a daemon that mounts and serves `config`, and waits until the mount answers. The daemon
/// first calls `prepare`; it ends the process itself when the mount is gone.
///
/// # Errors
/// Nothing is mounted then.
pub fn start(
    config: &Config,
    verbosity: u8,
    prepare: impl FnOnce() -> io::Result<()>,
) -> Result<Pid, MountError> {
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| internal("pipe", &error.into()))?;
    match fork().map_err(|error| internal("fork", &error))? {
        Fork::Parent(child) => {
            drop(writer);
            wait_until_mounted(reader.into(), child).map(|()| child)
        }
        Fork::Child => {
            drop(reader);
            std::process::exit(serve_in_background(config, verbosity, prepare, writer.into()))
        }
    }
}

/// The mount point as it will be in the mount table, so that it can be found
/// there again from another working directory. One that is missing is left as
/// it is: whoever mounts says so.
fn with_real_mountpoint(config: &Config) -> Config {
    let mut config = config.clone();
    if let Ok(real) = real_path(&config.mountpoint) {
        config.mountpoint = real;
    }
    config
}

fn serve_in_foreground(config: &Config) -> Result<(), MountError> {
    let caught = Caught::new().map_err(|error| internal("signals", &error))?;
    serve(config, || {
        log::info!("mounted on {}", config.mountpoint.display());
        answer_signals(caught, OwnMount::at(config.mountpoint.clone()));
    })
}

/// Without the thread the mount works all the same; only unmounting it is left
/// to others.
fn answer_signals(caught: Caught, mount: OwnMount) {
    if let Err(error) = caught.unmount_on_signal(mount) {
        log::error!("signals will not unmount: {error}");
    }
}

/// The child: serves, and tells the parent over `report` when it does. The exit code.
fn serve_in_background(
    config: &Config,
    verbosity: u8,
    prepare: impl FnOnce() -> io::Result<()>,
    report: File,
) -> i32 {
    let report = Report::new(report);
    let detach_log = logging::until_detached(verbosity);
    let served = prepare()
        .and_then(|()| Background::prepare())
        .map_err(|error| internal("the daemon cannot be prepared", &error))
        .and_then(|background| serve(config, || background.detach(config, detach_log, &report)));
    match served {
        Ok(()) => 0,
        Err(error) => {
            report.failed(&error);
            error.exit_code().into()
        }
    }
}

/// What detaching needs, opened before there is anything to be undone.
struct Background {
    null: File,
    caught: Caught,
}

impl Background {
    fn prepare() -> io::Result<Self> {
        setsid()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        Ok(Self { null, caught: Caught::new()? })
    }

    /// Lets go of the caller. Where that fails, or the caller is gone, there
    /// shall be no mount either.
    fn detach(self, config: &Config, detach_log: Detach, report: &Report) {
        let mount = OwnMount::at(config.mountpoint.clone());
        match self.let_go(detach_log, report) {
            Ok(caught) => answer_signals(caught, mount),
            Err(error) => {
                report.failed(&internal("the daemon cannot detach", &error));
                if let Err(error) = mount.unmount() {
                    log::error!("the mount cannot be unmounted: {error}");
                }
            }
        }
    }

    fn let_go(self, detach_log: Detach, report: &Report) -> io::Result<Caught> {
        chdir("/")?;
        detach_log.switch_to_syslog();
        let null = self.null.as_fd();
        dup2_stdin(null)?;
        dup2_stdout(null)?;
        dup2_stderr(null)?;
        report.mounted()?;
        Ok(self.caught)
    }
}

/// The child's end of the pipe, used once.
struct Report(Cell<Option<File>>);

impl Report {
    fn new(pipe: File) -> Self {
        Self(Cell::new(Some(pipe)))
    }

    /// The parent may go.
    fn mounted(&self) -> io::Result<()> {
        match self.0.take() {
            Some(mut pipe) => pipe.write_all(&[MOUNTED]),
            None => Ok(()),
        }
    }

    /// The parent shall end with `error`; without a parent it is logged.
    fn failed(&self, error: &MountError) {
        let message = [&[error.exit_code()], error.message.as_bytes()].concat();
        let told = self.0.take().map(|mut pipe| pipe.write_all(&message));
        if !matches!(told, Some(Ok(()))) {
            log::error!("{error}");
        }
    }
}

/// The parent: waits for the child's report.
fn wait_until_mounted(mut report: File, child: Pid) -> Result<(), MountError> {
    let mut message = Vec::new();
    report
        .read_to_end(&mut message)
        .map_err(|error| internal("the daemon cannot be waited for", &error))?;
    match message.split_first() {
        Some((&MOUNTED, _)) => Ok(()),
        Some((&code, sentence)) => {
            reap(child);
            let failure = Failure::from_exit_code(code);
            Err(MountError::new(failure, String::from_utf8_lossy(sentence)))
        }
        None => Err(died(child)),
    }
}

/// Waits for the end of a child that has said why it ends.
fn reap(child: Pid) {
    if let Err(error) = waitpid(Some(child), WaitOptions::empty()) {
        log::debug!("process {child}: {error}");
    }
}

/// The error of a child that ended without a report.
fn died(child: Pid) -> MountError {
    let how = match waitpid(Some(child), WaitOptions::empty()) {
        Ok(Some((_, status))) => match (status.terminating_signal(), status.exit_status()) {
            (Some(signal), _) => format!("signal {signal} ended it"),
            (None, code) => format!("it ended with code {}", code.unwrap_or_default()),
        },
        Ok(None) => "it does not answer".into(),
        Err(error) => format!("it cannot be waited for: {error}"),
    };
    let message = format!("the daemon was lost before the mount was there: {how}");
    MountError::new(Failure::Internal, message)
}

/// Enters the mount namespace that `mount -N` names: a process id or a file.
fn enter_mount_namespace(namespace: &OsStr) -> Result<(), MountError> {
    let is_pid = namespace.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let path = match is_pid {
        true => Path::new("/proc").join(namespace).join("ns/mnt"),
        false => namespace.into(),
    };
    let refused = |error: io::Error| {
        let message = format!("the mount namespace {} cannot be entered: {error}", path.display());
        MountError::new(Failure::Usage, message)
    };
    let file = File::open(&path).map_err(refused)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|error| refused(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the parent makes of `report`, written while `script` ran as its child.
    fn parent(report: &[u8], script: &str) -> Result<(), MountError> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        File::from(writer).write_all(report).unwrap();
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let result = wait_until_mounted(reader.into(), Pid::from_child(&child));
        // The end of a child that failed was waited for already.
        assert_eq!(child.wait().is_ok(), result.is_ok());
        result
    }

    #[test]
    fn the_parent_ends_as_the_child_reports() {
        assert_eq!(parent(&[MOUNTED], "exit 0"), Ok(()));
        let error = MountError::new(Failure::Layer, "no such layer");
        assert_eq!(parent(b"\x03no such layer", "exit 3"), Err(error));
        let error = parent(b"", "kill -KILL $$").unwrap_err();
        assert!(
            error.failure == Failure::Internal && error.message.contains("signal 9"),
            "{error}"
        );
        let error = parent(b"", "exit 7").unwrap_err();
        assert!(error.message.contains("code 7"), "{error}");
    }

    #[test]
    fn a_report_is_made_once() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let report = Report::new(writer.into());
        report.mounted().unwrap();
        report.failed(&MountError::new(Failure::Fuse, "too late"));
        let mut told = Vec::new();
        File::from(reader).read_to_end(&mut told).unwrap();
        assert_eq!(told, [MOUNTED]);
    }

    #[test]
    fn a_namespace_that_is_none_is_refused() {
        for namespace in ["/nonexistent/ns", "/dev/null", "0"] {
            let error = enter_mount_namespace(OsStr::new(namespace)).unwrap_err();
            assert_eq!(error.failure, Failure::Usage);
            assert!(error.message.contains("cannot be entered"), "{error}");
        }
    }
}
