//! ioctl(2): the kernel sends file attributes this way, and passes on what programs ask, ovlfuse
//! itself among them.

use crate::fs::Fs;
use crate::fs::node::ROOT_ID;
use crate::sys::fileattr::{FileAttr, Form};
use crate::sys::{Errno, Result, refresh};
use rustix::ioctl::{Opcode, opcode};

/// What an IOCTL request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// File attributes.
    Get(Form),
    /// To change them.
    Set(FileAttr),
    /// To find out again what the layers hold.
    Refresh,
}

impl Command {
    /// The meaning of `number` with `data`, if it is known.
    pub(super) fn parse(number: u32, data: &[u8]) -> Option<Self> {
        // linux/fs.h: the first two are numbered as if they passed a `long`.
        const GET_FLAGS: Opcode = opcode::read::<std::ffi::c_long>(b'f', 1);
        const SET_FLAGS: Opcode = opcode::write::<std::ffi::c_long>(b'f', 2);
        const GET_EXTENDED: Opcode = opcode::read::<[u8; 28]>(b'X', 31);
        const SET_EXTENDED: Opcode = opcode::write::<[u8; 28]>(b'X', 32);
        match Opcode::from(number) {
            GET_FLAGS => Some(Self::Get(Form::Flags)),
            GET_EXTENDED => Some(Self::Get(Form::Extended)),
            SET_FLAGS => FileAttr::from_bytes(Form::Flags, data).map(Self::Set),
            SET_EXTENDED => FileAttr::from_bytes(Form::Extended, data).map(Self::Set),
            refresh::REQUEST => Some(Self::Refresh),
            _ => None,
        }
    }

    /// Whether others should not wait for it, or it waits for others.
    pub(super) fn takes_long(&self, fs: &Fs, id: u64) -> bool {
        match self {
            Self::Get(_) => false,
            Self::Set(_) => fs.copies_long(id),
            Self::Refresh => true,
        }
    }

    /// Does it to node `id` for the user `uid`; the bytes of the answer.
    ///
    /// # Errors
    /// Those of [`Fs::fileattr`], [`Fs::set_fileattr`] and [`Fs::refresh`]; `ENOTTY` for a refresh
    /// of anything but the root, `EPERM` for one by other users than root and the daemon's.
    pub(super) fn run(self, fs: &Fs, id: u64, uid: u32) -> Result<Vec<u8>> {
        match self {
            Self::Get(form) => Ok(fs.fileattr(id, form)?.as_bytes().to_vec()),
            Self::Set(attr) => fs.set_fileattr(id, attr).map(|()| Vec::new()),
            Self::Refresh if id != ROOT_ID => Err(Errno::NOTTY),
            Self::Refresh if uid != 0 && uid != rustix::process::geteuid().as_raw() => {
                Err(Errno::PERM)
            }
            Self::Refresh => fs.refresh().map(|()| Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_numbers_and_short_data_mean_nothing() {
        assert!(Command::parse(0x5401, &[0; 64]).is_none(), "TCGETS, which isatty(3) asks for");
        assert!(Command::parse(libc::FS_IOC_SETFLAGS as u32, &[0; 3]).is_none());
        assert!(Command::parse(libc::FS_IOC_SETFLAGS as u32, &[0; 4]).is_some());
    }
}
