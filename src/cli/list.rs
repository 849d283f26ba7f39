//! `ovlfuse list`: the mounts of ovlfuse in this mount namespace.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use super::{internal, mounts, umount};
use crate::error::MountError;

/// Prints a line per mount: where it is, the process that serves it (`-` where it cannot be seen),
/// and its source, which is the layers unless another was given.
pub fn run() -> Result<(), MountError> {
    let table = mounts::read().map_err(|error| internal("/proc/self/mountinfo", &error))?;
    let mut out = io::stdout().lock();
    for mount in table.iter().filter(|mount| mount.fs_type.as_bytes().starts_with(b"fuse")) {
        let Some(daemon) = umount::daemon_of(mount) else { continue };
        let daemon = daemon.map_or_else(|| "-".into(), |id| id.to_string());
        let fields =
            [mount.point.as_os_str().as_bytes(), daemon.as_bytes(), mount.source.as_bytes()];
        let line = fields.map(|field| field.escape_ascii().to_string()).join("\t");
        writeln!(out, "{line}").map_err(|error| internal("the list cannot be printed", &error))?;
    }
    Ok(())
}
