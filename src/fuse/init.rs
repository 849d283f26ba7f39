//! INIT: what is asked of the kernel before anything else.

use crate::config::Passthrough;
use fuser::{InitFlags, KernelConfig};

/// The most bytes of one READ or WRITE.
const MAX_IO: u32 = 1 << 20;

/// What is asked of the kernel; each is used where it is offered.
const WANTED: [InitFlags; 9] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    // Else every write(2) asks for security.capability first.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // For files that are open past the page cache.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// What mounts differ in.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Access control lists are enforced.
    pub acl: bool,
    /// The kernel opens files without asking.
    pub no_open: bool,
}

/// Asks for all of it.
pub fn negotiate(config: &mut KernelConfig, wishes: Wishes) {
    for flag in WANTED {
        let unwanted = match flag {
            InitFlags::FUSE_POSIX_ACL => !wishes.acl,
            // Without OPEN nobody would truncate.
            InitFlags::FUSE_ATOMIC_O_TRUNC => wishes.no_open,
            _ => false,
        };
        if unwanted {
            continue;
        }
        if config.add_capabilities(flag).is_err() {
            log::debug!("this kernel's FUSE lacks {flag:?}");
        }
    }
    if let Err(nearest) = config.set_max_write(MAX_IO) {
        log::debug!("writes are limited to {nearest} bytes");
    }
}

/// Asks whether files can be handed to the kernel, to be written too unless all is `read_only`, if
/// they are to be; the answer.
///
/// # Errors
/// They must be, and this kernel has no passthrough.
pub fn pass_through(
    config: &mut KernelConfig,
    wanted: Passthrough,
    read_only: bool,
) -> std::io::Result<bool> {
    if wanted == Passthrough::Off {
        return Ok(false);
    }
    // Before Linux 6.13 the kernel did not notice that a file grew; this came with 6.15.
    let writes = config.capabilities().contains(InitFlags::FUSE_REQUEST_TIMEOUT);
    // So this mount can still be a layer of the kernel's overlayfs.
    let stacked = config.set_max_stack_depth(1).is_ok();
    if (writes || read_only)
        && stacked
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
    {
        return Ok(true);
    }
    if wanted == Passthrough::Auto {
        return Ok(false);
    }
    Err(std::io::Error::other(
        "this kernel lacks FUSE passthrough, it came with Linux 6.9, for files that are written with 6.15; leave out the option 'passthrough'",
    ))
}
