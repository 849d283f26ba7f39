//! `work/index`: the names of its entries, and the `nlink` attribute
//! (`fs/overlayfs/namei.c: ovl_get_index_name_fh`, `fs/overlayfs/inode.c: ovl_get_nlink`).

/// The name of the entry for the object with this origin value: its hexadecimal digits.
pub fn entry_name(origin: &[u8]) -> Vec<u8> {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)]);
    origin.iter().flat_map(digits).collect()
}

/// The origin value that an entry is named after; `None` for another name.
pub fn origin_in(name: &[u8]) -> Option<Vec<u8>> {
    let half = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = name.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| u8::try_from(half(high)? << 4 | half(low)?).ok()).collect()
}

/// How many links the union counts, relative to what a layer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nlink {
    /// More than upper's inode has (its index entry among them).
    Upper(i64),
    /// More than the lower inode has.
    Lower(i64),
}

impl Nlink {
    /// The attribute's value.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Upper(more) => format!("U{more:+}"),
            Self::Lower(more) => format!("L{more:+}"),
        }
        .into_bytes()
    }

    /// Decodes a value; `None` for a damaged one.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (base, more) = value.split_first()?;
        if !matches!(more.first(), Some(b'+' | b'-')) {
            return None;
        }
        let more = i64::from(std::str::from_utf8(more).ok()?.parse::<i32>().ok()?);
        match base {
            b'U' => Some(Self::Upper(more)),
            b'L' => Some(Self::Lower(more)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries() {
        assert_eq!(entry_name(&[0, 0xfb, 0x21]), b"00fb21");
        assert_eq!(origin_in(b"00fb21"), Some(vec![0, 0xfb, 0x21]));
        for other in [&b"00fb2"[..], b"#1", b"foo ", b"+1"] {
            assert_eq!(origin_in(other), None);
        }
    }

    #[test]
    fn link_counts() {
        let rows: &[(&[u8], Nlink)] = &[
            (b"U+1", Nlink::Upper(1)),
            (b"U+0", Nlink::Upper(0)),
            (b"U-12", Nlink::Upper(-12)),
            (b"L-1", Nlink::Lower(-1)),
        ];
        for (value, nlink) in rows {
            assert_eq!(Nlink::decode(value), Some(*nlink));
            assert_eq!(nlink.encode(), *value);
        }
        for damaged in [&b""[..], b"U", b"U1", b"X+1", b"U+", b"U+99999999999"] {
            assert_eq!(Nlink::decode(damaged), None);
        }
    }
}
