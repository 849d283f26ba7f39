//! Names of extended attributes: overlay's own, and their escaping.

use std::ffi::CStr;

/// Where overlay's attributes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: needs `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.`: the kernel's `userxattr`.
    User,
}

/// One of overlay's own attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayName {
    /// `y`: hides the directories of the same name below; `x`: may hold attribute whiteouts.
    Opaque,
    /// Where the directory or metacopy file is found in the layers below.
    Redirect,
    /// The file holds metadata only; its data is below.
    Metacopy,
    /// The file handle of what was copied up.
    Origin,
    /// The directory has children with an origin.
    Impure,
    /// On an empty regular file: it is a whiteout.
    Whiteout,
    /// Immutable and append-only flags.
    Protattr,
    /// The links of an indexed file, beside those that upper or lower count.
    Nlink,
    /// On `work/index`: the file handle of the upper root it belongs to.
    Upper,
    /// The identity of the mount, on the root of upper.
    Uuid,
}

macro_rules! both {
    ($ns:expr, $name:literal) => {
        match $ns {
            Namespace::Trusted => concat!("trusted.overlay.", $name, "\0"),
            Namespace::User => concat!("user.overlay.", $name, "\0"),
        }
    };
}

impl OverlayName {
    /// The full name in namespace `ns`.
    pub fn full(self, ns: Namespace) -> &'static CStr {
        let with_nul = match self {
            Self::Opaque => both!(ns, "opaque"),
            Self::Redirect => both!(ns, "redirect"),
            Self::Metacopy => both!(ns, "metacopy"),
            Self::Origin => both!(ns, "origin"),
            Self::Impure => both!(ns, "impure"),
            Self::Whiteout => both!(ns, "whiteout"),
            Self::Protattr => both!(ns, "protattr"),
            Self::Nlink => both!(ns, "nlink"),
            Self::Upper => both!(ns, "upper"),
            Self::Uuid => both!(ns, "uuid"),
        };
        CStr::from_bytes_with_nul(with_nul.as_bytes()).unwrap_or(c"")
    }
}

/// What an overlay of overlays inserts behind the prefix (`OVL_XATTR_ESCAPE_PREFIX`).
const ESCAPE: &[u8] = b"overlay.";

impl Namespace {
    /// The prefix of overlay's own names, with its final dot.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// Whether `name` as stored is one of overlay's own, which nobody else may
    /// see; an escaped name is somebody else's.
    pub fn is_own(self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix()).is_some_and(|rest| !rest.starts_with(ESCAPE))
    }

    /// How the name `name` of a user of the mount is stored.
    pub fn escape(self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix()) {
            Some(rest) => [self.prefix(), ESCAPE, rest].concat(),
            None => name.to_vec(),
        }
    }

    /// The name that a user of the mount sees for the stored `name`; `None` for overlay's own.
    pub fn unescape(self, name: &[u8]) -> Option<Vec<u8>> {
        let Some(rest) = name.strip_prefix(self.prefix()) else { return Some(name.to_vec()) };
        let rest = rest.strip_prefix(ESCAPE)?;
        Some([self.prefix(), rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_hidden_and_foreign_ones_pass() {
        let ns = Namespace::Trusted;
        assert!(ns.is_own(b"trusted.overlay.opaque"));
        assert!(!ns.is_own(b"user.overlay.opaque"));
        assert_eq!(ns.unescape(b"trusted.overlay.opaque"), None);
        assert_eq!(ns.unescape(b"user.overlay.x"), Some(b"user.overlay.x".to_vec()));
        assert_eq!(ns.unescape(b"security.capability"), Some(b"security.capability".to_vec()));
    }

    #[test]
    fn escaping_adds_one_level_and_unescaping_takes_it_away() {
        let ns = Namespace::User;
        for name in [&b"user.overlay.opaque"[..], b"user.overlay.overlay.opaque", b"user.foo"] {
            let stored = ns.escape(name);
            assert!(!ns.is_own(&stored));
            assert_eq!(ns.unescape(&stored).as_deref(), Some(name));
        }
        assert_eq!(ns.escape(b"user.overlay.opaque"), b"user.overlay.overlay.opaque");
    }

    #[test]
    fn full_names() {
        assert_eq!(OverlayName::Opaque.full(Namespace::Trusted), c"trusted.overlay.opaque");
        assert_eq!(OverlayName::Impure.full(Namespace::User), c"user.overlay.impure");
    }
}
