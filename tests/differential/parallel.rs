//! Threads on one mount, and what must hold when they are done.
//!
//! Each round builds layers, lets the threads create, rename, exchange, link, unlink and change
//! the same few names, and then checks that
//! - no token is lost: files that are only ever renamed and exchanged are all there, each once;
//! - no file is torn: what one thread wrote in one call is there as a whole or not at all;
//! - the live view is the view after a remount, and the kernel's view of the upper.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::allowed::{self, Circumstances};
use crate::case::{Layers, Place, same};
use crate::common::{Backend, Context};
use crate::rng::{self, Rng};
use crate::script::Script;
use crate::view::{Look, View};

/// Files that are moved about and never removed, in the lower layer.
const TOKENS: usize = 12;
/// The bytes of what is written in one call.
const RECORD: usize = 3000;
/// Calls of one thread in a round.
const CALLS: usize = 400;

/// Runs rounds until `duration` has passed.
pub fn run(place: &Place, duration: Duration, threads: usize) {
    let end = Instant::now() + duration;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut seed = u64::try_from(now.expect("after 1970").as_millis()).expect("small");
    let mut rounds = 0;
    while Instant::now() < end {
        seed += 1;
        round(place, seed, threads);
        rounds += 1;
    }
    eprintln!("parallel, {}: {rounds} rounds of {threads} threads", place.context.name());
}

/// Two lowers with three merged directories, tokens in them, and files that the threads fight for.
fn layers() -> Script {
    let mut text = String::from("lowers 2\n");
    for directory in ["d0", "d1", "d2"] {
        text += &format!("L0 dir {directory} 0755\nL1 dir {directory} 0755\n");
        for number in 0..4 {
            text += &format!("L{} file {directory}/f{number} 0644 {RECORD} 1\n", number % 2);
        }
    }
    for token in 0..TOKENS {
        text += &format!("L0 file d{}/t{token} 0644 20 {token}\n", token % 3);
    }
    Script::parse(&text)
}

fn round(place: &Place, seed: u64, threads: usize) {
    let home = tempfile::tempdir_in(&place.directory).expect("a directory for the round");
    let script = layers();
    let layers = Layers::build(&script, home.path(), place.context);
    let merged = &layers.spec.merged;
    let mount = layers.mount(Backend::Ovlfuse);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let rng = Rng::new(seed.wrapping_mul(1000) + u64::try_from(thread).expect("small"));
            scope.spawn(move || work(merged, rng));
        }
    });
    assert_tokens(merged, seed);
    assert_whole(merged, seed);
    let look = Look { inodes: place.context == Context::root, ..Look::default() };
    let live = View::of(merged, look);
    mount.unmount();
    let circumstances = Circumstances::of(&script, place.context);
    let allowed = |one: &_| allowed::merged(one, circumstances);
    for (what, backend) in
        [("live / remounted", Backend::Ovlfuse), ("live / the kernel's", Backend::Kernel)]
    {
        if let Some(found) = same(what, &live, &layers.view(backend, look), allowed) {
            panic!("round {seed}: {}", found.text);
        }
    }
}

/// Calls whose failures are all right: others were there first.
fn work(merged: &Path, mut rng: Rng) {
    for _ in 0..CALLS {
        let name = |rng: &mut Rng, kind: char, count: usize| {
            merged.join(format!("d{}/{kind}{}", rng.below(3), rng.below(count)))
        };
        let (one, two) = (name(&mut rng, 'f', 6), name(&mut rng, 'f', 6));
        let token = name(&mut rng, 't', TOKENS);
        match rng.below(12) {
            0 => drop(std::fs::remove_file(&one)),
            1 => drop(std::fs::rename(&one, &two)),
            2 => drop(renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)),
            3 => drop(std::fs::hard_link(&one, &two)),
            4 | 5 => drop(record(&one, &mut rng, true)),
            6 => drop(record(&one, &mut rng, false)),
            7 => drop(std::fs::set_permissions(&one, mode(&mut rng))),
            8 | 9 => move_token(&token, &mut rng, merged),
            10 => drop(std::fs::read_dir(one.parent().expect("a directory")).map(Iterator::count)),
            _ => drop(std::fs::read(&one).map(|bytes| {
                assert!([0, RECORD].contains(&bytes.len()), "{} is torn", one.display());
            })),
        }
    }
}

fn mode(rng: &mut Rng) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(rng.pick(&[0o644, 0o600, 0o666]))
}

/// Writes one record with one call, into a new file or one that is there.
fn record(path: &Path, rng: &mut Rng, create: bool) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(create).open(path)?;
    file.write_at(&[rng.pick(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"); RECORD], 0).map(drop)
}

/// Renames a token to its name in another directory, or exchanges it with another token.
fn move_token(token: &Path, rng: &mut Rng, merged: &Path) {
    let name = token.file_name().expect("a name");
    let to = merged.join(format!("d{}", rng.below(3))).join(name);
    let moved = renameat_with(CWD, token, CWD, to, RenameFlags::NOREPLACE);
    if moved.is_err() {
        // Another file of the same name cannot be there, so this is the token itself or nothing.
        drop(std::fs::set_permissions(token, mode(rng)));
    }
}

/// Every token is in one directory, with its content.
fn assert_tokens(merged: &Path, seed: u64) {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for directory in ["d0", "d1", "d2"] {
        for entry in std::fs::read_dir(merged.join(directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a plain name");
            if name.starts_with('t') {
                found.entry(name).or_default().push(entry.path());
            }
        }
    }
    for token in 0..TOKENS {
        let places = found.remove(&format!("t{token}")).unwrap_or_default();
        assert_eq!(places.len(), 1, "round {seed}: token {token} is at {places:?}");
        let content = std::fs::read(&places[0]).expect("a token");
        assert_eq!(content, rng::bytes(u64::try_from(token).expect("small"), 20), "round {seed}");
    }
}

/// Every other file holds one record.
fn assert_whole(merged: &Path, seed: u64) {
    for directory in ["d0", "d1", "d2"] {
        for entry in std::fs::read_dir(merged.join(directory)).expect("a directory") {
            let path = entry.expect("an entry").path();
            let is_token = path.file_name().expect("a name").as_encoded_bytes()[0] == b't';
            if !is_token {
                let bytes = std::fs::read(&path)
                    .unwrap_or_else(|error| panic!("round {seed}: {}: {error}", path.display()));
                assert_record(&path, &bytes);
            }
        }
    }
}

/// `bytes` are one record, or nothing when a file was made but not written.
fn assert_record(path: &Path, bytes: &[u8]) {
    let one_letter = bytes.iter().all(|byte| *byte == bytes[0]);
    let from_lower = bytes == rng::bytes(1, RECORD);
    let whole = bytes.is_empty() || (bytes.len() == RECORD && (one_letter || from_lower));
    assert!(whole, "{} is torn: {} bytes", path.display(), bytes.len());
}
