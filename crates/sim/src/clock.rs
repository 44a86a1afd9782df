//! Simulated time, and the limiter's clock.
//!
//! True time is the server's. The limiter's own clock may run fast by as much as the limiter was configured
//! for, may stand still or be set back, and its timer fires when the simulation says so. It never runs ahead
//! further than configured: the guarantee assumes that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use strict_rate_limiter::clock::{Clock, Timer, TimerQueue, TimerSlot};
use strict_rate_limiter_core::limit::saturating_ns;

/// Where true time begins: late enough that no clock is set back to before 0.
pub(crate) const BEGIN_NS: u64 = 1 << 45;

#[derive(Debug, Clone)]
pub(crate) struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    begin: Instant,
    true_ns: u64,
    /// By how much this clock runs faster than true time.
    fast_ppm: u64,
    /// By how much it has been set back in all.
    behind_ns: u64,
    /// What the limiter's timers are set for, by this clock.
    timers: TimerQueue,
    wakes_late: bool,
}

struct SimTimer {
    clock: SimClock,
    slot: TimerSlot,
}

impl SimClock {
    pub(crate) fn new(fast_ppm: u64, wakes_late: bool) -> Self {
        let begin = Instant::now();
        let timers = TimerQueue::new();
        let state = State { begin, true_ns: BEGIN_NS, fast_ppm, behind_ns: 0, timers, wakes_late };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The server's time.
    pub(crate) fn true_ns(&self) -> u64 {
        self.lock().true_ns
    }

    /// The limiter's clock.
    pub(crate) fn reading_ns(&self) -> u64 {
        self.lock().reading_ns()
    }

    /// An instant of the limiter's, as a reading.
    pub(crate) fn to_reading(&self, instant: Instant) -> u64 {
        saturating_ns(instant.saturating_duration_since(self.lock().begin))
    }

    pub(crate) fn pass(&self, ns: u64) {
        self.lock().true_ns += ns;
    }

    pub(crate) fn set_back(&self, ns: u64) {
        let mut state = self.lock();
        state.behind_ns = (state.behind_ns + ns).min(BEGIN_NS / 2);
    }

    /// When the timer is due, in true time.
    pub(crate) fn timer_due(&self) -> Option<u64> {
        let state = self.lock();
        let at = state.timers.next_ns()?;
        let scaled = u128::from(at + state.behind_ns) * 1_000_000;
        Some(scaled.div_ceil(1_000_000 + u128::from(state.fast_ppm)) as u64)
    }

    /// When the timer is due, as a reading.
    pub(crate) fn timer_reading(&self) -> Option<u64> {
        self.lock().timers.next_ns()
    }

    /// Takes the timer's waker, due or not.
    pub(crate) fn take_timer(&self) -> Option<Waker> {
        self.lock().timers.pop_due(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reading_ns(&self) -> u64 {
        let gained = u128::from(self.true_ns) * u128::from(self.fast_ppm) / 1_000_000;
        self.true_ns + gained as u64 - self.behind_ns
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.reading_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(SimTimer { clock: self.clone(), slot: TimerSlot::default() })
    }

    fn wakes_late(&self) -> bool {
        self.lock().wakes_late
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        Some((self.lock().begin, 0))
    }
}

impl Timer for SimTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let mut state = self.clock.lock();
        let now_ns = state.reading_ns();
        state.timers.set(&mut self.slot, at_ns, now_ns, waker)
    }

    fn clear(&mut self) {
        self.clock.lock().timers.clear(&mut self.slot);
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.clear();
    }
}
