//! Inode numbers of the merged view.
//!
//! FUSE has one st_dev for the whole mount, so numbers of several file systems
//! must not collide: when the layers lie on more than one, the file system's
//! index stands in the high bits (the kernel's `xino`, `fs/overlayfs/inode.c:
//! ovl_map_dev_ino`). On a single file system numbers are the real ones.

/// How real inode numbers become those of the merged view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InoMap {
    /// Bits that the index of the file system takes at the top of the number,
    /// and one below them for numbers that do not fit.
    bits: u32,
}

impl InoMap {
    /// A map for the file systems with the indexes below `indexes`, of which
    /// `used` have layers.
    pub fn new(indexes: usize, used: usize) -> Self {
        let bits = match used {
            0 | 1 => 0,
            _ => (indexes - 1).ilog2() + 2,
        };
        Self { bits }
    }

    /// Whether numbers are the real ones.
    pub fn is_identity(self) -> bool {
        self.bits == 0
    }

    /// The number shown for inode `ino` of file system `fs` (0 is upper's).
    pub fn show(self, fs: u16, ino: u64) -> u64 {
        if self.bits == 0 {
            return ino;
        }
        let shift = u64::BITS - self.bits;
        let fs = u64::from(fs) << (shift + 1);
        if ino >> shift == 0 {
            return ino | fs;
        }
        // A file system that uses the high bits itself: its numbers are
        // scattered over a range of their own.
        let mixed = ino.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29) & ((1 << shift) - 1) | 1 << shift | fs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_keeps_its_numbers() {
        assert_eq!(InoMap::new(1, 1).show(0, u64::MAX), u64::MAX);
        assert_eq!(InoMap::new(2, 1).show(1, u64::MAX), u64::MAX);
    }

    #[test]
    fn several_file_systems_never_collide() {
        for n in [2usize, 3, 4, 5, 500] {
            let map = InoMap::new(n, n);
            let mut seen = std::collections::HashSet::new();
            for fs in 0..n as u16 {
                for ino in [1, 2, 0xffff_ffff, 1 << 40, (1 << 52) - 1] {
                    assert!(seen.insert(map.show(fs, ino)), "{n} file systems, fs {fs}, {ino}");
                }
            }
            assert_eq!(map.show(0, 42), 42, "upper's numbers stay as they are");
        }
        assert_eq!(InoMap::new(2, 2).show(1, 42), 1 << 63 | 42, "as the kernel's xino has it");
    }

    #[test]
    fn numbers_that_do_not_fit_are_scattered_apart() {
        let map = InoMap::new(2, 2);
        let (a, b) = (map.show(0, u64::MAX), map.show(1, u64::MAX));
        assert_ne!(a, b);
        assert_ne!(map.show(0, u64::MAX - 1), a);
        assert!(a >> 62 == 1 && b >> 62 == 3);
    }
}
