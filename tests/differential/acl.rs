//! POSIX ACLs as the xattr value that the kernel reads.

use super::script::Line;

/// Words `index` onwards, `access|default OCTAL ID PERM`, as an xattr's name and value:
/// owner, group and others from OCTAL, one named user ID with PERM, the mask open.
pub fn parse(line: &Line, index: usize) -> (&'static str, Vec<u8>) {
    let name = match line.word(index) {
        "default" => "system.posix_acl_default",
        _ => "system.posix_acl_access",
    };
    let mode = line.mode(index + 1);
    let id = u32::try_from(line.number(index + 2)).expect("a user id");
    let permission = line.mode(index + 3);
    let none = u32::MAX;
    let entries = [
        (0x01, mode >> 6 & 7, none),
        (0x02, permission & 7, id),
        (0x04, mode >> 3 & 7, none),
        (0x10, 7, none),
        (0x20, mode & 7, none),
    ];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        value.extend(u16::to_le_bytes(tag));
        value.extend(u16::try_from(permission).expect("three bits").to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    (name, value)
}
