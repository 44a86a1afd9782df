//! A fast reading of the real clock, if the machine has one.
//!
//! `--cfg portable` builds the library as it is built for machines without a fast reading, so that the
//! tests cover that build as well. Everything else is the same on all machines.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
use std::cell::RefCell;

use super::Reading;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
use super::tsc::Tsc;

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
thread_local! {
    /// One for each thread and not for each limiter: a limiter that is used once a second would have to
    /// calibrate its own at each use. A reading holds the true time whoever calibrated it.
    static TSC: RefCell<Tsc> = const { RefCell::new(Tsc::new()) };
}

/// Whether a limiter uses the fast reading.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastClock {
    is_used: bool,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
impl FastClock {
    pub(super) fn new() -> Self {
        Self { is_used: Tsc::is_trusted() }
    }

    pub(super) fn none() -> Self {
        Self { is_used: false }
    }

    /// `None` if there is no fast reading. `ask` reads the operating system's clock.
    #[inline]
    pub(super) fn read(self, ask: impl Fn() -> u64) -> Option<Reading> {
        self.is_used.then(|| TSC.with_borrow_mut(|tsc| tsc.read(ask)))
    }
}

/// This machine has no fast reading.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(portable))))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastClock;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(portable))))]
impl FastClock {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn none() -> Self {
        Self
    }

    #[expect(
        clippy::unused_self,
        reason = "where there is a fast reading a limiter may not use it"
    )]
    pub(super) fn read(self, _ask: impl Fn() -> u64) -> Option<Reading> {
        None
    }
}
