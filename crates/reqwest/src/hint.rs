//! What a hook makes of a response.

use std::time::Duration;

use strict_rate_limiter::{Limit, RateLimiter};

use crate::correction::correct;

/// What a response means for the limiter, beyond what its well-known headers say; from a
/// [hook](crate::RateLimit::hook).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a hint does nothing unless it is returned"]
pub struct Hint {
    pub(crate) pause: Option<Duration>,
    used: Vec<(Limit, u64)>,
}

impl Hint {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is sent for this long.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = self.pause.max(Some(pause));
        self
    }

    /// The server has counted this many units of a limit, this request among them. It only ever tightens,
    /// and changes nothing where the limiter has no such limit.
    pub fn used(mut self, limit: Limit, used: u64) -> Self {
        self.used.push((limit, used));
        self
    }

    /// The server says that this many units of a limit are left.
    pub fn remaining(self, limit: Limit, remaining: u64) -> Self {
        self.used(limit, limit.rate().saturating_sub(remaining))
    }

    pub(crate) fn correct(&self, limiter: &RateLimiter, weight: u64) {
        for (limit, used) in &self.used {
            correct(limiter, *limit, weight, *used);
        }
    }
}
