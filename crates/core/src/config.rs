//! The settings of a machine, and which of them are refused.

use alloc::vec::Vec;
use core::fmt;

use crate::limit::{Limit, Unit};

/// The most tasks that may run at once: 2²² (4,194,304).
pub const CONCURRENCY_MAX: usize = 1 << 22;

/// The greatest clock drift, in parts per million: our clock runs twice as fast as the server's.
pub const CLOCK_DRIFT_PPM_MAX: u32 = 1_000_000;

/// The longest grace for an abandoned task, in nanoseconds: as long as the longest period.
pub const ABANDON_GRACE_NS_MAX: u64 = 1 << 58;

/// The settings of a [`Machine`](crate::Machine). Plain data: [`Machine::new`](crate::Machine::new)
/// checks it. Start from [`Config::new`] and set the rest by struct update, as below: fields may be
/// added.
///
/// ```
/// # use strict_rate_limiter_core::{Config, ConfigError, Limit, Machine};
/// let limits: [Limit; 2] = ["500/1m".parse()?, "90000w/1m".parse()?];
/// let config = Config { concurrency: 4, paced: true, ..Config::new(limits) };
/// let machine: Machine<()> = Machine::new(config)?;
///
/// let nothing = Machine::<()>::new(Config::new([]));
/// assert_eq!(nothing.unwrap_err(), ConfigError::NoLimit);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The limits, at least one. A task needs room in all of them.
    pub limits: Vec<Limit>,
    /// Adds one more limit for each task limit: 1 task per `per / rate`, rounded up. So tasks are
    /// spread over the period and never run back to back. Needs a task limit.
    pub paced: bool,
    /// How many tasks may run at once: 1 (the default) to [`CONCURRENCY_MAX`].
    pub concurrency: usize,
    /// How many waiters are accepted at a time; unbounded by default. With 0 no waiter is ever accepted.
    pub queue_capacity: usize,
    /// Whether a waiter is [refused](crate::EnqueueError::Full) if the queue is full. Otherwise it joins
    /// behind the accepted waiters, and is accepted when there is room. Default `false`.
    pub refuse_when_full: bool,
    /// How long an abandoned task still counts as running, in nanoseconds, at most
    /// [`ABANDON_GRACE_NS_MAX`]. Default 0.
    pub abandon_grace_ns: u64,
    /// How much faster our clock may run than the protected system's, in parts per million, at most
    /// [`CLOCK_DRIFT_PPM_MAX`]. Stretches every period. Default 0.
    pub clock_drift_ppm: u32,
}

impl Config {
    /// The defaults with these limits: one task at a time.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        Self {
            limits: limits.into_iter().collect(),
            paced: false,
            concurrency: 1,
            queue_capacity: usize::MAX,
            refuse_when_full: false,
            abandon_grace_ns: 0,
            clock_drift_ppm: 0,
        }
    }

    /// Checks the ranges, and returns all limits: those of the settings, then the pace.
    pub(crate) fn checked_limits(&self) -> Result<Vec<Limit>, ConfigError> {
        if self.limits.is_empty() {
            return Err(ConfigError::NoLimit);
        }
        if self.concurrency == 0 {
            return Err(ConfigError::ZeroConcurrency);
        }
        if self.concurrency > CONCURRENCY_MAX {
            return Err(ConfigError::ConcurrencyTooHigh(self.concurrency));
        }
        if self.abandon_grace_ns > ABANDON_GRACE_NS_MAX {
            return Err(ConfigError::AbandonGraceTooLong(self.abandon_grace_ns));
        }
        if self.clock_drift_ppm > CLOCK_DRIFT_PPM_MAX {
            return Err(ConfigError::ClockDriftTooHigh(self.clock_drift_ppm));
        }
        let mut limits = self.limits.clone();
        if self.paced {
            // Of several paces only the slowest has an effect.
            let task_limits = self.limits.iter().filter(|limit| limit.unit() == Unit::Task);
            let slowest = task_limits.map(Limit::pace).max_by_key(Limit::per_ns);
            limits.push(slowest.ok_or(ConfigError::PacedWithoutTaskLimit)?);
        }
        Ok(limits)
    }
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no limit.
    NoLimit,
    /// The concurrency is 0, so no task could ever run.
    ZeroConcurrency,
    /// The concurrency is over [`CONCURRENCY_MAX`].
    ConcurrencyTooHigh(usize),
    /// Pacing needs a task limit, and there is none.
    PacedWithoutTaskLimit,
    /// The grace is over [`ABANDON_GRACE_NS_MAX`].
    AbandonGraceTooLong(u64),
    /// The clock drift is over [`CLOCK_DRIFT_PPM_MAX`].
    ClockDriftTooHigh(u32),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLimit => write!(f, "there is no limit: give at least one, such as 10/1s"),
            Self::ZeroConcurrency => {
                write!(f, "concurrency 0 would never let anything run; the least is 1")
            }
            Self::ConcurrencyTooHigh(concurrency) => {
                write!(f, "concurrency {concurrency} is over the highest, {CONCURRENCY_MAX}")
            }
            Self::PacedWithoutTaskLimit => {
                write!(f, "pacing spreads tasks over a task limit's period: add one, such as 10/1s")
            }
            Self::AbandonGraceTooLong(ns) => {
                write!(
                    f,
                    "an abandon grace of {ns} ns is over the longest, {ABANDON_GRACE_NS_MAX} ns"
                )
            }
            Self::ClockDriftTooHigh(ppm) => {
                write!(
                    f,
                    "a clock drift of {ppm} ppm is over the highest, {CLOCK_DRIFT_PPM_MAX} ppm"
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {}
