//! The command line: the call forms, daemonising, `umount` and `demo`.
//!
//! | file | holds |
//! | --- | --- |
//! | `args` | what clap parses |
//! | `forms` | which call form argv is, and the mount it asks for |
//! | `daemon` | fork, wait for the mount, detach, serve |
//! | `signals` | SIGTERM and SIGINT unmount |
//! | `logging` | stderr, then syslog |
//! | `mounts` | the mount table, unmounting |
//! | `umount` | `ovlfuse umount`: unmounts and waits for the daemon |
//! | `run/` | `ovlfuse run`: a command in namespaces of its own |
//! | `list` | `ovlfuse list` |
//! | `refresh` | `ovlfuse refresh`: has the daemon look at the layers again |
//! | `layers` | `ovlfuse diff`, `export`, `import`, `commit` |
//! | `demo` | `ovlfuse demo` |
//!
//! **Invariant:** no thread is started before the daemon's fork; the signal
//! thread starts when the mount answers.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use crate::error::{Failure, MountError};
use crate::sys::process;

mod args;
mod daemon;
mod demo;
mod forms;
mod layers;
mod list;
mod logging;
mod mounts;
mod refresh;
mod run;
mod signals;
mod umount;

use forms::Command;

/// Runs the program with `args` (the first is the program's name).
///
/// To be called first thing in `main`: it closes all inherited descriptors but
/// the standard ones.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let result = process::close_inherited()
        .map_err(|error| internal("the inherited descriptors cannot be closed", &error))
        .and_then(|()| run(args.collect()));
    result.unwrap_or_else(|error| {
        say(&error);
        ExitCode::from(error.exit_code())
    })
}

fn run(argv: Vec<OsString>) -> Result<ExitCode, MountError> {
    match forms::parse(argv)? {
        Command::Mount(request) => {
            for warning in &request.warnings {
                say(format_args!("warning: {warning}"));
            }
            if request.pretend { Ok(ExitCode::SUCCESS) } else { daemon::run(&request) }
        }
        Command::Umount(mountpoint) => umount::run(&mountpoint).map(|()| ExitCode::SUCCESS),
        Command::Refresh(merged) => refresh::run(&merged).map(|()| ExitCode::SUCCESS),
        Command::Run(request) => Ok(run::run(&request)),
        Command::List => list::run().map(|()| ExitCode::SUCCESS),
        Command::Completions(shell) => complete(shell),
        Command::Layers(command) => layers::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Demo => demo::run(),
        Command::Show { text, code } => show(&text, code),
    }
}

/// Prints what clap made of `--help` or `--version`: to stderr when it is an error.
fn show(text: &str, code: u8) -> Result<ExitCode, MountError> {
    let written = match code {
        0 => io::stdout().write_all(text.as_bytes()),
        _ => io::stderr().write_all(text.as_bytes()),
    };
    written.map_err(|error| internal("the help cannot be printed", &error))?;
    Ok(ExitCode::from(code))
}

/// Prints the completions of `shell`.
fn complete(shell: clap_complete::Shell) -> Result<ExitCode, MountError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut args::Cli::command(), "ovlfuse", &mut text);
    show(&String::from_utf8_lossy(&text), 0)
}

/// One line on stderr. Where that is impossible nobody is left to be told.
fn say(message: impl std::fmt::Display) {
    if writeln!(io::stderr(), "ovlfuse: {message}").is_err() {
        log::debug!("stderr is closed: {message}");
    }
}

/// The error of a system call that should not fail.
fn internal(what: &str, error: &io::Error) -> MountError {
    MountError::new(Failure::Internal, format!("{what}: {error}"))
}
