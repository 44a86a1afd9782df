//! The audit of a log whose times are not exact: stamps cut off to whole seconds, durations in
//! milliseconds, a start that was computed from an end.
//!
//! Each record then has many readings: its start and its end may lie anywhere within the
//! [`ErrorBounds`] of the log. Two numbers enclose what the fullest window can have held:
//!
//! * **at most**: every task is read as long as it can have been. Exact: it is the audit of the
//!   widened records, and a reading that reaches it exists.
//! * **at least**: what no reading can avoid. Every unit of it is proved by one of two arguments, so a
//!   log that is called broken is broken in every reading:
//!   - *overlap*: a task is held from its latest start until `per` after its earliest end in every
//!     reading, if the one is before the other. A sweep finds the deepest overlap of these.
//!   - *places*: in a reading that keeps the limit, the `k`-th unit to start does so more than `per`
//!     after the `(k - rate)`-th. Giving each unit the earliest place that this allows either finds
//!     a place for all of them or shows that there is none. (Tasks of one log all have windows of one
//!     length, so first come, first served is the best order.)
//!
//! For records of one moment each and limits on tasks, the two together decide exactly: if neither
//! argument holds, some reading keeps the limit.

use alloc::collections::VecDeque;

use crate::audit::{
    Audit, AuditError, Fullest, Overlap, Record, check_order, counted_at, fullest, sorted,
};
use crate::limit::Limit;

/// How far the times of a log may be from the truth, in nanoseconds; the same for all its records.
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

/// What is known of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No reading of the log overflows a window.
    Kept,
    /// Every reading of the log overflows a window.
    Broken,
    /// Neither is shown: the times are too coarse to tell.
    Undecided,
}

/// What the audit of one limit found, where times are not exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoarseAudit {
    /// `starts` and `ends` count each task when its record says; `worst` is the fullest window of any
    /// reading.
    pub most: Audit,
    /// The fullest window of every reading holds at least this many units.
    pub least: u128,
}

impl ErrorBounds {
    /// Every time is right to the nanosecond.
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
    /// What is known of the limit.
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

/// Audits records whose times are only known within bounds, in any order, against one limit.
///
/// A record may end before it starts as far as the bounds explain it.
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
    let no_place = !exact
        && (!have_places(limit, &starts, start_error) || !have_places(limit, &ends, end_error));
    // From here on each record is read as long as it can have been. That leaves the order as it is.
    for (at, _) in &mut starts {
        *at = at.saturating_sub(bounds.start_early_ns);
    }
    for (at, _) in &mut ends {
        *at = at.saturating_add(bounds.end_late_ns);
    }
    let worst = count(&starts, &ends);
    let rate = u128::from(limit.rate());
    let least = match (exact, no_place) {
        (true, _) => worst.units,
        (false, true) => overlap.max(rate + 1),
        (false, false) => overlap,
    };
    let most = Audit { limit: *limit, starts: of_starts, ends: of_ends, worst };
    Ok(CoarseAudit { most, least })
}

/// The deepest overlap of what is held in every reading.
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

/// Whether each of these units can have a moment within `(early, late)` of its time, such that no
/// window of the limit holds more than its rate. `false` is certain.
///
/// Units of one record all get the place of its first one, which is no later than each has in
/// truth, so what follows them is placed no later than in truth either.
fn have_places(limit: &Limit, counts: &[(u64, u64)], (early, late): (u64, u64)) -> bool {
    let rate = u128::from(limit.rate());
    let apart = u128::from(limit.per_ns()) + 1;
    // Of records placed: how many units there are up to and with it, and its place. The first of them
    // holds the unit `rate` before the first of the record at hand; `by_last` is which of them holds the
    // one `rate` before its last.
    let mut placed: VecDeque<(u128, u128)> = VecDeque::new();
    let mut by_last = 0_usize;
    let mut before = 0_u128;
    for (at, units) in counts.iter().filter(|(_, units)| *units > 0) {
        let (earliest, latest) = (u128::from(at.saturating_sub(early)), at.saturating_add(late));
        let with = before + u128::from(*units);
        if u128::from(*units) > rate {
            return false;
        }
        // Units are counted from 1; the first `rate` have nothing to keep away from.
        let mut place = earliest;
        if let Some(earlier) = (before + 1).checked_sub(rate).filter(|earlier| *earlier > 0) {
            while placed[0].0 < earlier {
                placed.pop_front();
                by_last = by_last.saturating_sub(1);
            }
            place = place.max(placed[0].1 + apart);
        }
        let mut last_place = place;
        if let Some(earlier) = with.checked_sub(rate).filter(|earlier| *earlier > 0) {
            while placed[by_last].0 < earlier {
                by_last += 1;
            }
            last_place = last_place.max(placed[by_last].1 + apart);
        }
        if last_place > u128::from(latest) {
            return false;
        }
        placed.push_back((with, place));
        before = with;
    }
    true
}
