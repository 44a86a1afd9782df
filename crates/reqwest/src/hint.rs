//! The result of a hook: a pause, and corrected counts.

use std::time::Duration;

use strict_rate_limiter::{Limit, RateLimiter};

use crate::correction::correct;

/// The effect of a response on the limiter, beyond the well-known headers. Returned by a
/// [hook](crate::RateLimit::hook).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a hint does nothing unless it is returned"]
pub struct Hint {
    pub(crate) pause: Option<Duration>,
    used: Vec<(Limit, u64)>,
}

impl Hint {
    /// No effect.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pauses the limiter for this long.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = self.pause.max(Some(pause));
        self
    }

    /// The server has counted this many units of a limit, including this request. This can only tighten the limit. It
    /// has no effect if the limiter does not have the limit.
    pub fn used(mut self, limit: Limit, used: u64) -> Self {
        self.used.push((limit, used));
        self
    }

    /// The server reports this many units of a limit as left.
    pub fn remaining(self, limit: Limit, remaining: u64) -> Self {
        self.used(limit, limit.rate().saturating_sub(remaining))
    }

    pub(crate) fn correct(&self, limiter: &RateLimiter, weight: u64) {
        for (limit, used) in &self.used {
            correct(limiter, *limit, weight, *used);
        }
    }
}
