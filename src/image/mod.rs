//! Layers as files: what a layer changes, layer archives and images in and out, layers folded.
//!
//! Works on folders that are not mounted. Nothing here knows of FUSE or of a mount; how a layer is
//! read is shared with it ([`crate::layer::facts`], [`crate::union::lookup`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `stack` | layer folders on top of each other, and what a name is in them |
//! | `changes` | the walk over what the topmost layer changes |
//! | `diff` | that, as a list |
//! | `export` | that, as an archive |
//! | `fold` | several layers as one |
//! | `object` | attributes of one object, read and copied |
//! | `pack` | digests, compression |
//! | `tar` | reading archives |
//! | `store` | the members of an image archive or folder |
//! | `manifest` | which of them make up an image |
//! | `unpack` | one archive to one layer folder |
//! | `below` | what layers below say of its directories |
//! | `import` | an image to layer folders |
//!
//! **Invariant:** archives, images and layers are hostile input. Nothing is written outside of the
//! destination, what is not understood is refused, and memory and disk have a limit.
//!
//! **Invariant:** a destination appears whole or not at all: it is built beside its place under
//! another name, synced, and renamed.

mod below;
mod changes;
pub mod diff;
pub mod export;
pub mod fold;
pub mod import;
mod manifest;
mod object;
mod pack;
mod place;
mod stack;
mod store;
mod tar;
mod unpack;

pub use unpack::Lost;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Failure, MountError};
use crate::format::Namespace;
use crate::sys::{Errno, identity};

type Result<T> = std::result::Result<T, MountError>;

/// How layer folders are read and written.
#[derive(Debug, Clone)]
pub struct Style {
    /// The namespace of overlay's attributes.
    pub namespace: Namespace,
    /// `.wh.` names count as whiteouts.
    pub dot_wh: bool,
    /// Set by somebody else when the work is to end early.
    pub stop: Stop,
}

impl Style {
    /// As a mount by the same user reads them; `userxattr` as in its options.
    pub fn new(userxattr: bool, dot_wh: bool, stop: Stop) -> Self {
        let namespace = match userxattr || !identity::is_initial_admin() {
            true => Namespace::User,
            false => Namespace::Trusted,
        };
        Self { namespace, dot_wh, stop }
    }
}

/// A request to end early, as by a signal.
#[derive(Debug, Clone, Default)]
pub struct Stop(pub Arc<AtomicBool>);

impl Stop {
    /// Fails when the work is to end.
    fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(MountError::new(Failure::Internal, "interrupted; nothing was changed")),
            false => Ok(()),
        }
    }
}

/// The error of an archive or image that is wrong.
fn refused(message: impl Into<String>) -> MountError {
    MountError::new(Failure::Image, message)
}

/// The error of a system call on `path`.
fn failed(path: impl Into<PathBuf>, errno: Errno) -> MountError {
    MountError::new(Failure::Image, format!("{}: {errno}", path.into().display()))
}

/// Bytes as a path.
fn path_of(bytes: &[u8]) -> &std::path::Path {
    std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

/// A path below a root, split in its directory and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// `name` in the directory `path`.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
