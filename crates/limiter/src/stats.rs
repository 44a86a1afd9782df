//! A limiter in numbers.

use std::time::Instant;

pub use strict_rate_limiter_core::Held;

/// What [`RateLimiter::stats`](crate::RateLimiter::stats) saw, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that hold a permit and have not completed; abandoned ones until their grace is over.
    pub running: usize,
    /// Waiters in the queue.
    pub queued: usize,
    /// Tasks completed since the limiter was made.
    pub completed: u64,
    /// What is held of each limit, in units, in the order in which the limits were given.
    pub held: Vec<Held>,
    /// When whoever is first could be granted (a task of weight 1 where nobody waits). A time that
    /// has passed means at once; `None`, that it depends on running tasks.
    pub next_opening: Option<Instant>,
}
