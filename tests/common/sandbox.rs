//! Layers, a mount point and the mount of one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{Backend, Context, backend};
use super::mount::{Mount, Spec};
use super::snapshot::{Options, Snapshot};
use super::tree::Tree;

/// A test's own layers and mount. Layers are built first, then comes [`Sandbox::mount`].
pub struct Sandbox {
    root: PathBuf,
    context: Context,
    lowers: Vec<Tree>,
    data: Vec<Tree>,
    upper: Option<(Tree, PathBuf)>,
    merged: Tree,
    options: Vec<String>,
    patience: Duration,
    max_descriptors: Option<u64>,
    max_file_size: Option<u64>,
    /// What the lower layers held when first mounted.
    untouched: Vec<Snapshot>,
    mounted: Option<Mount>,
    /// Set by tests whose upper the kernel need not show in the same way.
    kernel_disagrees: Option<&'static str>,
    without_inodes: bool,
}

impl Sandbox {
    /// A sandbox in the directory `root` (kept by the caller) with one lower and an upper.
    pub fn at(root: &Path, context: Context) -> Self {
        let tree = Tree::new(root);
        let mut sandbox = Self {
            root: root.into(),
            context,
            lowers: Vec::new(),
            data: Vec::new(),
            upper: Some((tree.sub("upper"), root.join("work"))),
            merged: tree.sub("merged"),
            options: Vec::new(),
            patience: Duration::from_secs(120),
            max_descriptors: None,
            max_file_size: None,
            untouched: Vec::new(),
            mounted: None,
            kernel_disagrees: None,
            without_inodes: false,
        };
        tree.dir("upper").dir("work").dir("merged");
        sandbox.add_lower();
        sandbox
    }

    /// Who runs this test.
    pub fn context(&self) -> Context {
        self.context
    }

    /// The sandbox's own directory, for whatever else a test needs.
    pub fn scratch(&self) -> Tree {
        Tree::new(&self.root)
    }

    /// The bottom layer.
    pub fn lower(&self) -> Tree {
        self.lowers[0].clone()
    }

    /// Adds a lower layer on top of the others.
    pub fn add_lower(&mut self) -> Tree {
        let name = format!("lower{}", self.lowers.len());
        self.scratch().dir(&name);
        self.add_lower_at(self.root.join(name))
    }

    /// Adds the directory `path` as a lower layer on top of the others.
    pub fn add_lower_at(&mut self, path: impl Into<PathBuf>) -> Tree {
        let tree = Tree::new(path);
        self.lowers.push(tree.clone());
        tree
    }

    /// Adds a data-only layer below all others.
    pub fn add_data(&mut self) -> Tree {
        let name = format!("data{}", self.data.len());
        self.scratch().dir(&name);
        self.data.push(self.scratch().sub(name));
        self.data[self.data.len() - 1].clone()
    }

    /// The upper layer.
    pub fn upper(&self) -> Tree {
        self.upper.as_ref().expect("a sandbox with an upper").0.clone()
    }

    /// The work directory.
    pub fn work(&self) -> Tree {
        Tree::new(&self.upper.as_ref().expect("a sandbox with an upper").1)
    }

    /// The merged view.
    pub fn merged(&self) -> Tree {
        self.merged.clone()
    }

    /// Puts upper and work below `directory`, which is on another file system.
    pub fn upper_in(&mut self, directory: &Path) {
        let tree = Tree::new(directory);
        tree.dir("upper").dir("work");
        self.upper = Some((tree.sub("upper"), directory.join("work")));
    }

    /// Takes the layers as they are now for untouched, after a test changed them itself.
    pub fn forget_layers(&mut self) {
        self.untouched.clear();
    }

    /// Mounts read-only, from the lowers alone.
    pub fn without_upper(&mut self) {
        self.upper = None;
    }

    /// Adds a mount option, in the kernel's words.
    pub fn option(&mut self, option: &str) {
        self.options.push(option.into());
    }

