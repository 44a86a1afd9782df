//! The audit's definition: every window that could be the fullest, tried in turn.
//!
//! Used by the tests, and by the fuzzing targets.

use strict_rate_limiter_core::{Audit, Limit, Record, audit};

/// The audit finds what trying every window finds.
pub(crate) fn assert_as_by_hand(limit: &Limit, records: &[Record]) {
    let Audit { starts, ends, worst, .. } =
        audit::check(limit, records).expect("nothing ends before it starts");
    let at = |moment: fn(&Record) -> u64| {
        move |begin: i128, end: i128, record: &Record| {
            (begin..=end).contains(&i128::from(moment(record)))
        }
    };
    let somewhere = |begin: i128, end: i128, record: &Record| {
        i128::from(record.start) <= end && i128::from(record.end) >= begin
    };
    let starts_by_hand = fullest_by_hand(limit, at(|record| record.start), records);
    let ends_by_hand = fullest_by_hand(limit, at(|record| record.end), records);
    let worst_by_hand = fullest_by_hand(limit, somewhere, records);
    assert_eq!((starts.units, starts.begin), starts_by_hand, "counted at their starts");
    assert_eq!((ends.units, ends.begin), ends_by_hand, "counted at their ends");
    assert_eq!((worst.units, worst.begin), worst_by_hand, "counted at the worst moments");
}

/// The fullest of all windows that begin at any instant, and the first of those.
fn fullest_by_hand(
    limit: &Limit,
    inside: impl Fn(i128, i128, &Record) -> bool,
    records: &[Record],
) -> (u128, i128) {
    let per = i128::from(limit.per_ns());
    let latest = records.iter().map(|record| i128::from(record.end)).max().unwrap_or(0);
    let mut fullest = (0, 0);
    for begin in -per..=latest {
        let units = records.iter().filter(|record| inside(begin, begin + per, record));
        let units = units.map(|record| u128::from(limit.units(record.weight))).sum();
        if units > fullest.0 {
            fullest = (units, begin);
        }
    }
    fullest
}
