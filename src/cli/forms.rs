//! Which call form argv is, and the mount it asks for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::args::{Cli, HelperArgs, MountArgs, Subcommands};
use super::layers::LayerCommand;
use super::run::RunRequest;
use crate::config::Config;
use crate::config::options::Options;
use crate::error::{Failure, MountError};

/// Log levels: `-v` for what happens, `-d` for every detail.
const DEBUG_VERBOSITY: u8 = 2;

/// What argv asks for.
#[derive(Debug)]
pub enum Command {
    /// Mount and serve.
    Mount(Box<MountRequest>),
    /// Unmount.
    Umount(PathBuf),
    /// Look at changed layers again.
    Refresh(PathBuf),
    /// Run a command in the merged tree.
    Run(Box<RunRequest>),
    /// List the mounts.
    List,
    /// Print what makes a shell complete the command line.
    Completions(clap_complete::Shell),
    /// Work on layers that are not mounted.
    Layers(LayerCommand),
    /// Show what it can do.
    Demo,
    /// Print a text, with exit code `code`.
    Show {
        /// The help or the version.
        text: String,
        /// 0 when it was asked for.
        code: u8,
    },
}

/// A mount with the circumstances of its daemon.
#[derive(Debug)]
pub struct MountRequest {
    /// The mount.
    pub config: Config,
    /// Do not detach.
    pub foreground: bool,
    /// 0: warnings, 1: what happens, 2: every detail.
    pub verbosity: u8,
    /// The mount namespace to enter first: a process id or a file.
    pub namespace: Option<OsString>,
    /// Only check the command line.
    pub pretend: bool,
    /// What the user should know about the options.
    pub warnings: Vec<String>,
}

/// The name the program was called by decides what its arguments mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalledAs {
    /// `ovlfuse`: subcommands, and both forms without one.
    Ovlfuse,
    /// `fuse-overlayfs`: the forms without a subcommand.
    MountProgram,
    /// `mount.TYPE`: mount(8) gives `-f` and `-s` a meaning of its own.
    MountHelper,
}

impl CalledAs {
    fn from_name(program: &OsStr) -> Self {
        let name = Path::new(program).file_name().unwrap_or_default().as_bytes();
        if name.starts_with(b"mount.") {
            Self::MountHelper
        } else if name == b"fuse-overlayfs" {
            Self::MountProgram
        } else {
            Self::Ovlfuse
        }
    }
}

/// Reads argv, of which the first is the program's name.
///
/// # Errors
/// [`Failure::Usage`] for what is no call form, and the errors of the options.
pub fn parse(argv: Vec<OsString>) -> Result<Command, MountError> {
    let called_as = CalledAs::from_name(argv.first().map(OsString::as_os_str).unwrap_or_default());
    if called_as == CalledAs::Ovlfuse && is_subcommand_form(argv.get(1)) {
        return match Cli::try_parse_from(argv) {
            Ok(cli) => subcommand(cli.command),
            Err(error) => from_clap(&error),
        };
    }
    match HelperArgs::try_parse_from(argv) {
        Ok(args) => helper_request(args, called_as).map(into_command),
        Err(error) => from_clap(&error),
    }
}

/// Whether `first` belongs to the program with subcommands.
fn is_subcommand_form(first: Option<&OsString>) -> bool {
    const FLAGS: [&str; 4] = ["--help", "-h", "--version", "-V"];
    first.is_none_or(|first| {
        let cli = Cli::command();
        FLAGS.iter().any(|flag| first == flag) || cli.find_subcommand(first).is_some()
    })
}

fn subcommand(command: Subcommands) -> Result<Command, MountError> {
    match command {
        Subcommands::Mount(args) => mount_request(args).map(into_command),
        Subcommands::Umount { merged } => Ok(Command::Umount(merged)),
        Subcommands::Refresh { merged } => Ok(Command::Refresh(merged)),
        Subcommands::Run(args) => RunRequest::new(args).map(|run| Command::Run(Box::new(run))),
        Subcommands::List => Ok(Command::List),
        Subcommands::Completions { shell } => Ok(Command::Completions(shell)),
        Subcommands::Layers(command) => Ok(Command::Layers(command)),
        Subcommands::Demo => Ok(Command::Demo),
    }
}

