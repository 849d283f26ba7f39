//! The command line of `ovlfuse run`, and what it asks for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};

use super::super::say;
use crate::config::options::Options;
use crate::config::split::{split_escaped, unescape_path};
use crate::config::{Config, Upper};
use crate::error::{Failure, MountError};

const EXAMPLES: &str = "\
Examples:
  A shell in a root file system that stays as it is:
    ovlfuse run rootfs -- bash

  Install something, keep the changes, use them again:
    ovlfuse run --upper changes rootfs -- apt-get install -y gcc
    ovlfuse run --upper changes rootfs -- gcc --version

  Build a project in another system, without network:
    ovlfuse run --net none -v .:/src -w /src rootfs -- make

  Two lower layers, the second on top; an input that cannot be changed:
    ovlfuse run -v data:/data:ro base:tools -- process /data

What the command sees: the merged tree as /, owned as if you were root; /proc, /sys (read-only), a
small /dev, an empty /tmp, host's /etc/resolv.conf with the host's network; PATH, HOME=/root, TERM
and what --env says, nothing else of your environment. It does not see your files, processes or
devices. It is no prison for hostile programs: it shares the kernel and, by default, the network, and
nothing limits memory, processor or system calls.

Exit codes: the command's own; 128+N when signal N ended it; 127 not found, 126 not executable;
  125 ovlfuse itself failed and says why, 2 the command line is wrong.";

/// `ovlfuse run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// Layers from bottom to top ('\:' is a colon in a name); none of them is changed
    #[arg(value_name = "LOWER[:LOWER…]")]
    pub lowers: OsString,
    /// The command and its arguments; looked for in the merged tree
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// Show the file or directory HOST at CONT, an absolute path in the tree; ':ro' read-only; can be
    /// repeated
    #[arg(short = 'v', long = "volume", value_name = "HOST:CONT[:ro]")]
    pub volumes: Vec<OsString>,
    /// Keep the changes in DIR, made when missing (the work directory is a hidden sibling of it, unless
    /// -o workdir= says otherwise)
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,
    /// Throw the changes away afterwards (the default)
    #[arg(long, conflicts_with = "upper")]
    pub ephemeral: bool,
    /// The host name the command sees [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<OsString>,
    /// Where the command starts, a directory in the tree
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub workdir: PathBuf,
    /// Set an environment variable; without '=' the caller's value; can be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<OsString>,
    /// The host's network, or none but the loopback device
    #[arg(long, value_enum, default_value_t = Net::Host)]
    pub net: Net,
    /// Mount options, separated by commas, as for `ovlfuse mount`; can be repeated
    #[arg(short, long = "option", value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Say more about what is done
    #[arg(long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The network of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// The caller's.
    Host,
    /// A new one, with a loopback device only.
    None,
}

/// Something of the host that is shown in the tree.
#[derive(Debug, PartialEq, Eq)]
pub struct Volume {
    /// What is shown.
    pub host: PathBuf,
    /// Where, absolute.
    pub inside: PathBuf,
    /// It cannot be changed there.
    pub read_only: bool,
}

/// A command to be run.
#[derive(Debug)]
pub struct RunRequest {
    /// The mount; without an upper layer's path where changes are thrown away, and without a mount
    /// point.
    pub config: Config,
    /// Where changes are kept.
    pub upper: Option<PathBuf>,
    /// In the order in which they are mounted.
    pub volumes: Vec<Volume>,
    /// The host name, where it is not the host's.
    pub hostname: Option<OsString>,
    /// Where the command starts.
    pub workdir: PathBuf,
    /// The whole environment; later ones win.
    pub env: Vec<(OsString, OsString)>,
    /// The network.
    pub net: Net,
    /// The command with its arguments.
    pub command: Vec<OsString>,
    /// 0: warnings, 1: what happens, 2: every detail.
    pub verbosity: u8,
}

impl RunRequest {
    /// Checks what can be checked without looking at files.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn new(args: RunArgs) -> Result<Self, MountError> {
        let mut options = Options::new(false);
        for list in &args.options {
            options.apply(list)?;
        }
        if options.has_layers() {
            return Err(usage("-o cannot name layers here: give LOWER, and --upper DIR".into()));
        }
        options.set_layers(&args.lowers, args.upper.clone().unwrap_or_default())?;
        for warning in options.warnings() {
            say(format_args!("warning: {warning}"));
        }
        let config = options.into_config(PathBuf::new())?;
        if args.upper.is_none() && matches!(config.upper, Some(Upper { work: Some(_), .. })) {
            return Err(usage(
                "-o workdir= needs --upper DIR, to whose file system it belongs".into(),
            ));
        }
        Ok(Self {
            config,
            upper: args.upper,
            volumes: args.volumes.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
            hostname: args.hostname.map(hostname).transpose()?,
            workdir: Path::new("/").join(args.workdir),
            env: environment(&args.env)?,
            net: args.net,
            command: args.command,
            verbosity: args.verbose,
        })
    }

    /// Says what happens, where that is asked for.
    pub fn tell(&self, what: impl std::fmt::Display) {
        if self.verbosity > 0 {
            say(what);
        }
    }
}

