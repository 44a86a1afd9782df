//! Where the time comes from. The only place that reads a clock.
//!
//! A limiter asks its [`Clock`] two things: what time it is, and to be woken at some later time. The
//! second only decides when to *look*; whether to grant is decided by the first, so a timer that is
//! early, late or spurious costs throughput at most and never strictness.

mod fast;
mod manual;
mod process;
mod timeline;
mod timer;
mod timer_thread;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
mod tsc;

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Instant;

pub(crate) use fast::Fast;
pub use manual::ManualClock;
pub(crate) use timeline::{Reading, Timeline};
pub(crate) use timer::{LimiterTimer, TimerSet};

#[cfg(feature = "tokio")]
pub use self::tokio::TokioClock;

/// A source of time for a limiter: the real one unless the
/// [builder](crate::RateLimiterBuilder::clock) was given another.
///
/// # Panics
///
/// A clock or a timer that panics loses nothing. A call that asked for something panics with it, once the
/// limiter is as it should be; the end of a task that could not be timed is timed by the next reading.
/// While it goes on panicking nobody can be granted what needs the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time. Should not go backwards; where it does, the limiter takes the latest it has seen.
    ///
    /// It is called under the limiter's lock, so it must not use the limiter.
    fn now(&self) -> Instant;

    /// A timer of this clock, not set to anything. A limiter asks for one when it is built.
    fn timer(&self) -> Box<dyn Timer>;

    /// Whether whoever its timers wake comes late, as threads do: then the head of the queue is woken
    /// a little ahead of its opening, and looks until that comes. A limiter asks when it is built, and
    /// does so for periods up to 20 ms: above, nothing is gained.
    fn wakes_late(&self) -> bool {
        false
    }
}

/// WakeList one waker at one time.
pub trait Timer: Send {
    /// Arranges for `waker` to be woken once, at `at` or as soon after as may be, in place of what
    /// was arranged before. Where `at` has already come, arranges nothing and answers
    /// [`Poll::Ready`].
    ///
    /// It is called under the limiter's lock, so it must never wake the waker itself, nor use the
    /// limiter.
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()>;

    /// Forgets what was arranged. Called under the limiter's lock, as [`set`](Self::set) is.
    fn clear(&mut self);
}
