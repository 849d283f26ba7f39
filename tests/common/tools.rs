//! Test programs from crates.io, which `tests/run` installs.

use std::path::{Path, PathBuf};

use super::context;

/// Where the program `name` is: in `OVLFUSE_TEST_TOOLS`, or where `tests/run` puts it.
///
/// A missing program fails the test.
pub fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("OVLFUSE_TEST_TOOLS").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/bin"));
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: tests/run installs it", path.display());
    path
}

/// Puts the program `name` into `directory/bin`, where any user may run it.
pub fn stage(name: &str, directory: &Path) {
    context::stage(directory, &path(name));
}
