//! Forking, and what a process inherited.
//!
//! The wrappers make safe what is safe only at the start of a process: before
//! a thread and before a descriptor of its own exist.

#![allow(unsafe_code)]

use std::fs;
use std::io;

use rustix::process::Pid;

/// The first descriptor behind stdin, stdout and stderr.
const FIRST_INHERITED: libc::c_uint = 3;

/// Which side of a fork this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The caller; its new child has this id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Splits the process in two: `pid_t fork(void)`, fork(2).
///
/// # Errors
/// The system call's, and `EDEADLK` when the process has more than one thread:
/// the child would hold the locks of threads that it has not.
pub fn fork() -> io::Result<Fork> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: the process has one thread, so the child is a complete copy of it
    // and no lock or library state is left half changed (fork(2), Notes).
    let id = unsafe { libc::fork() };
    match id {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        id => Pid::from_raw(id).map(Fork::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Closes every descriptor but stdin, stdout and stderr:
/// `int close_range(unsigned first, unsigned last, int flags)`, close_range(2).
///
/// To be called first thing in `main`: what is open then was inherited. A daemon
/// that kept such a descriptor would keep its caller waiting for the end of a
/// pipe, or a file system from being unmounted.
///
/// # Errors
/// The system call's.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: called before the program opened anything, by contract, so no
    // value in this process owns or borrows one of these descriptors.
    let result = unsafe { libc::close_range(FIRST_INHERITED, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness is a thread of its own.
        let error = std::thread::scope(|scope| scope.spawn(|| fork().unwrap_err()).join().unwrap());
        assert_eq!(error.raw_os_error(), Some(libc::EDEADLK));
    }
}
