//! `-o` lists and layer stacks to a [`Config`].
//!
//! Every option either does something true or describes what happens anyway;
//! everything else is refused by name (`tables.rs`). Later options win over
//! earlier ones, empty items mean nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::split::{split_escaped, split_options, unescape, unescape_path};
use super::tables::{CHOICES, NO_OP_PREFIXES, NO_OPS, PASSTHROUGH, REFUSED, XATTR_PERMISSIONS};
use super::{
    Config, DEFAULT_INDEX_BYTES, DEFAULT_THREADS, FOR_EVER, Fsync, MAX_LOWERS, MountFlags,
    Passthrough, RedirectDir, Stored, Upper, Uuid, ViewOptions, ids,
};
use crate::error::{Failure, MountError};

/// The most reader threads that `threads=` may ask for.
pub const MAX_THREADS: usize = 256;

/// What the options said so far.
#[derive(Debug, Clone)]
pub struct Options {
    /// Lower layers, topmost first.
    lowers: Vec<PathBuf>,
    /// `lowers` came from `lowerdir=`, which `lowerdir+=` may not follow.
    lowers_complete: bool,
    /// Data-only layers, topmost first.
    data_lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    fsync: Fsync,
    uuid: Uuid,
    userxattr: bool,
    /// What was said about redirects, if anything.
    redirect_dir: Option<Option<RedirectDir>>,
    metacopy: bool,
    index: bool,
    fixed_lowers: bool,
    dot_wh: bool,
    stored: Option<Stored>,
    view: ViewOptions,
    /// Every owner and group is shown as 0 where nothing says otherwise.
    squash_to_root: bool,
    mount: MountFlags,
    no_open: bool,
    passthrough: Passthrough,
    threads: usize,
    /// Unknown options are only warned of (`-s` of mount(8)).
    sloppy: bool,
    debug: bool,
    warnings: Vec<String>,
}

impl Options {
    /// No options yet; `dot_wh` says whether `.wh.` names count unless `whiteouts=` says so.
    pub fn new(dot_wh: bool) -> Self {
        Self {
            lowers: Vec::new(),
            lowers_complete: false,
            data_lowers: Vec::new(),
            upper: None,
            work: None,
            fsync: Fsync::default(),
            uuid: Uuid::default(),
            userxattr: false,
            redirect_dir: None,
            index: false,
            fixed_lowers: false,
            metacopy: false,
            dot_wh,
            stored: None,
            view: ViewOptions::default(),
            squash_to_root: false,
            mount: MountFlags::default(),
            no_open: false,
            passthrough: Passthrough::Auto,
            threads: DEFAULT_THREADS,
            sloppy: false,
            debug: false,
            warnings: Vec::new(),
        }
    }

    /// Unknown options are warned of instead of refused from now on.
    pub fn tolerate_unknown(&mut self) {
        self.sloppy = true;
    }

    /// One reader thread only.
    pub fn single_thread(&mut self) {
        self.threads = 1;
    }

