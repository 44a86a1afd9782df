//! The operating system's timer, for clocks that pass as the system's time does.

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Duration;

use strict_rate_limiter_core::limit::saturating_ns;

use super::TimerSet;
use super::real::RealClock;
use super::timer_thread::ThreadTimer;

/// A timer for your own [`Clock`](super::Clock), if its time passes as fast as the system's: it wakes after a wait. All
/// of them share one thread.
///
/// ```
/// # use std::task::{Poll, Waker};
/// # use std::time::{Duration, Instant};
/// # use strict_rate_limiter::clock::{Clock, SystemTimer, Timer};
/// /// Nanoseconds since it was made.
/// #[derive(Debug)]
/// struct MyClock(Instant);
///
/// struct MyTimer(Instant, SystemTimer);
///
/// impl Clock for MyClock {
///     fn now_ns(&self) -> u64 {
///         self.0.elapsed().as_nanos() as u64
///     }
///
///     fn timer(&self) -> Box<dyn Timer> {
///         Box::new(MyTimer(self.0, SystemTimer::new()))
///     }
/// }
///
/// impl Timer for MyTimer {
///     fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
///         let wait = Duration::from_nanos(at_ns).checked_sub(self.0.elapsed());
///         wait.map_or(Poll::Ready(()), |wait| self.1.set(wait, waker))
///     }
///
///     fn clear(&mut self) {
///         self.1.clear();
///     }
/// }
/// # let limiter = strict_rate_limiter::RateLimiter::builder()
/// #     .limit("1/10ms".parse()?)
/// #     .clock(MyClock(Instant::now()))
/// #     .build()?;
/// # for _ in 0..3 {
/// #     limiter.acquire_blocking()?.complete();
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SystemTimer {
    timer: ThreadTimer,
    clock: RealClock,
}

impl SystemTimer {
    /// A timer that is not set.
    pub fn new() -> Self {
        let clock = RealClock::new();
        Self { timer: ThreadTimer::new(clock), clock }
    }

    /// Wakes `waker` once after `wait`, or a little later. Replaces the earlier time and waker. Ready if the time has
    /// come already; then it is not set.
    ///
    /// # Panics
    ///
    /// If the system refuses the timers' thread. A limiter catches that, and has its first waiter look at each poll.
    pub fn set(&mut self, wait: Duration, waker: &Waker) -> Poll<()> {
        let at = self.clock.now_ns().saturating_add(saturating_ns(wait));
        match self.timer.set(at, waker) {
            TimerSet::Set => Poll::Pending,
            TimerSet::Due => Poll::Ready(()),
            TimerSet::Unavailable => panic!("the system refuses a thread for timers"),
        }
    }

    /// Clears the timer.
    pub fn clear(&mut self) {
        self.timer.clear();
    }
}

impl Default for SystemTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTimer").finish_non_exhaustive()
    }
}
