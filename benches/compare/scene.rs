//! One run of one workload on one system: fresh folders, views of the layers, timed sections.
//!
//! Folders are never used twice and are removed only when the bench ends (`folders` says why).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::Args;
use crate::counts::{Counter, Counts};
use crate::layers::{Layers, Part, visit};
use crate::systems::{Kind, Mounted, Stack, System};

/// Rest before a timed section. What ran before decides how long the processors' idle loops poll and
/// where the scheduler puts a daemon. One program measured as two systems differed by up to 80 %,
/// depending on its predecessor; after a rest by up to 20 % in creating files, in other storms below 5 %.
const REST: Duration = Duration::from_millis(50);

/// Whether a mount has an upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It has one.
    Writable,
    /// Lowers only.
    ReadOnly,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Wall time.
    Seconds,
    /// Memory.
    Bytes,
}

/// One measured value.
#[derive(Debug)]
pub struct Sample {
    /// Which part of the workload; empty when there is one only.
    pub part: &'static str,
    /// Of `value`.
    pub unit: Unit,
    /// Operations that `value` is for.
    pub ops: usize,
    /// Seconds or bytes.
    pub value: f64,
    /// What the daemon was asked and did, when that was counted.
    pub counts: Option<Counts>,
}

/// The stage for one run of a workload.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Who is measured.
    pub system: &'a System,
    /// Over what.
    pub layers: &'a Layers,
    /// Sizes.
    pub args: &'a Args,
    folder: PathBuf,
    counter: Option<&'a Counter>,
    views: usize,
    samples: Vec<Sample>,
}

/// Files to work on: a mount, or natively a folder.
#[derive(Debug)]
pub struct View {
    /// Its root folder.
    pub root: PathBuf,
    /// How long mounting took; zero natively.
    pub mount_time: Duration,
    mounted: Option<Mounted>,
}

impl View {
    fn native(root: PathBuf) -> View {
        View { root, mount_time: Duration::ZERO, mounted: None }
    }

    /// The mount, when there is one.
    pub fn mounted(&self) -> Option<&Mounted> {
        self.mounted.as_ref()
    }

    /// Unmounts; every descriptor in the view must be closed.
    pub fn close(self) -> Result<()> {
        self.mounted.map_or(Ok(()), Mounted::unmount)
    }
}

impl<'a> Scene<'a> {
    /// A stage in a folder that was never used.
    pub fn new(
        system: &'a System,
        layers: &'a Layers,
        args: &'a Args,
        folder: PathBuf,
        counter: Option<&'a Counter>,
    ) -> Scene<'a> {
        Scene { system, layers, args, folder, counter, views: 0, samples: Vec::new() }
    }

    /// What was measured.
    pub fn into_samples(self) -> Vec<Sample> {
        self.samples
    }

    /// A fresh view of the tree; natively the base layer itself.
    pub fn tree(&mut self, access: Access) -> Result<View> {
        let lowers = self.layers.tree()?;
        self.view(lowers, access)
    }

    /// A fresh view to read `part` in; natively the layer itself.
    pub fn part(&mut self, part: Part, access: Access) -> Result<View> {
        // The kernel mounts no single layer without upper.
        let lowers = vec![self.layers.written(part)?, self.layers.empty()?];
        self.view(lowers, access)
    }

    /// A fresh view to change `part` in; natively a copy. The disk is idle when it returns.
    pub fn scratch(&mut self, part: Part) -> Result<View> {
        let lower = self.layers.written(part)?;
        let view = if self.system.kind == Kind::Native {
            let root = self.next_folder()?;
            copy_folder(&lower.join(part.folder()), &root.join(part.folder()))?;
            View::native(root)
        } else {
            self.view(vec![lower], Access::Writable)?
        };
        rustix::fs::syncfs(File::open(&self.folder)?)?;
        Ok(view)
    }

    /// A fresh view of `lowers` (bottom to top).
    pub fn view(&mut self, lowers: Vec<PathBuf>, access: Access) -> Result<View> {
        if self.args.cold {
            rustix::fs::sync();
            fs::write("/proc/sys/vm/drop_caches", "3").map_err(|e| format!("drop_caches: {e}"))?;
        }
        if self.system.kind == Kind::Native {
            let bottom = lowers.into_iter().next().ok_or("no layer")?;
            return Ok(View::native(bottom));
        }
        let folder = self.next_folder()?;
        let [upper, work, root] = ["upper", "work", "merged"].map(|name| folder.join(name));
        for dir in [&upper, &work, &root] {
            fs::create_dir(dir)?;
        }
        let upper = (access == Access::Writable).then_some((upper, work));
        let stack = Stack { lowers, upper };
        let start = Instant::now();
        let mounted = self.system.mount(&stack, &root, &folder.join("stderr"))?;
        Ok(View { mount_time: start.elapsed(), mounted: Some(mounted), root })
    }

    /// Runs `work` on the view's root and notes how long it took, or in a counting round what it
    /// made the daemon do. `ops`: how many operations it consists of.
    pub fn time<T>(
        &mut self,
        view: &View,
        part: &'static str,
        ops: usize,
        work: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let counting = match (self.counter, view.mounted()) {
            (Some(counter), Some(mounted)) => {
                let device = rustix::fs::minor(fs::metadata(&view.root)?.dev());
                counter.start(device, mounted.daemon()?)?;
                Some(counter)
            }
            _ => None,
        };
        if counting.is_none() {
            std::thread::sleep(REST);
        }
        let start = Instant::now();
        let outcome = work(&view.root)?;
        let value = start.elapsed().as_secs_f64();
        self.samples.push(Sample {
            part,
            unit: Unit::Seconds,
            ops,
            value,
            counts: counting.map(Counter::stop).transpose()?,
        });
        Ok(outcome)
    }

    /// Notes a value that was not measured by [`Scene::time`].
    pub fn note(&mut self, part: &'static str, unit: Unit, ops: usize, value: f64) {
        self.samples.push(Sample { part, unit, ops, value, counts: None });
    }

    fn next_folder(&mut self) -> Result<PathBuf> {
        self.views += 1;
        let folder = self.folder.join(self.views.to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// Copies folders and regular files.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut outcome = Ok(());
    visit(from, |path, facts| {
        let Ok(relative) = path.strip_prefix(from) else {
            return;
        };
        let copied = if facts.is_dir() {
            fs::create_dir(to.join(relative))
        } else {
            fs::copy(path, to.join(relative)).map(drop)
        };
        if let Err(error) = copied {
            outcome = Err(error);
        }
    })?;
    Ok(outcome?)
}
