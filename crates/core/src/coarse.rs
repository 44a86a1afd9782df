//! The audit of a log whose times are not exact: times cut off to whole seconds, durations in
//! milliseconds, a start that was computed from an end.
//!
//! Each record then has many readings: its start and its end may lie anywhere within the
//! [`ErrorBounds`] of the log. Two numbers bound the units in the fullest window:
//!
//! * **at most**: every task is read as long as it can have been. Exact: this is the audit of the
//!   widened records, and one of the readings reaches it.
//! * **at least**: the units that the fullest window has in every reading. One of two arguments proves
//!   it, so a log that is called broken is broken in every reading:
//!   - *overlap*: in every reading, a task is held from its latest start until `per` after its earliest
//!     end, if the one is before the other. A sweep finds the deepest overlap of these.
//!   - *schedule*: in a reading that keeps the limit, the `k`-th unit starts more than `per` after the
//!     `(k - rate)`-th. Giving each unit the earliest time that this allows either finds a time for all
//!     of them or shows that there is none. (All units have windows of the same length, so the order of
//!     the times is the best order.)
//!
//! For records of one moment each and limits on tasks, the two together decide exactly: if neither
//! argument holds, some reading keeps the limit.

use alloc::collections::VecDeque;

use crate::audit::{
    Audit, AuditError, Fullest, Overlap, Record, check_order, counted_at, fullest, sorted,
};
use crate::limit::Limit;

/// How far the times of a log may be from the true times, in nanoseconds; the same for all records.
///
/// Times that were cut off to whole seconds, for example, are up to a second too early: the truth may
/// be `999_999_999` ns later than each says, and no earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorBounds {
    /// A task may have started this much earlier than its record says.
    pub start_early_ns: u64,
    /// A task may have started this much later than its record says.
    pub start_late_ns: u64,
    /// A task may have ended this much earlier than its record says.
    pub end_early_ns: u64,
    /// A task may have ended this much later than its record says.
    pub end_late_ns: u64,
}

/// Whether a log kept a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No reading of the log overflows a window.
    Kept,
    /// Every reading of the log overflows a window.
    Broken,
    /// Neither is proved: the times are too coarse to tell.
    Undecided,
}

/// The result of the audit of one limit with inexact times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoarseAudit {
    /// `starts` and `ends` count each task at its recorded times; `worst` is the fullest window of any
    /// reading.
    pub most: Audit,
    /// The fullest window of every reading holds at least this many units.
    pub least: u128,
}

impl ErrorBounds {
    /// All times are exact to the nanosecond.
    pub const EXACT: Self =
        Self { start_early_ns: 0, start_late_ns: 0, end_early_ns: 0, end_late_ns: 0 };

    /// A record from its earliest start to its latest end.
    #[must_use]
    pub fn widest(&self, record: &Record) -> Record {
        Record {
            start: record.start.saturating_sub(self.start_early_ns),
            end: record.end.saturating_add(self.end_late_ns),
            weight: record.weight,
        }
    }
}

impl CoarseAudit {
    /// Whether the log kept the limit.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.most.is_clean() {
            Verdict::Kept
        } else if self.least > u128::from(self.most.limit.rate()) {
            Verdict::Broken
        } else {
            Verdict::Undecided
        }
    }
}

