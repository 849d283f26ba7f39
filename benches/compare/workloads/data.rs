//! The contents of big files. Operations of sequential parts are MiB.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Random;
use crate::Result;
use crate::layers::Part;
use crate::scene::{Access, Scene, Unit};

/// What cp and cat use.
const BLOCK_BYTES: usize = 128 * 1024;
const PAGE_BYTES: usize = 4096;
/// Random reads and writes are this many times `--files`.
const RANDOM_FACTOR: usize = 10;
/// The largest file for random writes.
const REWRITE_MIB: usize = 64;

/// Reads a big file in order.
pub fn read(scene: &mut Scene) -> Result<()> {
    read_big(scene, Access::Writable)
}

/// [`read`] without upper.
pub fn read_ro(scene: &mut Scene) -> Result<()> {
    read_big(scene, Access::ReadOnly)
}

fn read_big(scene: &mut Scene, access: Access) -> Result<()> {
    let size_mib = scene.args.size_mib;
    let view = scene.part(Part::Big, access)?;
    for part in ["first", "again"] {
        scene.time(&view, part, size_mib, |root| read_through(&big(root), size_mib))?;
    }
    view.close()
}

/// Writes a new big file in order and closes it; it is not synced.
pub fn write(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Nothing)?;
    let size_mib = scene.args.size_mib;
    let path = view.root.join("new");
    scene.time(&view, "", size_mib, |_| write_through(&path, size_mib))?;
    fs::remove_file(path)?;
    view.close()
}

/// Random reads of a file that has just been read.
pub fn pread(scene: &mut Scene) -> Result<()> {
    let ops = scene.args.files * RANDOM_FACTOR;
    let pages = (scene.args.size_mib << 20) / PAGE_BYTES;
    let view = scene.part(Part::Big, Access::Writable)?;
    read_through(&big(&view.root), scene.args.size_mib)?;
    let file = File::open(big(&view.root))?;
    scene.time(&view, "", ops, |_| {
        let mut random = Random(2);
        let mut page = [0; PAGE_BYTES];
        for _ in 0..ops {
            file.read_exact_at(&mut page, page_offset(&mut random, pages))?;
        }
        Ok(())
    })?;
    drop(file);
    view.close()
}

/// Random rewrites of a file in upper; closing it counts, because a cache is written back then.
pub fn pwrite(scene: &mut Scene) -> Result<()> {
    let ops = scene.args.files * RANDOM_FACTOR;
    let size_mib = scene.args.size_mib.min(REWRITE_MIB);
    let pages = (size_mib << 20) / PAGE_BYTES;
    let view = scene.scratch(Part::Nothing)?;
    let path = view.root.join("new");
    write_through(&path, size_mib)?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    scene.time(&view, "", ops, |_| {
        let mut random = Random(3);
        let page = [b'y'; PAGE_BYTES];
        for _ in 0..ops {
            file.write_all_at(&page, page_offset(&mut random, pages))?;
        }
        drop(file);
        Ok(())
    })?;
    fs::remove_file(path)?;
    view.close()
}

/// Appends one byte to a big lower file.
pub fn copy_up(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Big)?;
    let size_mib = scene.args.size_mib;
    scene.time(&view, "", size_mib, |root| {
        let mut file = OpenOptions::new().append(true).open(big(root))?;
        Ok(file.write_all(b"y")?)
    })?;
    fs::remove_file(big(&view.root))?;
    view.close()
}

/// First lstats of names that have nothing to do with a copy-up that is under way.
pub fn latency(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Big)?;
    let ready = std::sync::Barrier::new(2);
    let path = big(&view.root);
    let (copied, slowest, lookups) = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            ready.wait();
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.write_all(b"y")
        });
        ready.wait();
        let (mut slowest, mut lookups) = (Duration::ZERO, 0);
        while !copying.is_finished() {
            let start = Instant::now();
            // Nobody can have cached it.
            let missing = fs::symlink_metadata(view.root.join(format!("missing-{lookups}")));
            slowest = slowest.max(start.elapsed());
            drop(missing);
            lookups += 1;
        }
        (copying.join(), slowest, lookups)
    });
    copied.map_err(|_| "the copying thread failed")??;
    if lookups == 0 {
        return Err("the copy-up was over before a lookup: a larger --size-mib is needed".into());
    }
    scene.note("slowest", Unit::Seconds, 1, slowest.as_secs_f64());
    fs::remove_file(path)?;
    view.close()
}

fn big(root: &Path) -> PathBuf {
    root.join(Part::Big.folder()).join("file")
}

fn page_offset(random: &mut Random, pages: usize) -> u64 {
    (random.below(pages) * PAGE_BYTES) as u64
}

fn read_through(path: &Path, size_mib: usize) -> Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut total_bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => break,
            bytes => total_bytes += bytes,
        }
    }
    if total_bytes != size_mib << 20 {
        return Err(format!("{} has {total_bytes} bytes", path.display()).into());
    }
    Ok(())
}

fn write_through(path: &Path, size_mib: usize) -> Result<()> {
    let mut file = File::create(path)?;
    let block = vec![b'x'; BLOCK_BYTES];
    for _ in 0..(size_mib << 20) / BLOCK_BYTES {
        file.write_all(&block)?;
    }
    Ok(())
}
