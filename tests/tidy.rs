//! The rules of the source tree that no compiler checks.
//!
//! The layering is read from the table in `src/lib.rs`, so that table and code cannot drift apart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files longer than this want to be two files.
const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The folder of `src` it belongs to, or its stem directly in `src`.
    fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src").ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        Some(first.trim_end_matches(".rs").to_owned())
    }

    /// Lines with their numbers, comments left out, up to the unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut todo: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries =
                fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            todo.extend(
                entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
            found.push(Source { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Fails with one line per violation.
fn assert_none(violations: Vec<String>, rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n{}", violations.join("\n"));
}

fn violations(sources: &[Source], wrong: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code().filter(|(_, line)| wrong(source, line)) {
            found.push(format!("{}:{number}: {}", source.path.display(), line.trim()));
        }
    }
    found
}

/// `| [`folder`] | holds | may use |` of `src/lib.rs`: folder to what it may use.
fn layering() -> BTreeMap<String, Vec<String>> {
    let lib = sources(&["src/lib.rs"]).remove(0);
    let rows = lib.text.lines().filter(|line| line.starts_with("//! | [`"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_start_matches("//! |").split('|').map(str::trim).collect();
        let folder = cells[0].trim_matches(['[', ']', '`']).to_owned();
        let uses =
            cells[2].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        (folder, uses.collect())
    })
    .collect()
}

/// The modules of the crate that a line of code names.
fn modules_named(line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for part in line.split("crate::").skip(1) {
        let names = part.strip_prefix('{').map_or(part, |group| group);
        let list: Vec<&str> =
            if part.starts_with('{') { names.split(',').collect() } else { vec![names] };
        for name in list {
            let name: String =
                name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.push(name);
        }
    }
    named
}

#[test]
fn nothing_imports_upwards() {
    let layering = layering();
    assert!(layering.len() >= 8, "the table of src/lib.rs was not understood: {layering:?}");
    let wrong = |source: &Source, line: &str| {
        let Some(module) = source.module() else { return false };
        let Some(allowed) = layering.get(&module) else { return false };
        let everything = allowed.iter().any(|name| name == "everything");
        let known = modules_named(line).into_iter().filter(|name| layering.contains_key(name));
        known.into_iter().any(|name| name != module && !everything && !allowed.contains(&name))
    };
    assert_none(
        violations(&sources(&["src"]), wrong),
        "imports that the table in src/lib.rs does not allow",
    );
}

#[test]
fn every_folder_is_in_the_table() {
    let layering = layering();
    let missing: Vec<String> = sources(&["src"])
        .iter()
        .filter_map(Source::module)
        .filter(|module| module != "main" && module != "lib" && !layering.contains_key(module))
        .collect();
    assert_none(missing, "modules that the table in src/lib.rs does not name");
}

#[test]
fn only_fuse_names_fuser() {
    let wrong = |source: &Source, line: &str| {
        source.module().as_deref() != Some("fuse")
            && (line.contains("fuser::") || line.contains("use fuser"))
    };
    assert_none(violations(&sources(&["src"]), wrong), "`fuser` outside src/fuse");
}

#[test]
fn only_sys_is_unsafe() {
    let wrong = |source: &Source, line: &str| {
        let names = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"];
        source.module().as_deref() != Some("sys") && names.iter().any(|name| line.contains(name))
    };
    assert_none(violations(&sources(&["src"]), wrong), "`unsafe` outside src/sys");
}

/// Statements with the number of their first line; a statement ends at `;`, `{` or `}`.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in source.code() {
        match found.last_mut().filter(|_| open) {
            Some((_, text)) => text.push_str(line.trim()),
            None => found.push((number, line.trim().to_owned())),
        }
        open = !line.trim_end().ends_with([';', '{', '}']);
    }
    found
}

#[test]
fn no_result_is_discarded() {
    let mut discarded = Vec::new();
    for source in sources(&["src"]) {
        for (number, statement) in statements(&source) {
            let named = statement.starts_with("let ")
                || statement.starts_with("return ")
                || statement.contains(" = ");
            // fuser answers a request with `reply.ok()`.
            let dropped =
                statement.ends_with(".ok();") && !named && !statement.starts_with("reply.");
            if dropped || statement.starts_with("let _ =") || statement.starts_with("_ = ") {
                discarded.push(format!("{}:{number}: {statement}", source.path.display()));
            }
        }
    }
    assert_none(discarded, "discarded results");
}

#[test]
fn files_are_short() {
    let long = sources(&["src", "tests", "benches"]).into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > MAX_LINES).then(|| format!("{}: {lines} lines", source.path.display()))
    });
    assert_none(long.collect(), "files of more than 600 lines");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
        ["todo", "!("].concat(),
    ];
    let mut found = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        for (index, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!("{}:{}: {}", source.path.display(), index + 1, line.trim()));
            }
        }
    }
    assert_none(found, "left for later");
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources(&["src", "tests", "benches"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"));
    assert_none(
        silent.map(|source| source.path.display().to_string()).collect(),
        "files without a module comment",
    );
}

/// `docs/CHECKLIST.md` names files of the repository, and tests as `FILE: NAME, NAME`.
#[test]
fn every_test_of_the_checklist_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("docs/CHECKLIST.md")).expect("docs/CHECKLIST.md");
    let is_path = |span: &&str| ["tests/", "src/"].iter().any(|folder| span.starts_with(folder));
    let mut missing = Vec::new();
    for span in list.split('`').skip(1).step_by(2).filter(is_path) {
        let (path, names) = span.split_once(": ").unwrap_or((span, ""));
        let path = root.join(path);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let is_there = |name: &&str| {
            text.contains(&format!("fn {name}(")) || text.contains(&format!("] {name}: "))
        };
        let names = names.split(", ").filter(|name| !name.is_empty());
        missing.extend(names.filter(|name| !is_there(name)).map(|name| format!("{span}: {name}")));
        if !path.exists() {
            missing.push(span.to_owned());
        }
    }
    assert_none(missing, "docs/CHECKLIST.md names what is not there");
}
