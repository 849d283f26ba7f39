//! statx(2) reduced to what the union needs.

use super::fileattr::Protection;
use super::{At, Result};
use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags};

/// The type of a file system object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The kind that the `S_IFMT` bits of `mode` name; `None` for no known one.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Dir,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFCHR => Self::Char,
            libc::S_IFBLK => Self::Block,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits of this kind.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Dir => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Char => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// The `DT_*` number of readdir(3).
    pub fn dirent_type(self) -> u32 {
        self.mode_bits() >> 12
    }

    /// The kind of a `DT_*` number; `None` for `DT_UNKNOWN` and `DT_WHT`.
    pub fn from_dirent_type(dtype: u8) -> Option<Self> {
        Self::from_mode(u32::from(dtype) << 12)
    }
}

/// A point in time: seconds since the epoch (negative before it) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

/// Attributes of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number on its own file system.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as `makedev(3)` packs it in 32 bits (`new_encode_dev`).
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
    /// The device the object lies on, major and minor.
    pub dev: (u32, u32),
    /// The id of the mount the object was reached through.
    pub mnt_id: u64,
    /// What the object itself forbids.
    pub protection: Protection,
}

impl Stat {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode).unwrap_or(Kind::File)
    }

    /// Whether this is the whiteout of overlayfs and others: a character device 0:0.
    pub fn is_char_zero(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == 0
    }
}

impl From<Statx> for Stat {
    fn from(x: Statx) -> Self {
        let time = |t: rustix::fs::StatxTimestamp| Time { secs: t.tv_sec, nanos: t.tv_nsec };
        let (major, minor) = (x.stx_rdev_major, x.stx_rdev_minor);
        Self {
            ino: x.stx_ino,
            mode: u32::from(x.stx_mode),
            nlink: x.stx_nlink,
            uid: x.stx_uid,
            gid: x.stx_gid,
            rdev: packed_device(major, minor),
            size: x.stx_size,
            blocks: x.stx_blocks,
            blksize: x.stx_blksize,
            atime: time(x.stx_atime),
            mtime: time(x.stx_mtime),
            ctime: time(x.stx_ctime),
            dev: (x.stx_dev_major, x.stx_dev_minor),
            mnt_id: x.stx_mnt_id,
            protection: Protection {
                append: x.stx_attributes.contains(StatxAttributes::APPEND),
                immutable: x.stx_attributes.contains(StatxAttributes::IMMUTABLE),
            },
        }
    }
}

/// The device number of [`Stat::rdev`].
pub fn packed_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The major number in [`Stat::rdev`].
pub fn major(rdev: u32) -> u32 {
    rdev >> 8 & 0xfff
}

/// The minor number in [`Stat::rdev`].
pub fn minor(rdev: u32) -> u32 {
    rdev & 0xff | rdev >> 12 & !0xff
}

/// The attributes of `at`; a symbolic link is not followed.
///
/// # Errors
/// Those of statx(2).
pub fn stat(at: At<'_>) -> Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(at.dir, at.name, flags, mask).map(Stat::from)
}
