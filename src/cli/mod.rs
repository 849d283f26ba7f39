//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with `args` (the first is the program's name).
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::from(args.count() as u8)
}
