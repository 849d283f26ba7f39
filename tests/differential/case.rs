//! Running one script on both sides and comparing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::allowed::{self, Circumstances};
use crate::calls::Side;
use crate::common::mount::{Mount, Spec};
use crate::common::{Backend, Context};
use crate::layers;
use crate::script::Script;
use crate::view::{Difference, Look, View};

/// A daemon that a case keeps busy longer is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kernel does by `redirect_dir=on`, which shows the same and leaves another upper.
const COPYING: &str = "redirect_dir=copy";

/// Where and how cases run.
#[derive(Clone)]
pub struct Place {
    /// A directory on the file system that holds the layers.
    pub directory: PathBuf,
    /// Who mounts.
    pub context: Context,
    /// Whether block counts follow from the calls there.
    pub blocks: bool,
}

/// The first thing that differed.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// What kind of difference: kept over shrinking.
    pub kind: String,
    /// All about it.
    pub text: String,
}

impl Divergence {
    fn new(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind: kind.into(), text: text.into() }
    }
}

/// Runs `script`; `None` when both sides agree.
pub fn run(script: &Script, place: &Place) -> Option<Divergence> {
    let home = tempfile::Builder::new()
        .prefix("case-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&place.directory)
        .expect("a directory for the case");
    let run = || Case::new(script, place, home.path()).run(script);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Some(Divergence::new("panic", text.unwrap_or_else(|| "a panic".into())))
    })
}

struct Case<'a> {
    place: &'a Place,
    circumstances: Circumstances,
    kernel: Layers,
    ovlfuse: Layers,
}

/// One of the two equal sets of layers.
pub struct Layers {
    /// The lower ones on disk.
    lowers: Vec<PathBuf>,
    /// The lower half of them, mounted as an overlay.
    _nested: Option<Mount>,
    /// How they are mounted.
    pub spec: Spec,
    log: PathBuf,
}

impl Layers {
    /// Makes the layers of `script` in `home`.
    pub fn build(script: &Script, home: &Path, context: Context) -> Self {
        let make = |name: &str| {
            let path = home.join(name);
            std::fs::create_dir_all(&path).expect("a layer's root");
            path
        };
        let lowers: Vec<PathBuf> = (0..script.lowers).map(|n| make(&format!("l{n}"))).collect();
        let data: Vec<PathBuf> = (0..script.data).map(|n| make(&format!("d{n}"))).collect();
        let (upper, work, merged) = (make("upper"), make("work"), make("merged"));
        layers::build(&script.lines, (&lowers, &data), &upper, context);
        let log = home.join("log");
        let mut spec = Spec {
            lowers: lowers.clone(),
            data: Vec::new(),
            upper: None,
            options: Vec::new(),
            merged: make("nested"),
            context,
            max_descriptors: None,
            max_file_size: None,
            patience: PATIENCE,
        };
        let nested = script.nested.then(|| {
            let above = spec.lowers.split_off(script.lowers.div_ceil(2));
            let mount = Mount::new(Backend::Kernel, spec.clone(), &log);
            spec.lowers = [vec![spec.merged.clone()], above].concat();
            mount
        });
        let options = script.options.clone();
        spec = Spec { data, upper: Some((upper, work)), options, merged, ..spec };
        Self { lowers, _nested: nested, spec, log }
    }

    /// Mounts them.
    pub fn mount(&self, backend: Backend) -> Mount {
        if let Some((_, work)) = &self.spec.upper {
            // What a volatile mount leaves behind refuses the next one.
            let left = work.join("work").join("incompat");
            if left.exists() {
                std::fs::remove_dir_all(left).expect("the mark of a volatile mount removed");
            }
        }
        let mut spec = self.spec.clone();
        if backend == Backend::Kernel && self.has_option(COPYING) {
            spec.options.retain(|option| option != COPYING);
            spec.options.push("redirect_dir=on".into());
        }
        Mount::new(backend, spec, &self.log)
    }

    /// Mounts, looks, unmounts.
    pub fn view(&self, backend: Backend, look: Look) -> View {
        let mount = self.mount(backend);
        let view = View::of(&self.spec.merged, look);
        mount.unmount();
        view
    }

    fn has_option(&self, wanted: &str) -> bool {
        self.spec.options.iter().any(|option| option == wanted)
    }

    fn upper(&self) -> View {
        let (upper, _) = self.spec.upper.as_ref().expect("with an upper");
        View::of(upper, Look { layer: true, ..Look::default() })
    }

