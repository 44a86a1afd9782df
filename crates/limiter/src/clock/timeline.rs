//! A limiter's own timeline: nanoseconds, as core counts them, from whichever clock it was given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fast::Fast;
use super::timer_thread::ThreadTimer;
use super::{Clock, LimiterTimer};
use crate::foreign::{self, Panic};

/// The time, to within a doubt: the true one lies in `earliest..=latest`.
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

/// Where a timeline begins, so that completions from before the limiter was made fit on it.
const BEGIN_NS: u64 = 1 << 60;

/// Below this period the doubt of a fast reading would be felt: 2 µs either way is 0.2 % of it.
const FAST_PER_MIN: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct Timeline {
    /// The instant that [`BEGIN_NS`] stands for.
    begin: Instant,
    /// `None`: the real clock.
    clock: Option<Arc<dyn Clock>>,
    /// Whether whoever is woken by this clock comes late, as threads do.
    wakes_late: bool,
    /// Whether the processor's counter may stand in for the real clock.
    may_be_fast: bool,
}

impl Timeline {
    /// `is_exact`: the operating system is asked each time.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>, is_exact: bool) -> Self {
        let begin = clock.as_ref().map_or_else(Instant::now, |clock| clock.now());
        let wakes_late = clock.as_ref().is_none_or(|clock| clock.wakes_late());
        let may_be_fast = clock.is_none() && !is_exact;
        Self { begin, clock, wakes_late, may_be_fast }
    }

    pub(crate) fn timer(&self) -> LimiterTimer {
        match &self.clock {
            Some(clock) => LimiterTimer::Foreign(Some(clock.timer())),
            None => LimiterTimer::Real(ThreadTimer::default()),
        }
    }

    /// Whether it pays to wake whoever is first ahead of time.
    pub(crate) fn wakes_late(&self) -> bool {
        self.wakes_late
    }

    #[inline]
    pub(crate) fn now(&self) -> Result<u64, Panic> {
        match &self.clock {
            Some(clock) => Ok(self.to_ns(foreign::call(|| clock.now())?)),
            None => Ok(self.real_now()),
        }
    }

    #[inline]
    fn real_now(&self) -> u64 {
        self.to_ns(Instant::now())
    }

    /// What [`Self::read`] needs to be fast, where that is possible and worth it.
    pub(crate) fn fast(&self, shortest_per: Duration) -> Fast {
        if self.may_be_fast && shortest_per >= FAST_PER_MIN { Fast::new() } else { Fast::none() }
    }

    /// The time as fast as it can be read, to within a doubt.
    #[inline]
    pub(crate) fn read(&self, fast: &mut Fast) -> Result<Reading, Panic> {
        match fast.read(|| self.real_now()) {
            Some(reading) => Ok(reading),
            None => self.now().map(Reading::exact),
        }
    }

    pub(crate) fn to_ns(&self, instant: Instant) -> u64 {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match instant.checked_duration_since(self.begin) {
            Some(since) => BEGIN_NS.saturating_add(ns(since)),
            None => BEGIN_NS.saturating_sub(ns(self.begin - instant)),
        }
    }

    /// `None` where the platform has no instant that late.
    pub(crate) fn to_instant(&self, ns: u64) -> Option<Instant> {
        match ns.checked_sub(BEGIN_NS) {
            Some(since) => self.begin.checked_add(Duration::from_nanos(since)),
            None => self.begin.checked_sub(Duration::from_nanos(BEGIN_NS - ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_real_clock_wakes_late_and_an_exact_one_is_never_read_fast() {
        let exact = Timeline::new(None, true);
        assert!(exact.wakes_late());
        let mut fast = exact.fast(SECOND);
        for _ in 0..100_000 {
            let reading = exact.read(&mut fast).unwrap_or_else(|panic| panic.resume());
            assert_eq!(reading.earliest, reading.latest);
        }
    }
}
