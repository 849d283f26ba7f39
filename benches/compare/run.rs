//! Rounds: who runs when, and what came out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Result;
use crate::args::Args;
use crate::counts::{Counter, Counts};
use crate::folders::Folders;
use crate::layers::Layers;
use crate::scene::{Sample, Scene, Unit};
use crate::systems::{self, Kind, Stack, System};
use crate::workloads::{self, Workload};

/// Everything the report says.
#[derive(Debug)]
pub struct Results {
    /// What was measured where, as key and value.
    pub setting: Vec<(&'static str, String)>,
    /// Names, in the order of [`Row::cells`].
    pub systems: Vec<String>,
    /// The system that ratios are to.
    pub kernel: Option<usize>,
    /// One per part of a workload, in order.
    pub rows: Vec<Row>,
    /// Systems that do not work here and why, unless they were asked for by name.
    pub left_out: Vec<String>,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// One part of a workload.
#[derive(Debug)]
pub struct Row {
    /// Its workload.
    pub workload: &'static str,
    /// Which part; may be empty.
    pub part: &'static str,
    /// Of all values.
    pub unit: Unit,
    /// Operations that a value is for.
    pub ops: usize,
    /// One per system.
    pub cells: Vec<Cell>,
}

/// What one system did in one part.
#[derive(Debug, Default, Clone)]
pub struct Cell {
    /// One per measured round.
    pub values: Vec<f64>,
    /// From the counting round.
    pub counts: Option<Counts>,
}

/// Median, least and greatest.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Row {
    /// Workload and part.
    pub fn label(&self) -> String {
        format!("{} {}", self.workload, self.part).trim_end().to_owned()
    }

    /// How a system's median compares to the kernel's.
    pub fn ratio(&self, system: usize, kernel: Option<usize>) -> Option<f64> {
        let base = self.cells.get(kernel?)?.spread()?.median;
        let own = self.cells.get(system)?.spread()?.median;
        (base > 0.0).then(|| own / base)
    }
}

impl Cell {
    /// `None` when nothing was measured.
    pub fn spread(&self) -> Option<Spread> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted.get(middle - 1)? + upper) / 2.0
        } else {
            upper
        };
        Some(Spread { median, min: *sorted.first()?, max: *sorted.last()? })
    }
}

/// What a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    WarmUp,
    Measure,
    Count,
}

/// Runs everything that `args` asks for.
pub fn run(args: &Args) -> Result<Results> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    let chosen = workloads::chosen(&args.workloads)?;
    let base = tempfile::Builder::new().prefix("ovlfuse-compare.").tempdir_in(&args.dir)?;
    let mut left_out = Vec::new();
    let systems = usable(systems::from_args(args)?, base.path(), &mut left_out)?;
    let folders = Folders::new(base.path().join("runs"))?;
    let counter = args.count.then(Counter::new).transpose()?;
    let layers = Layers::new(base.path(), args)?;
    let mut rounds = Rounds {
        args,
        layers: &layers,
        folders: &folders,
        counter: counter.as_ref(),
        broken: BTreeSet::new(),
        results: Results {
            setting: setting(args, &systems)?,
            kernel: systems.iter().position(|s| s.name == "kernel"),
            systems: systems.iter().map(|s| s.name.clone()).collect(),
            rows: Vec::new(),
            left_out,
            failures: Vec::new(),
        },
    };
    let purposes = std::iter::repeat_n(Purpose::WarmUp, args.warmups)
        .chain(std::iter::repeat_n(Purpose::Measure, args.rounds))
        .chain(args.count.then_some(Purpose::Count));
    for (number, purpose) in purposes.enumerate() {
        for workload in &chosen {
            eprint!("\r\x1b[Kround {}, {purpose:?}: {}", number + 1, workload.name);
            for index in order(systems.len(), number, workload.name) {
                if stopped.load(Ordering::Relaxed) {
                    return Err("stopped by a signal".into());
                }
                if let Some(system) = systems.get(index) {
                    rounds.one(workload, system, index, (number, purpose));
                }
            }
        }
    }
    eprintln!("\r\x1b[Kremoving {}", base.path().display());
    let results = rounds.results;
    base.close()?;
    Ok(results)
}

/// Who runs after whom: in every round and workload otherwise, because what ran before is felt.
fn order(systems: usize, round: usize, workload: &str) -> Vec<usize> {
    let seed = workload.bytes().map(usize::from).sum::<usize>() + 1000 * round;
    let indices: Vec<_> = (0..systems).collect();
    workloads::pick(&indices, systems, seed as u64)
}

