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

use alloc::vec::Vec;

use crate::audit::{
    Audit, AuditError, Fullest, Overlap, Record, check, counted_at, fullest, sorted,
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
    check(records, |record| bounds.widest(record))?;
    let starts = counted_at(limit, records, |record| record.start);
    let ends = counted_at(limit, records, |record| record.end);
    let per_ns = limit.per_ns();
    let count = |from: &[(u64, u64)], until: &[(u64, u64)]| {
        fullest(Overlap { from, until, per_ns, units: 0 })
    };
    let of_starts = count(&starts, &starts);
    let of_ends = count(&ends, &ends);
    let worst = if *bounds == ErrorBounds::EXACT {
        count(&starts, &ends)
    } else {
        let from = shifted(&starts, |start| start.saturating_sub(bounds.start_early_ns));
        let until = shifted(&ends, |end| end.saturating_add(bounds.end_late_ns));
        count(&from, &until)
    };
    let rate = u128::from(limit.rate());
    let least = if *bounds == ErrorBounds::EXACT {
        worst.units
    } else {
        let overlap = certain_overlap(limit, records, bounds).units;
        let start = (bounds.start_early_ns, bounds.start_late_ns);
        let end = (bounds.end_early_ns, bounds.end_late_ns);
        let no_place = !have_places(limit, &starts, start) || !have_places(limit, &ends, end);
        if no_place { overlap.max(rate + 1) } else { overlap }
    };
    let most = Audit { limit: *limit, starts: of_starts, ends: of_ends, worst };
    Ok(CoarseAudit { most, least })
}

fn shifted(counts: &[(u64, u64)], shift: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
    counts.iter().map(|(at, units)| (shift(*at), *units)).collect()
}

/// The deepest overlap of what is held in every reading.
fn certain_overlap(limit: &Limit, records: &[Record], bounds: &ErrorBounds) -> Fullest {
    let certain = records.iter().filter_map(|record| {
        let from = record.start.saturating_add(bounds.start_late_ns);
        let until = record.end.saturating_sub(bounds.end_early_ns);
        let held = u128::from(from) <= u128::from(until) + u128::from(limit.per_ns());
        held.then(|| (from, until, limit.units(record.weight)))
    });
    let certain: Vec<(u64, u64, u64)> = certain.collect();
    let from = sorted(certain.iter().map(|(from, _, units)| (*from, *units)));
    let until = sorted(certain.iter().map(|(_, until, units)| (*until, *units)));
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
    // Of each record placed: how many units there are up to and with it, and its place.
    let mut placed: Vec<(u128, u128)> = Vec::with_capacity(counts.len());
    let (mut by_first, mut by_last) = (0, 0);
    let mut before = 0_u128;
    for (at, units) in counts.iter().filter(|(_, units)| *units > 0) {
        let (earliest, latest) = (at.saturating_sub(early), at.saturating_add(late));
        let with = before + u128::from(*units);
        if u128::from(*units) > rate {
            return false;
        }
        let after = |hand: &mut usize, unit: u128| {
            // Units are counted from 1. The first `rate` have nothing before them.
            let Some(earlier) = unit.checked_sub(rate).filter(|earlier| *earlier > 0) else {
                return 0;
            };
            while placed[*hand].0 < earlier {
                *hand += 1;
            }
            placed[*hand].1 + apart
        };
        let place = after(&mut by_first, before + 1).max(u128::from(earliest));
        if after(&mut by_last, with).max(u128::from(earliest)) > u128::from(latest) {
            return false;
        }
        placed.push((with, place));
        before = with;
    }
    true
}
