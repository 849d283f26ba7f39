//! Reading tar archives: ustar, GNU long names, pax extended headers.
//!
//! The `tar` crate takes a plain header apart. Its own reader is not used: it splits extended
//! headers at newlines, which the binary values of extended attributes may have, so that an ACL
//! would be lost and a made-up value could pass for a record; and it reads headers of any length
//! into memory.

use std::io::{self, Read, Seek};

use ::tar::{EntryType, Header};

use crate::sys::Time;

const BLOCK: u64 = 512;

/// The longest extended header: more than all attributes that Linux can keep on one file.
const MAX_EXTENDED: u64 = 1 << 20;

/// One entry.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryType,
    /// Its name as it stands there.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive. Reading gives the content of the entry that came last.
pub struct Archive<R> {
    input: R,
    /// Content of the entry that was not read yet.
    left: u64,
    /// Bytes behind the content up to the next header.
    padding: u64,
    /// Bytes before the next one that is read.
    position: u64,
}

impl<R: Read> Archive<R> {
    /// Reads from `input`, which stands at the first header.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, position: 0 }
    }

    /// Where the content of the entry that came last begins, as long as none of it was read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, whether the content of the one before was read or not; `None` at the end.
    ///
    /// # Errors
    /// Those of reading; what is no archive.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.next_header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size = extended.size.map_or_else(|| header.entry_size(), Ok)?;
            match kind {
                EntryType::XHeader => extended.parse(&self.extended(size)?)?,
                EntryType::GNULongName => extended.path = Some(until_nul(self.extended(size)?)),
                EntryType::GNULongLink => extended.link = Some(until_nul(self.extended(size)?)),
                EntryType::XGlobalHeader => self.content(size),
                EntryType::GNUSparse => return Err(wrong("sparse entries are not supported")),
                _ => {
                    self.content(if has_content(kind) { size } else { 0 });
                    return extended.entry(&header, size).map(Some);
                }
            }
        }
    }

    /// The next header with a correct checksum; `None` at the end.
    fn next_header(&mut self) -> io::Result<Option<Header>> {
        let rest = self.left.saturating_add(self.padding);
        if io::copy(&mut (&mut self.input).take(rest), &mut io::sink())? != rest {
            return Err(wrong("it ends in the middle of an entry"));
        }
        self.position += rest;
        (self.left, self.padding) = (0, 0);
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(wrong("it ends in the middle of a header")),
                count => filled += count,
            }
        }
        self.position += BLOCK;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum field itself counts as blanks.
        let sum = |from: &[u8]| from.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let all = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
        if header.cksum().ok() != Some(all) {
            return Err(wrong(
                "it is no tar archive, or a damaged one (a header's checksum is wrong)",
            ));
        }
        Ok(Some(header))
    }

    fn content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(wrong("an extended header is too long"));
        }
        self.content(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Passes over the content of the entry that came last without reading it.
    ///
    /// # Errors
    /// Those of lseek(2).
    pub fn skip(&mut self) -> io::Result<()> {
        let rest =
            i64::try_from(self.left).ok().and_then(|left| left.checked_add(self.padding as i64));
        let rest = rest.ok_or_else(|| wrong("an entry is too large"))?;
        self.input.seek_relative(rest)?;
        self.position += rest as u64;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let want = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.input.read(&mut data[..want])?;
        if count == 0 && want > 0 {
            return Err(wrong("it ends in the middle of an entry"));
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

/// Links and the like have a size in some archives, and no content.
fn has_content(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extended {
    /// Takes records `LENGTH KEY=VALUE\n`, of which the value may have any bytes.
    fn parse(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let (key, value, rest) =
                record(records).ok_or_else(|| wrong("an extended header is damaged"))?;
            records = rest;
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let number = || number().ok_or_else(|| wrong("an extended header is damaged"));
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    let time = time(value).ok_or_else(|| wrong("an extended header is damaged"))?;
                    self.mtime = Some(time);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(wrong("sparse entries are not supported"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(self, header: &Header, size: u64) -> io::Result<Entry> {
        let plain_time = || header.mtime().map(|secs| Time { secs: secs as i64, nanos: 0 });
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = header.link_name_bytes().map(|name| name.into_owned());
        let mut kind = header.entry_type();
        // As archives were before there was a type for directories.
        if kind == EntryType::Regular && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let is_device = matches!(kind, EntryType::Char | EntryType::Block);
        Ok(Entry {
            kind,
            path,
            link: self.link.or(link).unwrap_or_default(),
            size,
            mode: header.mode()? & 0o7777,
            uid: self.uid.map_or_else(|| header.uid(), Ok)?,
            gid: self.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: self.mtime.map_or_else(plain_time, Ok)?,
            device: if is_device { device(header)? } else { (0, 0) },
            xattrs: self.xattrs,
        })
    }
}

fn device(header: &Header) -> io::Result<(u32, u32)> {
    Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

/// The key and value of the first record, and what is behind it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let content = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|&byte| byte == b'=')?;
    Some((&content[..equals], &content[equals + 1..], rest))
}

/// A decimal number of seconds.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match text.starts_with('-') && nanos > 0 {
        true => Some(Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos }),
        false => Some(Time { secs, nanos }),
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("5", Some((5, 0))),
            ("5.000000007", Some((5, 7))),
            ("5.0000000079", Some((5, 7))),
            ("-1", Some((-1, 0))),
            ("-0.75", Some((-1, 250_000_000))),
            ("-2.999999999", Some((-3, 1))),
            ("x", None),
            ("5.x", None),
        ];
        for (text, want) in table {
            let want = want.map(|(secs, nanos)| Time { secs, nanos });
            assert_eq!(time(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn records_may_have_newlines_and_nothing_else_is_taken_for_one() {
        let mut found = Extended::default();
        found.parse(b"32 SCHILY.xattr.user.a=x\n7 b=c\n\n9 path=p\n").unwrap();
        assert_eq!(found.xattrs, [(b"user.a".to_vec(), b"x\n7 b=c\n".to_vec())]);
        assert_eq!(found.path.as_deref(), Some(&b"p"[..]));
        for bad in [
            &b"5 a=b\n"[..],
            b"6 a=b\nx",
            b"99 a=b\n",
            b"6 a-b\n",
            b"x",
            b"0 a=b\n",
            b"18446744073709551616 a=b\n",
        ] {
            assert!(Extended::default().parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
