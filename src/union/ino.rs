//! Inode numbers of the merged view.
//!
//! FUSE has one st_dev for the whole mount, so numbers of several file systems
//! must not collide: when the layers lie on more than one, the file system's
//! index stands in the high bits (the kernel's `xino`, `fs/overlayfs/inode.c:
//! ovl_map_dev_ino`). On a single file system numbers are the real ones.

/// How real inode numbers become those of the merged view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InoMap {
    /// Bits that the index of the file system takes at the top of the number.
    bits: u32,
}

/// Set on numbers that did not fit and were hashed.
const HASHED: u64 = 1 << 63;

impl InoMap {
    /// A map for layers on `file_systems` different file systems.
    pub fn new(file_systems: usize) -> Self {
        let bits = match file_systems {
            0 | 1 => 0,
            // One bit more than the index needs stays free for `HASHED`.
            n => usize::BITS - (n - 1).leading_zeros() + 1,
        };
        Self { bits }
    }

    /// The number shown for inode `ino` of file system `fs` (0 is upper's).
    pub fn show(self, fs: u16, ino: u64) -> u64 {
        if self.bits == 0 {
            return ino;
        }
        let shift = u64::BITS - self.bits;
        if ino >> shift == 0 {
            return ino | u64::from(fs) << shift;
        }
        // A file system that uses the high bits itself: spread the numbers
        // over the upper half, where no unhashed number is.
        let mixed = (ino ^ u64::from(fs).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29) | HASHED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_keeps_its_numbers() {
        assert_eq!(InoMap::new(1).show(0, u64::MAX), u64::MAX);
    }

    #[test]
    fn several_file_systems_never_collide() {
        for n in [2usize, 3, 4, 5, 500] {
            let map = InoMap::new(n);
            let mut seen = std::collections::HashSet::new();
            for fs in 0..n as u16 {
                for ino in [1, 2, 0xffff_ffff, 1 << 40, (1 << 52) - 1] {
                    assert!(seen.insert(map.show(fs, ino)), "{n} file systems, fs {fs}, {ino}");
                }
            }
            assert!(seen.iter().all(|ino| ino & HASHED == 0));
            assert_eq!(map.show(0, 42), 42, "upper's numbers stay as they are");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_hashed_apart() {
        let map = InoMap::new(2);
        let (a, b) = (map.show(0, u64::MAX), map.show(1, u64::MAX));
        assert_ne!(a, b);
        assert_ne!(map.show(0, u64::MAX - 1), a);
        assert!(a & HASHED != 0 && b & HASHED != 0);
    }
}
