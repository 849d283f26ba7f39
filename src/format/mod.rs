//! The bytes that overlayfs keeps on disk, to values and back. No I/O here.
//!
//! The layout is the kernel's (`fs/overlayfs/overlayfs.h`, `fs/overlayfs/util.c`);
//! `docs/FORMAT.md` describes it.

pub mod acl;
pub mod dot_wh;
pub mod index;
pub mod names;
pub mod origin;
pub mod override_stat;
pub mod protattr;
pub mod redirect;

pub use names::{Namespace, OverlayName};
pub use redirect::Redirect;
