//! What a seed decides: the limiter of a run, its callers, and how they behave.

use std::time::Duration;

use fastrand::Rng;
use strict_rate_limiter_core::{Config, Limit};

/// One run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) config: Config,
    /// Whether waiters are polled late after the timer has woken them.
    pub(crate) wakes_late: bool,
    /// By how much the limiter's clock runs faster than true time.
    pub(crate) fast_ppm: u64,
    /// Whether its clock is set back now and then. The model reads that clock and is disabled then; the audit
    /// still checks.
    pub(crate) is_set_back: bool,
    /// Whether its window holds more completions than the log keeps apart. The model would take too long and
    /// is disabled; the audit still checks.
    pub(crate) is_huge: bool,
    /// The rates and the concurrency change after one caller in this many. The rates of the beginning are the
    /// highest, so that the audit holds for all of the run.
    pub(crate) change_after: Option<u8>,
    /// How many callers there are.
    pub(crate) callers: u32,
    /// The mean time between two callers, in nanoseconds.
    gap_ns: u64,
    /// How many callers come at once.
    burst: u32,
    /// The mean length of a task.
    length_ns: u64,
    /// The mean time after which an impatient caller gives up.
    patience_ns: u64,
    /// Each kind of fault hits one caller in this many.
    trouble: u32,
    pub(crate) ending: Ending,
    /// The ending begins after this many callers.
    pub(crate) ending_after: u32,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Drained,
    Closed,
    Aborted,
    LastHandleDropped,
}

/// A call of the limiter, and the task that it is for.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) weight: u64,
    pub(crate) call: Call,
    pub(crate) naps: [u64; 2],
    pub(crate) panics: bool,
    pub(crate) permit_end: PermitEnd,
    pub(crate) handle_use: HandleUse,
    /// For how long the process stalls before the permit ends.
    pub(crate) stall_ns: u64,
    /// The caller is dropped after this time.
    pub(crate) patience_ns: Option<u64>,
    /// How long the request may wait for its permit, where it acquires one or is run.
    pub(crate) within_ns: Option<u64>,
    /// Another future in the same task of the executor panics after this time.
    pub(crate) panics_beside_ns: Option<u64>,
    /// What the task pushes to its own limiter.
    pub(crate) child: Option<Box<Task>>,
}

/// Which method of the limiter is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Acquire,
    Run,
    Push,
    PushFn,
    TryPush,
    TryAcquire,
}

/// The calls that are made most of the time, by how often.
const CALLS: [Call; 6] =
    [Call::Acquire, Call::Acquire, Call::Run, Call::Push, Call::PushFn, Call::TryPush];

/// How an acquired permit ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PermitEnd {
    Complete,
    CompleteWith(u64),
    Drop,
}

/// What is done with the handle of a queued push.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HandleUse {
    Await,
    Drop,
    CancelAfter(u64),
}

