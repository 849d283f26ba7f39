//! A real Debian root file system, split into layers.

use std::fs;
use std::process::Command;

use crate::common::debian::{PACKAGE_FILE, ROOT};
use crate::common::scratch::run;
use crate::common::{Sandbox, Tree};

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

/// Makes the three lower layers of `sandbox`. Everything belongs to who runs the test where
/// `owned_by_caller`, and to whom the archive says otherwise.
pub fn build_layers(sandbox: &mut Sandbox, owned_by_caller: bool) {
    let (first, second) = (sandbox.lower(), sandbox.add_lower());
    let archive = sandbox.scratch().at(ROOT);
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
    let package = sandbox.scratch().at(PACKAGE_FILE);
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
