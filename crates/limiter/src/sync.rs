//! What threads meet at: a lock, and a thread that waits. The standard library's; or loom's, when the
//! tests try every order in which threads can come (`tests/interleavings.rs`).

#[cfg(not(interleavings))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard},
    thread::{Thread, current, park},
};

#[cfg(interleavings)]
pub(crate) use loom::{
    sync::{Mutex, MutexGuard},
    thread::{Thread, current, park},
};