    /// What is left in work, temporary names as `#`, entries of the index by what they are.
    fn work(&self) -> BTreeMap<String, usize> {
        let (_, work) = self.spec.upper.as_ref().expect("with an upper");
        let mut found = BTreeMap::new();
        let mut todo = vec![work.clone()];
        while let Some(directory) = todo.pop() {
            let entries =
                std::fs::read_dir(&directory).expect("work").map(|e| e.expect("an entry"));
            for entry in entries {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = if name.starts_with('#') { "#".into() } else { name };
                let name = index_entry(&entry.path()).unwrap_or(name);
                *found.entry(name).or_default() += 1;
                if entry.file_type().expect("a type").is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        found
    }
}

impl<'a> Case<'a> {
    fn new(script: &Script, place: &'a Place, home: &Path) -> Self {
        let build = |name: &str| Layers::build(script, &home.join(name), place.context);
        let circumstances = Circumstances::of(script, place.context);
        Self { place, circumstances, kernel: build("kernel"), ovlfuse: build("ovlfuse") }
    }

    /// Whether other directories are copied up than by the kernel.
    fn any_dir_links(&self) -> bool {
        ["index=on", "no_open", COPYING].iter().any(|option| self.ovlfuse.has_option(option))
    }

    /// Whether inode numbers are the same after a remount.
    fn keeps_inodes(&self) -> bool {
        self.circumstances.origins && !self.ovlfuse.has_option(COPYING)
    }

    fn look(&self, inodes: bool) -> Look {
        Look {
            inodes,
            blocks: self.place.blocks,
            any_dir_links: self.any_dir_links(),
            layer: false,
        }
    }

    fn run(&self, script: &Script) -> Option<Divergence> {
        let before = self.lowers();
        let live = match self.calls(script) {
            Ok(Some(live)) => live,
            Ok(None) => return None,
            Err(divergence) => return Some(divergence),
        };
        let indexed = self.ovlfuse.has_option("index=on");
        let layers = || {
            let (kernel, ovlfuse) = (self.kernel.upper(), self.ovlfuse.upper());
            same("upper", &kernel, &ovlfuse, |one| {
                allowed::upper(one, self.circumstances)
                    .or_else(|| allowed::aliases(one).filter(|_| indexed))
            })
        };
        // And so another upper and work, which the first two checks compare.
        let own_upper = [COPYING, "no_open"].iter().any(|option| self.ovlfuse.has_option(option));
        let checks: [&dyn Fn() -> Option<Divergence>; 4] =
            [&layers, &|| self.work(), &|| self.remounted(&live), &|| self.across()];
        checks.iter().skip(if own_upper { 2 } else { 0 }).find_map(|check| check()).or_else(|| {
            let changed = before.iter().zip(self.lowers()).position(|(was, is)| *was != is);
            changed.map(|n| Divergence::new("lower changed", format!("lower number {n}")))
        })
    }

    /// The state of ovlfuse's lower layers.
    fn lowers(&self) -> Vec<View> {
        let look = Look { inodes: true, blocks: self.place.blocks, ..Look::default() };
        self.ovlfuse.lowers.iter().map(|lower| View::of(lower, look)).collect()
    }

    /// Mounts both, makes the calls, gives ovlfuse's view at the end; `None` when nothing
    /// can be compared after one of them.
    fn calls(&self, script: &Script) -> Result<Option<View>, Divergence> {
        let kernel_mount = self.kernel.mount(Backend::Kernel);
        let ovlfuse_mount = self.ovlfuse.mount(Backend::Ovlfuse);
        let result = self.calls_on_both(script);
        kernel_mount.unmount();
        ovlfuse_mount.unmount();
        result
    }

    fn calls_on_both(&self, script: &Script) -> Result<Option<View>, Divergence> {
        let side = |layers: &Layers| Side::new(layers.spec.merged.clone(), self.place.blocks);
        let (mut kernel, mut ovlfuse) = (side(&self.kernel), side(&self.ovlfuse));
        let calls = script.lines.iter().filter(|line| !line.is_layer());
        for line in calls {
            if line.word(0) == "compare" {
                self.live(false)?;
                continue;
            }
            let (theirs, ours) = (kernel.call(line), ovlfuse.call(line));
            if allowed::ends(line, &theirs, &ours, self.circumstances) {
                return Ok(None);
            }
            let allowed = allowed::call(line, &theirs, &ours, self.circumstances)
                .or_else(|| allowed::dir_links(&theirs, &ours).filter(|_| self.any_dir_links()));
            if theirs != ours && allowed.is_none() {
                let text = format!("{line}\n  kernel  {theirs}\n  ovlfuse {ours}");
                let kind = format!("call {}: {} / {}", line.word(0), sort(&theirs), sort(&ours));
                return Err(Divergence::new(kind, text));
            }
        }
        kernel.close_all();
        ovlfuse.close_all();
        self.live(self.keeps_inodes()).map(Some)
    }

    /// Compares the mounted views; gives ovlfuse's.
    fn live(&self, inodes: bool) -> Result<View, Divergence> {
        let kernel = View::of(&self.kernel.spec.merged, self.look(false));
        let ovlfuse = View::of(&self.ovlfuse.spec.merged, self.look(false));
        match same("merged", &kernel, &ovlfuse, |one| allowed::merged(one, self.circumstances)) {
            Some(divergence) => Err(divergence),
            None if inodes => Ok(View::of(&self.ovlfuse.spec.merged, self.look(true))),
            None => Ok(ovlfuse),
        }
    }

    fn work(&self) -> Option<Divergence> {
        let (kernel, ovlfuse) = (self.kernel.work(), self.ovlfuse.work());
        (!allowed::work(&kernel, &ovlfuse)).then(|| {
            Divergence::new(
                "work",
                format!("in work:\n  kernel  {kernel:?}\n  ovlfuse {ovlfuse:?}"),
            )
        })
    }

    /// A new mount of ovlfuse shows what the old one showed, and what the kernel's new one shows.
    fn remounted(&self, live: &View) -> Option<Divergence> {
        let inodes = self.keeps_inodes();
        let again = self.ovlfuse.view(Backend::Ovlfuse, self.look(inodes));
        // Without origins to find inode numbers by, the kernel too shows other numbers after a
        // remount.
        let inodes = inodes
            .then(|| {
                same("live/remounted", live, &again, |one| {
                    allowed::merged(one, self.circumstances).or_else(|| allowed::forgotten(one))
                })
            })
            .flatten();
        inodes.or_else(|| {
            let kernel = self.kernel.view(Backend::Kernel, self.look(false));
            let again = self.ovlfuse.view(Backend::Ovlfuse, self.look(false));
            same("remounted", &kernel, &again, |one| allowed::merged(one, self.circumstances))
        })
    }

    /// Each mounts what the other left behind.
    fn across(&self) -> Option<Divergence> {
        let look = self.look(self.circumstances.origins);
        [
            ("kernel on ovlfuse's layers", &self.ovlfuse),
            ("both on the kernel's layers", &self.kernel),
        ]
        .into_iter()
        .find_map(|(what, layers)| {
            let kernel = layers.view(Backend::Kernel, look);
            let ovlfuse = layers.view(Backend::Ovlfuse, look);
            same(what, &kernel, &ovlfuse, |one| allowed::merged(one, self.circumstances))
        })
    }
}

/// An entry of `work/index`, whose name no two layers share: its type and the links of the union.
fn index_entry(path: &Path) -> Option<String> {
    let mut value = [0; 16];
    let names = ["trusted.overlay.nlink", "user.overlay.nlink"];
    let get = |name| rustix::fs::lgetxattr(path, name, &mut value).ok();
    let len = names.into_iter().find_map(get)?;
    let text = std::str::from_utf8(&value[..len]).expect("a number");
    let more: i64 = text.strip_prefix('U')?.parse().expect("a number");
    let stat = rustix::fs::lstat(path).expect("an entry");
    let links = i64::try_from(stat.st_nlink).expect("small") + more;
    Some(format!("index entry: mode {:o}, {links} links", stat.st_mode))
}

/// The first word of a result, so that shrinking keeps to one kind of difference.
fn sort(result: &str) -> &str {
    let first = result.split(' ').next().unwrap_or("");
    let is_error = first.starts_with('E') && first.len() > 2;
    if is_error || first == "ok" { first } else { "…" }
}

/// The differences that `allowed` does not explain.
pub fn same(
    what: &str,
    left: &View,
    right: &View,
    allowed: impl Fn(&Difference) -> Option<&'static str>,
) -> Option<Divergence> {
    let all = left.diff(right);
    let found: Vec<&Difference> = all.iter().filter(|one| allowed(one).is_none()).collect();
    let first = found.first()?;
    let shown: Vec<String> = found.iter().take(12).map(|one| format!("  {one}")).collect();
    let text = format!("{what} ({} differences):\n{}", found.len(), shown.join("\n"));
    Some(Divergence::new(format!("{what}: {}", first.field), text))
}
