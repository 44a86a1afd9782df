//! The audit's sweep against the definition: every window that could be the fullest, tried in turn.

#[path = "oracle/windows.rs"]
mod windows;

use proptest::prelude::*;
use strict_rate_limiter_core::audit::{Step, over_time};
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

proptest! {
    #[test]
    fn the_sweep_finds_what_trying_every_window_finds(limit in limit(), records in records()) {
        windows::assert_as_by_hand(&limit, &records);
    }

    #[test]
    fn at_every_step_the_window_holds_what_could_be_counted_in_it(
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
        prop_assert_eq!(highest, audit(&limit, &records).unwrap().worst.units);
    }

    #[test]
    fn order_of_the_records_does_not_matter(limit in limit(), records in records()) {
        let mut backwards = records.clone();
        backwards.reverse();
        prop_assert_eq!(audit(&limit, &records), audit(&limit, &backwards));
    }
}

#[test]
fn a_window_is_closed_at_both_ends() {
    let limit: Limit = "1/100ns".parse().unwrap();
    let at = |at| Record { start: at, end: at, weight: 1 };
    assert!(!audit(&limit, &[at(0), at(100)]).unwrap().is_clean());
    assert!(audit(&limit, &[at(0), at(101)]).unwrap().is_clean());
}

#[test]
fn the_extremes_of_time_and_weight_are_audited_without_overflow() {
    let limit = Limit::weight(5, strict_rate_limiter_core::limit::PER_MAX).unwrap();
    assert_eq!(limit.unit(), Unit::Weight);
    let whole = Record { start: 0, end: u64::MAX, weight: u64::MAX };
    let late = Record { start: u64::MAX, end: u64::MAX, weight: u64::MAX };
    let audit = audit(&limit, &[whole, late]).unwrap();
    assert_eq!(audit.worst.units, 2 * u128::from(u64::MAX));
}

#[test]
fn a_record_that_ends_before_it_starts_is_named() {
    let limit: Limit = "1/1s".parse().unwrap();
    let good = Record { start: 1, end: 2, weight: 1 };
    let bad = Record { start: 9, end: 3, weight: 1 };
    let error = audit(&limit, &[good, bad]).unwrap_err();
    assert_eq!(error.to_string(), "record 1 ends at 3, before it starts at 9");
}
