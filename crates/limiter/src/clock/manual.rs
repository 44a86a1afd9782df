//! `ManualClock`: a clock for tests that moves only when it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter_core::limit::saturating_ns;

use super::{Clock, Timer, TimerQueue, TimerSlot, real};
use crate::foreign::FirstPanic;
use crate::wake_list::WakeList;

/// A clock for tests: time passes when [`advance`](Self::advance) says so, and only then. Clones
/// share their time.
///
/// ```
/// use std::time::Duration;
/// use strict_rate_limiter::{RateLimiter, clock::ManualClock};
///
/// let clock = ManualClock::new();
/// let limiter = RateLimiter::builder()
///     .limit("1/1s".parse()?)
///     .clock(clock.clone())
///     .build()?;
///
/// drop(limiter.try_acquire()?);
/// clock.advance(Duration::from_secs(1));
/// assert!(limiter.try_acquire().is_err(), "the window is closed: its end still counts");
/// clock.advance(Duration::from_nanos(1));
/// assert!(limiter.try_acquire().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
    /// The origin of its nanoseconds; `None` if the platform has no `Instant`.
    begin: Option<Instant>,
}

#[derive(Debug, Default)]
struct ManualState {
    now_ns: u64,
    timers: TimerQueue,
}

#[derive(Debug)]
struct ManualTimer {
    state: Arc<Mutex<ManualState>>,
    slot: TimerSlot,
}

impl ManualClock {
    /// A clock that stands at the moment it was made.
    pub fn new() -> Self {
        Self { state: Arc::default(), begin: real::instant_now() }
    }

    /// The time as an `Instant`, as in [`Stats::next_opening`](crate::Stats::next_opening).
    ///
    /// # Panics
    ///
    /// On `wasm32-unknown-unknown`, which has no `Instant`.
    pub fn now(&self) -> Instant {
        let begin = self.begin.expect("this platform has no Instant");
        begin + Duration::from_nanos(self.now_ns())
    }

    /// Moves time forward and wakes, in the order of their times, the timers that have come due. If wakers
    /// panic, all are woken and the first panic goes on to the caller.
    pub fn advance(&self, by: Duration) {
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        state.now_ns = state.now_ns.saturating_add(saturating_ns(by));
        let ManualState { now_ns, timers } = &mut *state;
        wakes.extend(std::iter::from_fn(|| timers.pop_due(*now_ns)));
        drop(state);
        let mut panics = FirstPanic::default();
        wakes.wake(&mut panics);
        panics.into_result().unwrap_or_else(|panic| panic.resume());
    }

    /// Moves time forward to the next timer and wakes it. Returns how far it moved, 0 if that time has passed;
    /// `None` if no timer is set.
    pub fn advance_to_next_timer(&self) -> Option<Duration> {
        let state = lock(&self.state);
        let by = Duration::from_nanos(state.timers.next_ns()?.saturating_sub(state.now_ns));
        drop(state);
        self.advance(by);
        Some(by)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        lock(&self.state).now_ns
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(ManualTimer { state: Arc::clone(&self.state), slot: TimerSlot::default() })
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        Some((self.begin?, 0))
    }
}

impl Timer for ManualTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let ManualState { now_ns, timers } = &mut *lock(&self.state);
        timers.set(&mut self.slot, at_ns, *now_ns, waker)
    }

    fn clear(&mut self) {
        lock(&self.state).timers.clear(&mut self.slot);
    }
}

impl Drop for ManualTimer {
    fn drop(&mut self) {
        self.clear();
    }
}

fn lock(state: &Mutex<ManualState>) -> MutexGuard<'_, ManualState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
