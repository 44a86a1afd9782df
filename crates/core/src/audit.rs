//! The audit: given what ran, did any window overflow, and where?
//!
//! It takes records of tasks and knows nothing of the machine that let them run, so it judges any
//! program's log, ours included. Three counts, each exact and each in `O(n log n)`:
//!
//! * **starts**: every task counted when it started;
//! * **ends**: every task counted when it ended;
//! * **worst**: every task counted at whichever moment between its start and its end makes the
//!   window fullest. No protected system, however it counts, can have seen more than this.
//!
//! The worst choice needs no sampling. A task can be counted in the closed window `[y - per, y]`
//! exactly if `start <= y` and `end + per >= y`, whatever the others do; so the fullest window is
//! the deepest overlap of the intervals `[start, end + per]`, and a sweep over their ends finds it.

use alloc::vec::Vec;
use core::fmt;

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
    /// Where it begins: the window is `[begin, begin + per]`. The earliest, where several are
    /// equally full. Negative where it begins before instant 0.
    pub begin: i128,
}

/// What the audit of one limit found.
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
    /// Whether no window overflowed, wherever between its start and its end each task counted.
    pub fn is_clean(&self) -> bool {
        self.worst.units <= u128::from(self.limit.rate())
    }
}

/// A record that ends before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditError {
    /// Which record, counted from 0.
    pub index: usize,
    /// The record.
    pub record: Record,
}

/// Audits records, in any order, against one limit.
///
/// ```
/// use strict_rate_limiter_core::{Record, audit};
///
/// let limit = "2/100ns".parse()?;
/// let records = [
///     Record { start: 0, end: 10, weight: 1 },
///     Record { start: 20, end: 90, weight: 1 },
///     Record { start: 105, end: 106, weight: 1 },
/// ];
/// let audit = audit(&limit, &records)?;
/// assert_eq!(audit.starts.units, 2);
/// // Counted at 10, 90 and 105, all three are within [5, 105].
/// assert_eq!((audit.worst.units, audit.worst.begin), (3, 5));
/// assert!(!audit.is_clean());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn audit(limit: &Limit, records: &[Record]) -> Result<Audit, AuditError> {
    if let Some(index) = records.iter().position(|record| record.end < record.start) {
        return Err(AuditError { index, record: records[index] });
    }
    let counted_at = |moment: fn(&Record) -> u64| {
        let mut counts: Vec<(u64, u64)> =
            records.iter().map(|record| (moment(record), limit.units(record.weight))).collect();
        counts.sort_unstable();
        counts
    };
    let starts = counted_at(|record| record.start);
    let ends = counted_at(|record| record.end);
    Ok(Audit {
        limit: *limit,
        starts: fullest(&starts, &starts, limit.per_ns()),
        ends: fullest(&ends, &ends, limit.per_ns()),
        worst: fullest(&starts, &ends, limit.per_ns()),
    })
}

/// The deepest overlap of the closed intervals `[from, until + per]`, the two ends of each given
/// in lists of their own, sorted by time. What is entered at the same instant as something else is
/// left overlaps it.
fn fullest(from: &[(u64, u64)], until: &[(u64, u64)], per_ns: u64) -> Fullest {
    let mut fullest = Fullest::default();
    let mut depth = 0_u128;
    let mut left = until.iter().peekable();
    for &(at, units) in from {
        while let Some((_, units)) =
            left.next_if(|(until, _)| u128::from(*until) + u128::from(per_ns) < u128::from(at))
        {
            depth -= u128::from(*units);
        }
        depth += u128::from(units);
        if depth > fullest.units {
            fullest = Fullest { units: depth, begin: i128::from(at) - i128::from(per_ns) };
        }
    }
    fullest
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { start, end, .. } = self.record;
        write!(f, "record {} ends at {end}, before it starts at {start}", self.index)
    }
}

impl core::error::Error for AuditError {}