    /// Gives the mount longer than two minutes.
    pub fn patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Lets the daemon open `max` descriptors only.
    pub fn max_descriptors(&mut self, max: u64) {
        self.max_descriptors = Some(max);
    }

    /// Lets no file that the daemon writes grow beyond `max` bytes.
    pub fn max_file_size(&mut self, max: u64) {
        self.max_file_size = Some(max);
    }

    /// How many descriptors the daemon has open; `None` with the kernel's overlayfs.
    pub fn descriptors(&self) -> Option<usize> {
        self.mounted.as_ref().and_then(Mount::descriptors)
    }

    /// Mounts with `option`, which the kernel has beside `trusted.` xattrs only; `None` where it is
    /// the backend and has it not.
    #[track_caller]
    pub fn mount_where_trusted(&mut self, option: &str) -> Option<Tree> {
        self.option(option);
        if self.context != Context::root {
            self.kernel_disagrees("the kernel has no such option beside userxattr");
            if backend() == Backend::Kernel {
                return None;
            }
        }
        Some(self.mount())
    }

    /// Makes `path` of a layer a metadata-only file of `size` bytes, with a redirect unless that is
    /// empty.
    pub fn metadata_only(&self, layer: &Tree, path: &str, size: u64, redirect: &str) {
        layer.file(path, "").truncate(path, size);
        layer.set_xattr(path, self.overlay_xattr("metacopy"), "");
        if !redirect.is_empty() {
            layer.set_xattr(path, self.overlay_xattr("redirect"), redirect);
        }
    }

    /// Leaves out the comparison with the kernel's mount, for a reason.
    pub fn kernel_disagrees(&mut self, reason: &'static str) {
        self.kernel_disagrees = Some(reason);
    }

    /// Leaves inode numbers out of the comparison with the kernel's mount.
    pub fn ignore_inodes(&mut self) {
        self.without_inodes = true;
    }

    /// Whether the kernel is the backend without `trusted.` xattrs, where a new name of a file
    /// copied up gets an inode number of its own until the next mount; the comparison is then
    /// left out. (ovlfuse gives both names one number.)
    pub fn kernel_splits_links(&mut self) -> bool {
        let splits = backend() == Backend::Kernel && self.context != Context::root;
        if splits {
            self.kernel_disagrees("the kernel contradicts itself about new names of lower files");
        }
        splits
    }

    /// The overlay xattr `name` with this context's prefix.
    pub fn overlay_xattr(&self, name: &str) -> String {
        self.context.overlay_xattr(name)
    }

    /// Mounts with the backend under test and gives the merged view.
    #[track_caller]
    pub fn mount(&mut self) -> Tree {
        self.mount_as(backend())
    }

    /// Mounts with `backend`, whatever is under test.
    #[track_caller]
    pub fn mount_as(&mut self, backend: Backend) -> Tree {
        assert!(self.mounted.is_none(), "mounted twice");
        if self.untouched.is_empty() {
            self.untouched = self.lowers.iter().chain(&self.data).map(layer_snapshot).collect();
        }
        self.mounted = Some(Mount::new(backend, self.spec(), &self.root.join("log")));
        self.merged()
    }

    /// What [`Sandbox::mount`] mounts.
    pub fn spec(&self) -> Spec {
        Spec {
            lowers: self.lowers.iter().map(|tree| tree.path().into()).collect(),
            data: self.data.iter().map(|tree| tree.path().into()).collect(),
            upper: self.upper.as_ref().map(|(tree, work)| (tree.path().into(), work.clone())),
            options: self.options.clone(),
            merged: self.merged.path().into(),
            context: self.context,
            patience: self.patience,
            max_descriptors: self.max_descriptors,
            max_file_size: self.max_file_size,
        }
    }

    /// Unmounts and waits for the daemon's end.
    #[track_caller]
    pub fn unmount(&mut self) {
        self.mounted.take().expect("a mounted sandbox").unmount();
    }

    /// Unmounts and mounts again.
    #[track_caller]
    pub fn remount(&mut self) -> Tree {
        self.unmount();
        self.mount()
    }

