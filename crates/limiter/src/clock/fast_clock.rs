//! A fast reading of the real clock, if the machine has one.
//!
//! `--cfg portable` builds the library as it is built for machines without a fast reading, so that the
//! tests cover that build as well. Everything else is the same on all machines.

use super::Reading;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
use super::tsc::Tsc;

/// The state of the fast reading. The limiter keeps it under its lock.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
#[derive(Debug)]
pub(crate) struct FastClock(Option<Tsc>);

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
impl FastClock {
    pub(super) fn new() -> Self {
        Self(Tsc::new())
    }

    pub(super) fn none() -> Self {
        Self(None)
    }

    /// `None` if there is no fast reading. `ask` reads the operating system's clock.
    #[inline]
    pub(super) fn read(&mut self, ask: impl Fn() -> u64) -> Option<Reading> {
        self.0.as_mut().map(|tsc| tsc.read(ask))
    }
}

/// This machine has no fast reading.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(portable))))]
#[derive(Debug)]
pub(crate) struct FastClock;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(portable))))]
impl FastClock {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn none() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "where there is a fast reading it remembers")]
    pub(super) fn read(&mut self, _ask: impl Fn() -> u64) -> Option<Reading> {
        None
    }
}
