//! Clocks and timers. Only this module reads a clock.
//!
//! A limiter reads the time from its [`Clock`], and sets a [`Timer`] of that clock for the next opening. Only
//! the time decides whether a task is granted; the timer decides when the limiter looks. So a timer that fires
//! early, late or twice costs throughput and never strictness.
//!
//! Time is a number of nanoseconds since an origin that the clock chooses. `Instant`s appear where users
//! give or get them, and are converted in one place (`timeline.rs`).
//!
//! If the platform has no `Instant` (`wasm32-unknown-unknown`), a limiter needs your own clock, and reads no
//! other.

mod fast_clock;
mod manual;
mod real;
mod system_timer;
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
pub use system_timer::SystemTimer;
pub(crate) use timeline::{ORIGIN_NS, Reading, Timeline};
pub(crate) use timer::{LimiterTimer, TimerSet};
pub use timer_queue::{TimerQueue, TimerSlot};

#[cfg(feature = "tokio")]
pub use self::tokio::TokioClock;

/// A limiter's source of time: the real clock unless the [builder](crate::RateLimiterBuilder::clock) sets
/// another. [`TimerQueue`] has an example of a clock with timers. Several limiters can share a clock in an
/// `Arc`.
///
/// # Panics
///
/// A panic of a clock or a timer loses no permit and no waiter. Calls that request something pass the panic
/// on once the limiter's state is whole again. If the clock panics at the end of a task, the next reading
/// times that end. While the clock goes on panicking, the limiter grants nothing that needs the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time, in nanoseconds since an origin of the clock's choice: its own first reading, the boot of
    /// the machine, the Unix epoch. Below 2⁶³ (292 years after the origin).
    ///
    /// It should not go backwards; if it does, the limiter uses the latest time it has seen. It may begin at
    /// 0: a limiter's [history](crate::RateLimiterBuilder::history) may reach 2⁶⁰ ns (36 years)
    /// before the origin.
    ///
    /// The limiter calls it under its lock, so it must not use the limiter.
    fn now_ns(&self) -> u64;

    /// A timer of this clock, not set. A limiter makes one when it is built, and one for each waiter with a
    /// deadline.
    fn timer(&self) -> Box<dyn Timer>;

    /// Whether this clock's timers wake threads late, as real clocks do (some 50 to 200 µs). Then, for
    /// periods up to 20 ms, the limiter wakes the first waiter a little ahead of its opening, and that waiter
    /// looks until the opening comes. The limiter calls this when it is built and when its limits change.
    fn wakes_late(&self) -> bool {
        false
    }

    /// One moment as an `Instant` and as nanoseconds of this clock. The limiter converts `Instant`s by it:
    /// [`pause_until`](crate::RateLimiter::pause_until),
    /// [`next_opening`](crate::Stats::next_opening),
    /// [`not_before`](crate::TryAcquireError::Busy::not_before). It calls this at each conversion, outside
    /// of its lock.
    ///
    /// The default returns the present moment, so a clock that counts suspends, or runs at another pace,
    /// converts by its present distance. A clock at a fixed distance from `Instant`s should return a fixed
    /// pair, and then converts exactly. `None` if the platform has no `Instant`: then `next_opening` and
    /// `not_before` are `None`.
    fn instant_pair(&self) -> Option<(Instant, u64)> {
        let instant = real::instant_now()?;
        Some((instant, self.now_ns()))
    }
}

/// Wakes one waker at one time.
pub trait Timer: Send {
    /// Sets the timer: it wakes `waker` once, when the clock reads `at_ns` or as soon as possible after that.
    /// Replaces the earlier time and waker. If the clock reads `at_ns` already, clears the timer and returns
    /// [`Poll::Ready`]. For a time that the clock never reaches it may set nothing and return
    /// [`Poll::Pending`].
    ///
    /// The limiter calls it under its lock, so it must never wake the waker itself, nor use the
    /// limiter.
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()>;

    /// Clears the timer. The limiter calls it under its lock, as [`set`](Self::set).
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
