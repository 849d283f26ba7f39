//! Owners, modes and device numbers of a layer's files: their own, or those that an attribute of
//! theirs says (`xattr_permissions=`).
//!
//! A layer that has the attribute on its root has it on its regular files and directories; one
//! without it there is that of others. Symbolic links cannot carry it. In upper every object but
//! those is then a directory or a regular file, for nobody but the daemon's user, so that the
//! attribute can be set and is all that counts.

use crate::config::Stored;
use crate::format::override_stat::{CONTAINERS, NAMES, OverrideStat, PRIVILEGED, Special};
use crate::sys::stat::{major, minor, packed_device};
use crate::sys::{self, At, Errno, Kind, Result, Stat, xattr};
use std::ffi::CStr;

/// Where a layer's owners and modes are.
#[derive(Debug, Clone, Copy)]
pub struct Owners {
    /// `None`: the files' own.
    attribute: Option<&'static CStr>,
}

impl Owners {
    /// The files' own.
    pub const REAL: Self = Self { attribute: None };

    /// Those of the lower layer `root`, which are looked for if they are stored anywhere.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn of_lower(root: At<'_>, wanted: Option<Stored>) -> Result<Self> {
        if wanted.is_none() {
            return Ok(Self::REAL);
        }
        for name in NAMES {
            if xattr::get(root, name)?.is_some() {
                return Ok(Self { attribute: Some(name) });
            }
        }
        Ok(Self::REAL)
    }

    /// Those of the upper layer `root`, which gets an attribute if it has none.
    ///
    /// # Errors
    /// Those of getxattr(2) and setxattr(2).
    pub fn of_upper(root: At<'_>, wanted: Option<Stored>) -> Result<Self> {
        let found = Self::of_lower(root, wanted)?;
        let name = match wanted {
            Some(Stored::Privileged) => PRIVILEGED,
            Some(Stored::User) => CONTAINERS,
            None => return Ok(found),
        };
        if found.are_stored() {
            return Ok(found);
        }
        let new = Self { attribute: Some(name) };
        new.store(root, &sys::stat::stat(root)?)?;
        Ok(new)
    }

    /// Whether they are in an attribute.
    pub fn are_stored(self) -> bool {
        self.attribute.is_some()
    }

    /// Whether `name` is an attribute that is nobody else's.
    pub fn is_own(self, name: &[u8]) -> bool {
        self.are_stored() && NAMES.iter().any(|own| own.to_bytes() == name)
    }

    /// The attributes of `at`.
    ///
    /// # Errors
    /// Those of statx(2) and getxattr(2); `EIO` for a damaged attribute.
    pub fn stat(self, at: At<'_>) -> Result<Stat> {
        self.shown(at, sys::stat::stat(at)?)
    }

    /// The attributes of `at`, whose own are `real`.
    ///
    /// # Errors
    /// Those of getxattr(2); `EIO` for a damaged attribute.
    pub fn shown(self, at: At<'_>, real: Stat) -> Result<Stat> {
        let Some(name) = self.attribute.filter(|_| can_carry(real.kind())) else { return Ok(real) };
        let value = match xattr::get(at, name) {
            // As with overlay's own: what may not be read counts as missing.
            Err(Errno::ACCESS | Errno::PERM) => None,
            read => read?,
        };
        let Some(value) = value else { return Ok(real) };
        let stored = OverrideStat::decode(&value).ok_or(Errno::IO)?;
        let (kind, rdev) = match stored.special.filter(|_| real.kind() == Kind::File) {
            None => (real.kind(), real.rdev),
            Some(Special::Fifo) => (Kind::Fifo, 0),
            Some(Special::Socket) => (Kind::Socket, 0),
            Some(Special::Char(major, minor)) => (Kind::Char, packed_device(major, minor)),
            Some(Special::Block(major, minor)) => (Kind::Block, packed_device(major, minor)),
        };
        let mode = kind.mode_bits() | stored.mode;
        Ok(Stat { uid: stored.uid, gid: stored.gid, mode, rdev, ..real })
    }

    /// Stores owner, mode and device number of `stat` with `at`. A symbolic link, which cannot carry
    /// them, gets its owner where that is possible.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn store(self, at: At<'_>, stat: &Stat) -> Result<()> {
        let Some(name) = self.attribute else { return Ok(()) };
        let device = (major(stat.rdev), minor(stat.rdev));
        let special = match stat.kind() {
            Kind::Symlink => return give_link(at, stat),
            Kind::File | Kind::Dir => None,
            Kind::Fifo => Some(Special::Fifo),
            Kind::Socket => Some(Special::Socket),
            Kind::Char => Some(Special::Char(device.0, device.1)),
            Kind::Block => Some(Special::Block(device.0, device.1)),
        };
        let (uid, gid, mode) = (stat.uid, stat.gid, stat.mode & 0o7777);
        xattr::set(at, name, &OverrideStat { uid, gid, mode, special }.encode(), 0)
    }

    /// Sets the permission bits of `at`.
    ///
    /// # Errors
    /// Those of chmod(2), or of reading and setting the attribute.
    pub fn chmod(self, at: At<'_>, mode: u32) -> Result<()> {
        match self.are_stored() {
            true => self.change(at, (None, None), Some(mode)),
            false => sys::node::chmod(at, mode),
        }
    }

    /// Changes stored owners and permission bits of `at` at once. As with chown(2), a new owner
    /// takes set-id bits and capabilities from what is no directory.
    ///
    /// # Errors
    /// Those of reading and setting the attribute.
    pub fn change(
        self,
        at: At<'_>,
        (uid, gid): (Option<u32>, Option<u32>),
        mode: Option<u32>,
    ) -> Result<()> {
        let old = self.stat(at)?;
        let mut bits = old.mode & 0o7777;
        if (uid.is_some() || gid.is_some()) && old.kind() != Kind::Dir {
            bits &= !libc::S_ISUID;
            if bits & libc::S_IXGRP != 0 {
                bits &= !libc::S_ISGID;
            }
            drop_capability(at)?;
        }
        let mode = old.kind().mode_bits() | mode.map_or(bits, |mode| mode & 0o7777);
        let (uid, gid) = (uid.unwrap_or(old.uid), gid.unwrap_or(old.gid));
        self.store(at, &Stat { uid, gid, mode, ..old })
    }
}

/// `user.` attributes exist on these only.
fn can_carry(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Dir)
}

/// Gives the symbolic link `at` its owner, which nothing depends on but who may remove it from a
/// sticky directory: without the right to it remains the daemon's.
fn give_link(at: At<'_>, stat: &Stat) -> Result<()> {
    match sys::node::chown(at, Some(stat.uid), Some(stat.gid)) {
        Err(e @ (Errno::PERM | Errno::INVAL)) => {
            log::debug!("{} keeps its owner: {e}", at.name.escape_ascii());
            Ok(())
        }
        done => done,
    }
}

fn drop_capability(at: At<'_>) -> Result<()> {
    let name = c"security.capability";
    // Removing what is not there takes a privilege as well.
    if xattr::get(at, name)?.is_some() { xattr::remove(at, name) } else { Ok(()) }
}
