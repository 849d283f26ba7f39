//! Measures union file systems side by side over the same layers.
//!
//! Native ext4 (or whatever `--dir` is on), the kernel's overlayfs, fuse-overlayfs and ovlfuse run the
//! same workloads in turn; every run has fresh folders and a fresh mount, rounds are interleaved, the
//! first is a warm-up, and the report gives medians with their spread and ratios to the kernel.
//!
//! `cargo bench --bench compare` needs root; `-- --user` runs everything inside a user namespace, where
//! an ordinary user can as well. `-- --help` lists the options, `-- --list` the workloads.
//!
//! | file | holds |
//! | --- | --- |
//! | `args` | the command line |
//! | `namespace` | the private mount namespace, and the user namespace of `--user` |
//! | `systems` | how each file system is mounted and unmounted |
//! | `layers` | the layers that are measured, made once |
//! | `folders` | fresh folders, and ext4's trap |
//! | `scene` | one run of one workload: fresh folders, views, timed sections |
//! | `workloads` | what is measured, one function each |
//! | `counts` | FUSE requests and the daemon's system calls, from tracefs |
//! | `run` | rounds, order, results |
//! | `report`, `svg` | tables, JSON, chart |

mod args;
mod counts;
mod folders;
mod layers;
mod namespace;
mod report;
mod run;
mod scene;
mod svg;
mod systems;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use namespace::Place;

/// The bench has nobody to recover for: any error ends in one sentence on stderr.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        workloads::print_list();
        return ExitCode::SUCCESS;
    }
    if !args.bench {
        // `cargo test --all-targets` starts bench targets too, without the flag `cargo bench` gives.
        println!("compare: run it with `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    match compare(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<ExitCode> {
    if let Place::Elsewhere(code) = namespace::enter(args)? {
        return Ok(code);
    }
    let results = run::run(args)?;
    report::print(&results);
    if let Some(path) = &args.json {
        report::write_json(&results, path)?;
    }
    if let Some(path) = &args.svg {
        svg::write(&results, path)?;
    }
    Ok(if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
