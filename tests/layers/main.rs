//! Layers as files: `diff`, `export`, `import`, `commit`, with friendly and hostile input.
//!
//! `tests/common/image.py` makes layer archives and images, also ones that no tool would make.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod changes;
mod hostile;
mod images;
