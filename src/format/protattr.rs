//! The value of `overlay.protattr`: a letter for each thing an object forbids
//! (`fs/overlayfs/util.c: ovl_check_protattr`).

/// The most bytes of a value (`OVL_PROTATTR_MAX`).
const MAX: usize = 32;

/// The value for an object that is append-only, immutable, both, or (then it is empty) neither.
pub fn encode(append: bool, immutable: bool) -> Vec<u8> {
    let letters = [(append, b'a'), (immutable, b'i')];
    letters.into_iter().filter(|&(set, _)| set).map(|(_, letter)| letter).collect()
}

/// Whether an object with this value is append-only, and whether immutable; one with a
/// letter nobody knows is neither.
pub fn decode(value: &[u8]) -> (bool, bool) {
    let known = value.len() <= MAX && value.iter().all(|letter| b"ai".contains(letter));
    (known && value.contains(&b'a'), known && value.contains(&b'i'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        for both in [(false, false), (true, false), (false, true), (true, true)] {
            assert_eq!(decode(&encode(both.0, both.1)), both);
        }
        assert_eq!((encode(true, true), decode(b"ia")), (b"ai".to_vec(), (true, true)));
        assert_eq!((decode(b"ix"), decode(&[b'i'; 33])), ((false, false), (false, false)));
    }
}
