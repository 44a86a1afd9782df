//! The audit: finds the fullest window of a log, and so whether any window overflowed.
//!
//! It takes records of tasks and shares no code with the machine, so it checks the log of any
//! program, ours included. It makes three counts, each exact and in `O(n log n)`:
//!
//! * **starts**: every task counted when it started;
//! * **ends**: every task counted when it ended;
//! * **worst**: every task counted at the moment between its start and its end that makes the window
//!   fullest. No protected system, however it counts, can have seen more.
//!
//! The worst choice needs no sampling. A task can be counted in the closed window `[y - per, y]`
//! exactly if `start <= y` and `end + per >= y`, whatever the others do; so the fullest window is
//! the deepest overlap of the intervals `[start, end + per]`, and a sweep over their ends finds it.
//!
//! [`audit_coarse`] audits logs whose times are not exact.

use alloc::vec::Vec;
use core::fmt;

pub use crate::coarse::{CoarseAudit, ErrorBounds, Verdict, audit_coarse};
use crate::limit::Limit;

/// One task that ran, in nanoseconds since any fixed instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When it started: no later than the protected system could have counted it.
    pub start: u64,
    /// When it ended: no earlier than the protected system could have counted it.
    pub end: u64,
    /// Its weight.
    pub weight: u64,
}

/// The fullest window of one way of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fullest {
    /// The units in it.
    pub units: u128,
    /// The window's begin: the window is `[begin, begin + per]`. The earliest if several are equally full.
    /// Negative if it begins before instant 0.
    pub begin: i128,
}

/// The result of the audit of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// The limit that was audited.
    pub limit: Limit,
    /// The fullest window of starts.
    pub starts: Fullest,
    /// The fullest window of ends.
    pub ends: Fullest,
    /// The fullest window for the worst choice of a moment between each start and end.
    pub worst: Fullest,
}

impl Audit {
    /// Whether no window overflowed, wherever between its start and its end each task is counted.
    pub fn is_clean(&self) -> bool {
        self.worst.units <= u128::from(self.limit.rate())
    }
}

/// A record that ends before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditError {
    /// The position of the record, counted from 0.
    pub index: usize,
    /// The record.
    pub record: Record,
}

/// Audits records, in any order, against one limit.
///
/// ```
/// use strict_rate_limiter_core::audit::{self, Record};
///
/// let limit = "2/100ns".parse()?;
/// let records = [
///     Record { start: 0, end: 10, weight: 1 },
///     Record { start: 20, end: 90, weight: 1 },
///     Record { start: 105, end: 106, weight: 1 },
/// ];
/// let audit = audit::check(&limit, &records)?;
/// assert_eq!(audit.starts.units, 2);
/// // Counted at 10, 90 and 105, all three are within [5, 105].
/// assert_eq!((audit.worst.units, audit.worst.begin), (3, 5));
/// assert!(!audit.is_clean());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn check(limit: &Limit, records: &[Record]) -> Result<Audit, AuditError> {
    Ok(audit_coarse(limit, records, &ErrorBounds::EXACT)?.most)
}

/// How full the window `[at - per, at]` can have been, at each instant at which that changes.
///
/// Every task is counted at the moment between its start and its end that makes the window fullest; the
/// highest step is [`Audit::worst`]. `each` is called in the order of time, several times for an instant
/// at which several tasks start.
pub fn over_time(
    limit: &Limit,
    records: &[Record],
    each: impl FnMut(Step),
) -> Result<(), AuditError> {
    check_order(records, |record| *record)?;
    let from = &counted_at(limit, records, |record| record.start);
    let until = &counted_at(limit, records, |record| record.end);
    Overlap { from, until, per_ns: limit.per_ns(), units: 0 }.for_each(each);
    Ok(())
}

/// A change of the number of units in the window that ends at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The instant.
    pub at: u128,
    /// The units in the window from then on.
    pub units: u128,
}

/// Refuses records that end before they start, as they are read.
pub(crate) fn check_order(
    records: &[Record],
    read: impl Fn(&Record) -> Record,
) -> Result<(), AuditError> {
    let ends_early = |record: &Record| read(record).end < read(record).start;
    match records.iter().position(ends_early) {
        Some(index) => Err(AuditError { index, record: records[index] }),
        None => Ok(()),
    }
}

/// Each record's units, by one of its moments.
pub(crate) fn counted_at(
    limit: &Limit,
    records: &[Record],
    moment: fn(&Record) -> u64,
) -> Vec<(u64, u64)> {
    sorted(records.iter().map(|record| (moment(record), limit.units(record.weight))))
}

pub(crate) fn sorted(counts: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut counts: Vec<(u64, u64)> = counts.collect();
    counts.sort_unstable();
    counts
}

/// The fullest window of an overlap, and the first of those.
pub(crate) fn fullest(overlap: Overlap<'_>) -> Fullest {
    let per = i128::from(overlap.per_ns);
    let mut fullest = Fullest::default();
    for Step { at, units } in overlap {
        if units > fullest.units {
            fullest = Fullest { units, begin: at.cast_signed() - per };
        }
    }
    fullest
}

/// The overlap of the closed intervals `[from, until + per]`, change by change. The starts and the ends
/// are two lists, each sorted by time. An interval that starts at the instant at which another ends
/// overlaps it.
pub(crate) struct Overlap<'a> {
    pub(crate) from: &'a [(u64, u64)],
    pub(crate) until: &'a [(u64, u64)],
    pub(crate) per_ns: u64,
    pub(crate) units: u128,
}

impl Iterator for Overlap<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // An interval that ends at an instant still contains that instant.
        let out = |(until, units): &(u64, u64)| {
            (u128::from(*until) + u128::from(self.per_ns) + 1, u128::from(*units))
        };
        let leaves = self.until.split_first().map(|(first, rest)| (out(first), rest));
        let enters = self.from.split_first();
        match (enters, leaves) {
            (Some(((at, units), rest)), leaves)
                if leaves.is_none_or(|((out, _), _)| u128::from(*at) < out) =>
            {
                self.units += u128::from(*units);
                self.from = rest;
                Some(Step { at: u128::from(*at), units: self.units })
            }
            (_, Some(((at, units), rest))) => {
                self.units -= units;
                self.until = rest;
                Some(Step { at, units: self.units })
            }
            (_, None) => None,
        }
    }
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { start, end, .. } = self.record;
        write!(f, "record {} ends at {end}, before it starts at {start}", self.index)
    }
}

impl core::error::Error for AuditError {}
