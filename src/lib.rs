//! `ovlfuse`: a userspace union file system that reads and writes the
//! on-disk format of the kernel's overlayfs.
//!
//! # Code map and dependency rule
//!
//! Each folder may use the ones listed behind it, and nothing else of the
//! crate (`tests/tidy.rs` checks it):
//!
//! | folder | holds | may use |
//! | --- | --- | --- |
//! | [`error`] | the start-up error with its exit code | |
//! | [`config`] | mount options to [`config::Config`], pure | error |
//! | [`sys`] | safe system calls, no overlay words; the only `unsafe` | |
//! | [`format`] | bytes on disk to values and back, no I/O | |
//! | [`union`] | decisions: lookup, merge, inode numbers; no I/O, no locks | format |
//! | [`layer`] | one layer's files: probes, directory descriptors, work, upper | sys, format, union, config, error |
//! | [`fs`] | state and locks; one method per request | layer, union, format, sys, config, error |
//! | [`fuse`] | the only folder that names `fuser`: unpack, call, reply; mounting | fs, layer, sys, config, error |
//! | [`image`] | layers as files: changes, archives, images; no mount | layer, union, format, sys, error |
//! | [`cli`] | clap commands, the call forms, daemonising | everything |
//!
//! [`format`]: mod@format

pub mod cli;
pub mod config;
pub mod error;
pub mod format;
pub mod fs;
pub mod fuse;
pub mod image;
pub mod layer;
pub mod sys;
pub mod union;
