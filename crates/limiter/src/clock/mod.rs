//! Where the time comes from. The only place that reads a clock.
//!
//! A limiter asks its [`Clock`] two things: what time it is, and to be woken at some later time. The
//! second only decides when to *look*; whether to grant is decided by the first, so a timer that is
//! early, late or spurious costs throughput at most and never strictness.

mod alarm;
mod manual;
mod source;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod ticks;
#[cfg(feature = "tokio")]
mod tokio;

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Instant;

pub use manual::ManualClock;
pub(crate) use source::{Fast, Reading, Source};

#[cfg(feature = "tokio")]
pub use self::tokio::TokioClock;

/// A source of time for a limiter: the real one unless the
/// [builder](crate::RateLimiterBuilder::clock) was given another.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time. Should not go backwards; where it does, the limiter takes the latest it has seen.
    fn now(&self) -> Instant;

    /// A timer of this clock, not set to anything. A limiter asks for one when it is built.
    fn timer(&self) -> Box<dyn Timer>;

    /// Whether whoever its timers wake comes late, as threads do: then the head of the queue is woken
    /// a little ahead of its opening, and looks until that comes. A limiter asks when it is built.
    fn wakes_late(&self) -> bool {
        false
    }
}

/// Wakes one waker at one time.
pub trait Timer: Send {
    /// Arranges for `waker` to be woken once, at `at` or as soon after as may be, in place of what
    /// was arranged before. Where `at` has already come, arranges nothing and answers
    /// [`Poll::Ready`].
    ///
    /// It is called under the limiter's lock, so it must never wake the waker itself.
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()>;

    /// Forgets what was arranged.
    fn clear(&mut self);
}
