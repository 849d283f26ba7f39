//! The command line without a mount: help, bad input, exit codes.
//!
//! Every failure is one sentence on stderr and changes nothing.

// The helpers of a test fail by panicking, as the tests do.
#![allow(clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const USAGE: i32 = 2;
const LAYER: i32 = 3;
const UNMOUNT: i32 = 9;

fn ovlfuse() -> Command {
    called(Path::new(env!("CARGO_BIN_EXE_ovlfuse")))
}

fn called(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

/// Asserts that `command` fails with `code` and one sentence that contains `part`.
fn assert_refused(command: &mut Command, code: i32, part: &str) {
    let Output { status, stdout, stderr } = output(command);
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{command:?}: {stderr}");
    assert!(stdout.is_empty(), "{command:?}");
    assert!(stderr.starts_with("ovlfuse: ") && stderr.contains(part), "{command:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
}

/// The names below `dir`, sorted.
fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(dir).expect("the folder can be read");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    for args in
        [&["--help"][..], &["-h"], &["mount", "--help"], &["umount", "--help"], &["--version"]]
    {
        let Output { status, stdout, stderr } = output(ovlfuse().args(args));
        assert!(status.success() && stderr.is_empty(), "{args:?}");
        assert!(String::from_utf8_lossy(&stdout).contains("ovlfuse"), "{args:?}");
    }
}

#[test]
fn no_arguments_show_the_help_on_stderr() {
    let Output { status, stdout, stderr } = output(&mut ovlfuse());
    assert_eq!((status.code(), stdout.len()), (Some(USAGE), 0));
    assert!(String::from_utf8_lossy(&stderr).contains("Examples:"));
}

#[test]
fn bad_command_lines_are_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["mount", "lower:upper"], "MERGED is missing"),
        (&["mount", "upper", "merged"], "only one layer"),
        (&["mount", "lower:", "merged"], "empty path"),
        (&["mount", "a::b", "merged"], "data-only"),
        (&["mount", "a:b", "merged", "extra"], "extra"),
        (&["mount", "--wibble", "a:b", "merged"], "--wibble"),
        (&["mount", "a:b", "merged", "-o"], "-o"),
        (&["mount", "a:b", "merged", "-o", "lowerdir=c"], "given twice"),
        (&["umount"], "MERGED"),
        (&["demo", "extra"], "extra"),
        (&["merged"], "no lower layer"),
        (&["a", "b", "c"], "c"),
    ];
    for (args, part) in cases {
        assert_refused(ovlfuse().args(*args), USAGE, part);
    }
}

#[test]
fn unknown_and_impossible_options_are_refused_by_name() {
    for option in [
        "wibble",
        "wibble=1",
        "index=maybe",
        "metacopy=maybe",
        "redirect_dir=maybe",
        "nfs_export=on",
        "verity=require",
        "uuid=maybe",
        "uidmapping=0:1",
        "gidmapping=0:1:x",
        "squash_to_uid=me",
        "xattr_permissions=3",
        "timeout=soon",
        "writeback=1",
        "threads=none",
        "fsync=often",
        "context=\"u:r:t:s0:c1,c2\"",
    ] {
        let list = format!("lowerdir=l,{option}");
        assert_refused(ovlfuse().args(["-o", &list, "merged"]), USAGE, option);
        assert_refused(ovlfuse().args(["mount", "-o", option, "l:u", "m"]), USAGE, option);
    }
}

/// What Cargo.toml lists for the Debian package is in the repository, or made by `packaging/deb`, and
/// the subcommand that it calls makes what it wants.
#[test]
fn files_of_the_debian_package_are_there_or_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let (manifest, script) = (read("Cargo.toml"), read("packaging/deb"));
    let assets = manifest.split_once("assets = [").expect("a list of assets").1;
    let assets = assets.split_once("\n]").expect("its end").0;
    let sources: Vec<&str> = assets.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(sources.len() > 5, "{sources:?}");
    for source in sources {
        let there = match source.strip_suffix('*') {
            Some(start) => {
                names(root).iter().any(|name| name.as_bytes().starts_with(start.as_bytes()))
            }
            None => root.join(source).exists(),
        };
        let made = source.strip_prefix("target/packaging/");
        let made = made.is_some_and(|name| script.contains(&format!("\"$made/{name}\"")));
        assert!(there || made || source == "target/release/ovlfuse", "{source}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(script.contains(&format!("\"$program\" completions {shell} ")), "{shell}");
        let Output { status, stdout, .. } = output(ovlfuse().args(["completions", shell]));
        assert!(status.success() && stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn too_many_layers_are_refused() {
    let list = format!("lowerdir={}", vec!["l"; 501].join(":"));
    assert_refused(ovlfuse().args(["-o", &list, "merged"]), LAYER, "501");
}

#[test]
fn umount_refuses_what_is_no_ovlfuse_mount() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [
        (folder.path(), "is not a mount point"),
        (&folder.path().join("missing/below"), "No such file"),
        (Path::new("/proc"), "type proc"),
    ];
    for (path, part) in cases {
        assert_refused(ovlfuse().arg("umount").arg(path), UNMOUNT, part);
    }
}

#[test]
fn refusals_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for dir in ["lower", "upper", "merged"] {
        fs::create_dir(folder.path().join(dir)).expect("a layer");
    }
    let mut command = ovlfuse();
    command.current_dir(folder.path()).args(["mount", "-o", "wibble", "lower:upper", "merged"]);
    assert_refused(&mut command, USAGE, "wibble");
    assert_eq!(names(folder.path()), ["lower", "merged", "upper"]);
    assert!(names(&folder.path().join("upper")).is_empty());
}

#[test]
fn other_names_of_the_program_choose_the_form() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["mount.ovlfuse", "mount.fuse.ovlfuse", "fuse-overlayfs"] {
        let program = folder.path().join(name);
        symlink(env!("CARGO_BIN_EXE_ovlfuse"), &program).expect("a link");
        assert_refused(called(&program).args(["source", "demo", "-o", "wibble"]), USAGE, "wibble");
        assert_refused(called(&program).arg("demo"), USAGE, "no lower layer");
    }
    let fake = ["source", "merged", "-f", "-n", "-s", "-o", "lowerdir=l,wibble"];
    let Output { status, stderr, .. } =
        output(called(&folder.path().join("mount.ovlfuse")).args(fake));
    assert!(status.success());
    assert_eq!(
        String::from_utf8_lossy(&stderr),
        "ovlfuse: warning: option 'wibble' is unknown and ignored\n"
    );
}

#[test]
fn names_that_are_no_utf8_reach_the_message() {
    let option = OsStr::from_bytes(b"-olowerdir=l,wibble\xff");
    assert_refused(ovlfuse().arg(option).arg("merged"), USAGE, "wibble");
}
