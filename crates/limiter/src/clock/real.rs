//! The real clock: the operating system's monotonic clock, as `Instant` reads it.

use std::sync::OnceLock;
use std::time::Instant;

use strict_rate_limiter_core::limit::saturating_ns;

/// The nanoseconds since this process first made a limiter: one timeline for all limiters of the real
/// clock, as they share one timer thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct RealClock {
    begin: Instant,
}

impl RealClock {
    pub(super) fn new() -> Self {
        static BEGIN: OnceLock<Instant> = OnceLock::new();

        Self { begin: *BEGIN.get_or_init(Instant::now) }
    }

    #[inline]
    pub(super) fn now_ns(self) -> u64 {
        saturating_ns(Instant::now().saturating_duration_since(self.begin))
    }

    pub(super) fn instant_pair(self) -> (Instant, u64) {
        (self.begin, 0)
    }
}

/// The present `Instant`; `None` if the platform has none and `Instant::now` would panic.
pub(super) fn instant_now() -> Option<Instant> {
    let has_instants = !cfg!(all(target_family = "wasm", target_os = "unknown"));
    has_instants.then(Instant::now)
}
