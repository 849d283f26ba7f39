//! What clap parses: the subcommands, and the call forms without one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::run::RunArgs;

const ABOUT: &str = "A union file system on FUSE, compatible with the kernel's overlayfs";

const LONG_ABOUT: &str = "\
ovlfuse shows several directory trees (the layers) as one. The topmost layer, upper, \
takes every change; the lower layers are never written. Upper has the on-disk format of the \
kernel's overlayfs, so that either of them can mount what the other has written.

It needs no root: an ordinary user mounts through fusermount3, root and the root of a user \
namespace mount directly.";

const EXAMPLES: &str = "\
Call forms:
  ovlfuse mount [OPTIONS] LOWER[:LOWER…]:UPPER MERGED   layers from bottom to top
  ovlfuse -o lowerdir=A:B,upperdir=U,workdir=W MERGED   as a mount program (first lower on top)
  ovlfuse SOURCE MERGED -o OPTIONS                      as a helper of mount(8)
  ovlfuse umount MERGED
  ovlfuse refresh MERGED                                after changes of layers without the mount
  ovlfuse run LOWER[:LOWER…] -- COMMAND…                 in a root of its own; see run --help
  ovlfuse list
  ovlfuse diff|export|import|commit …                   on layers that are not mounted
  ovlfuse demo

Examples:
  See it work, without any preparation:
    ovlfuse demo

  Try a change in a tree without touching it; throw the change away:
    mkdir upper merged
    ovlfuse mount project:upper merged
    rm -r merged/src; ls merged project
    ovlfuse umount merged && rm -r upper

  Three layers, read-only:
    ovlfuse mount --read-only base:tools:fixes merged

  A layer path with a colon:
    ovlfuse mount 'a\\:b:upper' merged

  An image as layers, changes on top of it, and these as a layer of an image:
    podman save -o image.tar alpine; mkdir upper merged
    layers=$(ovlfuse import image.tar alpine)
    ovlfuse mount -o lowerdir=$layers,upperdir=upper merged
    ovlfuse umount merged; ovlfuse diff upper alpine/1
    ovlfuse export upper alpine/1 -o layer.tar.gz

  podman without root:
    podman --storage-opt overlay.mount_program=$(command -v ovlfuse) run …

Options (-o), several separated by commas:
  layers     lowerdir=A:B  lowerdir+=A  upperdir=U  workdir=W
  behaviour  volatile  fsync=volatile|auto|strict  userxattr  whiteouts=kernel|dot_wh
             redirect_dir=on|copy|follow|nofollow|off  index=on|off  threads=N
             xino=auto|on|off  no_open  passthrough=auto|on|off
  mount      ro rw  nodev dev  nosuid suid  noexec exec  noatime atime  allow_other
             fsname=NAME  subtype=NAME
  What mount(8) and fstab add (_netdev, nofail, x-*, …) is accepted. What cannot be done is
  refused by name; the man page (docs/ovlfuse.1.md) lists every option.

Exit codes: 0 mounted or done, 1 internal, 2 command line or option, 3 layer, 4 work directory,
  5 mount point, 6 /dev/fuse or the kernel, 7 fusermount3, 8 file system of upper, 9 unmount, 10 image
  or layer files.";

/// The program with its subcommands.
#[derive(Debug, Parser)]
#[command(
    name = "ovlfuse",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Subcommands,
}

#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Mount layers, given from bottom to top; the last one is the writable upper
    Mount(MountArgs),
    /// Unmount, and wait until the daemon is gone
    Umount {
        /// Where the merged view is mounted
        merged: PathBuf,
    },
    /// Look at the layers again, after they were changed underneath
    Refresh {
        /// Where the merged view is mounted
        merged: PathBuf,
    },
    /// Run a command in a tree of its own, with the layers as its root
    Run(RunArgs),
    /// List the mounts of ovlfuse: where, process id, what of
    List,
    #[command(flatten)]
    Layers(super::layers::LayerCommand),
    /// Print what makes a shell complete the command line
    #[command(after_help = "Example:\n  ovlfuse completions bash >/etc/bash_completion.d/ovlfuse")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Build sample layers, mount them, show what happens, and clean up
    Demo,
}

/// `ovlfuse mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// Layers from bottom to top: LOWER[:LOWER…]:UPPER ('\:' is a colon in a name);
    /// left out when -o names them
    #[arg(value_name = "LAYERS")]
    pub first: OsString,
    /// Where the merged view appears
    #[arg(value_name = "MERGED")]
    pub second: Option<PathBuf>,
    /// All layers are lower ones: nothing can be changed
    #[arg(short = 'r', long)]
    pub read_only: bool,
    /// The work directory, on the file system of UPPER [default: a hidden sibling of UPPER]
    #[arg(short, long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Mount options, separated by commas; can be repeated
    #[arg(short, long = "option", value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Stay in the foreground, log to stderr
    #[arg(short, long)]
    pub foreground: bool,
    /// Log more; -vv for every detail
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The forms without a subcommand: a mount program's, and a mount(8) helper's.
#[derive(Debug, Parser)]
#[command(
    name = "ovlfuse",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
    override_usage = "ovlfuse [-f] [-d] [-o OPTIONS]... [SOURCE] MERGED",
    arg_required_else_help = true
)]
pub struct HelperArgs {
    /// SOURCE (what the mount table shows) and MERGED, or MERGED alone
    #[arg(value_name = "PATH", required = true, num_args = 1..=2)]
    pub paths: Vec<OsString>,
    /// Mount options, separated by commas; can be repeated
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append)]
    pub options: Vec<OsString>,
    /// Stay in the foreground; called as `mount.*`: only check the command line (mount --fake)
    #[arg(short)]
    pub foreground: bool,
    /// Stay in the foreground and log every detail
    #[arg(short, long)]
    pub debug: bool,
    /// One thread; called as `mount.*`: ignore unknown options (mount --sloppy)
    #[arg(short)]
    pub single: bool,
    /// Log more
    #[arg(short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Nothing: there is no /etc/mtab to be left alone
    #[arg(short = 'n')]
    pub no_mtab: bool,
    /// Mount in this mount namespace (a file or a process id)
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub namespace: Option<OsString>,
    /// The file system type: fuse.SUBTYPE
    #[arg(short = 't', value_name = "TYPE")]
    pub fs_type: Option<OsString>,
}
