//! Places for tests: temporary directories and file systems made for one test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// Where sandboxes are made: `OVLFUSE_TEST_DIR`, or `/var/tmp`.
pub fn base() -> PathBuf {
    std::env::var_os("OVLFUSE_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// A new directory that everybody may look into, removed when dropped.
pub fn directory() -> TempDir {
    let base = base();
    tempfile::Builder::new()
        .prefix("ovlfuse-test-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(&base)
        .unwrap_or_else(|error| panic!("a directory in {}: {error}", base.display()))
}

/// Runs a program and panics with its output when it fails; gives its stdout.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// A file system of a test's own, unmounted when dropped. Needs root.
pub struct Filesystem {
    root: PathBuf,
    _home: TempDir,
}

impl Filesystem {
    /// ext4, xfs or btrfs of `size_mib` MiB in a sparse image file.
    pub fn image(kind: &str, size_mib: u64) -> Self {
        let home = directory();
        let (image, root) = (home.path().join("image"), home.path().join("fs"));
        let file = std::fs::File::create(&image).expect("an image file");
        file.set_len(size_mib << 20).expect("a sparse image");
        let force = if kind == "ext4" { "-F" } else { "-f" };
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(force).arg(&image));
        std::fs::create_dir(&root).expect("a mount point");
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&root));
        Self { root, _home: home }
    }

    /// A tmpfs with the mount options `options`, such as `size=1m`.
    pub fn tmpfs(options: &str) -> Self {
        let home = directory();
        let root = home.path().join("fs");
        std::fs::create_dir(&root).expect("a mount point");
        let data = std::ffi::CString::new(options).expect("no NUL in options");
        rustix::mount::mount("tmpfs", &root, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))
            .unwrap_or_else(|error| panic!("tmpfs on {}: {error}", root.display()));
        Self { root, _home: home }
    }

    /// A ramfs, which knows neither ACLs nor limits.
    pub fn ramfs() -> Self {
        let home = directory();
        let root = home.path().join("fs");
        std::fs::create_dir(&root).expect("a mount point");
        rustix::mount::mount("ramfs", &root, "ramfs", MountFlags::empty(), None)
            .unwrap_or_else(|error| panic!("ramfs on {}: {error}", root.display()));
        Self { root, _home: home }
    }

    /// The image file of one made by [`Filesystem::image`].
    pub fn image_file(&self) -> PathBuf {
        self.root.with_file_name("image")
    }

    /// Its root directory.
    pub fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.root, UnmountFlags::DETACH) {
            eprintln!("umount {}: {error}", self.root.display());
        }
    }
}
