//! The differences that are known and accepted, each with its reason.

use std::collections::BTreeMap;

use super::script::{Line, Script};
use super::view::Difference;
use crate::common::Context;

/// What else decides whether a difference is accepted.
#[derive(Clone, Copy)]
pub struct Circumstances {
    /// Whether copies in upper name their origin: not in `user.overlay.`, and no object of an overlay.
    pub origins: bool,
    /// Whether files of lower layers may have got new names.
    links: bool,
    /// Whether objects may be immutable or append-only.
    protected: bool,
    /// Whether the daemon does not know what is open.
    no_open: bool,
    /// Whether renaming a directory copies what is in it.
    copies: bool,
}

impl Circumstances {
    /// Those of `script` in `context`.
    pub fn of(script: &Script, context: Context) -> Self {
        let links = |line: &Line| ["link", "flink"].contains(&line.word(0));
        let origins = context == Context::root && !script.nested;
        let option = |name: &str| script.options.iter().any(|option| option == name);
        let calls = || script.lines.iter().filter(|line| !line.is_layer());
        Self {
            origins,
            links: calls().any(links),
            no_open: option("no_open"),
            copies: option("redirect_dir=copy"),
            protected: calls().any(|line| line.word(0) == "chattr"),
        }
    }

    /// Whether the kernel may have two inodes for two names of a file.
    fn splits_inodes(self) -> bool {
        !self.origins && self.links
    }
}

const KEPT_SET_ID: &str = "a new name of a lower file is an inode of its own in the kernel without \
    origin: a change through one does not clear set-id bits that were set through the other";

/// Whether the mode of a file, as text, lacks only set-id bits that the kernel kept.
fn kept_set_id(kernel: &str, ovlfuse: &str) -> bool {
    let mode = |text: &str| u32::from_str_radix(text, 8).ok();
    mode(kernel).zip(mode(ovlfuse)).is_some_and(|(kernel, ovlfuse)| {
        let lost = kernel & !ovlfuse;
        lost != 0 && lost & !0o6000 == 0 && ovlfuse & !kernel == 0
    })
}

/// The same for what stat gave, where nothing else may differ.
fn stat_kept_set_id(kernel: &str, ovlfuse: &str) -> bool {
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        (kernel.split(' ').collect(), ovlfuse.split(' ').collect());
    let ([kind, mode, rest @ ..], [our_kind, our_mode, our_rest @ ..]) = (&*theirs, &*ours) else {
        return false;
    };
    (kind, rest) == (our_kind, our_rest) && *kind != "Directory" && kept_set_id(mode, our_mode)
}

/// Why `ovlfuse` may answer the call of `line` otherwise than the kernel does.
pub fn call(
    line: &Line,
    kernel: &str,
    ovlfuse: &str,
    circumstances: Circumstances,
) -> Option<&'static str> {
    let name = line.word(0);
    if circumstances.splits_inodes() && stat_kept_set_id(kernel, ovlfuse) {
        return Some(KEPT_SET_ID);
    }
    if name == "fstat" && without(kernel, "nlink=") == without(ovlfuse, "nlink=") {
        let unlinked = ovlfuse.contains("nlink=0 ");
        if unlinked {
            return Some("an unlinked file of a lower layer: the kernel counts the lower's names");
        }
    }
    let changes = ["fchmod", "fchown", "futimens", "fsetxattr", "fremovexattr"].contains(&name);
    if changes && ["EIO", "ENOTDIR"].contains(&kernel) {
        return Some("the kernel tries to copy up a removed directory, and fails by accident");
    }
    // Renaming a file to another name of its own does nothing and checks nothing.
    let refused = ["ESTALE", "EINVAL"].contains(&kernel);
    if name == "rename" && circumstances.splits_inodes() && refused && ovlfuse == "ok" {
        return Some("without origin the kernel has two inodes for two names of a lower file");
    }
    if name == "rename" && kernel == "EEXIST" && ovlfuse == "ENOTEMPTY" {
        return Some("a target that is not empty: xfs has an errno of its own");
    }
    // Of a file it removes a default ACL without asking anybody.
    let no_acl = name.ends_with("removexattr") && line.word(2) == "system.posix_acl_default";
    let unasked = (no_acl && ovlfuse == "ok") || name == "access";
    let later = unasked || ["EACCES", "EISDIR", "ENOTDIR"].contains(&ovlfuse);
    if circumstances.protected && kernel == "EPERM" && later {
        return Some("the kernel does not know what is immutable, so it looks at the rest first");
    }
    let attributes = |text: &str| without(&without(text, "nlink="), "mtime=");
    if circumstances.no_open && attributes(kernel) == attributes(ovlfuse) {
        return Some(NO_OPEN);
    }
    // An ACL that is not there can be removed from a file in upper.
    let no_acl = name.ends_with("removexattr") && line.word(2).starts_with("system.posix_acl_");
    if circumstances.no_open && no_acl && (kernel, ovlfuse) == ("ok", "ENODATA") {
        return Some(NO_OPEN);
    }
    if circumstances.copies && without(kernel, "nlink=") == without(ovlfuse, "nlink=") {
        return Some(COPIES);
    }
    if name == "mapread" {
        return Some("a shared mapping made before copy-up sees the new data, in the kernel not");
    }
    if fewer_blocks(&blocks(kernel), &blocks(ovlfuse))
        && without(kernel, "blocks=") == without(ovlfuse, "blocks=")
    {
        return Some(FEWER_BLOCKS);
    }
    if ["list", "flist"].contains(&name) && only_phantoms(kernel, ovlfuse) {
        return Some(PHANTOM);
    }
    None
}

