//! INIT: what is asked of the kernel before anything else.

use fuser::{InitFlags, KernelConfig};

/// The most bytes of one READ or WRITE.
const MAX_IO: u32 = 1 << 20;

/// What is asked of the kernel; each is used where it is offered.
const WANTED: [InitFlags; 8] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    // Else every write(2) asks for security.capability first.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Asks for all of it, access control lists if `acl`, and to let the kernel read files itself if
/// `passthrough`.
///
/// # Errors
/// This kernel has no passthrough.
pub fn negotiate(config: &mut KernelConfig, acl: bool, passthrough: bool) -> std::io::Result<()> {
    for flag in WANTED {
        if flag == InitFlags::FUSE_POSIX_ACL && !acl {
            continue;
        }
        if config.add_capabilities(flag).is_err() {
            log::debug!("this kernel's FUSE lacks {flag:?}");
        }
    }
    if let Err(nearest) = config.set_max_write(MAX_IO) {
        log::debug!("writes are limited to {nearest} bytes");
    }
    if passthrough { pass_through(config) } else { Ok(()) }
}

fn pass_through(config: &mut KernelConfig) -> std::io::Result<()> {
    // So this mount can still be a layer of the kernel's overlayfs.
    let stacked = config.set_max_stack_depth(1).is_ok();
    if stacked && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
        return Ok(());
    }
    Err(std::io::Error::other(
        "this kernel lacks FUSE passthrough, it came with Linux 6.9; leave out the option 'passthrough'",
    ))
}
