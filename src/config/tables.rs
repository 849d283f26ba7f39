//! The options that change nothing, the ones that are refused, with the reason, and the values of others.
//!
//! What is here and what is not is part of the interface: `docs/ovlfuse.1.md`
//! lists the same names.

use super::{Passthrough, Stored};

/// An option with a fixed set of values of which the accepted ones describe
/// what a mount does anyway.
pub struct Choice {
    /// The option's name.
    pub name: &'static str,
    /// Values that need no action.
    pub accepted: &'static [&'static str],
    /// Values that are refused; the empty one stands for "no value given".
    pub refused: &'static [(&'static str, &'static str)],
}

const NOT_YET: &str = "is not supported by this version";
const NO_WRITEBACK: &str =
    "is not supported: the times and sizes that are shown would not be those in the upper layer";
const NO_HANDLES: &str =
    "cannot work in FUSE: file handles of a FUSE mount do not outlive its daemon";
const NO_VERITY: &str = "cannot work in FUSE: only the kernel can check fs-verity digests while it \
                         reads a file";

/// Options whose accepted values are the way a mount works anyway.
pub const CHOICES: &[Choice] = &[
    Choice { name: "nfs_export", accepted: &["off"], refused: &[("on", NO_HANDLES)] },
    Choice {
        name: "verity",
        accepted: &["off"],
        refused: &[("on", NO_VERITY), ("require", NO_VERITY)],
    },
    // It allows inexact inode numbers; exact ones cost nothing here.
    Choice { name: "fast_ino", accepted: &["0", "1"], refused: &[] },
    Choice {
        name: "writeback",
        accepted: &["0"],
        refused: &[("", NO_WRITEBACK), ("1", NO_WRITEBACK)],
    },
];

/// Names that are refused whatever their value is.
pub const REFUSED: &[(&str, &str)] = &[
    ("plugins", "is not supported: there are no plugins"),
    ("ino32_t", "is not supported: inode numbers have 64 bits"),
    ("nooverride_creds", NOT_YET),
    ("context", NOT_YET),
    ("fscontext", NOT_YET),
    ("defcontext", NOT_YET),
    ("rootcontext", NOT_YET),
    ("allow_root", "is not supported: use allow_other, or neither"),
    ("auto_unmount", "is not supported: SIGTERM and SIGINT unmount, after a crash use `umount`"),
    ("sync", NOT_YET),
    ("dirsync", NOT_YET),
    ("strictatime", "is not supported: access times follow the upper layer's file system"),
    ("lazytime", "is not supported: access times follow the upper layer's file system"),
    ("mand", "is not supported: Linux has no mandatory locks any more"),
    ("nosymfollow", NOT_YET),
    ("remount", "is not possible: unmount and mount again"),
    ("bind", "is not possible: use `mount --bind`"),
    ("rbind", "is not possible: use `mount --rbind`"),
    ("move", "is not possible: use `mount --move`"),
];

/// mount(8)'s and libfuse's options that are for others, or say what is so anyway.
/// A value behind `=` does not matter.
pub const NO_OPS: &[&str] = &[
    "defaults",
    "async",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "comment",
    "silent",
    "loud",
    "relatime",
    "norelatime",
    "nostrictatime",
    "diratime",
    "nolazytime",
    "nomand",
    "symfollow",
    "iversion",
    "noiversion",
    "default_permissions",
    "nonempty",
    "override_creds",
];

/// Beginnings of names that are for userspace tools only (mount(8): `x-*`).
pub const NO_OP_PREFIXES: &[&str] = &["x-", "X-"];

/// The values of `passthrough=`.
pub const PASSTHROUGH: &[(&str, Passthrough)] =
    &[("auto", Passthrough::Auto), ("on", Passthrough::On), ("off", Passthrough::Off)];

/// The values of `xattr_permissions=`.
pub const XATTR_PERMISSIONS: &[(&str, Option<Stored>)] =
    &[("0", None), ("1", Some(Stored::Privileged)), ("2", Some(Stored::User))];