/// A host name that the kernel takes (`sethostname(2)`).
fn hostname(name: OsString) -> Result<OsString, MountError> {
    const LONGEST: usize = 64;
    match name.len() {
        0 => Err(usage("--hostname: the name is empty".into())),
        1..=LONGEST => Ok(name),
        _ => Err(usage(format!("--hostname: the name has more than {LONGEST} bytes"))),
    }
}

/// `HOST:CONT[:ro]`.
fn volume(text: &OsStr) -> Result<Volume, MountError> {
    let wrong =
        |why| usage(format!("--volume {}: {why}; give HOST:CONT or HOST:CONT:ro", text.display()));
    let (host, inside, read_only) = match *split_escaped(text.as_bytes(), b':') {
        [host, inside] | [host, inside, b"rw"] => (host, inside, false),
        [host, inside, b"ro"] => (host, inside, true),
        [_, _, _] => return Err(wrong("behind the second ':' there is only ro or rw")),
        _ => return Err(wrong("there are too few or too many ':' ('\\:' is one in a name)")),
    };
    if host.is_empty() || !inside.starts_with(b"/") {
        return Err(wrong("CONT must be an absolute path, and HOST not empty"));
    }
    let inside = unescape_path(inside);
    if !inside.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("CONT must not be the root directory itself"));
    }
    Ok(Volume { host: unescape_path(host), inside, read_only })
}

/// The environment of the command; of the caller's it has only `TERM` and what `given` names.
fn environment(given: &[OsString]) -> Result<Vec<(OsString, OsString)>, MountError> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut all = vec![("PATH".into(), path.into()), ("HOME".into(), "/root".into())];
    all.extend(std::env::var_os("TERM").map(|term| ("TERM".into(), term)));
    for text in given {
        let bytes = text.as_bytes();
        let name_ends = bytes.iter().position(|&byte| byte == b'=');
        let (key, value) = bytes.split_at(name_ends.unwrap_or(bytes.len()));
        if key.is_empty() {
            let message = format!("--env {}: the name is empty; give KEY=VALUE", text.display());
            return Err(usage(message));
        }
        let key = OsStr::from_bytes(key);
        let value = match value.strip_prefix(b"=") {
            Some(value) => Some(OsStr::from_bytes(value).into()),
            None => std::env::var_os(key),
        };
        all.extend(value.map(|value| (key.into(), value)));
    }
    Ok(all)
}

fn usage(message: String) -> MountError {
    MountError::new(Failure::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let of = |text: &str| volume(OsStr::new(text));
        let made = |host: &str, inside: &str, read_only| {
            Ok(Volume { host: host.into(), inside: inside.into(), read_only })
        };
        assert_eq!(of("a:/b"), made("a", "/b", false));
        assert_eq!(of("a:/b:ro"), made("a", "/b", true));
        assert_eq!(of("a:/b:rw"), made("a", "/b", false));
        assert_eq!(of(r"a\:c:/b\:ro"), made("a:c", "/b:ro", false));
        for wrong in ["", "a", "a:b", ":/b", "a:/b:rx", "a:/b:ro:c", "a:/", "a://./:ro", "a:/.."] {
            assert_eq!(of(wrong).unwrap_err().failure, Failure::Usage, "{wrong}");
        }
    }

    #[test]
    fn host_names() {
        assert_eq!(hostname("h".repeat(64).into()), Ok("h".repeat(64).into()));
        for wrong in [String::new(), "h".repeat(65)] {
            assert_eq!(hostname(wrong.into()).unwrap_err().failure, Failure::Usage);
        }
    }

    #[test]
    fn the_environment_is_made_anew() {
        let made = environment(&["A=1=2".into(), "OVLFUSE_UNSET".into(), "B=".into()]).unwrap();
        let of = |name: &str| made.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        assert_eq!(of("A"), Some(&"1=2".into()));
        assert_eq!(of("B"), Some(&"".into()));
        assert_eq!((of("OVLFUSE_UNSET"), of("HOME")), (None, Some(&"/root".into())));
        assert!(environment(&["=x".into()]).is_err());
    }
}
