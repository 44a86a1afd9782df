//! The machine's timeline: a clock's nanoseconds, shifted to have room for a history before their origin. Only
//! this file converts between the timeline, a clock's nanoseconds and `Instant`s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strict_rate_limiter_core::limit::saturating_ns;

use super::real::RealClock;
use super::timer_thread::ThreadTimer;
use super::{Clock, FastClock, LimiterTimer};
use crate::foreign::{self, Panic};

/// A reading of the clock with its error bound: the true time lies in `earliest..=latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
}

impl Reading {
    pub(crate) fn exact(ns: u64) -> Self {
        Self { earliest: ns, latest: ns }
    }
}

/// A clock's origin on the machine's timeline. It leaves room for completions before the origin. The same for
/// all clocks and processes.
pub(crate) const ORIGIN_NS: u64 = 1 << 60;

/// The shortest period for which the fast clock is used: its error bound, 2 µs either way, is 0.2 % of it.
const FAST_PER_MIN: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct Timeline {
    source: Source,
    wakes_late: bool,
    /// Whether the processor's counter may be read instead of the real clock.
    may_be_fast: bool,
}

#[derive(Debug)]
enum Source {
    Real(RealClock),
    Foreign(Arc<dyn Clock>),
}

impl Timeline {
    /// `None` is the real clock. `is_exact`: each reading asks the operating system.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>, is_exact: bool) -> Self {
        let wakes_late = clock.as_ref().is_none_or(Clock::wakes_late);
        let may_be_fast = clock.is_none() && !is_exact;
        let source = clock.map_or_else(|| Source::Real(RealClock::new()), Source::Foreign);
        Self { source, wakes_late, may_be_fast }
    }

    pub(crate) fn timer(&self) -> LimiterTimer {
        match &self.source {
            Source::Real(clock) => LimiterTimer::Real(ThreadTimer::new(*clock)),
            Source::Foreign(clock) => LimiterTimer::Foreign(Some(clock.timer())),
        }
    }

    /// Whether it pays to wake the first waiter ahead of its opening.
    pub(crate) fn wakes_late(&self) -> bool {
        self.wakes_late
    }

    #[inline]
    pub(crate) fn now(&self) -> Result<u64, Panic> {
        let now_ns = match &self.source {
            Source::Real(clock) => clock.now_ns(),
            Source::Foreign(clock) => foreign::call(|| clock.now_ns())?,
        };
        Ok(from_clock(now_ns))
    }

    /// The state for fast readings by [`Self::read`], if they are possible and worth it.
    pub(crate) fn fast_clock(&self, shortest_per: Duration) -> FastClock {
        if self.may_be_fast && shortest_per >= FAST_PER_MIN {
            FastClock::new()
        } else {
            FastClock::none()
        }
    }

    /// Reads the time as fast as it can be read.
    #[inline]
    pub(crate) fn read(&self, fast_clock: FastClock) -> Result<Reading, Panic> {
        if let Source::Real(clock) = &self.source
            && let Some(reading) = fast_clock.read(|| from_clock(clock.now_ns()))
        {
            return Ok(reading);
        }
        self.now().map(Reading::exact)
    }

    /// Calls the clock, so not under the lock; a panic of it goes on to the caller.
    pub(crate) fn to_ns(&self, instant: Instant) -> u64 {
        // The caller has an instant, so the platform has instants.
        let (known, known_ns) = self.instant_pair().unwrap_or_else(|| self.present_pair());
        match instant.checked_duration_since(known) {
            Some(since) => known_ns.saturating_add(saturating_ns(since)),
            None => known_ns.saturating_sub(saturating_ns(known - instant)),
        }
    }

    /// `None` if the platform has no instants, or none that late. Calls the clock, as
    /// [`to_ns`](Self::to_ns) does.
    pub(crate) fn to_instant(&self, ns: u64) -> Option<Instant> {
        let (known, known_ns) = self.instant_pair()?;
        match ns.checked_sub(known_ns) {
            Some(since) => known.checked_add(Duration::from_nanos(since)),
            None => known.checked_sub(Duration::from_nanos(known_ns - ns)),
        }
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        let (instant, clock_ns) = match &self.source {
            Source::Real(clock) => clock.instant_pair(),
            Source::Foreign(clock) => clock.instant_pair()?,
        };
        Some((instant, from_clock(clock_ns)))
    }

    fn present_pair(&self) -> (Instant, u64) {
        let instant = Instant::now();
        (instant, self.now().unwrap_or_else(|panic| panic.resume()))
    }
}

#[inline]
fn from_clock(clock_ns: u64) -> u64 {
    ORIGIN_NS.saturating_add(clock_ns)
}

/// The time on the clock's own timeline, for its timers. A time before the origin has come.
pub(super) fn to_clock(ns: u64) -> u64 {
    ns.saturating_sub(ORIGIN_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timer};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_real_clock_wakes_late_and_an_exact_one_is_never_read_fast() {
        let exact = Timeline::new(None, true);
        assert!(exact.wakes_late());
        let fast_clock = exact.fast_clock(SECOND);
        for _ in 0..100_000 {
            let reading = exact.read(fast_clock).unwrap_or_else(|panic| panic.resume());
            assert_eq!(reading.earliest, reading.latest);
        }
    }

    #[test]
    fn instants_convert_exactly_both_ways_and_from_before_the_origin() {
        let clock = ManualClock::new();
        clock.advance(SECOND);
        for timeline in
            [Timeline::new(None, true), Timeline::new(Some(Arc::new(clock.clone())), false)]
        {
            let now = clock.now();
            let before = |ago| now.checked_sub(ago).unwrap();
            for instant in [before(SECOND), before(SECOND / 3), now, now + 1_000_000 * SECOND] {
                assert_eq!(timeline.to_instant(timeline.to_ns(instant)), Some(instant));
            }
            let long_ago = timeline.to_ns(before(10 * SECOND));
            assert_eq!(timeline.to_ns(now) - long_ago, 10_000_000_000);
        }
    }

    /// A clock without `Instant`s.
    #[derive(Debug)]
    struct NoInstants(ManualClock);

    impl Clock for NoInstants {
        fn now_ns(&self) -> u64 {
            self.0.now_ns()
        }

        fn timer(&self) -> Box<dyn Timer> {
            self.0.timer()
        }

        fn instant_pair(&self) -> Option<(Instant, u64)> {
            None
        }
    }

    #[test]
    fn without_instants_of_its_own_a_clock_is_told_the_distance_from_now() {
        let timeline = Timeline::new(Some(Arc::new(NoInstants(ManualClock::new()))), false);
        assert_eq!(timeline.to_instant(ORIGIN_NS), None);
        let ns = timeline.to_ns(Instant::now() + 1_000 * SECOND) - ORIGIN_NS;
        assert!((900 * 1_000_000_000..=1_000 * 1_000_000_000).contains(&ns), "{ns}");
    }
}
