//! `ovlfuse diff`, `export`, `import` and `commit`: the work is done by [`crate::image`].

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{internal, say};
use crate::error::{Failure, MountError};
use crate::image::diff::Kind;
use crate::image::{Stop, Style, diff, export, fold, import};

type Result<T> = std::result::Result<T, MountError>;

/// 64 GiB: several times the largest images in common use.
const DEFAULT_MAX_SIZE: &str = "64G";

/// The commands on layers that are not mounted.
#[derive(Debug, Subcommand)]
pub enum LayerCommand {
    /// List what an upper layer changes: A added, C changed, D deleted
    #[command(after_help = "Example:\n  ovlfuse diff upper fixes base")]
    Diff {
        /// The layer whose changes are listed
        upper: PathBuf,
        /// The layers below it, topmost first
        #[arg(required = true)]
        lower: Vec<PathBuf>,
        #[command(flatten)]
        reading: Reading,
    },
    /// Write what an upper layer changes as a layer archive (OCI), the same bytes each time
    #[command(after_help = "SOURCE_DATE_EPOCH (seconds) is the latest time that is written.\n\n\
        Example:\n  ovlfuse export upper base -o layer.tar.gz")]
    Export {
        /// The layer whose changes are written
        upper: PathBuf,
        /// The layers below it, topmost first (needed where directories were renamed)
        lower: Vec<PathBuf>,
        /// The archive; .gz and .zst are compressed
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        reading: Reading,
    },
    /// Unpack an image to layer folders, and print them as `lowerdir=` wants them
    #[command(after_help = "Example:\n  podman save -o image.tar alpine\n  \
        layers=$(ovlfuse import image.tar alpine)\n  \
        ovlfuse mount -o \"lowerdir=$layers,upperdir=upper\" merged")]
    Import {
        /// What `docker save` or `podman save` wrote, or an OCI layout, in a folder or archive
        image: PathBuf,
        /// The new folder for the layers
        dest: PathBuf,
        /// Which one, when there are several images
        #[arg(long, value_name = "NAME")]
        image_name: Option<String>,
        /// Refuse images that are larger than this when decompressed (K, M, G, T)
        #[arg(long, value_name = "BYTES", default_value = DEFAULT_MAX_SIZE, value_parser = size)]
        max_size: u64,
        /// Write user.overlay. attributes, as the mount option does
        #[arg(long)]
        userxattr: bool,
    },
    /// Fold several layers into one new layer folder
    #[command(
        override_usage = "ovlfuse commit [OPTIONS] <UPPER>... <DEST>",
        after_help = "Example:\n  ovlfuse commit upper fixes folded"
    )]
    Commit {
        /// The layers, topmost first, and the new folder
        #[arg(required = true, num_args = 2.., value_name = "FOLDER")]
        folders: Vec<PathBuf>,
        #[command(flatten)]
        reading: Reading,
    },
}

