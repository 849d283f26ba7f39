//! The `redirect` attribute: where a moved directory is found below.

/// A parsed redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Another name in the same directory.
    Sibling(Vec<u8>),
    /// A path from the root of the overlay, without the leading `/`.
    Absolute(Vec<u8>),
}

/// The value is not one that overlayfs writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRedirect;

impl Redirect {
    /// Parses an attribute's value (`fs/overlayfs/util.c: ovl_get_redirect_xattr`):
    /// one name, or an absolute path without empty components.
    ///
    /// # Errors
    /// [`BadRedirect`] for anything else.
    pub fn parse(value: &[u8]) -> Result<Self, BadRedirect> {
        let sane = |c: &[u8]| !c.is_empty() && c != b"." && c != b".." && !c.contains(&0);
        match value.strip_prefix(b"/") {
            Some(path) if path.split(|&b| b == b'/').all(sane) => Ok(Self::Absolute(path.to_vec())),
            None if sane(value) && !value.contains(&b'/') => Ok(Self::Sibling(value.to_vec())),
            _ => Err(BadRedirect),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(Redirect::parse(b"old"), Ok(Redirect::Sibling(b"old".to_vec())));
        assert_eq!(Redirect::parse(b"/a/b"), Ok(Redirect::Absolute(b"a/b".to_vec())));
        for bad in [&b""[..], b"/", b"//", b"/a//b", b"/a/", b"a/b", b"..", b"/a/../b", b"a\0b"] {
            assert_eq!(Redirect::parse(bad), Err(BadRedirect), "{bad:?}");
        }
    }
}
