//! Simulated time, and the limiter's clock.
//!
//! True time is the server's. The limiter's own clock may run fast by as much as the limiter was configured
//! for, may stand still or be set back, and its timer fires when the simulation says so. It never runs ahead
//! further than configured: the guarantee assumes that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter::clock::{Clock, Timer};

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
    /// What the limiter's timer is set for, by this clock.
    timer: Option<(u64, Waker)>,
    wakes_late: bool,
}

struct SimTimer(SimClock);

impl SimClock {
    pub(crate) fn new(fast_ppm: u64, wakes_late: bool) -> Self {
        let begin = Instant::now();
        let state =
            State { begin, true_ns: BEGIN_NS, fast_ppm, behind_ns: 0, timer: None, wakes_late };
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
        nanos(instant.saturating_duration_since(self.lock().begin))
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
        let (at, _) = state.timer.as_ref()?;
        let scaled = u128::from(at + state.behind_ns) * 1_000_000;
        Some(scaled.div_ceil(1_000_000 + u128::from(state.fast_ppm)) as u64)
    }

    /// When the timer is due, as a reading.
    pub(crate) fn timer_reading(&self) -> Option<u64> {
        self.lock().timer.as_ref().map(|(at, _)| *at)
    }

    /// Takes the timer's waker, due or not.
    pub(crate) fn take_timer(&self) -> Option<Waker> {
        self.lock().timer.take().map(|(_, waker)| waker)
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
    fn now(&self) -> Instant {
        let state = self.lock();
        state.begin + Duration::from_nanos(state.reading_ns())
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(SimTimer(self.clone()))
    }

    fn wakes_late(&self) -> bool {
        self.lock().wakes_late
    }
}

impl Timer for SimTimer {
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()> {
        let at = self.0.to_reading(at);
        let mut state = self.0.lock();
        state.timer = None;
        if at <= state.reading_ns() {
            return Poll::Ready(());
        }
        state.timer = Some((at, waker.clone()));
        Poll::Pending
    }

    fn clear(&mut self) {
        self.0.lock().timer = None;
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.clear();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