    /// Refuses every change when `read_only`.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.mount.read_only |= read_only;
    }

    /// Shows `fuse.SUBTYPE` as the file system type unless `subtype=` says otherwise.
    pub fn set_subtype(&mut self, subtype: &OsStr) {
        self.mount.subtype = subtype.into();
    }

    /// Whether `debug` was among the options.
    pub fn debug(&self) -> bool {
        self.debug
    }

    /// What a user should know about options that were accepted.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether an option named a lower or upper layer.
    pub fn has_layers(&self) -> bool {
        !self.lowers.is_empty() || self.upper.is_some()
    }

    /// Uses `source` as the mount table's source unless `fsname=` was given.
    pub fn default_fsname(&mut self, source: OsString) {
        self.mount.fsname.get_or_insert(source);
    }

    /// Takes `LOWER[:LOWER…]:UPPER`, bottom to top; with `read_only` all are lowers.
    ///
    /// # Errors
    /// An empty layer, or too few of them.
    pub fn set_stack(&mut self, stack: &OsStr, read_only: bool) -> Result<(), MountError> {
        let mut layers = merged_layers(stack)?;
        if !read_only {
            self.upper = layers.pop();
        }
        if layers.is_empty() {
            return Err(usage(format!(
                "'{}' is only one layer: give LOWER:UPPER, or --read-only to mount lower layers alone",
                Path::new(stack).display()
            )));
        }
        layers.reverse();
        self.lowers = layers;
        self.lowers_complete = true;
        self.mount.read_only |= read_only;
        Ok(())
    }

    /// Takes `LOWER[:LOWER…]`, bottom to top, with the upper layer `upper`.
    ///
    /// # Errors
    /// An empty layer.
    pub fn set_layers(&mut self, lowers: &OsStr, upper: PathBuf) -> Result<(), MountError> {
        self.lowers = merged_layers(lowers)?;
        self.lowers.reverse();
        self.lowers_complete = true;
        self.upper = Some(upper);
        Ok(())
    }

    /// Takes the work directory of `--work`.
    ///
    /// # Errors
    /// `workdir=` was given too.
    pub fn set_work(&mut self, dir: PathBuf) -> Result<(), MountError> {
        if self.work.is_some() {
            return Err(usage("--work and -o workdir= are the same: give one of them"));
        }
        self.work = Some(dir);
        Ok(())
    }

    /// Takes one `-o` list.
    ///
    /// # Errors
    /// An option that is unknown, malformed or impossible.
    pub fn apply(&mut self, list: &OsStr) -> Result<(), MountError> {
        for item in split_options(list.as_bytes()) {
            if !item.is_empty() {
                self.apply_item(item)?;
            }
        }
        Ok(())
    }

    fn apply_item(&mut self, item: &[u8]) -> Result<(), MountError> {
        let item = Item::parse(item);
        let known = self.apply_layer(&item)?
            || self.apply_behaviour(&item)?
            || self.apply_view(&item)?
            || self.apply_mount_flag(&item)?
            || self.apply_fixed(&item)?;
        if known {
            return Ok(());
        }
        if self.sloppy {
            self.warnings.push(format!("option '{item}' is unknown and ignored"));
            return Ok(());
        }
        Err(usage(format!("option '{item}' is unknown; `ovlfuse --help` lists the options")))
    }

    /// Options that name directories.
    fn apply_layer(&mut self, item: &Item<'_>) -> Result<bool, MountError> {
        match item.name {
            b"lowerdir" => self.set_lowers(item)?,
            b"lowerdir+" | b"datadir+" => self.add_lower(item)?,
            b"upperdir" => self.upper = Some(unescape_path(item.some_value()?)),
            b"workdir" => self.work = Some(unescape_path(item.some_value()?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `lowerdir=` replaces all lowers; an empty one forgets them (`ovl_parse_param_lowerdir`).
    fn set_lowers(&mut self, item: &Item<'_>) -> Result<(), MountError> {
        self.lowers.clear();
        self.data_lowers.clear();
        self.lowers_complete = false;
        if let Some(list) = item.value.filter(|list| !list.is_empty()) {
            (self.lowers, self.data_lowers) = layer_list("lowerdir=", list)?;
            self.lowers_complete = true;
        }
        Ok(())
    }

    fn add_lower(&mut self, item: &Item<'_>) -> Result<(), MountError> {
        let (name, path) = (shown(item.name), unescape_path(item.some_value()?));
        if self.lowers_complete {
            let what = format!("option '{name}' cannot follow 'lowerdir': use only one of them");
            return Err(usage(what));
        }
        let is_data = item.is_named("datadir+");
        if is_data && self.lowers.is_empty() {
            return Err(usage("option 'datadir+' cannot come before 'lowerdir+'"));
        }
        if !is_data && !self.data_lowers.is_empty() {
            let what = "option 'lowerdir+' cannot follow 'datadir+': those lie below the others";
            return Err(usage(what));
        }
        if is_data { &mut self.data_lowers } else { &mut self.lowers }.push(path);
        Ok(())
    }

    /// Options that change what the file system does.
    fn apply_behaviour(&mut self, item: &Item<'_>) -> Result<bool, MountError> {
        match (item.name, item.value) {
            (b"volatile", None) => self.fsync = Fsync::Volatile,
            (b"fsync", _) => self.fsync = item.one_of(FSYNC)?,
            (b"uuid", _) => self.uuid = item.one_of(UUID)?,
            (b"userxattr", None) => self.userxattr = true,
            (b"redirect_dir", _) => self.redirect_dir = Some(item.one_of(REDIRECT_DIR)?),
            (b"metacopy", _) => self.metacopy = item.one_of(METACOPY)?,
            (b"index", _) => self.index = item.one_of(INDEX)?,
            (b"whiteouts", _) => self.dot_wh = item.one_of(WHITEOUTS)?,
            (b"xattr_permissions", _) => self.stored = item.one_of(XATTR_PERMISSIONS)?,
            (b"xino", _) => self.set_xino(item)?,
            (b"threads", _) => self.threads = item.threads()?,
            (b"threaded", _) => self.threads = item.one_of(THREADED)?,
            (b"no_open", None) => self.no_open = true,
            (b"passthrough", None) => self.passthrough = Passthrough::On,
            (b"passthrough", _) => self.passthrough = item.one_of(PASSTHROUGH)?,
            (b"debug", None) => self.debug = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// fuse-overlayfs's options that change what is seen of the layers.
    fn apply_view(&mut self, item: &Item<'_>) -> Result<bool, MountError> {
        let view = &mut self.view;
        match (item.name, item.value) {
            (b"uidmapping", _) => view.uids.ranges = item.ranges()?,
            (b"gidmapping", _) => view.gids.ranges = item.ranges()?,
            (b"squash_to_uid", _) => view.uids.squash = Some(item.id()?),
            (b"squash_to_gid", _) => view.gids.squash = Some(item.id()?),
            (b"squash_to_root", None) => self.squash_to_root = true,
            (b"static_nlink", None) => view.static_nlink = true,
            (b"noacl", None) => view.acl = false,
            (b"noxattrs", _) => view.xattrs = item.one_of(NOXATTRS)?,
            (b"timeout", _) => view.timeout = item.seconds()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Inode numbers are always unique over all layers; `xino=on` promises fixed lowers as well
    /// (`fs/overlayfs/ovl_entry.h: ovl_allow_offline_changes`).
    fn set_xino(&mut self, item: &Item<'_>) -> Result<(), MountError> {
        let (unique, fixed_lowers) = item.one_of(XINO)?;
        self.fixed_lowers = fixed_lowers;
        if unique {
            return Ok(());
        }
        self.warnings.push(
            "option 'xino=off' has no effect when the layers are on several file systems: a FUSE \
             mount has one device number, so inode numbers must differ"
                .into(),
        );
        Ok(())
    }

    /// Options of the mount itself.
    fn apply_mount_flag(&mut self, item: &Item<'_>) -> Result<bool, MountError> {
        let flags = &mut self.mount;
        match (item.name, item.value) {
            (b"ro", None) => flags.read_only = true,
            (b"rw", None) => flags.read_only = false,
            (b"dev", None) => flags.dev = true,
            (b"nodev", None) => flags.dev = false,
            (b"suid", None) => flags.suid = true,
            (b"nosuid", None) => flags.suid = false,
            (b"exec", None) => flags.exec = true,
            (b"noexec", None) => flags.exec = false,
            (b"atime", None) => flags.atime = true,
            (b"noatime", None) => flags.atime = false,
            (b"nodiratime", None) => {
                if flags.atime {
                    self.warnings
                        .push("option 'nodiratime' has no effect without 'noatime'".into());
                }
            }
            (b"allow_other", None) => flags.allow_other = Some(true),
            (b"fsname", _) => flags.fsname = Some(unescape(item.some_value()?)),
            (b"subtype", _) => flags.subtype = unescape(item.some_value()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Options that do nothing, and options that are refused.
    fn apply_fixed(&self, item: &Item<'_>) -> Result<bool, MountError> {
        let refuse = |reason| Err(usage(format!("option '{item}' {reason}")));
        if let Some((_, reason)) = REFUSED.iter().find(|(name, _)| item.is_named(name)) {
            return refuse(reason);
        }
        if let Some(choice) = CHOICES.iter().find(|choice| item.is_named(choice.name)) {
            let value = item.value.unwrap_or_default();
            let is_value = |text: &str| text.as_bytes() == value;
            if let Some((_, reason)) = choice.refused.iter().find(|(text, _)| is_value(text)) {
                return refuse(reason);
            }
            if choice.accepted.iter().any(|text| is_value(text)) {
                return Ok(true);
            }
            let refused = choice.refused.iter().map(|(text, _)| *text);
            return Err(item.bad_value(choice.accepted.iter().copied().chain(refused)));
        }
        Ok(NO_OPS.iter().any(|name| item.is_named(name))
            || NO_OP_PREFIXES.iter().any(|prefix| item.name.starts_with(prefix.as_bytes())))
    }

    /// What is done about redirects: metadata-only files need them.
    fn redirects(&self) -> Result<Option<RedirectDir>, MountError> {
        let said = self.redirect_dir.flatten();
        match (self.metacopy, said) {
            (false, _) | (true, Some(RedirectDir::On)) => Ok(said),
            // Nothing is renamed where nothing is written.
            (true, Some(RedirectDir::Follow)) if self.upper.is_none() => Ok(said),
            (true, _) if self.redirect_dir.is_none() => Ok(Some(RedirectDir::On)),
            (true, _) => Err(usage(
                "option 'metacopy=on' needs redirect_dir=on: leave the other redirect_dir= out",
            )),
        }
    }

    /// The mount that was asked for, at `mountpoint`.
    ///
    /// # Errors
    /// No lower layer, or more than [`MAX_LOWERS`].
    pub fn into_config(self, mountpoint: PathBuf) -> Result<Config, MountError> {
        if self.lowers.is_empty() {
            return Err(usage(
                "there is no lower layer: give LOWER:UPPER to `ovlfuse mount`, or -o lowerdir=DIR",
            ));
        }
        let count = self.lowers.len() + self.data_lowers.len();
        if count > MAX_LOWERS {
            return Err(MountError::new(
                Failure::Layer,
                format!(
                    "there are {count} lower layers, and {MAX_LOWERS} is the most: merge some of them"
                ),
            ));
        }
        if mountpoint.starts_with(Path::new("/dev/fd")) {
            return Err(usage(format!(
                "{} as mount point: an already opened FUSE device is not supported, do not use \
                 drop_privileges",
                mountpoint.display()
            )));
        }
        let redirect_dir = self.redirects()?;
        let mut view = self.view;
        if self.squash_to_root {
            view.uids.squash.get_or_insert(0);
            view.gids.squash.get_or_insert(0);
        }
        if self.stored.is_some() && self.index {
            return Err(usage("option 'xattr_permissions' excludes index=on: leave out either"));
        }
        // They belong to the mode, which is then not the file's own.
        view.acl &= self.stored.is_none();
        let mut mount = self.mount;
        mount.read_only |= self.upper.is_none();
        Ok(Config {
            lowers: self.lowers,
            data_lowers: self.data_lowers,
            upper: self.upper.map(|dir| Upper { dir, work: self.work }),
            mountpoint,
            fsync: self.fsync,
            uuid: self.uuid,
            userxattr: self.userxattr,
            redirect_dir,
            metacopy: self.metacopy,
            index: self.index,
            fixed_lowers: self.fixed_lowers,
            dot_wh: self.dot_wh,
            stored: self.stored,
            view,
            mount,
            no_open: self.no_open,
            passthrough: self.passthrough,
            threads: self.threads,
            index_bytes: DEFAULT_INDEX_BYTES,
        })
    }
}

/// The values of `metacopy=`.
const METACOPY: &[(&str, bool)] = &[("off", false), ("on", true)];

/// The values of `fsync=`: the kernel's, then fuse-overlayfs's.
const FSYNC: &[(&str, Fsync)] = &[
    ("volatile", Fsync::Volatile),
    ("auto", Fsync::Auto),
    ("strict", Fsync::Strict),
    ("0", Fsync::Volatile),
    ("1", Fsync::Auto),
];

/// The values of `uuid=`.
const UUID: &[(&str, Uuid)] =
    &[("off", Uuid::Off), ("null", Uuid::Null), ("auto", Uuid::Auto), ("on", Uuid::On)];

/// The values of `redirect_dir=`; `off` makes none, and follows where the default does.
const REDIRECT_DIR: &[(&str, Option<RedirectDir>)] = &[
    ("off", None),
    ("nofollow", Some(RedirectDir::NoFollow)),
    ("follow", Some(RedirectDir::Follow)),
    ("on", Some(RedirectDir::On)),
    ("copy", Some(RedirectDir::Copy)),
];

/// The values of `index=`.
const INDEX: &[(&str, bool)] = &[("off", false), ("on", true)];

/// The values of `whiteouts=`: whether `.wh.` names count beside the kernel's whiteouts.
const WHITEOUTS: &[(&str, bool)] = &[("kernel", false), ("dot_wh", true)];

/// The values of `xino=`: whether unique numbers are asked for, which they always are, and
/// whether the lower layers are fixed.
const XINO: &[(&str, (bool, bool))] =
    &[("auto", (true, false)), ("on", (true, true)), ("off", (false, false))];

/// The values of fuse-overlayfs's `threaded=`, as numbers of threads.
const THREADED: &[(&str, usize)] = &[("0", 1), ("1", DEFAULT_THREADS)];

/// The values of fuse-overlayfs's `noxattrs`: whether extended attributes can be used.
const NOXATTRS: &[(&str, bool)] = &[("", false), ("0", true), ("1", false)];

/// One option: `name` or `name=value`.
struct Item<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Item<'a> {
    fn parse(item: &'a [u8]) -> Self {
        let mut halves = item.splitn(2, |&byte| byte == b'=');
        Self { name: halves.next().unwrap_or_default(), value: halves.next() }
    }

    fn is_named(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// The value, which must be there and not be empty.
    fn some_value(&self) -> Result<&'a [u8], MountError> {
        self.value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| usage(format!("option '{self}' needs a value")))
    }

    /// The meaning of the value by `table`.
    fn one_of<T: Copy>(&self, table: &[(&str, T)]) -> Result<T, MountError> {
        let value = self.value.unwrap_or_default();
        let found = table.iter().find(|(text, _)| text.as_bytes() == value);
        let names = table.iter().map(|(text, _)| *text);
        found.map(|&(_, meaning)| meaning).ok_or_else(|| self.bad_value(names))
    }

    /// The value as a number of threads.
    fn threads(&self) -> Result<usize, MountError> {
        let text = std::str::from_utf8(self.some_value()?).unwrap_or_default();
        let number = text.parse().ok().filter(|number| (1..=MAX_THREADS).contains(number));
        number
            .ok_or_else(|| usage(format!("option '{self}': give a number from 1 to {MAX_THREADS}")))
    }

    /// The value as ranges of ids.
    fn ranges(&self) -> Result<Vec<ids::Range>, MountError> {
        let text = std::str::from_utf8(self.some_value()?).unwrap_or_default();
        ids::ranges(text).ok_or_else(|| {
            usage(format!("option '{self}': give DISK:VIEW:COUNT, and more of them behind a ':'"))
        })
    }

    /// The value as a user or group id.
    fn id(&self) -> Result<u32, MountError> {
        let text = std::str::from_utf8(self.some_value()?).unwrap_or_default();
        let id = text.parse().ok().filter(|&id| id != u32::MAX);
        id.ok_or_else(|| usage(format!("option '{self}': give a number as id")))
    }

    /// The value as a time in seconds.
    fn seconds(&self) -> Result<Duration, MountError> {
        let text = std::str::from_utf8(self.some_value()?).unwrap_or_default();
        let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let time =
            time.ok_or_else(|| usage(format!("option '{self}': give a number of seconds")))?;
        Ok(time.min(FOR_EVER))
    }

    /// The error of a value that is none of `names`.
    fn bad_value<'b>(&self, names: impl Iterator<Item = &'b str>) -> MountError {
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        usage(format!("option '{self}': the values are {}", names.join(", ")))
    }
}

impl std::fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", shown(self.name))?;
        match self.value {
            Some(value) => write!(f, "={}", shown(value)),
            None => Ok(()),
        }
    }
}

/// The paths of a `:` list without data-only layers, in its order.
fn merged_layers(list: &OsStr) -> Result<Vec<PathBuf>, MountError> {
    match layer_list("the layers", list.as_bytes())? {
        (layers, data) if data.is_empty() => Ok(layers),
        _ => Err(usage(format!(
            "the layers '{}': give data-only layers ('::') with -o lowerdir= or datadir+=",
            Path::new(list).display()
        ))),
    }
}

/// The paths of a `:` list, in its order, and those behind a `::` each, which are data-only
/// layers; `what` names the list in errors.
fn layer_list(what: &str, list: &[u8]) -> Result<(Vec<PathBuf>, Vec<PathBuf>), MountError> {
    let pieces = split_escaped(list, b':');
    let text = shown(list);
    let at_an_end = |piece: Option<&&[u8]>| piece.is_none_or(|piece| piece.is_empty());
    let empty_pair = pieces.windows(2).any(|pair| pair.iter().all(|piece| piece.is_empty()));
    if at_an_end(pieces.first()) || at_an_end(pieces.last()) || empty_pair {
        return Err(usage(format!(
            "{what} '{text}' names an empty path: remove the ':' too many, or write '\\:' for a colon \
             in a name"
        )));
    }
    let first_gap = pieces.iter().position(|piece| piece.is_empty()).unwrap_or(pieces.len());
    let (lowers, data) = pieces.split_at(first_gap);
    if data.iter().step_by(2).any(|piece| !piece.is_empty()) {
        return Err(usage(format!(
            "{what} '{text}': a data-only layer ('::') is followed by data-only layers alone"
        )));
    }
    let paths = |pieces: &[&[u8]]| pieces.iter().map(|piece| unescape_path(piece)).collect();
    let data: Vec<&[u8]> = data.iter().skip(1).step_by(2).copied().collect();
    Ok((paths(lowers), paths(&data)))
}

fn shown(bytes: &[u8]) -> std::path::Display<'_> {
    Path::new(OsStr::from_bytes(bytes)).display()
}

fn usage(message: impl Into<String>) -> MountError {
    MountError::new(Failure::Usage, message)
}

#[cfg(test)]
mod tests;
