//! The numbers that `RateLimiter::stats` returns.

use std::time::Instant;

pub use strict_rate_limiter_core::Held;

/// The numbers of a limiter at one instant, from [`RateLimiter::stats`](crate::RateLimiter::stats).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that hold a permit and have not completed, and abandoned ones until their grace is over.
    pub running: usize,
    /// Waiters in the queue.
    pub queued: usize,
    /// Tasks completed since the limiter was made.
    pub completed: u64,
    /// The units held of each limit, in the order of the settings.
    pub held: Vec<Held>,
    /// The earliest time at which the first waiter can be granted, or a task of weight 1 if the queue is empty. A
    /// time that has passed means now; `None` means that it depends on running tasks.
    pub next_opening: Option<Instant>,
}