/// How layers are read.
#[derive(Debug, Args)]
pub struct Reading {
    /// Which whiteouts count
    #[arg(long, value_enum, default_value_t = Whiteouts::Kernel)]
    whiteouts: Whiteouts,
    /// Read user.overlay. attributes, as the mount option does
    #[arg(long)]
    userxattr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whiteouts {
    /// The kernel's
    Kernel,
    /// Also files called .wh.NAME
    #[value(name = "dot_wh")]
    DotWh,
}

/// Does it.
pub fn run(command: &LayerCommand) -> Result<()> {
    match command {
        LayerCommand::Diff { upper, lower, reading } => {
            let changes = diff::list(&stack(upper, lower), reading.style()?)?;
            print(changes.iter().map(|(path, kind)| {
                let letter: &[u8] = match kind {
                    Kind::Added => b"A ",
                    Kind::Changed => b"C ",
                    Kind::Deleted => b"D ",
                };
                [letter, path, b"\n"].concat()
            }))
        }
        LayerCommand::Export { upper, lower, output, reading } => {
            let style = reading.style()?;
            let written = export::write(&stack(upper, lower), output, source_date_epoch()?, style)?;
            if written.sockets > 0 {
                say(format_args!("warning: {} sockets were left out", written.sockets));
            }
            let export::Written { diff_id, digest, size, .. } = written;
            let lines = format!("diff-id {diff_id}\ndigest {digest}\nsize {size}\n");
            print([lines.into_bytes()].into_iter())
        }
        LayerCommand::Import { image, dest, image_name, max_size, userxattr } => {
            let style = Style::new(*userxattr, false, stop_on_signals()?);
            let bar = progress_bar();
            let count = |bytes, total| {
                bar.set_length(total);
                bar.inc(bytes);
            };
            let done =
                import::unpack(image, image_name.as_deref(), dest, *max_size, &style, &count);
            bar.finish_and_clear();
            let done = done?;
            warn_of(&done.lost);
            print([lowerdir(&done.layers)?].into_iter())
        }
        LayerCommand::Commit { folders, reading } => match folders.split_last() {
            Some((dest, layers)) => fold::fold(layers, dest, reading.style()?),
            None => Ok(()),
        },
    }
}

impl Reading {
    fn style(&self) -> Result<Style> {
        Ok(Style::new(self.userxattr, self.whiteouts == Whiteouts::DotWh, stop_on_signals()?))
    }
}

fn stack(upper: &Path, lower: &[PathBuf]) -> Vec<PathBuf> {
    std::iter::once(upper.to_owned()).chain(lower.iter().cloned()).collect()
}

/// A signal ends the work at the next file, so that nothing half done is left.
fn stop_on_signals() -> Result<Stop> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|error| internal("signals", &error))?;
    }
    Ok(Stop(flag))
}

/// How much of the image was read, on a terminal only.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(error) => {
            log::debug!("the progress bar's template: {error}");
            bar
        }
    }
}

fn warn_of(lost: &crate::image::Lost) {
    let mut parts = Vec::new();
    if lost.owners > 0 {
        parts.push(format!(
            "{} files belong to you instead of their owners, without set-id bits",
            lost.owners
        ));
    }
    if lost.devices > 0 {
        parts.push(format!("{} device nodes were left out", lost.devices));
    }
    if lost.xattrs > 0 {
        parts.push(format!("{} extended attributes could not be set", lost.xattrs));
    }
    if !parts.is_empty() {
        say(format_args!("warning: {}", parts.join("; ")));
    }
}

/// The layers as the value of `lowerdir=`, with a line's end.
fn lowerdir(layers: &[PathBuf]) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    for layer in layers {
        let real = layer.canonicalize().map_err(|error| internal("the new layers", &error))?;
        if !line.is_empty() {
            line.push(b':');
        }
        for &byte in real.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                line.push(b'\\');
            }
            line.push(byte);
        }
    }
    line.push(b'\n');
    Ok(line)
}

fn source_date_epoch() -> Result<Option<i64>> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    let what = || "SOURCE_DATE_EPOCH is no number of seconds; correct or unset it";
    number.map(Some).ok_or_else(|| MountError::new(Failure::Usage, what()))
}

/// `64G`, `1024`…: bytes.
fn size(text: &str) -> std::result::Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, unit)) if !unit.is_ascii_digit() => {
            let power = "KMGT".find(unit.to_ascii_uppercase());
            (&text[..at], 10 * (power.ok_or("the unit is none of K, M, G, T")? as u32 + 1))
        }
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "it is no number of bytes")?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".into())
}

fn print(lines: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let write = || {
        for line in lines {
            out.write_all(&line)?;
        }
        out.flush()
    };
    write().map_err(|error| internal("the result cannot be printed", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("1023", 1023), ("2k", 2048), ("64G", 64 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "G", "-1", "1.5G", "1X", "99999999999T", "1é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
