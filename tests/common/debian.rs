//! A real Debian root file system and a package, made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scratch::run;

/// What is in the root file system beside Debian's minimum.
const PACKAGES: &str = "gcc,libc6-dev,git,python3";
/// The package that can be installed in it.
const PACKAGE: &str = "hello";
/// The archive of the root file system, in the cache and where it is provided.
pub const ROOT: &str = "root.tar";
/// The package there.
pub const PACKAGE_FILE: &str = "hello.deb";

/// The folder for what is made once: `OVLFUSE_TEST_CACHE`, or one below cargo's target directory.
fn cache() -> PathBuf {
    let folder = std::env::var_os("OVLFUSE_TEST_CACHE").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e"))
}

/// Puts archive and package into `directory`, for whoever owns it later; makes them if need be.
pub fn provide(directory: &Path) {
    let cache = cache();
    fs::create_dir_all(&cache).expect("a folder for the cache");
    let makers = [(ROOT, make_root as fn(&Path, &Path)), (PACKAGE_FILE, fetch_package)];
    for (name, make) in makers {
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
