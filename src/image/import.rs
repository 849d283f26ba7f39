//! An image to layer folders.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};

use super::below::Below;
use super::manifest::{Blob, Image};
use super::pack::{Hashed, Unpacker};
use super::place::Place;
use super::store::Store;
use super::tar::Archive;
use super::unpack::{Folder, Lost};
use super::{Result, Stop, Style, refused};
use crate::error::MountError;

/// The most entries of an image, directories without an entry of their own included.
const MAX_ENTRIES: u64 = 10_000_000;

/// The most memory, in bytes, for names that must be kept while an image is unpacked.
const MAX_MEMORY: u64 = 512 << 20;

/// Where the configuration of the image is put, beside the layers.
const CONFIG: &str = "config.json";

/// An image that was unpacked.
#[derive(Debug)]
pub struct Imported {
    /// The layers to be mounted, topmost first.
    pub layers: Vec<PathBuf>,
    /// What could not be kept.
    pub lost: Lost,
}

/// What an image may take.
#[derive(Debug)]
pub struct Budget {
    /// Bytes that may still be decompressed.
    bytes: Rc<Cell<u64>>,
    limit: u64,
    entries: u64,
    memory: u64,
    stop: Stop,
}

impl Budget {
    /// At most `bytes` in all its archives.
    fn new(bytes: u64, stop: Stop) -> Self {
        Self {
            bytes: Rc::new(bytes.into()),
            limit: bytes,
            entries: MAX_ENTRIES,
            memory: MAX_MEMORY,
            stop,
        }
    }

    /// Takes one entry with a name of `name` bytes.
    pub fn entry(&mut self, name: usize) -> io::Result<()> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| io::Error::other("there are too many entries"))?;
        self.memory(name)
    }

    /// Takes memory.
    pub fn memory(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.memory.checked_sub(bytes as u64);
        self.memory =
            left.ok_or_else(|| io::Error::other("the names in it are too long to be kept"))?;
        Ok(())
    }

    /// Fails when the work is to end.
    pub fn check(&self) -> io::Result<()> {
        self.stop.check().map_err(io::Error::other)
    }

    /// Reads from `inner` what is still allowed.
    pub fn limit<R: Read>(&self, inner: R) -> Limited<R> {
        Limited { inner, bytes: self.bytes.clone(), limit: self.limit, stop: self.stop.clone() }
    }
}

/// A reader with a limit.
pub struct Limited<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
    limit: u64,
    stop: Stop,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        self.stop.check().map_err(io::Error::other)?;
        let count = self.inner.read(data)?;
        let left = self.bytes.get().checked_sub(count as u64);
        let too_large = || {
            let limit = self.limit;
            io::Error::other(format!("it is larger than {limit} bytes; --max-size allows more"))
        };
        self.bytes.set(left.ok_or_else(too_large)?);
        Ok(count)
    }
}

/// Unpacks the image `wanted` (or the only one) of the archive or folder `from` to layer folders in
/// the new folder `to`, of at most `max_size` bytes. `progress` is told the
/// bytes that were read since it was told last, and those of all layers.
///
/// # Errors
/// What is no image, is damaged, hostile or too large, and those of writing; nothing is left then.
pub fn unpack(
    from: &Path,
    wanted: Option<&str>,
    to: &Path,
    max_size: u64,
    style: &Style,
    progress: &dyn Fn(u64, u64),
) -> Result<Imported> {
    let mut budget = Budget::new(max_size, style.stop.clone());
    let above = to.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = Place::new(to, 0o700)?;
    let store = Store::open(from, above, &mut budget)?;
    let in_image =
        |error: MountError| MountError::new(error.failure, format!("{}: {error}", from.display()));
    let image = Image::find(&store, wanted).map_err(in_image)?;
    let sizes = image.layers.iter().map(|blob| Ok(store.read(&blob.name)?.1));
    let total: u64 = sizes.sum::<Result<_>>().map_err(in_image)?;
    let progress = |bytes| progress(bytes, total);
    let mut lost = Lost::default();
    let digits = image.layers.len().to_string().len();
    // From the bottom up.
    let mut layers: Vec<String> = Vec::new();
    for (index, blob) in image.layers.iter().enumerate() {
        let number = index + 1;
        let name = format!("{number:0digits$}");
        layers.push(name);
        let below = Below::new(&place, layers.iter().rev().map(String::as_str).collect(), style);
        let opaque = layer(&store, blob, below, (&mut budget, &mut lost), &progress)
            .map_err(|error| MountError::new(error.failure, format!("layer {number}: {error}")))
            .map_err(in_image)?;
        if opaque {
            layers.drain(..layers.len() - 1);
        }
    }
    let layers = layers.iter().rev().map(|name| place.target().join(name)).collect();
    keep_config(&place, &image.config)?;
    budget.check().map_err(|error| refused(error.to_string()))?;
    place.put()?;
    Ok(Imported { layers, lost })
}

/// Unpacks one layer to the topmost folder of `below`; whether it hides all the others.
fn layer(
    store: &Store,
    blob: &Blob,
    below: Below<'_>,
    (budget, lost): (&mut Budget, &mut Lost),
    progress: &dyn Fn(u64),
) -> Result<bool> {
    let cannot = |error: io::Error| refused(format!("it cannot be read: {error}"));
    let root = below.new_folder()?;
    let (packed, _) = store.read(&blob.name)?;
    let packed = Hashed::new(Counted { inner: packed, progress });
    let plain = budget.limit(Unpacker::new(packed).map_err(cannot)?);
    let mut plain = Hashed::new(plain);
    let opaque =
        Folder::new(root.as_fd(), below, budget, lost).fill(&mut Archive::new(&mut plain))?;
    // What is behind the end of the archive counts for the digests.
    io::copy(&mut plain, &mut io::sink()).map_err(cannot)?;
    let (plain, diff_id, _) = plain.finish();
    let mut packed = plain.inner.into_inner();
    io::copy(&mut packed, &mut io::sink()).map_err(cannot)?;
    let (_, digest, _) = packed.into_inner().finish();
    for (wanted, is) in [(blob.digest.as_ref(), digest), (Some(&blob.diff_id), diff_id)] {
        if let Some(wanted) = wanted.filter(|wanted| **wanted != is) {
            return Err(refused(format!(
                "its digest is {is} and should be {wanted}: it is damaged"
            )));
        }
    }
    Ok(opaque)
}

fn keep_config(place: &Place, config: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let written = rustix::fs::openat(place.root(), CONFIG, flags, Mode::from_raw_mode(0o644))
        .map_err(io::Error::from)
        .and_then(|fd| io::Write::write_all(&mut File::from(fd), config));
    written.map_err(|error| refused(format!("{}: {error}", place.target().join(CONFIG).display())))
}

/// Tells how much was read.
struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(data)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}