/// Audits records whose times are known only within error bounds, in any order, against one limit.
///
/// A record may end before it starts if the bounds explain it.
///
/// ```
/// use strict_rate_limiter_core::audit::{ErrorBounds, Record, Verdict, audit_coarse};
///
/// // Two tasks each second, the times cut off to whole seconds.
/// let at = |at| Record { start: at, end: at, weight: 1 };
/// let records = [at(1_000_000_000), at(1_000_000_000), at(2_000_000_000), at(2_000_000_000)];
/// let cut_off = ErrorBounds {
///     start_late_ns: 999_999_999,
///     end_late_ns: 999_999_999,
///     ..ErrorBounds::EXACT
/// };
/// let verdict = |limit: &str| -> Result<Verdict, Box<dyn core::error::Error>> {
///     Ok(audit_coarse(&limit.parse()?, &records, &cut_off)?.verdict())
/// };
/// assert_eq!(verdict("4/1s")?, Verdict::Kept);
/// assert_eq!(verdict("2/1s")?, Verdict::Undecided);
/// assert_eq!(verdict("1/1s")?, Verdict::Broken);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn audit_coarse(
    limit: &Limit,
    records: &[Record],
    bounds: &ErrorBounds,
) -> Result<CoarseAudit, AuditError> {
    check_order(records, |record| bounds.widest(record))?;
    let exact = *bounds == ErrorBounds::EXACT;
    let overlap = if exact { 0 } else { certain_overlap(limit, records, bounds).units };
    let mut starts = counted_at(limit, records, |record| record.start);
    let mut ends = counted_at(limit, records, |record| record.end);
    let per_ns = limit.per_ns();
    let count = |from: &[(u64, u64)], until: &[(u64, u64)]| {
        fullest(Overlap { from, until, per_ns, units: 0 })
    };
    let of_starts = count(&starts, &starts);
    let of_ends = count(&ends, &ends);
    let start_error = (bounds.start_early_ns, bounds.start_late_ns);
    let end_error = (bounds.end_early_ns, bounds.end_late_ns);
    let no_schedule = !exact
        && (!have_schedule(limit, &starts, start_error) || !have_schedule(limit, &ends, end_error));
    // From here on each record is read as long as it can have been. This keeps the order.
    for (at, _) in &mut starts {
        *at = at.saturating_sub(bounds.start_early_ns);
    }
    for (at, _) in &mut ends {
        *at = at.saturating_add(bounds.end_late_ns);
    }
    let worst = count(&starts, &ends);
    let rate = u128::from(limit.rate());
    let least = match (exact, no_schedule) {
        (true, _) => worst.units,
        (false, true) => overlap.max(rate + 1),
        (false, false) => overlap,
    };
    let most = Audit { limit: *limit, starts: of_starts, ends: of_ends, worst };
    Ok(CoarseAudit { most, least })
}

/// The deepest overlap of the units that are held in every reading.
fn certain_overlap(limit: &Limit, records: &[Record], bounds: &ErrorBounds) -> Fullest {
    let certain = || {
        records.iter().filter_map(|record| {
            let from = record.start.saturating_add(bounds.start_late_ns);
            let until = record.end.saturating_sub(bounds.end_early_ns);
            let held = u128::from(from) <= u128::from(until) + u128::from(limit.per_ns());
            held.then(|| (from, until, limit.units(record.weight)))
        })
    };
    let from = sorted(certain().map(|(from, _, units)| (from, units)));
    let until = sorted(certain().map(|(_, until, units)| (until, units)));
    fullest(Overlap { from: &from, until: &until, per_ns: limit.per_ns(), units: 0 })
}

/// Whether each of these units can have a time within `(early, late)` of its recorded time, such that no
/// window of the limit holds more than its rate. `false` is certain.
///
/// All units of one record get the time of its first one. That is no later than the true time of each,
/// so the units that follow are not scheduled later than their true times either.
fn have_schedule(limit: &Limit, counts: &[(u64, u64)], (early, late): (u64, u64)) -> bool {
    let rate = u128::from(limit.rate());
    let apart = u128::from(limit.per_ns()) + 1;
    // For each scheduled record: the units up to and including it, and its time. The first entry has the
    // unit that is `rate` before the first unit of the present record; the entry `by_last` has the one
    // that is `rate` before its last unit.
    let mut scheduled: VecDeque<(u128, u128)> = VecDeque::new();
    let mut by_last = 0_usize;
    let mut before = 0_u128;
    for (at, units) in counts.iter().filter(|(_, units)| *units > 0) {
        let (earliest, latest) = (u128::from(at.saturating_sub(early)), at.saturating_add(late));
        let with = before + u128::from(*units);
        if u128::from(*units) > rate {
            return false;
        }
        // Units are counted from 1; the first `rate` of them need no distance.
        let mut time = earliest;
        if let Some(earlier) = (before + 1).checked_sub(rate).filter(|earlier| *earlier > 0) {
            while scheduled[0].0 < earlier {
                scheduled.pop_front();
                by_last = by_last.saturating_sub(1);
            }
            time = time.max(scheduled[0].1 + apart);
        }
        let mut last_time = time;
        if let Some(earlier) = with.checked_sub(rate).filter(|earlier| *earlier > 0) {
            while scheduled[by_last].0 < earlier {
                by_last += 1;
            }
            last_time = last_time.max(scheduled[by_last].1 + apart);
        }
        if last_time > u128::from(latest) {
            return false;
        }
        scheduled.push_back((with, time));
        before = with;
    }
    true
}
