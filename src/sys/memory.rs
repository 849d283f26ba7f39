//! Settings of the C library's allocator.
#![allow(unsafe_code)]

/// Suits a daemon whose many threads make and drop millions of small objects:
/// few arenas, and large blocks always mapped on their own, so that dropping
/// them gives the memory back. Call it before there are threads.
pub fn tune() {
    // SAFETY: mallopt(3) only changes settings; it refuses what it does not know.
    let done = unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2) & libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10)
    };
    if done == 0 {
        log::debug!("the allocator keeps its own settings");
    }
}

/// Gives free memory back to the system; takes milliseconds for each 10 MB.
pub fn trim() {
    // SAFETY: malloc_trim(3) touches free memory only.
    unsafe { libc::malloc_trim(0) };
}
