//! `ovlfuse demo`: layers in a temporary folder, mounted by the program itself,
//! changed, shown, unmounted and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{internal, say};
use crate::error::{Failure, MountError};

/// The layers before the mount: path below the folder, content.
const FILES: &[(&str, &str)] = &[
    ("base/etc/hostname", "base\n"),
    ("base/etc/motd", "Welcome to the base layer.\n"),
    ("base/usr/doc/guide", "Read me.\n"),
    ("base/usr/doc/licence", "Read me, too.\n"),
    ("app/etc/motd", "Welcome to the app layer.\n"),
    ("app/opt/app.conf", "colour = blue\n"),
];

/// The most bytes of an attribute's name list or value that are shown.
const XATTR_BYTES: usize = 4096;

/// Shows a mount from beginning to end.
///
/// # Errors
/// A system call on the sample files failed. The exit code is that of the mount
/// or the unmount where those fail.
pub fn run() -> Result<ExitCode, MountError> {
    let folder = tempfile::Builder::new().prefix("ovlfuse-demo-").tempdir();
    let folder = folder.map_err(|error| internal("demo: a temporary folder", &error))?;
    let demo = Demo { out: io::stdout(), merged: folder.path().join("merged"), folder };
    demo.prepare().map_err(|error| internal("demo: the sample layers", &error))?;
    let mounted = demo.mount()?;
    if mounted != ExitCode::SUCCESS {
        demo.clean_up()?;
        return Ok(mounted);
    }
    let shown = demo.show_changes().map_err(|error| internal("demo: the merged view", &error));
    let unmounted = demo.unmount()?;
    if unmounted != ExitCode::SUCCESS {
        demo.keep();
        return shown.map(|()| unmounted);
    }
    let shown = shown.and_then(|()| demo.show_upper());
    demo.clean_up()?;
    shown.map(|()| ExitCode::SUCCESS)
}

struct Demo {
    out: io::Stdout,
    merged: PathBuf,
    folder: TempDir,
}

