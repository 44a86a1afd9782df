//! The lock and the parking of threads: the standard library's, or loom's where the tests try every
//! order of threads (`tests/interleavings.rs`).

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
