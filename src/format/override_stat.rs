//! Owner, mode and device number as container tools store them in an attribute of a file
//! (`xattr_permissions=` of fuse-overlayfs, `idtools.Stat` of containers/storage):
//! `UID:GID:MODE`, the mode octal, behind it perhaps `:TYPE`.

use std::ffi::CStr;

/// The attribute's names, each preferred to those behind it.
pub const NAMES: [&CStr; 3] = [PRIVILEGED, CONTAINERS, c"user.fuseoverlayfs.override_stat"];

/// The attribute that only root of the machine may set.
pub const PRIVILEGED: &CStr = c"security.fuseoverlayfs.override_stat";
/// The attribute of container tools.
pub const CONTAINERS: &CStr = c"user.containers.override_stat";

/// A special file that a regular one stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
}

/// What the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideStat {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, below 0o10000.
    pub mode: u32,
    /// `None`: the file is what it is.
    pub special: Option<Special>,
}

impl OverrideStat {
    /// The attribute's value; a type only where it matters, as not everybody reads it.
    pub fn encode(&self) -> Vec<u8> {
        let special = match self.special {
            None => String::new(),
            Some(Special::Fifo) => ":pipe".into(),
            Some(Special::Socket) => ":socket".into(),
            Some(Special::Char(major, minor)) => format!(":char-{major}-{minor}"),
            Some(Special::Block(major, minor)) => format!(":block-{major}-{minor}"),
        };
        format!("{}:{}:{:04o}{special}", self.uid, self.gid, self.mode).into_bytes()
    }

    /// Reads a value; `None` when it is damaged. Some write the type's bits in the mode, too.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(':');
        let mut next = || fields.next();
        let (uid, gid) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let mode = u32::from_str_radix(next()?, 8).ok()? & 0o7777;
        let special = match next() {
            None | Some("file" | "dir" | "symlink") => None,
            Some(kind) => Some(special(kind)?),
        };
        Some(Self { uid, gid, mode, special })
    }
}

fn special(kind: &str) -> Option<Special> {
    let mut parts = kind.split('-');
    let name = parts.next()?;
    let mut number = || parts.next()?.parse::<u32>().ok();
    Some(match name {
        "pipe" => Special::Fifo,
        "socket" => Special::Socket,
        "char" => Special::Char(number()?, number()?),
        "block" => Special::Block(number()?, number()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let cases: [(&[u8], _, _); 5] = [
            (b"0:42:0640", 0o640, None),
            (b"0:42:4711", 0o4711, None),
            (b"0:42:0000:pipe", 0, Some(Special::Fifo)),
            (b"0:42:0600:block-8-17", 0o600, Some(Special::Block(8, 17))),
            (b"0:42:1666:char-1-3", 0o1666, Some(Special::Char(1, 3))),
        ];
        for (value, mode, special) in cases {
            let stat = OverrideStat { uid: 0, gid: 42, mode, special };
            assert_eq!(OverrideStat::decode(value), Some(stat));
            assert_eq!(stat.encode(), value);
        }
    }

    #[test]
    fn what_others_write() {
        let plain = OverrideStat { uid: 1, gid: 2, mode: 0o755, special: None };
        for value in [&b"1:2:40755"[..], b"1:2:755:dir", b"1:2:0755:file", b"1:2:0755:symlink"] {
            assert_eq!(OverrideStat::decode(value), Some(plain));
        }
        for value in
            [&b""[..], b"1:2", b"1:-2:755", b"1:2:9", b"1:2:755:door", b"1:2:755:char-1", b"\xff"]
        {
            assert_eq!(OverrideStat::decode(value), None);
        }
    }
}