fn into_command(request: MountRequest) -> Command {
    Command::Mount(Box::new(request))
}

/// `ovlfuse mount`.
fn mount_request(args: MountArgs) -> Result<MountRequest, MountError> {
    let mut options = Options::new(false);
    for list in &args.options {
        options.apply(list)?;
    }
    let merged = match args.second {
        Some(_) if options.has_layers() => {
            let message = "the layers are given twice: as LAYERS and with -o; remove one of them";
            return Err(MountError::new(Failure::Usage, message));
        }
        Some(merged) => {
            options.set_stack(&args.first, args.read_only)?;
            merged
        }
        None if options.has_layers() => {
            options.set_read_only(args.read_only);
            args.first.into()
        }
        None => {
            let message = "MERGED is missing: `ovlfuse mount LOWER:UPPER MERGED`";
            return Err(MountError::new(Failure::Usage, message));
        }
    };
    if let Some(work) = args.work {
        options.set_work(work)?;
    }
    Ok(MountRequest {
        foreground: args.foreground || options.debug(),
        verbosity: verbosity(args.verbose, options.debug()),
        namespace: None,
        pretend: false,
        warnings: options.warnings().to_vec(),
        config: options.into_config(merged)?,
    })
}

/// The mount program's form and the mount(8) helper's.
fn helper_request(mut args: HelperArgs, called_as: CalledAs) -> Result<MountRequest, MountError> {
    let mut options = Options::new(true);
    let by_mount = called_as == CalledAs::MountHelper;
    if args.single && by_mount {
        options.tolerate_unknown();
    }
    if args.single && !by_mount {
        options.single_thread();
    }
    if let Some(subtype) = args.fs_type.as_deref().and_then(subtype) {
        options.set_subtype(subtype);
    }
    for list in &args.options {
        options.apply(list)?;
    }
    let merged = args.paths.pop().unwrap_or_default();
    if let Some(source) = args.paths.pop() {
        options.default_fsname(source);
    }
    let debug = args.debug || options.debug();
    Ok(MountRequest {
        foreground: debug || (args.foreground && !by_mount),
        verbosity: verbosity(args.verbose, debug),
        namespace: args.namespace,
        pretend: args.foreground && by_mount,
        warnings: options.warnings().to_vec(),
        config: options.into_config(merged.into())?,
    })
}

/// `SUBTYPE` of the type `fuse.SUBTYPE`, which mount(8) shows then.
fn subtype(fs_type: &OsStr) -> Option<&OsStr> {
    fs_type.as_bytes().strip_prefix(b"fuse.").filter(|name| !name.is_empty()).map(OsStr::from_bytes)
}

fn verbosity(flags: u8, debug: bool) -> u8 {
    if debug { DEBUG_VERBOSITY } else { flags.min(DEBUG_VERBOSITY) }
}

/// clap's help as a text, its errors as one sentence.
fn from_clap(error: &clap::Error) -> Result<Command, MountError> {
    let text = format!("{}\n", error.render().to_string().trim_end());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Command::Show { text, code: 0 }),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Ok(Command::Show { text, code: Failure::Usage as u8 })
        }
        _ => Err(MountError::new(Failure::Usage, sentence(&text))),
    }
}

