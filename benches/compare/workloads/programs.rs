//! Programs that people run, on trees of their own in a lower layer.
//!
//! "first" is right after mounting, "again" is the same once more.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::reads::read_whole;
use crate::Result;
use crate::layers::{Part, SOURCES, visit};
use crate::scene::{Access, Scene};

/// Modules of the standard library that drag in many others.
const IMPORTS: &str = "argparse,asyncio,concurrent.futures,csv,decimal,difflib,email.mime.text,\
                       fractions,http.server,inspect,json,logging.config,pydoc,smtplib,tarfile,\
                       unittest,urllib.request,xml.dom.minidom,zipfile";

/// Reads every file of the tree, as tar -c does.
pub fn tar(scene: &mut Scene) -> Result<()> {
    let ops = scene.layers.listing()?.files.len();
    let view = scene.tree(Access::Writable)?;
    for part in ["first", "again"] {
        scene.time(&view, part, ops, |root| {
            let mut outcome = Ok(());
            visit(root, |path, facts| {
                if facts.is_file() && outcome.is_ok() {
                    outcome = read_whole(path).map(drop);
                }
            })?;
            outcome
        })?;
    }
    view.close()
}

/// `ls -lR` of the tree.
pub fn ls(scene: &mut Scene) -> Result<()> {
    let ops = scene.layers.listing()?.all.len();
    let view = scene.tree(Access::Writable)?;
    for part in ["first", "again"] {
        scene.time(&view, part, ops, |root| run(Command::new("ls").arg("-lR").arg(root)))?;
    }
    view.close()
}

/// `cp -a` of a lower layer's tree, to another name in the view.
pub fn cp(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Folders)?;
    let files = scene.args.files;
    scene.time(&view, "", files, |root| {
        let from = root.join(Part::Folders.folder());
        run(Command::new("cp").arg("-a").arg(from).arg(root.join("copy")))
    })?;
    view.close()
}

/// `chown -R` of a lower layer's tree, to who owns it: copy-up all the same.
pub fn chown(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Folders)?;
    let files = scene.args.files;
    let owner = format!("{}:{}", rustix::process::geteuid(), rustix::process::getegid());
    scene.time(&view, "", files, |root| {
        run(Command::new("chown").arg("-R").arg(&owner).arg(root.join(Part::Folders.folder())))
    })?;
    view.close()
}

/// `git status` in a repository of a lower layer.
pub fn git_status(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Repository)?;
    let files = scene.args.files;
    for part in ["first", "again"] {
        scene.time(&view, part, files, |root| {
            run(git(&root.join(Part::Repository.folder())).args(["status", "--short"]))
        })?;
    }
    view.close()
}

/// `git clone` of that repository, to another name in the view.
pub fn git_clone(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Repository)?;
    let files = scene.args.files;
    scene.time(&view, "", files, |root| {
        let from = root.join(Part::Repository.folder());
        run(git(root).args(["clone", "--quiet", "--no-hardlinks"]).arg(from).arg("clone"))
    })?;
    view.close()
}

/// Starts python with many imports from a copy of its library in a lower layer.
pub fn python(scene: &mut Scene) -> Result<()> {
    let view = scene.part(Part::Python, Access::Writable)?;
    for part in ["first", "again"] {
        scene.time(&view, part, IMPORTS.split(',').count(), |root| {
            let library = root.join(Part::Python.folder());
            let code = format!(
                "import sys; sys.path[:] = [sys.argv[1], sys.argv[1] + '/lib-dynload']; import {IMPORTS}"
            );
            run(Command::new("python3").args(["-B", "-E", "-S", "-c", &code]).arg(library))
        })?;
    }
    view.close()
}

/// Compiles small C files that include many headers, one gcc after the other.
pub fn gcc(scene: &mut Scene) -> Result<()> {
    let view = scene.scratch(Part::Sources)?;
    let out = view.root.join("out");
    fs::create_dir(&out)?;
    scene.time(&view, "", SOURCES, |root| compile(&root.join(Part::Sources.folder()), &out))?;
    view.close()
}

fn compile(sources: &Path, out: &Path) -> Result<()> {
    (0..SOURCES).try_for_each(|i| {
        let (source, object) = (sources.join(format!("{i}.c")), out.join(format!("{i}.o")));
        run(Command::new("gcc").arg("-c").arg(source).arg("-o").arg(object))
    })
}

/// Two readers at once, each of one half of the tree's files.
pub fn two_readers(scene: &mut Scene) -> Result<()> {
    let files = scene.layers.listing()?.files.clone();
    let view = scene.tree(Access::Writable)?;
    let (one, two) = files.split_at(files.len() / 2);
    for part in ["first", "again"] {
        scene.time(&view, part, files.len(), |root| {
            let read = |half: &[std::path::PathBuf]| {
                half.iter().all(|file| read_whole(&root.join(file)).is_ok())
            };
            let both = std::thread::scope(|scope| {
                let other = scope.spawn(|| read(two));
                read(one) & other.join().unwrap_or(false)
            });
            if both { Ok(()) } else { Err("a reader failed".into()) }
        })?;
    }
    view.close()
}

/// git in `folder`, without anybody's configuration.
pub fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder);
    for setting in ["user.name=bench", "user.email=bench", "gc.auto=0"] {
        git.args(["-c", setting]);
    }
    // `safe.directory` counts in the environment and in files only.
    git.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
    git.env("GIT_CONFIG_VALUE_0", "*").env("GIT_CONFIG_GLOBAL", "/dev/null");
    git.env("GIT_CONFIG_NOSYSTEM", "1");
    git
}

/// Runs a program that must succeed; what it prints is thrown away.
pub fn run(command: &mut Command) -> Result<()> {
    let out = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let program = command.get_program().display();
    Err(format!("{program}: {}: {}", out.status, said.trim()).into())
}
