//! What the union does, mounted for real: exact errors, bytes on disk, merged view.
//!
//! One module per family. Every test runs in each context it names, against
//! ovlfuse or (`OVLFUSE_TEST_BACKEND=kernel`) against the kernel's overlayfs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod combined;
mod copy_up;
mod crash;
mod create;
mod data;
mod data_only;
mod detach;
mod direct;
mod dot_wh;
mod identity;
mod index;
mod limits;
mod locks;
mod lookup;
mod metacopy;
mod mounting;
mod open_files;
mod parallel;
mod passthrough;
mod privileges;
mod protect;
mod read_only;
mod readdir;
mod redirect;
mod remove;
mod rename;
mod reviewed;
mod special;
mod xattr;
