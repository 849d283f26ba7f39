//! What a mount is to be: the values that the command line is turned into.
//!
//! Pure: nothing here looks at the file system. [`options`] reads `-o` lists and
//! layer stacks into an [`options::Options`], which becomes a [`Config`];
//! [`split`] knows the separators and escapes, [`ids`] the maps of owners.

pub mod ids;
pub mod options;
pub mod split;

mod tables;

use ids::IdMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The most lower layers a mount may have (`fs/overlayfs/params.h`: `OVL_MAX_STACK`).
pub const MAX_LOWERS: usize = 500;

/// How long the kernel keeps names and attributes unless told otherwise: as good
/// as for ever, since every change goes through the mount.
pub const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Threads that read requests when nothing else was asked for.
pub const DEFAULT_THREADS: usize = 8;

/// Bytes that directory indexes may use before the least recently used are dropped.
pub const DEFAULT_INDEX_BYTES: usize = 16 << 20;

/// A whole mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Lower layers, topmost first (the kernel's order of `lowerdir=`).
    pub lowers: Vec<PathBuf>,
    /// Lower layers that hold nothing but data, topmost first.
    pub data_lowers: Vec<PathBuf>,
    /// The writable layer; without one the mount is read-only.
    pub upper: Option<Upper>,
    /// Where the merged view appears.
    pub mountpoint: PathBuf,
    /// When written data reaches the disk.
    pub fsync: Fsync,
    /// Whether upper carries an identifier, and origins the one of their file system.
    pub uuid: Uuid,
    /// Use `user.overlay.` names even where `trusted.overlay.` could be used.
    pub userxattr: bool,
    /// What is done about moved directories; `None`: what the namespace asks for.
    pub redirect_dir: Option<RedirectDir>,
    /// Lower hard links stay links of one file when they are copied up (`index=on` of the kernel).
    pub index: bool,
    /// The lower layers do not change between mounts (`xino=on`), so that a new directory may be
    /// marked as one that nothing will ever lie below.
    pub fixed_lowers: bool,
    /// Changes of metadata copy no data up, and metadata-only files are followed.
    pub metacopy: bool,
    /// Honour `.wh.NAME` and `.wh..wh..opq` in lower layers, beside the kernel's whiteouts.
    pub dot_wh: bool,
    /// Owners and modes of upper are stored in attributes, and read from those of lower layers.
    pub stored: Option<Stored>,
    /// What the view shows otherwise than the layers have it.
    pub view: ViewOptions,
    /// How the kernel is asked to mount it.
    pub mount: MountFlags,
    /// The kernel opens files without asking, beside an upper as well.
    pub no_open: bool,
    /// Whether the kernel reads and writes files of the layers itself.
    pub passthrough: Passthrough,
    /// Threads that read requests, at least 1.
    pub threads: usize,
    /// Memory budget of the directory indexes, in bytes.
    pub index_bytes: usize,
}

/// The writable layer of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// The upper directory.
    pub dir: PathBuf,
    /// The work directory; `None`: a hidden sibling of `dir`, made when missing.
    pub work: Option<PathBuf>,
}

/// When data reaches the disk (`fsync=` of the kernel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Nothing is synced: fastest, and upper is worthless after a system crash.
    Volatile,
    /// Copied-up data is synced before it is installed.
    #[default]
    Auto,
    /// Copied-up metadata is synced as well.
    Strict,
}

/// What identifies the overlay and its file systems (`uuid=` of the kernel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Uuid {
    /// Origins carry no file system's UUID; for layers on one file system.
    Off,
    /// Upper gets no identifier.
    Null,
    /// A new upper gets an identifier.
    #[default]
    Auto,
    /// Upper has an identifier.
    On,
}

/// What is done about the redirects of moved directories (`redirect_dir=` of the kernel).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectDir {
    /// They are neither made nor followed.
    NoFollow,
    /// They are followed, and none are made.
    Follow,
    /// They are followed, and made when a directory is renamed.
    On,
    /// As without any of these, but a directory that is renamed is copied up whole.
    Copy,
}

/// Whether the kernel reads and writes files of the layers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passthrough {
    /// Those of upper, where it can.
    #[default]
    Auto,
    /// Those of upper, or all where there is none; else nothing is mounted.
    On,
    /// None.
    Off,
}

/// Whose attributes owners and modes are stored in (`xattr_permissions=` of fuse-overlayfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Those that only root of the machine may set.
    Privileged,
    /// Those of whoever may write a file.
    User,
}

/// What users of the mount see otherwise than the layers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewOptions {
    /// Owners.
    pub uids: IdMap,
    /// Groups.
    pub gids: IdMap,
    /// Directories show one link.
    pub static_nlink: bool,
    /// Access control lists are enforced.
    pub acl: bool,
    /// Extended attributes can be used.
    pub xattrs: bool,
    /// How long the kernel may keep names and attributes.
    pub timeout: Duration,
}

impl Default for ViewOptions {
    fn default() -> Self {
        Self {
            uids: IdMap::default(),
            gids: IdMap::default(),
            static_nlink: false,
            acl: true,
            xattrs: true,
            timeout: FOR_EVER,
        }
    }
}

/// Flags of the mount itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlags {
    /// Refuse every change (always so without an upper).
    pub read_only: bool,
    /// Device nodes work.
    pub dev: bool,
    /// set-uid and file capabilities work.
    pub suid: bool,
    /// Programs can be run.
    pub exec: bool,
    /// Access times are updated.
    pub atime: bool,
    /// Users other than the mounter may use the mount. `None`: yes where it
    /// needs nobody's permission (root, or inside a user namespace).
    pub allow_other: Option<bool>,
    /// The source shown in the mount table; `None`: the layers.
    pub fsname: Option<OsString>,
    /// The file system type shown is `fuse.SUBTYPE`.
    pub subtype: OsString,
}

impl Default for MountFlags {
    fn default() -> Self {
        Self {
            read_only: false,
            dev: true,
            suid: true,
            exec: true,
            atime: true,
            allow_other: None,
            fsname: None,
            subtype: "ovlfuse".into(),
        }
    }
}