    /// Kills the daemon as a crash would, and unmounts what is left.
    #[track_caller]
    pub fn crash(&mut self) {
        self.mounted.take().expect("a mounted sandbox").crash();
    }

    /// The daemon's process id, while ovlfuse has the sandbox mounted.
    pub fn daemon(&self) -> Option<u32> {
        self.mounted.as_ref().and_then(Mount::pid)
    }

    /// What holds after every test: the lowers are untouched, work is clean, and the kernel's
    /// overlayfs shows the tree that the backend showed.
    #[track_caller]
    pub fn finish(&mut self) {
        let Some(_) = &self.mounted else { return };
        let view = Snapshot::of(self.merged.path(), self.view_options(backend()));
        self.unmount();
        self.assert_lowers_untouched();
        self.assert_work_clean();
        if let Some(reason) = self.kernel_disagrees {
            eprintln!("not compared with the kernel's mount: {reason}");
        } else if self.context == Context::user {
            let name = if self.upper.is_some() { "view" } else { "view-without-upper" };
            std::fs::write(self.root.join(name), view.to_text()).expect("a file for the view");
        } else {
            self.compare_with_kernel(&view);
        }
    }

    /// Without `trusted.` xattrs the kernel stores no origin, so that a file that was copied
    /// up gets another inode number at the next mount.
    fn view_options(&self, backend: Backend) -> Options {
        Options {
            without_inodes: self.without_inodes || self.context != Context::root,
            any_dotdot: backend == Backend::Kernel,
            ..Options::default()
        }
    }

    /// Mounts the layers with the kernel's overlayfs and compares what it shows with `view`.
    #[track_caller]
    pub fn compare_with_kernel(&self, view: &Snapshot) {
        let mut spec = self.spec();
        // What this leaves behind is for every kernel.
        spec.options.retain(|option| option != "redirect_dir=copy");
        let mount = Mount::new(Backend::Kernel, spec, &self.root.join("log"));
        let kernel = Snapshot::of(self.merged.path(), self.view_options(Backend::Kernel));
        mount.unmount();
        view.assert_same(&kernel, "the view before / the kernel's view of the upper left behind");
    }

    /// The root half of the `user` context: compares the view that the inner process wrote.
    #[track_caller]
    pub fn compare_as_root(&mut self) {
        if self.root.join("view-without-upper").exists() {
            self.upper = None;
        }
        let name = if self.upper.is_some() { "view" } else { "view-without-upper" };
        let Ok(text) = std::fs::read_to_string(self.root.join(name)) else { return };
        let is_lower = |index: &usize| self.root.join(format!("lower{index}")).exists();
        self.lowers = (0..)
            .take_while(is_lower)
            .map(|i| Tree::new(self.root.join(format!("lower{i}"))))
            .collect();
        self.compare_with_kernel(&Snapshot::parse(&text));
    }

    /// Asserts that no lower layer changed since the first mount, not even a change time.
    #[track_caller]
    pub fn assert_lowers_untouched(&self) {
        for (tree, before) in self.lowers.iter().chain(&self.data).zip(&self.untouched) {
            before.assert_same(
                &layer_snapshot(tree),
                &format!("{} before / after", tree.path().display()),
            );
        }
    }

    /// Asserts that work holds nothing but what the kernel leaves there: the shared whiteout.
    #[track_caller]
    pub fn assert_work_clean(&self) {
        let Some((_, work)) = &self.upper else { return };
        let work = Tree::new(work.join("work"));
        if self.context == Context::user {
            // The kernel's work/work has mode 000.
            work.chmod("", 0o700);
        }
        let left: Vec<String> =
            work.names("").into_iter().filter(|name| name != "incompat").collect();
        assert!(left.len() <= 1, "left in work: {left:?}");
        for name in left {
            assert!(name.starts_with('#') && work.is_whiteout(&name), "left in work: {name}");
        }
    }
}

#[track_caller]
fn layer_snapshot(tree: &Tree) -> Snapshot {
    Snapshot::of(tree.path(), Options { ctime: true, noatime: true, ..Options::default() })
}
