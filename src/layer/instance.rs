//! The identifier that an overlay keeps on its upper root (`overlay.uuid`).
//!
//! It is made at the first mount of a new upper and kept from then on
//! (`fs/overlayfs/util.c: ovl_init_uuid_xattr`).

use super::Upper;
use crate::config::Uuid;
use crate::format::OverlayName;
use crate::sys::{At, Result};

/// Gives a new upper its identifier, if `uuid` asks for one.
///
/// # Errors
/// Those of reading and setting an attribute, and of the kernel's random numbers.
pub fn identify(upper: &Upper, uuid: Uuid) -> Result<()> {
    let root = At::fd(upper.root());
    let known = || upper.is_marked(root, OverlayName::Uuid);
    // An upper that was used without one stays so.
    let old = || upper.is_marked(root, OverlayName::Impure);
    let wanted = match uuid {
        Uuid::Off | Uuid::Null => false,
        Uuid::On => !known()?,
        Uuid::Auto => !known()? && !old()?,
    };
    if wanted { upper.mark(root, OverlayName::Uuid, &random()?) } else { Ok(()) }
}

/// A random UUID (version 4 of RFC 9562), as bytes.
fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}
