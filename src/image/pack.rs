//! Digests and compression.

use std::io::{self, BufReader, Read, Write};

use sha2::{Digest, Sha256};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As gzip(1) does.
    Gzip,
    /// As zstd(1) does.
    Zstd,
}

impl Compression {
    /// What the ending of a file's name asks for.
    pub fn of_name(name: &[u8]) -> Self {
        let ends = |endings: &[&[u8]]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[b".gz", b".tgz"]) {
            Self::Gzip
        } else if ends(&[b".zst", b".zstd", b".tzst"]) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// What the first bytes of a file say.
    fn of_content(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Hashes and counts what passes.
pub struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashed<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// What it stands before, the digest of what has passed as `sha256:HEX`, and how much that was.
    pub fn finish(self) -> (T, String, u64) {
        (self.inner, digest_text(&self.hash.finalize()), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hash.update(&data[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(data)?;
        self.hash.update(&data[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The digest of `data`.
pub fn digest(data: &[u8]) -> String {
    digest_text(&Sha256::digest(data))
}

fn digest_text(digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A compressor.
pub enum Packer<W: Write> {
    /// Passes everything on.
    None(W),
    /// gzip; no name and no time, so that the same data gives the same bytes.
    Gzip(flate2::write::GzEncoder<W>),
    /// zstd.
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    /// Compresses into `to`.
    pub fn new(to: W, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(to),
            Compression::Gzip => {
                Self::Gzip(flate2::GzBuilder::new().write(to, flate2::Compression::default()))
            }
            Compression::Zstd => {
                Self::Zstd(zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?)
            }
        })
    }

    /// Writes the end.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(to) => Ok(to),
            Self::Gzip(to) => to.finish(),
            Self::Zstd(to) => to.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(to) => to.write(data),
            Self::Gzip(to) => to.write(data),
            Self::Zstd(to) => to.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(to) => to.flush(),
            Self::Gzip(to) => to.flush(),
            Self::Zstd(to) => to.flush(),
        }
    }
}

/// A decompressor, that knows the compression by the first bytes.
pub enum Unpacker<R: Read> {
    /// Passes everything on.
    None(BufReader<R>),
    /// gzip, of one or several members.
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<R>>),
    /// zstd, of one or several frames.
    Zstd(zstd::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Unpacker<R> {
    /// Decompresses `from`.
    pub fn new(from: R) -> io::Result<Self> {
        let mut from = BufReader::with_capacity(128 << 10, from);
        let start = io::BufRead::fill_buf(&mut from)?;
        Ok(match Compression::of_content(start) {
            Compression::None => Self::None(from),
            Compression::Gzip => Self::Gzip(flate2::bufread::MultiGzDecoder::new(from)),
            Compression::Zstd => Self::Zstd(zstd::Decoder::with_buffer(from)?),
        })
    }

    /// What was decompressed, of which the rest was read ahead or is still there.
    pub fn into_inner(self) -> BufReader<R> {
        match self {
            Self::None(from) => from,
            Self::Gzip(from) => from.into_inner(),
            Self::Zstd(from) => from.into_inner(),
        }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(from) => from.read(data),
            Self::Gzip(from) => from.read(data),
            Self::Zstd(from) => from.read(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (name, compression) in [
            (&b"a.tar"[..], Compression::None),
            (b"a.tar.gz", Compression::Gzip),
            (b"a.tar.zst", Compression::Zstd),
        ] {
            assert_eq!(Compression::of_name(name), compression);
            let mut packer = Packer::new(Vec::new(), compression).unwrap();
            packer.write_all(&[7; 100_000]).unwrap();
            let packed = packer.finish().unwrap();
            let mut plain = Vec::new();
            Unpacker::new(packed.as_slice()).unwrap().read_to_end(&mut plain).unwrap();
            assert_eq!(plain, [7; 100_000]);
        }
    }

    #[test]
    fn digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
        assert_eq!(Hashed::new(io::empty()).finish().1, empty);
    }
}
