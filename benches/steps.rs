//! Seconds that each step of an image build takes with fuse-overlayfs, with the kernel's overlayfs
//! without root, and with ovlfuse, one after the other three times, the medians:
//! `cargo bench --bench steps`, as root.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/containers/setup.rs"]
#[allow(dead_code)]
mod setup;

use common::{Context, scratch};

fn main() {
    let (directory, shared) = (scratch::directory(), setup::shared());
    let folder = directory.path().join("steps");
    let arguments = [shared.program.as_path(), setup::FUSE_OVERLAYFS.as_ref()];
    setup::script(Context::user, &shared.files, &folder, "steps.sh", &arguments);
    print!("{}", std::fs::read_to_string(folder.join("times")).unwrap());
}
