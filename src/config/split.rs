//! Separators and escapes of option lists and layer lists, as bytes.
//!
//! The rules are the kernel's (`fs/overlayfs/params.c`: `ovl_next_opt`,
//! `ovl_parse_param_split_lowerdirs`, `ovl_unescape`): a backslash takes the
//! meaning from the byte behind it, and is itself removed from paths only after
//! everything was split.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Splits `list` at every `separator` that has no backslash before it.
///
/// The pieces keep their backslashes. An empty `list` is one empty piece.
pub fn split_escaped(list: &[u8], separator: u8) -> Vec<&[u8]> {
    split(list, separator, |_| false, |_, _| false)
}

/// Splits an `-o` list at its commas.
///
/// An SELinux context in double quotes (`context="u:r:t:s0:c1,c2"`) stays one
/// piece, as in mount(8), and so do ranges of ids (`uidmapping=0:1:2,3:4:5`), as
/// in the manual of fuse-overlayfs.
pub fn split_options(list: &[u8]) -> Vec<&[u8]> {
    split(list, b',', |piece| piece.ends_with(b"context="), continues_ranges)
}

/// Whether `rest` begins with ranges that belong to the mapping in `before`.
fn continues_ranges(before: &[u8], rest: &[u8]) -> bool {
    let first = rest.split(|&byte| byte == b',').next().unwrap_or_default();
    let is_mapping = [&b"uidmapping="[..], b"gidmapping="].iter().any(|it| before.starts_with(it));
    is_mapping && first.contains(&b':') && first.iter().all(|b| b.is_ascii_digit() || *b == b':')
}

/// Splits at `separator`, but not behind a backslash, nor between double quotes
/// of which the first follows a beginning of a piece that `quotes_follow` accepts,
/// nor where `continues` says of a piece and what is behind its end that they belong together.
fn split(
    list: &[u8],
    separator: u8,
    quotes_follow: impl Fn(&[u8]) -> bool,
    continues: impl Fn(&[u8], &[u8]) -> bool,
) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut rest, mut at) = (list, 0);
    let (mut escaped, mut quoted) = (false, false);
    while let Some(&byte) = rest.get(at) {
        let (before, from_here) = rest.split_at(at);
        if escaped {
            escaped = false;
        } else if byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted && quotes_follow(before);
        } else if byte == separator && !quoted {
            let behind = from_here.strip_prefix(&[separator]).unwrap_or_default();
            if !continues(before, behind) {
                pieces.push(before);
                rest = behind;
                at = 0;
                continue;
            }
        }
        at += 1;
    }
    pieces.push(rest);
    pieces
}

/// Removes the backslashes: each stands for the byte behind it.
///
/// A backslash at the very end stands for nothing (`ovl_unescape`).
pub fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let literal = if byte == b'\\' { bytes.next() } else { Some(&byte) };
        plain.extend(literal);
    }
    OsString::from_vec(plain)
}

/// [`unescape`] for a path.
pub fn unescape_path(text: &[u8]) -> PathBuf {
    PathBuf::from(unescape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn splits_at_plain_separators_only() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[b""]),
            (b"a", &[b"a"]),
            (b"a:b", &[b"a", b"b"]),
            (b"a:", &[b"a", b""]),
            (b":a", &[b"", b"a"]),
            (b"a::b", &[b"a", b"", b"b"]),
            (b"a\\:b:c", &[b"a\\:b", b"c"]),
            (b"a\\\\:b", &[b"a\\\\", b"b"]),
            (b"a\\", &[b"a\\"]),
            (b"\xff\xfe:\x01", &[b"\xff\xfe", b"\x01"]),
            (b"say \"a:b\"", &[b"say \"a", b"b\""]),
        ];
        for (list, pieces) in cases {
            assert_eq!(split_escaped(list, b':'), *pieces, "{}", list.escape_ascii());
        }
    }

    #[test]
    fn option_lists_keep_contexts_and_ranges_whole() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"ro,,nodev,", &[b"ro", b"", b"nodev", b""]),
            (b"lowerdir=a\\,b:c,ro", &[b"lowerdir=a\\,b:c", b"ro"]),
            (b"context=\"u:r:t:s0:c1,c2\",ro", &[b"context=\"u:r:t:s0:c1,c2\"", b"ro"]),
            (b"upperdir=a\"b,ro", &[b"upperdir=a\"b", b"ro"]),
            (b"context=\"open,ro", &[b"context=\"open,ro"]),
            (b"uidmapping=0:1:2,3:4:5,6:7:8,ro", &[b"uidmapping=0:1:2,3:4:5,6:7:8", b"ro"]),
            (b"gidmapping=0:1:2,,3:4:5", &[b"gidmapping=0:1:2", b"", b"3:4:5"]),
            (b"timeout=0,3:4:5,ro", &[b"timeout=0", b"3:4:5", b"ro"]),
        ];
        for (list, pieces) in cases {
            assert_eq!(split_options(list), *pieces, "{}", list.escape_ascii());
        }
    }

    #[test]
    fn a_backslash_stands_for_the_byte_behind_it() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"plain", b"plain"),
            (b"a\\:b\\,c\\\\d", b"a:b,c\\d"),
            (b"\\x", b"x"),
            (b"end\\", b"end"),
            (b"\xff\\:\xfe", b"\xff:\xfe"),
        ];
        for (escaped, plain) in cases {
            assert_eq!(unescape(escaped).as_bytes(), *plain, "{}", escaped.escape_ascii());
        }
    }
}
