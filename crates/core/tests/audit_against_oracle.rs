//! The audit's sweep compared with the definition, which tries every window that could be the fullest.

#[path = "oracle/windows.rs"]
mod windows;

use proptest::prelude::*;
use strict_rate_limiter_core::audit::{ErrorBounds, Step, Verdict, audit_coarse, over_time};
use strict_rate_limiter_core::{Limit, Record, Unit, audit};

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (0_u64..120, 0_u64..40, 0_u64..5).prop_map(|(start, length, weight)| Record {
        start,
        end: start + length,
        weight,
    });
    proptest::collection::vec(record, 0..25)
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::<bool>(), 1_u64..10, 1_u64..50).prop_map(|(tasks, rate, per_ns)| {
        let make = if tasks { Limit::tasks } else { Limit::weight };
        make(rate, std::time::Duration::from_nanos(per_ns)).expect("in range")
    })
}

/// Few records at few instants, because the oracle tries all readings of them.
fn few(length: u64) -> impl Strategy<Value = Vec<Record>> {
    let record = (20_u64..32, 0..=length, 0_u64..4).prop_map(|(start, length, weight)| Record {
        start,
        end: start + length,
        weight,
    });
    proptest::collection::vec(record, 0..5)
}

fn bounds() -> impl Strategy<Value = ErrorBounds> {
    [0_u64..2, 0_u64..2, 0_u64..2, 0_u64..2].prop_map(
        |[start_early, start_late, end_early, end_late]| ErrorBounds {
            start_early_ns: start_early,
            start_late_ns: start_late,
            end_early_ns: end_early,
            end_late_ns: end_late,
        },
    )
}

/// Calls `check` with each reading of these records.
fn read_in_every_way(
    left: &[Record],
    read: &mut Vec<Record>,
    readings: &dyn Fn(&Record) -> Vec<Record>,
    check: &mut dyn FnMut(&[Record]),
) {
    let Some((first, left)) = left.split_first() else { return check(read) };
    for reading in readings(first) {
        read.push(reading);
        read_in_every_way(left, read, readings, check);
        read.pop();
    }
}

/// The least and the most units in the fullest window, over all readings of these records.
fn by_hand(
    limit: &Limit,
    records: &[Record],
    readings: &dyn Fn(&Record) -> Vec<Record>,
) -> (u128, u128) {
    let (mut least, mut most) = (u128::MAX, 0);
    let mut read = vec![];
    read_in_every_way(records, &mut read, readings, &mut |read| {
        let units = audit::check(limit, read).expect("a reading ends after it starts").worst.units;
        (least, most) = (least.min(units), most.max(units));
    });
    (least, most)
}

proptest! {
    #[test]
    fn a_coarse_audit_bounds_every_reading_of_the_log(
        limit in limit(),
        records in few(6),
        bounds in bounds(),
    ) {
        let readings = |record: &Record| {
            let mut readings = vec![];
            for start in record.start - bounds.start_early_ns..=record.start + bounds.start_late_ns {
                for end in record.end - bounds.end_early_ns..=record.end + bounds.end_late_ns {
                    if end >= start {
                        readings.push(Record { start, end, weight: record.weight });
                    }
                }
            }
            readings
        };
        let (least, most) = by_hand(&limit, &records, &readings);
        let found = audit_coarse(&limit, &records, &bounds).unwrap();
        prop_assert_eq!(found.most.worst.units, most);
        prop_assert!(found.least <= least, "{} of {least}", found.least);
        let rate = u128::from(limit.rate());
        match found.verdict() {
            Verdict::Kept => prop_assert!(most <= rate),
            Verdict::Broken => prop_assert!(least > rate),
            Verdict::Undecided => prop_assert!(most > rate),
        }
    }

    #[test]
    fn of_moments_and_a_limit_on_tasks_a_coarse_audit_decides_all_that_can_be_decided(
        rate in 1_u64..4,
        per_ns in 1_u64..8,
        records in few(0),
        (early, late) in (0_u64..4, 0_u64..4),
    ) {
        let limit = Limit::tasks(rate, std::time::Duration::from_nanos(per_ns)).unwrap();
        let bounds = ErrorBounds {
            start_early_ns: early,
            start_late_ns: late,
            end_early_ns: early,
            end_late_ns: late,
        };
        let readings = |record: &Record| {
            let moments = record.start - early..=record.start + late;
            moments.map(|at| Record { start: at, end: at, weight: record.weight }).collect()
        };
        let (least, most) = by_hand(&limit, &records, &readings);
        let rate = u128::from(rate);
        let expected = match (least > rate, most > rate) {
            (true, _) => Verdict::Broken,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Kept,
        };
        prop_assert_eq!(audit_coarse(&limit, &records, &bounds).unwrap().verdict(), expected);
    }

    #[test]
    fn of_exact_times_a_coarse_audit_is_the_audit(limit in limit(), records in records()) {
        let exact = audit_coarse(&limit, &records, &ErrorBounds::EXACT).unwrap();
        let audit = audit::check(&limit, &records).unwrap();
        prop_assert_eq!((exact.most, exact.least), (audit, audit.worst.units));
        let expected = if audit.is_clean() { Verdict::Kept } else { Verdict::Broken };
        prop_assert_eq!(exact.verdict(), expected);
    }

    #[test]
    fn the_sweep_agrees_with_trying_every_window(limit in limit(), records in records()) {
        windows::assert_as_by_hand(&limit, &records);
    }

    #[test]
    fn every_step_has_the_units_that_the_window_can_contain(
        limit in limit(),
        records in records(),
    ) {
        let mut steps: Vec<Step> = vec![];
        over_time(&limit, &records, |step| steps.push(step)).unwrap();
        prop_assert!(steps.is_sorted_by_key(|step| step.at));
        prop_assert_eq!(steps.len(), 2 * records.len());
        for (index, step) in steps.iter().enumerate() {
            if steps.get(index + 1).is_some_and(|next| next.at == step.at) {
                continue;
            }
            let held = records.iter().filter(|record| {
                (record.start..=record.end + limit.per_ns()).contains(&u64::try_from(step.at).unwrap())
            });
            let held: u64 = held.map(|record| limit.units(record.weight)).sum();
            prop_assert_eq!(step.units, u128::from(held));
        }
        let highest = steps.iter().map(|step| step.units).max().unwrap_or(0);
        prop_assert_eq!(highest, audit::check(&limit, &records).unwrap().worst.units);
    }

    #[test]
    fn order_of_the_records_does_not_matter(limit in limit(), records in records()) {
        let mut backwards = records.clone();
        backwards.reverse();
        prop_assert_eq!(audit::check(&limit, &records), audit::check(&limit, &backwards));
    }
}

