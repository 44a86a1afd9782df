//! Clocks and timers. Only this module reads a clock.
//!
//! A limiter asks its [`Clock`] for the time, and sets a [`Timer`] of it for the next opening. Only the time
//! decides whether a task is granted; the timer decides when the limiter looks. So a timer that comes early,
//! late or twice costs throughput and never strictness.
//!
//! Time is a number of nanoseconds since an origin that the clock chooses. `Instant`s appear where users
//! give or get them, and are converted in one place (`timeline.rs`).
//!
//! Where the platform has no `Instant` (`wasm32-unknown-unknown`), a limiter needs a clock of yours, and
//! calls nothing else for the time.

mod fast_clock;
mod manual;
mod real;
mod timeline;
mod timer;
mod timer_queue;
mod timer_thread;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(portable)))]
mod tsc;

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

pub(crate) use fast_clock::FastClock;
pub use manual::ManualClock;
pub(crate) use timeline::{Reading, Timeline};
pub(crate) use timer::{LimiterTimer, TimerSet};
pub use timer_queue::{TimerQueue, TimerSlot};

#[cfg(feature = "tokio")]
pub use self::tokio::TokioClock;

/// A source of time for a limiter: the real one unless the
/// [builder](crate::RateLimiterBuilder::clock) was given another. [`TimerQueue`] has an example of a
/// clock with timers; an `Arc` of a clock is a clock, for several limiters.
///
/// # Panics
///
/// A clock or a timer that panics loses nothing. A call that asked for something panics with it, once the
/// limiter is as it should be; the end of a task that could not be timed is timed by the next reading.
/// While the clock goes on panicking, nothing that needs the time is granted.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time, in nanoseconds since an origin of the clock's choice: its own first reading, the boot of
    /// the machine, the Unix epoch. Below 2⁶³ (292 years after the origin).
    ///
    /// It should not go backwards; where it does, the limiter takes the latest it has seen. It need not
    /// begin late: a limiter's [history](crate::RateLimiterBuilder::history) may reach 2⁶⁰ ns (36 years)
    /// before the origin.
    ///
    /// The limiter calls it under its lock, so it must not use the limiter.
    fn now_ns(&self) -> u64;

    /// A timer of this clock, not set to anything. A limiter asks for one when it is built,
    /// and one for each waiter that has a deadline.
    fn timer(&self) -> Box<dyn Timer>;

    /// Whether threads that are woken by this clock's timers run late, as with a real clock. Then the
    /// limiter wakes the first waiter a little ahead of its opening, and that waiter looks until the
    /// opening comes. The limiter asks when it is built, and does so for periods up to 20 ms: for longer
    /// ones it gains nothing.
    fn wakes_late(&self) -> bool {
        false
    }

    /// One moment as an `Instant` and as nanoseconds of this clock. The limiter converts `Instant`s by it:
    /// [`pause_until`](crate::RateLimiter::pause_until),
    /// [`next_opening`](crate::Stats::next_opening),
    /// [`not_before`](crate::TryAcquireError::Busy::not_before). It calls this at each conversion, outside
    /// of its lock.
    ///
    /// By default the present moment, so that a clock that counts a suspend, or runs at another pace,
    /// converts by its present distance. A clock at a fixed distance from `Instant`s should give a fixed pair:
    /// then it converts exactly. `None` where the platform has no `Instant`: then `next_opening` and
    /// `not_before` are `None`.
    fn instant_pair(&self) -> Option<(Instant, u64)> {
        let instant = real::instant_now()?;
        Some((instant, self.now_ns()))
    }
}

/// Wakes one waker at one time.
pub trait Timer: Send {
    /// Arranges for `waker` to be woken once, when the clock reads `at_ns` or as soon after as may be, in
    /// place of what was arranged before. Where the clock reads that already, arranges nothing and
    /// answers [`Poll::Ready`]. For a time that the clock never reaches it may arrange nothing and answer
    /// [`Poll::Pending`].
    ///
    /// The limiter calls it under its lock, so it must never wake the waker itself, nor use the
    /// limiter.
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()>;

    /// Forgets what was arranged. The limiter calls it under its lock, as [`set`](Self::set).
    fn clear(&mut self);
}

macro_rules! clock_behind_pointer {
    ($pointer:ident) => {
        impl<C: Clock + ?Sized> Clock for $pointer<C> {
            fn now_ns(&self) -> u64 {
                (**self).now_ns()
            }

            fn timer(&self) -> Box<dyn Timer> {
                (**self).timer()
            }

            fn wakes_late(&self) -> bool {
                (**self).wakes_late()
            }

            fn instant_pair(&self) -> Option<(Instant, u64)> {
                (**self).instant_pair()
            }
        }
    };
}

clock_behind_pointer!(Arc);
clock_behind_pointer!(Box);
