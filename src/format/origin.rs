//! The `origin` attribute: the file handle of what was copied up
//! (`struct ovl_fb` of `fs/overlayfs/overlayfs.h`).
//!
//! ```text
//! 00        version
//! fb        magic
//! len       of the whole value, in bytes
//! flags     1: big endian, 2: handle is valid on any endianness, 4: an upper object
//! type      of the handle
//! uuid[16]  of the file system, or zeros
//! fid[]     the handle's bytes
//! ```

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER_LEN: usize = 21;
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_ANY_ENDIAN: u8 = 2;
const FLAG_PATH_UPPER: u8 = 4;
const CPU_FLAG: u8 = if cfg!(target_endian = "big") { FLAG_BIG_ENDIAN } else { 0 };

/// A decoded origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file system's UUID, zeros when unknown.
    pub uuid: [u8; 16],
    /// The handle's type.
    pub kind: u8,
    /// The handle's bytes.
    pub handle: Vec<u8>,
}

impl Origin {
    /// The attribute's value; `None` when the handle does not fit in it.
    pub fn encode(&self) -> Option<Vec<u8>> {
        self.encode_with(CPU_FLAG)
    }

    /// The same for an object of upper: the value of the `upper` attribute.
    pub fn encode_upper(&self) -> Option<Vec<u8>> {
        self.encode_with(CPU_FLAG | FLAG_PATH_UPPER)
    }

    fn encode_with(&self, flags: u8) -> Option<Vec<u8>> {
        let len = u8::try_from(HEADER_LEN + self.handle.len()).ok()?;
        let mut out = vec![VERSION, MAGIC, len, flags, self.kind];
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.handle);
        Some(out)
    }

    /// Decodes a value; `None` for an empty one (an origin that nobody can
    /// name), for one of a later version, of the other endianness, of an upper
    /// object, and for a damaged one.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (header, handle) = value.split_at_checked(HEADER_LEN)?;
        let &[version, magic, len, flags, kind, ref uuid @ ..] = header else { return None };
        let known = FLAG_BIG_ENDIAN | FLAG_ANY_ENDIAN | FLAG_PATH_UPPER;
        let readable = flags & FLAG_ANY_ENDIAN != 0 || flags & FLAG_BIG_ENDIAN == CPU_FLAG;
        let valid = version == VERSION
            && magic == MAGIC
            && usize::from(len) == value.len()
            && flags & !known == 0
            && flags & FLAG_PATH_UPPER == 0;
        if !valid || !readable {
            return None;
        }
        Some(Self { uuid: uuid.try_into().ok()?, kind, handle: handle.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let origin = Origin { uuid: [7; 16], kind: 1, handle: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        let value = origin.encode().unwrap();
        assert_eq!(&value[..5], &[0, 0xfb, 29, CPU_FLAG, 1]);
        assert_eq!(Origin::decode(&value), Some(origin));
    }

    #[test]
    fn damaged_values_are_no_origin() {
        let good = Origin { uuid: [0; 16], kind: 1, handle: vec![9; 8] }.encode().unwrap();
        assert_eq!(Origin::decode(b""), None);
        assert_eq!(Origin::decode(&good[..good.len() - 1]), None);
        for (at, byte) in [(0, 1), (1, 0), (2, 3), (3, 0x80), (3, 4), (3, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Origin::decode(&bad), None, "byte {at} = {byte}");
        }
    }
}