const ANOTHER_NUMBER: &str =
    "without origin the kernel gives a new name of a lower file another number";

const COPIES: &str = "a lower link is broken by copying the directory that one name is in";

const NO_OPEN: &str = "open(2) copies nothing up, and truncating what is empty is no change";

const FEWER_BLOCKS: &str = "reading a hole through a mapping allocates on tmpfs";

fn fewer_blocks(kernel: &str, ovlfuse: &str) -> bool {
    let count = |text: &str| text.parse::<u64>().ok();
    count(kernel).zip(count(ovlfuse)).is_some_and(|(kernel, ovlfuse)| ovlfuse < kernel)
}

/// The number of blocks in what stat gave.
fn blocks(text: &str) -> String {
    text.split(' ').find_map(|word| word.strip_prefix("blocks=")).unwrap_or("").to_owned()
}

const PHANTOM: &str = "a whiteout in a directory that nothing is below: the kernel lists it";

/// Whether `kernel` lists what `ovlfuse` lists, and beside it only what may be a whiteout.
fn only_phantoms(kernel: &str, ovlfuse: &str) -> bool {
    let ours: Vec<&str> = ovlfuse.split(' ').collect();
    let mut more = kernel.split(' ').filter(|entry| !ours.contains(entry));
    let theirs: Vec<&str> = kernel.split(' ').collect();
    ours.iter().all(|entry| theirs.contains(entry))
        && more.all(|entry| entry.ends_with(":CharacterDevice"))
}

/// Whether nothing can be compared after the call of `line`.
pub fn ends(line: &Line, kernel: &str, ovlfuse: &str, circumstances: Circumstances) -> bool {
    // The kernel copies up a removed fifo or device onto its whiteout, a removed directory onto a
    // new one, and so puts the name back.
    let changes = ["fchmod", "fchown", "futimens", "fsetxattr"].contains(&line.word(0));
    let brings_back = changes && kernel == "ok" && ovlfuse == "EEXIST";
    // One of the kernel's two inodes of a file has the owner and mode of before.
    let refused = |result: &str| ["EACCES", "EPERM"].contains(&result);
    // And a pipe that is open by one name has no reader by the other.
    let opens = ["open", "read", "write", "append"].contains(&line.word(0));
    let refused = |result: &str| refused(result) || (opens && result == "ENXIO");
    let differs = circumstances.splits_inodes() && kernel != ovlfuse;
    // What is immutable or has lost its data fails when it is changed or read.
    let opened = circumstances.no_open
        && (opens || ["chattr", "lsattr", "reopen"].contains(&line.word(0)))
        && ["EPERM", "ENOENT", "EIO"].contains(&kernel)
        && kernel != ovlfuse;
    let unlinked = circumstances.no_open && changes && kernel == "EEXIST" && ovlfuse == "ok";
    // What the kernel has no redirect for, a long path, is copied all the same.
    let copied = circumstances.copies && kernel == "EXDEV" && ovlfuse == "ok";
    brings_back
        || opened
        || unlinked
        || copied
        || (differs && (refused(kernel) || refused(ovlfuse)))
}

