//! A case as text: the layers, then the calls, one a line, words parted by blanks.
//!
//! ```text
//! lowers 2                            how many lower layers, bottom to top L0, L1, …
//! nested                              the lower half of them is an overlay of the kernel's
//! data 1                              how many data-only layers, D0, D1, …; none without it
//! L0 file a 0644 100 7                path, mode, size, seed of the content
//! L1 bare b 0644 100 /a               metadata only: path, mode, size, redirect if any
//! U whiteout b                        an entry of the upper layer
//! mkdir a/b 0755                      a call
//! @alice/077+3050 unlink a            the same call of somebody else: user/umask+group
//! ```
//!
//! Bytes that are not plain are escaped as in Rust's byte strings, a blank as `\x20`; `\N` is the
//! longest name, 255 times `N`. A line that
//! cannot work (its parent was left out) fails in the same way on both sides, so that any
//! subset of a script's lines is a script again.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::common::Caller;
use crate::common::caller::{ALICE, BOB};

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    words: Vec<String>,
}

/// Everything that decides a case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    /// How many lower layers there are.
    pub lowers: usize,
    /// Whether the lower half of them is mounted as an overlay of its own, which is then the
    /// lowest layer.
    pub nested: bool,
    /// How many data-only layers there are.
    pub data: usize,
    /// Mount options, in the kernel's words.
    pub options: Vec<String>,
    /// Entries of the layers, then calls.
    pub lines: Vec<Line>,
}

impl Script {
    /// Reads what `Display` wrote; `#` starts a comment line.
    pub fn parse(text: &str) -> Self {
        let mut script = Self { lowers: 1, ..Self::default() };
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["lowers", count] => script.lowers = count.parse().expect("a number of lowers"),
                ["nested"] => script.nested = true,
                ["data", count] => script.data = count.parse().expect("a number of layers"),
                ["option", option] => script.options.push((*option).to_owned()),
                words => script.lines.push(Line::new(words)),
            }
        }
        script
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lowers {}", self.lowers)?;
        if self.nested {
            writeln!(f, "nested")?;
        }
        if self.data > 0 {
            writeln!(f, "data {}", self.data)?;
        }
        for option in &self.options {
            writeln!(f, "option {option}")?;
        }
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

impl Line {
    /// A line of `words`, which are escaped already.
    pub fn new<S: AsRef<str>>(words: &[S]) -> Self {
        Self { words: words.iter().map(|word| word.as_ref().to_owned()).collect() }
    }

    /// Whether it makes a layer's entry.
    pub fn is_layer(&self) -> bool {
        let first = self.words[0].as_str();
        let number = first.strip_prefix(['L', 'D']).is_some_and(|n| n.parse::<usize>().is_ok());
        first == "U" || number
    }

    /// Who makes the call; `None` is the test itself.
    pub fn caller(&self) -> Option<Caller> {
        let who = self.words[0].strip_prefix('@')?;
        let (who, group) = who.split_once('+').map_or((who, None), |(a, b)| (a, Some(b)));
        let (name, mask) = who.split_once('/').map_or((who, None), |(a, b)| (a, Some(b)));
        let mut caller = match name {
            "alice" => Caller::user(ALICE),
            "bob" => Caller::user(BOB),
            _ => Caller::default(),
        };
        if let Some(mask) = mask {
            caller = caller.umask(u32::from_str_radix(mask, 8).expect("an octal umask"));
        }
        if let Some(group) = group {
            caller = caller.in_group(group.parse().expect("a group id"));
        }
        Some(caller)
    }

    fn words(&self) -> &[String] {
        &self.words[usize::from(self.words[0].starts_with('@'))..]
    }

    /// Word `index` after the caller, empty when there is none.
    pub fn word(&self, index: usize) -> &str {
        self.words().get(index).map_or("", String::as_str)
    }

    /// Word `index` as bytes.
    pub fn raw(&self, index: usize) -> Vec<u8> {
        unescape(self.word(index))
    }

    /// Word `index` as a relative path.
    pub fn path(&self, index: usize) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.raw(index)))
    }

    /// Word `index` as a number, 0 when there is none.
    pub fn number(&self, index: usize) -> i64 {
        let word = self.word(index);
        if word.is_empty() { 0 } else { word.parse().unwrap_or_else(|_| panic!("{self}: {word}")) }
    }

    /// Word `index` as a size or offset.
    pub fn size(&self, index: usize) -> u64 {
        u64::try_from(self.number(index)).unwrap_or_else(|_| panic!("{self}: negative"))
    }

    /// Word `index` as a count of bytes or the number of a slot.
    pub fn count(&self, index: usize) -> usize {
        usize::try_from(self.number(index)).unwrap_or_else(|_| panic!("{self}: negative"))
    }

    /// Word `index` as an octal mode.
    pub fn mode(&self, index: usize) -> u32 {
        u32::from_str_radix(self.word(index), 8).unwrap_or_else(|_| panic!("{self}: no mode"))
    }
}

/// `bytes` as a word.
pub fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20").replace(&"N".repeat(255), "\\N")
}

/// The bytes of a word.
pub fn unescape(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let Some((&kind, after)) = rest.split_first() else { break };
        rest = after;
        match kind {
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two hex digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                rest = &rest[2..];
            }
            b'N' => bytes.extend([b'N'; 255]),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            other => bytes.push(other),
        }
    }
    bytes
}
