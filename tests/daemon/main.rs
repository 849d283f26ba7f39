//! The command line, mounted for real: detaching, the mount table, signals, unmounting, the call
//! forms, refusals.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod forms;
mod life;
mod owners;
mod refresh;
mod refusals;