/// Leaves out the word of `text` that starts with `field`.
fn without(text: &str, field: &str) -> String {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.starts_with(field)).collect();
    words.join(" ")
}

impl Difference {
    fn is_kept_set_id(&self) -> bool {
        let file = self.field == "mode" && self.kind != "Directory";
        file && kept_set_id(&self.left, &self.right)
    }
}

/// Why merged views may differ so.
pub fn merged(difference: &Difference, circumstances: Circumstances) -> Option<&'static str> {
    if circumstances.splits_inodes() && difference.is_kept_set_id() {
        return Some(KEPT_SET_ID);
    }
    let field = difference.field.as_str();
    let lost = (field, &*difference.left, &*difference.right) == ("content", "ENOENT", "\"\"");
    let late = lost || ["nlink", "mtime", "same inode as", "attributes"].contains(&field);
    if circumstances.no_open && late {
        return Some(NO_OPEN);
    }
    if circumstances.copies && ["nlink", "same inode as"].contains(&field) {
        return Some(COPIES);
    }
    if difference.left == "stat=ENOENT" && difference.right == "absent" {
        return Some(PHANTOM);
    }
    if difference.field == "blocks" && fewer_blocks(&difference.left, &difference.right) {
        return Some(FEWER_BLOCKS);
    }
    if difference.field == "wrong in listing" && difference.right == "absent" {
        return Some("the kernel lists an old number for a merged directory without origin");
    }
    if difference.field == "same inode as" && !circumstances.origins {
        return Some(ANOTHER_NUMBER);
    }
    None
}

/// Why a view may differ so from that of the mount before.
pub fn forgotten(difference: &Difference) -> Option<&'static str> {
    let of_root = difference.path == "." && difference.field == "attributes";
    of_root.then_some("no mount looks for what makes the root immutable")
}

/// Why upper layers on disk may differ so.
pub fn upper(difference: &Difference, circumstances: Circumstances) -> Option<&'static str> {
    if circumstances.splits_inodes() && difference.is_kept_set_id() {
        return Some(KEPT_SET_ID);
    }
    let unmarked = difference.field.ends_with(".overlay.impure") && difference.left == "absent";
    if circumstances.splits_inodes() && unmarked {
        return Some(ANOTHER_NUMBER);
    }
    let both = difference.left != "absent" && difference.right != "absent";
    if difference.path == "." && difference.field.ends_with(".overlay.uuid") && both {
        return Some("it is a random number");
    }
    None
}

/// Why the link count of a directory may differ where other ones are copied up than by the kernel.
pub fn dir_links(kernel: &str, ovlfuse: &str) -> Option<&'static str> {
    let same = without(kernel, "nlink=") == without(ovlfuse, "nlink=");
    (same && kernel.starts_with("Directory ")).then_some("another directory was copied up")
}

/// Why upper layers may differ so with `index=on`. The entries of the index are compared apart.
pub fn aliases(difference: &Difference) -> Option<&'static str> {
    let Difference { field, left, right, .. } = difference;
    let entry = if left == "absent" { right } else { left };
    let is_alias = entry.contains(".overlay.nlink=") || entry.contains("type=Directory");
    if field == "entry" && [left, right].iter().any(|side| *side == "absent") && is_alias {
        return Some("FUSE does not tell by which name a file is opened: another one is in upper");
    }
    let follows = field == "nlink" || field == "same inode as" || field.ends_with(".overlay.nlink");
    // A redirect of a file without data names it by one of its names below.
    let ends = [".overlay.impure", ".overlay.redirect"];
    let follows = follows || ends.iter().any(|end| field.ends_with(end));
    follows.then_some("it follows from that")
}

/// Whether what is left in work, counted by name, may differ so: the kernel leaves a temporary
/// directory behind when it tries to copy up a removed directory.
pub fn work(kernel: &BTreeMap<String, usize>, ovlfuse: &BTreeMap<String, usize>) -> bool {
    let temporary = |left: &BTreeMap<String, usize>| left.get("#").copied().unwrap_or(0);
    let named = |left: &BTreeMap<String, usize>| {
        left.iter()
            .filter(|(name, _)| *name != "#")
            .map(|(n, c)| (n.clone(), *c))
            .collect::<Vec<_>>()
    };
    named(kernel) == named(ovlfuse) && temporary(ovlfuse) <= temporary(kernel)
}
