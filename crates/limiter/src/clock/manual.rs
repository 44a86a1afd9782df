//! A clock that stands still until it is told to move, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::{Clock, Timer};
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
}

#[derive(Debug)]
struct ManualState {
    now: Instant,
    timers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
}

#[derive(Debug)]
struct ManualTimer {
    state: Arc<Mutex<ManualState>>,
    set: Option<(Instant, u64)>,
}

impl ManualClock {
    /// A clock that stands at the moment it was made.
    pub fn new() -> Self {
        let now = Instant::now();
        let state = ManualState { now, timers: BTreeMap::new(), next_id: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Moves time forward and wakes, in the order of their times, the timers that have come due. A waker
    /// that panics does so once all of them are woken.
    pub fn advance(&self, by: Duration) {
        let mut state = lock(&self.state);
        state.now += by;
        let after = (state.now + Duration::from_nanos(1), 0);
        let later = state.timers.split_off(&after);
        let due = std::mem::replace(&mut state.timers, later);
        drop(state);
        let (mut wakes, mut panics) = (WakeList::default(), FirstPanic::default());
        wakes.extend(due.into_values());
        wakes.wake(&mut panics);
        panics.into_result().unwrap_or_else(|panic| panic.resume());
    }

    /// Moves time forward to the next timer and wakes it; by nothing if that time has passed.
    /// `None`, and nothing moves, where no timer is set.
    pub fn advance_to_next_timer(&self) -> Option<Duration> {
        let state = lock(&self.state);
        let ((at, _), _) = state.timers.first_key_value()?;
        let by = at.saturating_duration_since(state.now);
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
    fn now(&self) -> Instant {
        lock(&self.state).now
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(ManualTimer { state: Arc::clone(&self.state), set: None })
    }
}

impl Timer for ManualTimer {
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()> {
        self.clear();
        let mut state = lock(&self.state);
        if at <= state.now {
            return Poll::Ready(());
        }
        let key = (at, state.next_id);
        state.next_id += 1;
        state.timers.insert(key, waker.clone());
        self.set = Some(key);
        Poll::Pending
    }

    fn clear(&mut self) {
        if let Some(key) = self.set.take() {
            lock(&self.state).timers.remove(&key);
        }
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