/// The systems that mount here. One that does not is an error if it was named.
fn usable(systems: Vec<System>, base: &Path, left_out: &mut Vec<String>) -> Result<Vec<System>> {
    let mut usable = Vec::new();
    for (i, system) in systems.into_iter().enumerate() {
        match try_mount(&system, &base.join(format!("try-{i}"))) {
            Ok(()) => usable.push(system),
            Err(error) if system.named => return Err(error),
            Err(error) => {
                eprintln!("compare: left out: {error}");
                left_out.push(error.to_string());
            }
        }
    }
    Ok(usable)
}

/// Mounts a union of nothing and writes a file into it.
fn try_mount(system: &System, folder: &Path) -> Result<()> {
    if system.kind == Kind::Native {
        return Ok(());
    }
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
    for dir in [&lower, &upper, &work, &merged] {
        fs::create_dir_all(dir)?;
    }
    let stack = Stack { lowers: vec![lower], upper: Some((upper.clone(), work)) };
    let mounted = system.mount(&stack, &merged, &folder.join("stderr"))?;
    fs::write(merged.join("file"), "x")?;
    mounted.unmount()?;
    if upper.join("file").exists() {
        Ok(())
    } else {
        Err(format!("{}: a file written to it is not in upper", system.name).into())
    }
}

fn setting(args: &Args, systems: &[System]) -> Result<Vec<(&'static str, String)>> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism()?;
    let tree = args.tree.as_ref();
    let mut setting = vec![
        ("kernel", kernel.trim().to_owned()),
        ("processors", processors.to_string()),
        ("who", if args.user { "user namespace" } else { "root" }.into()),
        ("first", if args.cold { "caches dropped" } else { "fresh mount" }.into()),
        ("tree", tree.map_or("sample".into(), |t| t.display().to_string())),
        ("rounds", args.rounds.to_string()),
        ("warm-ups", args.warmups.to_string()),
        ("files", args.files.to_string()),
        ("big file, MiB", args.size_mib.to_string()),
    ];
    for system in systems {
        if let Some(version) = system.version() {
            setting.push(("version", format!("{}: {version}", system.name)));
        }
    }
    Ok(setting)
}

/// The state of the run.
struct Rounds<'a> {
    args: &'a Args,
    layers: &'a Layers,
    folders: &'a Folders,
    counter: Option<&'a Counter>,
    /// Workloads that failed on a system are not tried there again.
    broken: BTreeSet<(&'static str, usize)>,
    results: Results,
}

impl Rounds<'_> {
    /// Runs one workload on one system, if that makes sense, and keeps what came out.
    fn one(
        &mut self,
        workload: &Workload,
        system: &System,
        index: usize,
        (number, purpose): (usize, Purpose),
    ) {
        let uncounted = purpose == Purpose::Count && !system.kind.is_fuse();
        let broken = self.broken.contains(&(workload.name, index));
        if uncounted || broken || !workload.suits(system.kind) {
            return;
        }
        let name = format!("{number}-{}-{}", workload.name, system.name);
        match self.play(workload, system, &name, purpose) {
            Ok(samples) if purpose == Purpose::WarmUp => drop(samples),
            Ok(samples) => {
                for sample in samples {
                    self.keep(workload.name, index, sample, purpose);
                }
            }
            Err(error) => {
                let failure = format!("{} on {}: {error}", workload.name, system.name);
                eprintln!("\r\x1b[Kcompare: {failure}");
                self.results.failures.push(failure);
                self.broken.insert((workload.name, index));
            }
        }
    }

    fn play(
        &self,
        workload: &Workload,
        system: &System,
        name: &str,
        purpose: Purpose,
    ) -> Result<Vec<Sample>> {
        let counter = self.counter.filter(|_| purpose == Purpose::Count);
        let folder = self.folders.fresh(name)?;
        let mut scene = Scene::new(system, self.layers, self.args, folder, counter);
        (workload.run)(&mut scene)?;
        Ok(scene.into_samples())
    }

    fn keep(&mut self, workload: &'static str, index: usize, sample: Sample, purpose: Purpose) {
        let rows = &mut self.results.rows;
        let found = rows.iter().position(|row| row.workload == workload && row.part == sample.part);
        let at = found.unwrap_or_else(|| {
            rows.push(Row {
                workload,
                part: sample.part,
                unit: sample.unit,
                ops: sample.ops,
                cells: vec![Cell::default(); self.results.systems.len()],
            });
            rows.len() - 1
        });
        let Some(cell) = rows.get_mut(at).and_then(|row| row.cells.get_mut(index)) else {
            return;
        };
        if purpose == Purpose::Measure {
            cell.values.push(sample.value);
        } else {
            cell.counts = sample.counts;
        }
    }
}
