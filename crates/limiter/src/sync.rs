//! The lock and the parking of threads: the standard library's, or loom's in `tests/interleavings.rs`, which
//! tries every order of threads.

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
