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
    /// What the limiter's own timer is set for, by this clock.
    timers: TimerQueue,
    /// When waiters are to be woken for their deadlines, by this clock.
    deadlines: TimerQueue,
    /// Whether the limiter has asked for its own timer, which is the first.
    has_timer: bool,
    wakes_late: bool,
}

struct SimTimer {
    clock: SimClock,
    is_deadline: bool,
    slot: TimerSlot,
}

impl SimClock {
    pub(crate) fn new(fast_ppm: u64, wakes_late: bool) -> Self {
        let begin = Instant::now();
        let state = State {
            begin,
            true_ns: BEGIN_NS,
            fast_ppm,
            behind_ns: 0,
            timers: TimerQueue::new(),
            deadlines: TimerQueue::new(),
            has_timer: false,
            wakes_late,
        };
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
        Some(state.to_true_ns(state.timers.next_ns()?))
    }

    /// When the next deadline is due, in true time.
    pub(crate) fn deadline_due(&self) -> Option<u64> {
        let state = self.lock();
        Some(state.to_true_ns(state.deadlines.next_ns()?))
    }

    /// Takes the waker of a deadline that has come.
    pub(crate) fn take_deadline(&self) -> Option<Waker> {
        let mut state = self.lock();
        let now = state.reading_ns();
        state.deadlines.pop_due(now)
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
    fn queue(&mut self, is_deadline: bool) -> &mut TimerQueue {
        if is_deadline { &mut self.deadlines } else { &mut self.timers }
    }

    fn reading_ns(&self) -> u64 {
        let gained = u128::from(self.true_ns) * u128::from(self.fast_ppm) / 1_000_000;
        self.true_ns + gained as u64 - self.behind_ns
    }

    /// When the limiter reads this, in true time.
    fn to_true_ns(&self, reading: u64) -> u64 {
        let scaled = u128::from(reading + self.behind_ns) * 1_000_000;
        scaled.div_ceil(1_000_000 + u128::from(self.fast_ppm)) as u64
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.reading_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        let is_deadline = std::mem::replace(&mut self.lock().has_timer, true);
        Box::new(SimTimer { clock: self.clone(), is_deadline, slot: TimerSlot::default() })
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
        state.queue(self.is_deadline).set(&mut self.slot, at_ns, now_ns, waker)
    }

    fn clear(&mut self) {
        self.clock.lock().queue(self.is_deadline).clear(&mut self.slot);
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.clear();
    }
}
