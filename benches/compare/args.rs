//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Compare union file systems: native, the kernel's overlayfs, fuse-overlayfs, ovlfuse
#[derive(Debug, Parser)]
#[command(name = "compare", bin_name = "cargo bench --bench compare --")]
pub struct Args {
    /// Measured rounds; the report gives their median. 0 with --count only counts
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Rounds before those, thrown away
    #[arg(long, default_value_t = 1)]
    pub warmups: usize,
    /// What to measure; a name may have a suffix (`ovlfuse-wb`, `fuse-overlayfs-2.0`) that
    /// --binary and --option refer to. One that does not work here is an error if named, else left out
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub systems: Vec<String>,
    /// Use this program for a system; adds the system if it is not in the list
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    pub binary: Vec<(String, String)>,
    /// Mount a system with these options (`-o`) as well; adds it if it is not in the list
    #[arg(long, value_name = "NAME=OPTIONS", value_parser = pair)]
    pub option: Vec<(String, String)>,
    /// Which workloads (all); see --list
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub workloads: Vec<String>,
    /// Print the workloads and exit
    #[arg(long)]
    pub list: bool,
    /// Run inside a user namespace, the kernel's overlayfs with `userxattr`
    #[arg(long)]
    pub user: bool,
    /// Also count FUSE requests and the daemon's system calls, in one more round (root, tracefs)
    #[arg(long)]
    pub count: bool,
    /// Drop all of the machine's caches before each "first" (root). Without it "first" is a fresh
    /// mount over layers that are in memory
    #[arg(long)]
    pub cold: bool,
    /// A real root tree for walk, stat, miss and open instead of the sample; it is only read
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    /// Where layers and uppers are made; decides the file system underneath
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Put a new xfs (with reflinks) over that folder, in a file of its own as large as needed (root,
    /// mkfs.xfs); only the bench sees it
    #[arg(long)]
    pub xfs: bool,
    /// Operations in a storm of names
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub files: usize,
    /// Size of the big file
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub size_mib: usize,
    /// Files that the daemon knows when its memory is read
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pub inodes: usize,
    /// Write results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a bar chart of the ratios to the kernel
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub bench: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))
}