#[test]
fn a_window_is_closed_at_both_ends() {
    let limit: Limit = "1/100ns".parse().unwrap();
    let at = |at| Record { start: at, end: at, weight: 1 };
    assert!(!audit::check(&limit, &[at(0), at(100)]).unwrap().is_clean());
    assert!(audit::check(&limit, &[at(0), at(101)]).unwrap().is_clean());
}

#[test]
fn the_extremes_of_time_and_weight_are_audited_without_overflow() {
    let limit = Limit::weight(5, strict_rate_limiter_core::limit::PER_MAX).unwrap();
    assert_eq!(limit.unit(), Unit::Weight);
    let whole = Record { start: 0, end: u64::MAX, weight: u64::MAX };
    let late = Record { start: u64::MAX, end: u64::MAX, weight: u64::MAX };
    let audit = audit::check(&limit, &[whole, late]).unwrap();
    assert_eq!(audit.worst.units, 2 * u128::from(u64::MAX));
}

#[test]
fn a_record_that_ends_before_it_starts_is_named() {
    let limit: Limit = "1/1s".parse().unwrap();
    let good = Record { start: 1, end: 2, weight: 1 };
    let bad = Record { start: 9, end: 3, weight: 1 };
    let error = audit::check(&limit, &[good, bad]).unwrap_err();
    assert_eq!(error.to_string(), "record 1 ends at 3, before it starts at 9");
}

/// Times that were cut off to whole seconds.
const WHOLE_SECONDS: ErrorBounds = ErrorBounds {
    start_early_ns: 0,
    start_late_ns: 999_999_999,
    end_early_ns: 0,
    end_late_ns: 999_999_999,
};

#[test]
fn a_rate_that_is_only_too_high_in_the_long_run_is_broken_in_whole_seconds_too() {
    // No two seconds are certain to be within 1.5 s of each other, but there is no room for all.
    let second = |second: u64| {
        let at = second * 1_000_000_000;
        std::iter::repeat_n(Record { start: at, end: at, weight: 1 }, 10)
    };
    let records: Vec<Record> = (0..20).flat_map(second).collect();
    let verdict = |limit: &str| {
        audit_coarse(&limit.parse().unwrap(), &records, &WHOLE_SECONDS).unwrap().verdict()
    };
    assert_eq!(verdict("10/1500ms"), Verdict::Broken);
    assert_eq!(verdict("10/1s"), Verdict::Undecided);
    assert_eq!(verdict("20/1s"), Verdict::Kept);
    // At most six fit in a second, 200 ms apart.
    assert_eq!(verdict("1/200ms"), Verdict::Broken);
    assert_eq!(verdict("1/50ms"), Verdict::Undecided);
}

#[test]
fn coarse_records_at_the_extremes_of_time_and_weight_are_audited_without_overflow() {
    let limit = Limit::weight(5, strict_rate_limiter_core::limit::PER_MAX).unwrap();
    let bounds = ErrorBounds {
        start_early_ns: u64::MAX,
        start_late_ns: u64::MAX,
        end_early_ns: u64::MAX,
        end_late_ns: u64::MAX,
    };
    let whole = Record { start: 0, end: u64::MAX, weight: u64::MAX };
    let late = Record { start: u64::MAX, end: 0, weight: 5 };
    let found = audit_coarse(&limit, &[whole, late], &bounds).unwrap();
    assert_eq!(found.most.worst.units, u128::from(u64::MAX) + 5);
    assert_eq!(found.verdict(), Verdict::Broken, "the one alone is too heavy");
    let alone = audit_coarse(&limit, &[late], &bounds).unwrap();
    assert_eq!((alone.verdict(), alone.least), (Verdict::Kept, 0));
}

#[test]
fn a_record_may_end_before_it_starts_as_far_as_its_bounds_explain_it() {
    let limit: Limit = "1/1s".parse().unwrap();
    let record = Record { start: 10_500_000_000, end: 10_000_000_000, weight: 1 };
    assert!(audit_coarse(&limit, &[record], &WHOLE_SECONDS).is_ok());
    let early = Record { end: 9_000_000_000, ..record };
    assert!(audit_coarse(&limit, &[record, early], &WHOLE_SECONDS).is_err());
}
