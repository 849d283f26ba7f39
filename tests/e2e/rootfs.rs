//! A real Debian root file system, made once and split into layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::scratch::run;
use crate::common::{Sandbox, Tree};

/// What is in the root file system beside Debian's minimum.
const PACKAGES: &str = "gcc,libc6-dev,git,python3";
/// The package that is installed in the merged tree.
const PACKAGE: &str = "hello";
/// The archive of the root file system, and the package: names in the cache and in a sandbox.
const FILES: [&str; 2] = ["root.tar", "hello.deb"];

/// What comes from layer 2; layer 1 has the rest. Patterns of tar(1).
const SECOND: [&str; 6] = [
    "./usr/lib/gcc",
    "./usr/include",
    "./usr/lib/git-core",
    "./usr/bin/git*",
    "./usr/share/git-core",
    "./usr/share/perl5",
];
/// The directories above them, which both layers have.
const ABOVE: [&str; 5] = ["./", "./usr/", "./usr/lib/", "./usr/bin/", "./usr/share/"];

/// The folder for what is made once: `OVLFUSE_TEST_CACHE`, or one below cargo's target directory.
fn cache() -> PathBuf {
    let folder = std::env::var_os("OVLFUSE_TEST_CACHE").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e"))
}

/// Puts archive and package into `directory`, for whoever owns it later; makes them if need be.
pub fn provide(directory: &Path) {
    let cache = cache();
    fs::create_dir_all(&cache).expect("a folder for the cache");
    let makers = [make_root as fn(&Path, &Path), fetch_package];
    for (name, make) in FILES.into_iter().zip(makers) {
        let (cached, wanted) = (cache.join(name), directory.join(name));
        if !cached.exists() {
            let work = tempfile::tempdir_in(&cache).expect("a folder in the cache");
            make(work.path(), &work.path().join(name));
            // Whole or not at all, also when two tests make it at once.
            fs::rename(work.path().join(name), &cached).expect("rename in the cache");
        }
        if fs::hard_link(&cached, &wanted).is_err() {
            fs::copy(&cached, &wanted).expect("a copy of the archive");
        }
    }
}

/// The Debian release this machine runs, so that its apt can fetch packages for it.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").expect("/etc/os-release");
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.expect("a Debian release: VERSION_CODENAME in /etc/os-release").to_owned()
}

fn make_root(_work: &Path, archive: &Path) {
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .arg(release())
        .arg(archive));
}

/// Downloads the package; `apt-get update` first where apt knows no packages yet.
fn fetch_package(work: &Path, package: &Path) {
    let download = || {
        let mut command = Command::new("apt-get");
        // apt drops to a user who may not write here.
        command.args(["-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE]);
        command.current_dir(work).output().expect("apt-get")
    };
    if !download().status.success() {
        run(Command::new("apt-get").args(["-q", "update"]));
        let second = download();
        assert!(
            second.status.success(),
            "apt-get download {PACKAGE}: {}",
            String::from_utf8_lossy(&second.stderr)
        );
    }
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").path();
    let mut found = fs::read_dir(work).expect("the download").map(name);
    let found = found.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    fs::rename(found.expect("a .deb file"), package).expect("rename of the package");
}

/// Makes the three lower layers of `sandbox`. Everything belongs to who runs the test where
/// `owned_by_caller`, and to whom the archive says otherwise.
pub fn build_layers(sandbox: &mut Sandbox, owned_by_caller: bool) {
    let (first, second) = (sandbox.lower(), sandbox.add_lower());
    let archive = sandbox.scratch().at(FILES[0]);
    let extract = |layer: &Tree| {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(layer.path()).arg("-xpf").arg(&archive).arg("--numeric-owner");
        tar.arg(if owned_by_caller { "--no-same-owner" } else { "--same-owner" });
        tar.args(["--wildcards", "--exclude=./dev/*"]);
        tar
    };
    let outside = SECOND.iter().map(|pattern| format!("--exclude={pattern}"));
    run(extract(&first).args(outside));
    run(extract(&second).arg("--no-recursion").args(ABOVE));
    run(extract(&second).args(SECOND));
    third_layer(sandbox, &first);
}

/// Small changes, as a third layer: a file and a directory removed, a directory replaced, files
/// changed and added.
fn third_layer(sandbox: &mut Sandbox, first: &Tree) {
    let package = sandbox.scratch().at(FILES[1]);
    let opaque = sandbox.overlay_xattr("opaque");
    let third = sandbox.add_lower();
    for directory in ["etc", "opt/new", "usr/bin", "usr/share/doc", "usr/share/perl5"] {
        third.dir(directory);
    }
    third.whiteout("usr/share/doc/bash").whiteout("usr/share/perl5/Debconf");
    third.file("usr/share/lintian/news", "the only one\n");
    third.set_xattr("usr/share/lintian", opaque, "y");
    third.file("etc/motd", "changed in layer 3\n").file("opt/new/file", "ok\n");
    third.mtime("etc/motd", -1, 999_999_999);
    fs::copy(package, third.at("opt/hello.deb")).expect("a copy of the package");
    fs::copy(first.at("usr/bin/mkfifo"), third.at("usr/bin/mkfifo")).expect("a copied program");
    third.chmod("usr/bin/mkfifo", 0o750);
}
