//! What the mounted tests share: sandboxes, mounts, contexts, snapshots.
//!
//! Every test that mounts runs against one of two *backends*: `ovlfuse`, or
//! with `OVLFUSE_TEST_BACKEND=kernel` the kernel's overlayfs, which proves
//! that what the test expects is what the kernel does. It runs in one or more
//! *contexts*: as root, inside a user namespace, or as an ordinary user
//! through fusermount3. [`context`] tells how. `OVLFUSE_TEST_OPTIONS` are mount
//! options that every mount of ovlfuse gets as well.

// Each test crate uses its own part of what is here.
#![allow(dead_code, unused_imports)]

pub mod caller;
pub mod context;
pub mod debian;
pub mod dirents;
pub mod mount;
pub mod sandbox;
pub mod scratch;
#[macro_use]
pub mod scripts;
pub mod snapshot;
pub mod sys;
pub mod tools;
pub mod tree;
pub mod wait;

pub use caller::Caller;
pub use context::{Backend, Context, backend};
pub use sandbox::Sandbox;
pub use tree::Tree;

use std::fmt::Debug;
use std::io;

/// Asserts that `result` is the error `expected`.
#[track_caller]
pub fn assert_errno<T: Debug, E: Into<io::Error>>(
    result: Result<T, E>,
    expected: rustix::io::Errno,
) {
    let wanted = name_of(expected.raw_os_error());
    match result {
        Ok(value) => panic!("expected {wanted}, but the call succeeded: {value:?}"),
        Err(error) => {
            let error: io::Error = error.into();
            let got = error.raw_os_error().map_or(format!("{error}"), name_of);
            assert_eq!(got, wanted);
        }
    }
}

/// An errno's number and message, so that a failed assertion reads well.
pub fn name_of(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

/// Makes the tests of a family: a module per function, with a test per context in it.
///
/// A function takes `&mut Sandbox`, builds layers in it, mounts, asserts. When
/// it returns, [`Sandbox::finish`] checks what holds after every test: the
/// lowers are untouched, and the kernel sees the same tree.
#[macro_export]
macro_rules! mounted_tests {
    ($($contexts:tt: $($name:ident),+ $(,)?;)*) => {
        $($($crate::mounted_tests! { @one $contexts $name })+)*
    };
    (@one [$($context:ident)+] $name:ident) => {
        mod $name {
            $(
                #[test]
                fn $context() {
                    $crate::common::context::run(
                        $crate::common::Context::$context,
                        concat!(module_path!(), "::", stringify!($context)),
                        super::$name,
                    );
                }
            )+
        }
    };
}
