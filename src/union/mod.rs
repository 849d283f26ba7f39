//! The union's decisions: what a name resolves to, how directories merge,
//! which inode number an object shows.
//!
//! Pure: no descriptor, no system call, no lock. [`crate::layer`] gathers the
//! facts, [`crate::fs`] acts on the decisions.

pub mod ino;
pub mod listing;
pub mod lookup;
pub mod path;

/// A layer's place in the stack: 0 is the upper (also when there is none), the
/// lowers follow from the topmost (1) down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u16);

impl LayerId {
    /// The writable layer.
    pub const UPPER: Self = Self(0);

    /// Whether this is the writable layer.
    pub fn is_upper(self) -> bool {
        self == Self::UPPER
    }
}
