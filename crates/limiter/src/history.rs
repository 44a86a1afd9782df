//! `HistoryEntry`: the tasks that a limiter holds, to carry over a restart.

use std::time::Duration;

use strict_rate_limiter_core::HeldEntry;
use strict_rate_limiter_core::limit::saturating_ns;

/// Tasks of an earlier process that ended together, or that may still be running: from
/// [`RateLimiter::history`](crate::RateLimiter::history), for
/// [`RateLimiterBuilder::history`](crate::RateLimiterBuilder::history).
///
/// Its times count from the call of `history`. To store entries on disk, write the wall clock's time beside them, and
/// add the time that has passed when you read them back:
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use strict_rate_limiter::{HistoryEntry, RateLimiter};
///
/// let limiter = RateLimiter::new(2, Duration::from_secs(3600))?;
/// limiter.try_acquire()?.complete();
/// let (taken_at, history) = (SystemTime::now(), limiter.history());
///
/// // After the restart. If the wall clock was set back, no time has passed: tasks are held longer, which is safe.
/// let passed = taken_at.elapsed().unwrap_or_default();
/// let limiter = RateLimiter::builder()
///     .limit("2/1h".parse()?)
///     .history(history.into_iter().map(|entry| entry.aged_by(passed)))
///     .build()?;
/// assert_eq!(limiter.stats().held[0].units, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    end: End,
    tasks: u64,
    weight: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The tasks completed this long ago.
    Ago(Duration),
    /// The tasks may still run for this long.
    In(Duration),
}

impl HistoryEntry {
    /// A task of `weight` that completed this long ago.
    pub const fn completed(ago: Duration, weight: u64) -> Self {
        Self { end: End::Ago(ago), tasks: 1, weight }
    }

    /// A task of `weight` whose call may still be on the wire for this long. It counts as running until then, also for
    /// the concurrency, and then completes.
    pub const fn in_flight(remaining: Duration, weight: u64) -> Self {
        Self { end: End::In(remaining), tasks: 1, weight }
    }

    /// Sets the number of tasks, and keeps the sum of their weights.
    #[must_use]
    pub const fn with_tasks(self, tasks: u64) -> Self {
        Self { tasks, ..self }
    }

    /// The same tasks as of this much later.
    #[must_use]
    pub const fn aged_by(self, passed: Duration) -> Self {
        let end = match self.end {
            End::Ago(ago) => End::Ago(ago.saturating_add(passed)),
            End::In(remaining) => match remaining.checked_sub(passed) {
                Some(remaining) => End::In(remaining),
                None => End::Ago(passed.saturating_sub(remaining)),
            },
        };
        Self { end, ..self }
    }

    /// How long ago they completed; `None` if they may still run.
    pub const fn ago(&self) -> Option<Duration> {
        match self.end {
            End::Ago(ago) => Some(ago),
            End::In(_) => None,
        }
    }

    /// How long they may still run; `None` if they have completed.
    pub const fn remaining(&self) -> Option<Duration> {
        match self.end {
            End::Ago(_) => None,
            End::In(remaining) => Some(remaining),
        }
    }

    /// The number of tasks.
    pub const fn tasks(&self) -> u64 {
        self.tasks
    }

    /// The sum of their weights.
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) fn from_core(now: u64, entry: HeldEntry) -> Self {
        let HeldEntry { ends_at, tasks, weight, .. } = entry;
        let end = match ends_at.checked_sub(now) {
            None | Some(0) => End::Ago(Duration::from_nanos(now - ends_at)),
            Some(remaining) => End::In(Duration::from_nanos(remaining)),
        };
        Self { end, tasks, weight }
    }

    pub(crate) fn into_core(self, now: u64) -> HeldEntry {
        let ends_at = match self.end {
            End::Ago(ago) => now.saturating_sub(saturating_ns(ago)),
            End::In(remaining) => now.saturating_add(saturating_ns(remaining)),
        };
        HeldEntry::new(ends_at, self.weight).with_tasks(self.tasks)
    }
}

/// How long ago a task completed, and its weight.
impl From<(Duration, u64)> for HistoryEntry {
    fn from((ago, weight): (Duration, u64)) -> Self {
        Self::completed(ago, weight)
    }
}
