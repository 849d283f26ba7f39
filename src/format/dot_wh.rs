//! Whiteouts as container tools unpack them: files called `.wh.NAME`.

/// The prefix of a whiteout's name.
pub const PREFIX: &[u8] = b".wh.";

/// The entry that makes its directory opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whether `name` is such a mark, which the merged view never shows.
pub fn is_mark(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// What fuse-overlayfs puts beside [`OPAQUE`]; it hides nothing by itself.
const BESIDE_OPAQUE: &[u8] = b".wh..opq";

/// The name that the whiteout called `name` hides; `None` for other names and
/// for tool-internal marks (`.wh..wh.…`).
pub fn hidden_by(name: &[u8]) -> Option<&[u8]> {
    let hidden = name.strip_prefix(PREFIX).filter(|_| name != BESIDE_OPAQUE);
    hidden.filter(|rest| !rest.is_empty() && !rest.starts_with(PREFIX))
}

/// The name of the whiteout that hides `name`; `None` when it would be too long.
pub fn whiteout_of(name: &[u8]) -> Option<Vec<u8>> {
    (name.len() + PREFIX.len() <= 255).then(|| [PREFIX, name].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        assert_eq!(hidden_by(b".wh.a"), Some(&b"a"[..]));
        assert_eq!(hidden_by(b".wh."), None);
        assert_eq!(hidden_by(OPAQUE), None);
        assert_eq!(hidden_by(BESIDE_OPAQUE), None);
        assert_eq!(hidden_by(b"a"), None);
        assert!(is_mark(OPAQUE));
        assert_eq!(whiteout_of(b"a").as_deref(), Some(&b".wh.a"[..]));
        assert_eq!(whiteout_of(&[b'a'; 252]), None);
    }
}
