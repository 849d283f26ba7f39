//! File attributes as chattr(1) and lsattr(1) know them: ioctl_iflags(2) and
//! `FS_IOC_FSGETXATTR`.
#![allow(unsafe_code)]

use super::Result;
use rustix::fs::IFlags;
use rustix::ioctl::{Getter, Setter, ioctl, opcode};
use std::os::fd::BorrowedFd;

/// `struct fsxattr` of linux/fs.h, which begins with its flags.
const EXTENDED_SIZE: usize = 28;

/// `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND`.
const XFLAG_IMMUTABLE: u32 = 0x08;
const XFLAG_APPEND: u32 = 0x10;

/// What no permission allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// Data can only be appended; the object keeps its name and attributes.
    pub append: bool,
    /// Nothing can be changed.
    pub immutable: bool,
}

impl Protection {
    /// Whether anything is forbidden.
    pub fn any(self) -> bool {
        self.append || self.immutable
    }
}

/// The two forms in which the kernel takes and gives file attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`: one number.
    Flags,
    /// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`: `struct fsxattr`.
    Extended,
}

impl Form {
    /// How many bytes the kernel passes.
    pub fn size(self) -> usize {
        match self {
            Self::Flags => size_of::<u32>(),
            Self::Extended => EXTENDED_SIZE,
        }
    }

    /// The bits of append-only and immutable.
    fn protecting(self) -> (u32, u32) {
        match self {
            Self::Flags => (IFlags::APPEND.bits(), IFlags::IMMUTABLE.bits()),
            Self::Extended => (XFLAG_APPEND, XFLAG_IMMUTABLE),
        }
    }
}

/// The file attributes of an object.
#[derive(Debug, Clone, Copy)]
pub struct FileAttr {
    form: Form,
    bytes: [u8; EXTENDED_SIZE],
}

impl FileAttr {
    /// Takes what the kernel passes in `form`; `None` if there are fewer bytes.
    pub fn from_bytes(form: Form, given: &[u8]) -> Option<Self> {
        let mut bytes = [0; EXTENDED_SIZE];
        bytes[..form.size()].copy_from_slice(given.get(..form.size())?);
        Some(Self { form, bytes })
    }

    /// What the kernel is given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.form.size()]
    }

    /// The file attributes of `fd`, an open file or directory.
    ///
    /// # Errors
    /// `ENOTTY` where the file system has none, and those of ioctl(2).
    pub fn read(fd: BorrowedFd<'_>, form: Form) -> Result<Self> {
        let bytes = match form {
            Form::Flags => {
                let mut bytes = [0; EXTENDED_SIZE];
                let flags = rustix::fs::ioctl_getflags(fd)?.bits();
                bytes[..size_of::<u32>()].copy_from_slice(&flags.to_ne_bytes());
                bytes
            }
            Form::Extended => {
                const GET: rustix::ioctl::Opcode = opcode::read::<[u8; EXTENDED_SIZE]>(b'X', 31);
                // SAFETY: the call writes one `struct fsxattr`, of plain integers.
                unsafe { ioctl(fd, Getter::<GET, [u8; EXTENDED_SIZE]>::new()) }?
            }
        };
        Ok(Self { form, bytes })
    }

    /// Gives `fd`, an open file or directory, these attributes.
    ///
    /// # Errors
    /// `EPERM`, `ENOTTY`, `EOPNOTSUPP` and the others of ioctl(2).
    pub fn write(&self, fd: BorrowedFd<'_>) -> Result<()> {
        match self.form {
            Form::Flags => rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(self.bits())),
            Form::Extended => {
                const SET: rustix::ioctl::Opcode = opcode::write::<[u8; EXTENDED_SIZE]>(b'X', 32);
                // SAFETY: the call reads one `struct fsxattr`, of plain integers.
                unsafe { ioctl(fd, Setter::<SET, [u8; EXTENDED_SIZE]>::new(self.bytes)) }
            }
        }
    }

    /// The flags.
    pub fn bits(&self) -> u32 {
        let mut bits = [0; size_of::<u32>()];
        bits.copy_from_slice(&self.bytes[..size_of::<u32>()]);
        u32::from_ne_bytes(bits)
    }

    /// Sets the flags.
    pub fn set_bits(&mut self, bits: u32) {
        self.bytes[..size_of::<u32>()].copy_from_slice(&bits.to_ne_bytes());
    }

    /// What they forbid.
    pub fn protection(&self) -> Protection {
        let (append, immutable) = self.form.protecting();
        Protection { append: self.bits() & append != 0, immutable: self.bits() & immutable != 0 }
    }

    /// The same, forbidding nothing.
    pub fn unprotected(mut self) -> Self {
        let (append, immutable) = self.form.protecting();
        self.set_bits(self.bits() & !(append | immutable));
        self
    }

    /// The same, forbidding `more` as well.
    pub fn protected(mut self, more: Protection) -> Self {
        let (append, immutable) = self.form.protecting();
        let mut bits = self.bits();
        bits |= if more.append { append } else { 0 };
        bits |= if more.immutable { immutable } else { 0 };
        self.set_bits(bits);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_goes_in_and_out() {
        let both = Protection { append: true, immutable: true };
        for (form, size) in [(Form::Flags, 4), (Form::Extended, 28)] {
            assert!(FileAttr::from_bytes(form, &[0; 3]).is_none());
            let plain = FileAttr::from_bytes(form, &[0x80; 28]).unwrap();
            assert!(!plain.protection().any());
            let attr = plain.protected(both);
            assert_eq!((attr.protection(), attr.as_bytes().len()), (both, size));
            assert_eq!(attr.unprotected().as_bytes(), plain.as_bytes());
        }
    }
}