impl Scenario {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let base_ns = log_uniform(rng, 100, 100_000_000);
        let mut config = config(rng, base_ns);
        let is_huge = rng.u32(..1_500) == 0;
        if is_huge {
            let per = Duration::from_millis(rng.u64(100..1_000));
            config.limits = vec![Limit::tasks(rng.u64(90_000..200_000), per).expect("in range")];
            (config.paced, config.queue_capacity) = (false, usize::MAX);
        }
        let pace_ns = config.limits.iter().map(|limit| limit.per_ns() / limit.rate()).max();
        let pace_ns = pace_ns.unwrap_or(base_ns).max(1);
        let fast_ppm = rng.u64(0..=u64::from(config.clock_drift_ppm));
        let callers = if is_huge { rng.u32(250_000..500_000) } else { rng.u32(50..1_500) };
        Self {
            wakes_late: rng.u8(..4) == 0,
            fast_ppm,
            is_set_back: rng.u8(..8) == 0,
            change_after: (!is_huge && !config.paced && rng.u8(..6) == 0).then_some(16),
            is_huge,
            callers,
            gap_ns: pace_ns * rng.u64(1..if is_huge { 6 } else { 24 }) / 10,
            burst: if rng.bool() { 1 } else { rng.u32(1..60) },
            length_ns: if is_huge { 0 } else { pace_ns * [0, 0, 1, 3, 20][rng.usize(..5)] / 2 },
            patience_ns: pace_ns * rng.u64(1..100),
            trouble: if is_huge { 1_000 } else { rng.u32(6..400) },
            ending: match rng.u8(..8) {
                _ if is_huge => Ending::Drained,
                0 => Ending::Closed,
                1 => Ending::Aborted,
                2 => Ending::LastHandleDropped,
                _ => Ending::Drained,
            },
            ending_after: rng.u32(..callers),
            config,
        }
    }

    /// Limits of the same periods, and a concurrency.
    pub(crate) fn other_settings(&self, rng: &mut Rng) -> (Vec<Limit>, usize) {
        let other = |limit: &Limit| {
            let make = if limit.units(2) == 1 { Limit::tasks } else { Limit::weight };
            make(rng.u64(1..=limit.rate()), limit.per()).expect("in range")
        };
        let limits = self.config.limits.iter().map(other).collect();
        (limits, [1, 2, 3, 16][rng.usize(..4)])
    }

    /// How long until the next caller.
    pub(crate) fn gap(&self, rng: &mut Rng, already: u32) -> u64 {
        if already.is_multiple_of(self.burst) {
            around(rng, self.gap_ns * u64::from(self.burst))
        } else {
            0
        }
    }

    /// True for one call in `trouble`.
    pub(crate) fn is_trouble(&self, rng: &mut Rng) -> bool {
        rng.u32(..self.trouble) == 0
    }

    /// A random time of the order of this limiter's periods.
    pub(crate) fn some_time(&self, rng: &mut Rng) -> u64 {
        around(rng, self.patience_ns)
    }

    pub(crate) fn task(&self, rng: &mut Rng, may_have_child: bool) -> Task {
        let rate = self.config.limits.iter().map(Limit::rate).min().unwrap_or(1);
        let weight = match rng.u8(..32) {
            0 => rng.u64(..2 * rate + 2),
            1..8 => rng.u64(1..=rate),
            _ => 1 + rng.u64(..rate) / 4,
        };
        let nap = |rng: &mut Rng| if rng.bool() { around(rng, self.length_ns) } else { 0 };
        Task {
            weight,
            call: match (CALLS[rng.usize(..CALLS.len())], rng.u8(..12)) {
                (_, 0) => Call::TryAcquire,
                (call, _) => call,
            },
            naps: [nap(rng), nap(rng)],
            panics: self.is_trouble(rng),
            permit_end: match rng.u8(..8) {
                0 => PermitEnd::Drop,
                1 => PermitEnd::CompleteWith(rng.u64(..2 * rate + 2)),
                2 => PermitEnd::CompleteWith(rng.u64(..=weight)),
                _ => PermitEnd::Complete,
            },
            handle_use: match rng.u8(..8) {
                0..3 => HandleUse::Drop,
                3 if self.is_trouble(rng) => HandleUse::CancelAfter(self.some_time(rng)),
                _ => HandleUse::Await,
            },
            stall_ns: if self.is_trouble(rng) { self.some_time(rng) } else { 0 },
            patience_ns: self.is_trouble(rng).then(|| self.some_time(rng)),
            within_ns: (rng.u8(..6) == 0).then(|| self.some_time(rng)),
            panics_beside_ns: self.is_trouble(rng).then(|| self.some_time(rng)),
            child: (may_have_child && self.is_trouble(rng))
                .then(|| Box::new(self.task(rng, false))),
        }
    }
}

fn config(rng: &mut Rng, base_ns: u64) -> Config {
    let limits = (0..[1, 1, 2, 3][rng.usize(..4)]).map(|_| {
        let per = Duration::from_nanos(base_ns * rng.u64(1..8));
        let rate = rng.u64(1..40);
        let limit = if rng.u8(..3) == 0 { Limit::weight } else { Limit::tasks };
        limit(rate, per).expect("in range")
    });
    let limits: Vec<Limit> = limits.collect();
    let has_task_limit = limits.iter().any(|limit| limit.units(2) == 1);
    Config {
        paced: has_task_limit && rng.u8(..6) == 0,
        concurrency: [1, 1, 2, 3, 16][rng.usize(..5)],
        queue_capacity: [usize::MAX, usize::MAX, 0, 1, 5, 40][rng.usize(..6)],
        abandon_grace_ns: [0, 0, base_ns / 3, base_ns * 3][rng.usize(..4)],
        clock_drift_ppm: [0, 0, 100, 300_000][rng.usize(..4)],
        ..Config::new(limits)
    }
}

/// From `least` to `most`, all orders of magnitude equally likely.
fn log_uniform(rng: &mut Rng, least: u64, most: u64) -> u64 {
    let exponent = (most as f64 / least as f64).ln() * rng.f64();
    (least as f64 * exponent.exp()) as u64
}

/// Exponentially distributed.
fn around(rng: &mut Rng, mean_ns: u64) -> u64 {
    (-(1.0 - rng.f64()).ln() * mean_ns as f64) as u64
}