/// The first paragraph of clap's message as one line, with a hint where to look.
fn sentence(text: &str) -> String {
    let paragraph: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see `ovlfuse --help`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_THREADS, Upper};

    fn run(line: &[&str]) -> Result<Command, MountError> {
        parse(line.iter().map(OsString::from).collect())
    }

    fn request(line: &[&str]) -> MountRequest {
        match run(line).unwrap() {
            Command::Mount(request) => *request,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn mount_form() {
        let plain = request(&["ovlfuse", "mount", "a:b:u", "m"]);
        assert_eq!(plain.config.lowers, [PathBuf::from("b"), "a".into()]);
        assert_eq!(plain.config.upper, Some(Upper { dir: "u".into(), work: None }));
        assert_eq!(plain.config.mountpoint, PathBuf::from("m"));
        assert!(!plain.config.dot_wh && !plain.foreground && plain.verbosity == 0);

        let full = request(&[
            "ovlfuse", "mount", "-fvv", "--work", "w", "-o", "nodev", "-oro,", "a:u", "m",
        ]);
        assert_eq!(full.config.upper, Some(Upper { dir: "u".into(), work: Some("w".into()) }));
        assert!(full.foreground && full.verbosity == 2);
        assert!(!full.config.mount.dev && full.config.mount.read_only);

        let lowers = request(&["ovlfuse", "mount", "--read-only", "a:b", "m"]).config;
        assert_eq!(lowers.lowers, [PathBuf::from("b"), "a".into()]);
        assert!(lowers.upper.is_none() && lowers.mount.read_only);

        let by_options = request(&["ovlfuse", "mount", "-o", "lowerdir=a:b,upperdir=u", "m"]);
        assert_eq!(by_options.config.lowers, [PathBuf::from("a"), "b".into()]);
    }

    #[test]
    fn mount_program_form() {
        let options = "lowerdir=a:b,upperdir=u,workdir=w,,volatile,";
        for line in [
            &["ovlfuse", "-o", options, "m"][..],
            &["/usr/bin/fuse-overlayfs", "-o", options, "m"],
            &["ovlfuse", &format!("-o{options}"), "m"],
            &["ovlfuse", "m", "-o", options],
            &["ovlfuse", "-o", "lowerdir=a:b", "-o", "upperdir=u,workdir=w", "-ovolatile", "m"],
        ] {
            let request = request(line);
            assert_eq!(request.config.lowers, [PathBuf::from("a"), "b".into()], "{line:?}");
            assert_eq!(request.config.mountpoint, PathBuf::from("m"), "{line:?}");
            assert!(request.config.dot_wh && !request.foreground, "{line:?}");
            assert_eq!(request.config.mount.fsname, None, "{line:?}");
        }
        assert!(request(&["ovlfuse", "-f", "-olowerdir=a", "m"]).foreground);
        let debug = request(&["fuse-overlayfs", "-d", "-olowerdir=a", "m"]);
        assert!(debug.foreground && debug.verbosity == 2);
        assert_eq!(request(&["fuse-overlayfs", "-s", "-olowerdir=a", "m"]).config.threads, 1);
        assert_eq!(
            request(&["fuse-overlayfs", "-olowerdir=a", "mount"]).config.mountpoint,
            Path::new("mount")
        );
    }

    #[test]
    fn mount_helper_form() {
        let options = "lowerdir=a,dev,suid,x-systemd.automount";
        for line in [
            &["mount.ovlfuse", "src", "m", "-o", options][..],
            &["/sbin/mount.fuse.ovlfuse", "src", "m", "-n", "-o", options, "-t", "fuse.ovlfuse"],
            &["mount.fuse3", "-n", "-v", "-o", options, "src", "m"],
            &["ovlfuse", "src", "m", "-o", options],
            &["fuse-overlayfs", "src", "m", "-o", options],
        ] {
            let request = request(line);
            assert_eq!(request.config.mountpoint, PathBuf::from("m"), "{line:?}");
            assert_eq!(request.config.mount.fsname, Some("src".into()), "{line:?}");
            assert_eq!(request.config.mount.subtype, "ovlfuse", "{line:?}");
            assert!(!request.foreground && !request.pretend, "{line:?}");
        }
    }

    #[test]
    fn mount_gives_some_flags_another_meaning() {
        let fake = request(&["mount.ovlfuse", "src", "m", "-f", "-o", "lowerdir=a"]);
        assert!(fake.pretend && !fake.foreground);
        let sloppy = request(&["mount.ovlfuse", "src", "m", "-s", "-o", "lowerdir=a,wibble"]);
        assert_eq!((sloppy.warnings.len(), sloppy.config.threads), (1, DEFAULT_THREADS));
        let namespace = request(&["mount.ovlfuse", "src", "m", "-N", "12", "-o", "lowerdir=a"]);
        assert_eq!(namespace.namespace, Some("12".into()));
        let typed = request(&["mount.fuse3", "src", "m", "-t", "fuse.x", "-o", "lowerdir=a"]);
        assert_eq!(typed.config.mount.subtype, "x");
        let named = request(&["ovlfuse", "src", "m", "-o", "lowerdir=a,fsname=n"]);
        assert_eq!(named.config.mount.fsname, Some("n".into()));
    }

    #[test]
    fn bytes_survive() {
        use std::os::unix::ffi::OsStringExt;
        let line = [
            b"ovlfuse".to_vec(),
            b"mount".to_vec(),
            b"a\xff\\:b:u\xfe".to_vec(),
            b"m\xfd".to_vec(),
        ];
        let Ok(Command::Mount(request)) = parse(line.map(OsString::from_vec).into()) else {
            panic!("no mount");
        };
        assert_eq!(request.config.lowers[0].as_os_str().as_bytes(), b"a\xff:b");
        assert_eq!(request.config.upper.unwrap().dir.as_os_str().as_bytes(), b"u\xfe");
        assert_eq!(request.config.mountpoint.as_os_str().as_bytes(), b"m\xfd");
    }

    #[test]
    fn other_commands() {
        assert!(matches!(run(&["ovlfuse", "demo"]), Ok(Command::Demo)));
        assert!(
            matches!(run(&["ovlfuse", "umount", "m"]), Ok(Command::Umount(m)) if m == Path::new("m"))
        );
        for line in
            [&["ovlfuse", "--version"][..], &["fuse-overlayfs", "--version"], &["ovlfuse", "-h"]]
        {
            assert!(matches!(run(line), Ok(Command::Show { code: 0, .. })), "{line:?}");
        }
        for line in [&["ovlfuse"][..], &["fuse-overlayfs"]] {
            assert!(matches!(run(line), Ok(Command::Show { code: 2, .. })), "{line:?}");
        }
    }

    #[test]
    fn bad_command_lines_are_one_sentence() {
        for line in [
            &["ovlfuse", "mount"][..],
            &["ovlfuse", "mount", "m"],
            &["ovlfuse", "mount", "a", "m"],
            &["ovlfuse", "mount", "a:u", "m", "x"],
            &["ovlfuse", "mount", "a:u", "m", "--wibble"],
            &["ovlfuse", "mount", "a:u", "m", "-o", "lowerdir=b"],
            &["ovlfuse", "mount", "a:u", "m", "-o", "workdir=w", "--work", "w"],
            &["ovlfuse", "umount"],
            &["ovlfuse", "run", "l"],
            &["ovlfuse", "run", "l", "--"],
            &["ovlfuse", "run", "--", "sh"],
            &["ovlfuse", "run", "l", "--net", "bridge", "--", "sh"],
            &["ovlfuse", "run", "-v", "a:b", "l", "--", "sh"],
            &["ovlfuse", "run", "--upper", "u", "--ephemeral", "l", "--", "sh"],
            &["ovlfuse", "run", "-o", "lowerdir=a", "l", "--", "sh"],
            &["ovlfuse", "mont", "a:u", "m"],
            &["ovlfuse", "m"],
            &["ovlfuse", "-o"],
            &["ovlfuse", "a", "b", "c", "-o", "lowerdir=a"],
        ] {
            let error = run(line).unwrap_err();
            assert_eq!(error.failure, Failure::Usage, "{line:?}");
            assert_eq!(error.message.lines().count(), 1, "{line:?}: {error}");
        }
    }

    #[test]
    fn the_help_teaches() {
        let Ok(Command::Show { text, .. }) = run(&["ovlfuse", "--help"]) else { panic!("no help") };
        for part in ["Examples:", "ovlfuse demo", "lowerdir=", "Exit codes", "umount"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