impl Demo {
    /// The sample layers and the mount point.
    fn prepare(&self) -> io::Result<()> {
        for (path, content) in FILES {
            let file = self.folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap_or(&file))?;
            fs::write(file, content)?;
        }
        for dir in ["upper", "work", "merged"] {
            fs::create_dir(self.folder.path().join(dir))?;
        }
        self.heading("Two lower layers, an empty upper layer")?;
        self.line(format_args!("in {}", self.folder.path().display()))?;
        for layer in ["base", "app", "upper"] {
            self.tree(layer)?;
        }
        Ok(())
    }

    fn mount(&self) -> Result<ExitCode, MountError> {
        self.announce(
            "Mount them as one: app above base, changes go to upper",
            "ovlfuse mount --work work base:app:upper merged",
        )
        .map_err(|error| internal("demo: the output", &error))?;
        let layers = [self.path("base"), self.path("app"), self.path("upper")].map(escaped);
        ovlfuse(&[
            "mount".into(),
            "--work".into(),
            self.path("work").into(),
            layers.join(OsStr::new(":")),
            self.merged.clone().into(),
        ])
    }

    /// Unmounts, even if nobody reads the output any more.
    fn unmount(&self) -> Result<ExitCode, MountError> {
        if let Err(error) = self.announce("Unmount", "ovlfuse umount merged") {
            say(format_args!("demo: the output: {error}"));
        }
        ovlfuse(&["umount".into(), self.merged.clone().into()])
    }

    /// The merged view, before and after some changes.
    fn show_changes(&self) -> io::Result<()> {
        self.tree("merged")?;
        self.heading("The topmost layer that has a file provides it")?;
        self.command("cat merged/etc/motd")?;
        self.line(fs::read_to_string(self.merged.join("etc/motd"))?.trim_end())?;

        self.heading("Change a file of a lower layer: it is copied up first")?;
        self.command("echo changed >> merged/etc/hostname")?;
        let mut file = OpenOptions::new().append(true).open(self.merged.join("etc/hostname"))?;
        file.write_all(b"changed\n")?;
        drop(file);

        self.heading("Remove a file of a lower layer: a whiteout hides it")?;
        self.command("rm merged/opt/app.conf")?;
        fs::remove_file(self.merged.join("opt/app.conf"))?;

        self.heading("Replace a directory of a lower layer: the new one is opaque")?;
        self.command("rm -r merged/usr/doc; mkdir merged/usr/doc; echo new > merged/usr/doc/news")?;
        fs::remove_dir_all(self.merged.join("usr/doc"))?;
        fs::create_dir(self.merged.join("usr/doc"))?;
        fs::write(self.merged.join("usr/doc/news"), "new\n")?;

        self.heading("The merged view now")?;
        self.tree("merged")
    }

    /// The upper layer, and that the lower ones are what they were.
    fn show_upper(&self) -> Result<(), MountError> {
        let show = || {
            self.heading("What upper holds: only the changes, in the kernel's overlayfs format")?;
            self.tree("upper")?;
            self.heading("The lower layers are untouched")?;
            for (path, content) in FILES {
                let same = fs::read(self.path(path)).is_ok_and(|found| found == content.as_bytes());
                self.line(format_args!("{path}: {}", if same { "same" } else { "CHANGED" }))?;
            }
            Ok(())
        };
        show().map_err(|error: io::Error| internal("demo: the upper layer", &error))
    }

    /// Removes the folder, with the work directory that nobody may enter.
    fn clean_up(self) -> Result<(), MountError> {
        let path = self.folder.path().to_owned();
        make_removable(path.clone()).and_then(|()| self.folder.close()).map_err(|error| {
            let message = format!("demo: {} cannot be removed: {error}", path.display());
            MountError::new(Failure::Internal, message)
        })
    }

    /// Leaves the folder in place, because something may still be mounted in it.
    fn keep(self) {
        say(format_args!("demo: {} is left as it is", self.folder.keep().display()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn heading(&self, text: &str) -> io::Result<()> {
        writeln!(&self.out, "\n== {text}")
    }

    fn announce(&self, heading: &str, command: &str) -> io::Result<()> {
        self.heading(heading)?;
        self.command(command)
    }

    fn command(&self, text: &str) -> io::Result<()> {
        writeln!(&self.out, "   $ {text}")
    }

    fn line(&self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(&self.out, "   {text}")
    }

    /// Everything below the directory `top` of the folder, sorted.
    fn tree(&self, top: &str) -> io::Result<()> {
        let mut left = vec![(self.path(top), PathBuf::from(top))];
        while let Some((path, name)) = left.pop() {
            let metadata = path.symlink_metadata()?;
            self.line(description(&path, &name, &metadata)?)?;
            if metadata.is_dir() {
                let mut names = names(&path)?;
                names.sort_by(|a, b| b.cmp(a));
                left.extend(names.iter().map(|entry| (path.join(entry), name.join(entry))));
            }
        }
        Ok(())
    }
}

/// Runs this program with `args`.
fn ovlfuse(args: &[OsString]) -> Result<ExitCode, MountError> {
    let status = std::env::current_exe().and_then(|own| Command::new(own).args(args).status());
    let status = status.map_err(|error| internal("demo: ovlfuse itself", &error))?;
    Ok(match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    })
}

fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// One line of a tree: type, name, and what makes it special.
fn description(path: &Path, name: &Path, metadata: &Metadata) -> io::Result<String> {
    let kind = letter(metadata.file_type());
    let mut line = format!("{kind} {}", name.display());
    if metadata.file_type().is_char_device() {
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        line += &format!(
            "   {major}:{minor}{}",
            if (major, minor) == (0, 0) { " (whiteout)" } else { "" }
        );
    }
    for (name, value) in overlay_xattrs(path)? {
        line += &format!("   {name}={value}");
    }
    Ok(line)
}

/// The letter of ls(1).
fn letter(kind: FileType) -> char {
    if kind.is_dir() {
        'd'
    } else if kind.is_char_device() {
        'c'
    } else {
        '-'
    }
}

/// The overlay attributes of a file, as far as this user may see them.
fn overlay_xattrs(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut list = vec![0; XATTR_BYTES];
    match llistxattr(path, list.as_mut_slice()) {
        Ok(length) => list.truncate(length),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    }
    let names = list.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let overlay = names.filter(|name| name.contains(".overlay."));
    overlay.map(|name| Ok((name.to_string(), xattr_value(path, &name)?))).collect()
}

/// The value of an attribute: text, or the number of its bytes.
fn xattr_value(path: &Path, name: &str) -> io::Result<String> {
    let mut value = vec![0; XATTR_BYTES];
    let length = lgetxattr(path, name, value.as_mut_slice())?;
    value.truncate(length);
    Ok(match String::from_utf8(value) {
        Ok(text) if text.chars().all(|letter| letter.is_ascii_graphic()) => format!("\"{text}\""),
        _ => format!("({length} bytes)"),
    })
}

/// `path` with the characters that separate layers escaped.
fn escaped(path: PathBuf) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut text = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    OsString::from_vec(text)
}

/// Lets the owner into every directory below `top` (`work/work` has mode 000).
fn make_removable(top: PathBuf) -> io::Result<()> {
    let mut left = vec![top];
    while let Some(dir) = left.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_list_of_layers() {
        let path = PathBuf::from("/layers/a:b\\c,d");
        let list = escaped(path.clone());
        assert_eq!(crate::config::split::unescape_path(list.as_encoded_bytes()), path);
        assert_eq!(crate::config::split::split_escaped(list.as_encoded_bytes(), b':').len(), 1);
    }

    #[test]
    fn closed_directories_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("work/work").join("inner")).unwrap();
        let closed = Permissions::from_mode(0o000);
        fs::set_permissions(folder.path().join("work/work"), closed).unwrap();
        make_removable(folder.path().into()).unwrap();
        folder.close().unwrap();
    }

    #[test]
    fn a_tree_line_tells_the_type() {
        let metadata = Path::new("/dev/null").symlink_metadata().unwrap();
        let line = description(Path::new("/dev/null"), Path::new("null"), &metadata).unwrap();
        assert_eq!(line, "c null   1:3");
    }
}
