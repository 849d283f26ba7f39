//! The `ovlfuse` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ovlfuse::cli::main(std::env::args_os())
}
