//! The error of everything that happens before (and around) a mount.
//!
//! Inside the mounted file system errors are plain `Errno`s; here an error is
//! one sentence for a person: what, which path or option, what to do.

use std::fmt;

/// What kind of failure a command met; its number is the exit code.
///
/// The table is part of the interface (`docs/ovlfuse.1.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// Anything that has no code of its own (a system call that should not fail).
    Internal = 1,
    /// The command line or an option is wrong.
    Usage = 2,
    /// A lower or upper layer is missing, unreadable, no directory, too many, or overlaps another.
    Layer = 3,
    /// The work directory is missing, in use, elsewhere, or holds what forbids the mount.
    Work = 4,
    /// The mount point is missing, no directory, or may not be mounted on.
    Mountpoint = 5,
    /// `/dev/fuse` is missing or may not be opened, or the kernel refused the mount.
    Fuse = 6,
    /// `fusermount3` is needed and is missing or refused.
    Fusermount = 7,
    /// The file system of the upper layer cannot hold an upper layer.
    Upper = 8,
    /// The mount could not be unmounted, or is no ovlfuse mount.
    Unmount = 9,
    /// An image, archive or layer folder cannot be read, written or trusted.
    Image = 10,
}

impl Failure {
    const ALL: [Self; 10] = [
        Self::Internal,
        Self::Usage,
        Self::Layer,
        Self::Work,
        Self::Mountpoint,
        Self::Fuse,
        Self::Fusermount,
        Self::Upper,
        Self::Unmount,
        Self::Image,
    ];

    /// The kind with exit code `code`; [`Failure::Internal`] for a code of none.
    pub fn from_exit_code(code: u8) -> Self {
        let found = Self::ALL.into_iter().find(|failure| *failure as u8 == code);
        found.unwrap_or(Self::Internal)
    }
}

/// A failure with the one sentence that tells the user about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountError {
    /// The kind, which decides the exit code.
    pub failure: Failure,
    /// What went wrong, with which path or option, and what to do.
    pub message: String,
}

impl MountError {
    /// An error of kind `failure` that says `message`.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }

    /// The process exit code of this error.
    pub fn exit_code(&self) -> u8 {
        self.failure as u8
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MountError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_survive_a_pipe() {
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index + 1);
            assert_eq!(Failure::from_exit_code(failure as u8), failure);
        }
        assert_eq!(Failure::from_exit_code(77), Failure::Internal);
    }
}
