//! Fresh folders in which creating a file costs what it should.
//!
//! Where inodes were freed in the last minutes, ext4 looks at each of them before it takes one
//! (`fs/ext4/ialloc.c: recently_deleted`). Unlink storms, and the end of the bench's last run, free
//! thousands: creating a file would take ten times longer for whoever comes next. So folders are never
//! used twice and removed only when the bench ends; each is put into a block group of its own; and one
//! in which a few files are slow to create is left alone.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::Result;

/// Folders tried before the best so far is taken.
const TRIES: usize = 40;
/// Files created in each.
const PROBES: usize = 20;
/// Folders tried at first, to learn what a file costs.
const FIRST_TRIES: usize = 10;

/// Makes folders, all of them in one.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    /// The least that creating a file ever took.
    least: Cell<Duration>,
}

impl Folders {
    /// Makes `root`; in it, every folder gets a block group of its own (`chattr +T`).
    pub fn new(root: PathBuf) -> Result<Folders> {
        fs::create_dir(&root)?;
        let spread = File::open(&root).and_then(|folder| {
            let flags = ioctl_getflags(&folder)?;
            Ok(ioctl_setflags(&folder, flags | IFlags::TOPDIR)?)
        });
        if let Err(error) = spread {
            // Other file systems need no such thing.
            eprintln!("compare: folders are not spread over the disk: {error}");
        }
        let folders = Folders { root, least: Cell::new(Duration::MAX) };
        for i in 0..FIRST_TRIES {
            folders.probe(&folders.root.join(format!("first-{i}")))?;
        }
        Ok(folders)
    }

    /// A folder that was never used; its name begins with `name`.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let mut best: Option<(Duration, PathBuf)> = None;
        for i in 0..TRIES {
            let folder = self.root.join(format!("{name}-{i}"));
            let took = self.probe(&folder)?;
            if best.as_ref().is_none_or(|(least, _)| took < *least) {
                best = Some((took, folder));
            }
            // A quarter more is noise.
            if took <= self.least.get() * 5 / 4 {
                break;
            }
        }
        let (_, folder) = best.ok_or("no folder was tried")?;
        Ok(folder)
    }

    /// Makes a folder; the least that creating one of a few files in it takes. They stay.
    fn probe(&self, folder: &Path) -> Result<Duration> {
        let inside = folder.join("probe");
        fs::create_dir_all(&inside)?;
        let mut least = Duration::MAX;
        for i in 0..PROBES {
            let path = inside.join(i.to_string());
            let start = Instant::now();
            File::create_new(path)?;
            least = least.min(start.elapsed());
        }
        self.least.set(self.least.get().min(least));
        Ok(least)
    }
}
