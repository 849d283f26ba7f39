//! Random scripts.
//!
//! The generator remembers which paths it has named and what they were meant to be, but models
//! nothing: a call that fails is as good a comparison as one that works.

mod calls;
mod entries;

use crate::common::Context;
use crate::rng::Rng;
use crate::script::{Line, Script, escape};

/// Names that most entries get, few so that they collide.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// The views are compared after this many calls, beside at the end.
const CALLS_PER_COMPARISON: usize = 40;

/// What a path was made as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Other,
}

/// What the generator knows while it writes a script.
struct Writer<'a> {
    rng: &'a mut Rng,
    context: Context,
    /// Whether many entries of the layers are hard links.
    linked_layers: bool,
    /// Whether files get new names. Without origins the kernel then makes two inodes of one file,
    /// and much has to be let pass.
    links: bool,
    lines: Vec<Line>,
    /// Escaped paths, as they were named.
    paths: Vec<(String, Kind)>,
    /// Whether objects get file attributes (chattr(1)), which make many calls fail.
    chattr: bool,
    /// Directories of the layers below the one being written.
    below: Vec<String>,
    /// Files that only calls shall meet.
    late: Vec<String>,
    seed: u64,
}

/// The script of `seed` with `calls` calls.
pub fn script(seed: u64, calls: usize, context: Context) -> Script {
    let mut rng = Rng::new(seed);
    let lowers = rng.pick(&[1, 1, 2, 2, 3, 3, 5, 8]);
    let options = options();
    let nested = std::env::var_os("OVLFUSE_DIFF_NESTED").is_some();
    let links = (context == Context::root && !nested) || rng.chance(40);
    let mut writer = Writer {
        rng: &mut rng,
        context,
        links,
        linked_layers: options.iter().any(|option| option == "index=on"),
        lines: Vec::new(),
        paths: Vec::new(),
        below: Vec::new(),
        late: Vec::new(),
        chattr: false,
        seed: 0,
    };
    writer.chattr = writer.rng.chance(15);
    let with_data = std::env::var_os("OVLFUSE_DIFF_DATA").is_some();
    let bare = !nested && (with_data || options.iter().any(|option| option == "metacopy=on"));
    let data = if bare { writer.bare_files(lowers, with_data) } else { 0 };
    writer.layers(lowers);
    for number in 1..=calls {
        writer.call();
        if number % CALLS_PER_COMPARISON == 0 {
            writer.push(&["compare"]);
        }
    }
    Script { lowers, nested, data, options, lines: writer.lines }
}

/// The mount options that the environment asks for.
fn options() -> Vec<String> {
    let list = std::env::var("OVLFUSE_DIFF_OPTIONS").unwrap_or_default();
    list.split(',').filter(|option| !option.is_empty()).map(String::from).collect()
}

impl Writer<'_> {
    fn push(&mut self, words: &[&str]) {
        self.lines.push(Line::new(words));
    }

    fn next_seed(&mut self) -> String {
        self.seed += 1;
        self.seed.to_string()
    }

    /// A name, mostly a short one.
    fn name(&mut self) -> String {
        if self.rng.chance(90) {
            return self.rng.pick(&NAMES).into();
        }
        let long = "N".repeat(255);
        let odd: [&[u8]; 6] =
            [long.as_bytes(), b"\xff\xfe", b".wh.a", b".wh..wh..opq", b"sp ace", b"#1f"];
        escape(self.rng.pick(&odd))
    }

    /// A directory that was named, or the root.
    fn dir(&mut self) -> String {
        let dirs: Vec<&String> = self
            .paths
            .iter()
            .filter(|(_, kind)| *kind == Kind::Dir)
            .map(|(path, _)| path)
            .collect();
        if dirs.is_empty() || self.rng.chance(20) {
            return ".".into();
        }
        dirs[self.rng.below(dirs.len())].clone()
    }

    /// A path in some directory, new or not.
    fn fresh(&mut self) -> String {
        let dir = self.dir();
        let name = self.name();
        // Deeper than four is not wanted.
        if dir == "." || dir.matches('/').count() >= 3 { name } else { format!("{dir}/{name}") }
    }

    /// A path, mostly one that was named as `kind`.
    fn path(&mut self, kind: Option<Kind>) -> String {
        let fitting: Vec<&String> = self
            .paths
            .iter()
            .filter(|(_, is)| kind.is_none_or(|kind| kind == *is))
            .map(|(path, _)| path)
            .collect();
        if fitting.is_empty() || self.rng.chance(7) {
            return if self.rng.chance(15) { ".".into() } else { self.fresh() };
        }
        // Later ones more often: what was just made or changed.
        let (one, two) = (self.rng.below(fitting.len()), self.rng.below(fitting.len()));
        fitting[if self.rng.chance(60) { one.max(two) } else { one }].clone()
    }

    fn remember(&mut self, path: &str, kind: Kind) {
        self.paths.retain(|(known, _)| known != path);
        self.paths.push((path.to_owned(), kind));
    }

    fn mode(&mut self) -> &'static str {
        self.rng.pick(&[
            "0755", "0644", "0600", "0777", "1777", "0700", "4755", "2755", "6755", "0444", "0000",
            "2770", "0555", "0666", "7777", "2640",
        ])
    }

    fn owner(&mut self) -> (&'static str, &'static str) {
        self.rng.pick(&[
            ("0", "0"),
            ("3001", "3001"),
            ("3002", "3050"),
            ("3001", "3050"),
            ("0", "3050"),
            ("3002", "-1"),
        ])
    }

    /// An xattr's name and value.
    fn xattr(&mut self) -> (&'static str, String) {
        let names = if self.context == Context::root {
            vec![
                "user.a",
                "user.b",
                "trusted.t",
                "security.s",
                "trusted.overlay.opaque",
                "trusted.overlay.x",
                "user.overlay.opaque",
                "user.overlay.x",
                "trusted.overlay.overlay.y",
                "trusted.overlay.",
                "user.\\xff",
                "security.capability",
                "trusted.overlay.origin",
                "system.posix_acl_access",
                "system.posix_acl_default",
                "bad",
            ]
        } else {
            vec![
                "user.a",
                "user.b",
                "user.overlay.opaque",
                "user.overlay.x",
                "user.overlay.overlay.y",
                "user.overlay.",
                "trusted.t",
                "trusted.overlay.opaque",
                "security.capability",
                "user.\\xff",
                "user.overlay.origin",
                "system.posix_acl_access",
                "system.posix_acl_default",
                "bad",
            ]
        };
        let name = self.rng.pick(&names);
        if name == "security.capability" {
            // Version 2, CAP_CHOWN permitted and effective.
            let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
            value.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            return (name, escape(&value));
        }
        let value = self.rng.pick(&["", "y", "value", "x"]);
        (name, if value.is_empty() { "v\\x00w".into() } else { value.into() })
    }

    fn acl(&mut self) -> Vec<String> {
        let which = self.rng.pick(&["access", "default", "access"]);
        let mode = self.rng.pick(&["0755", "0640", "0700"]);
        let user = self.rng.pick(&["3001", "3002"]);
        let permission = self.rng.pick(&["7", "4", "0", "6"]);
        [which, mode, user, permission].map(str::to_owned).to_vec()
    }

    fn time(&mut self) -> (&'static str, &'static str) {
        self.rng.pick(&[
            ("0", "0"),
            ("-1", "999999999"),
            ("1234567890", "123456789"),
            ("-2000000000", "5"),
            ("4294967296", "1"),
            ("1", "1"),
        ])
    }
}
