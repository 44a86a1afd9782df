//! The window's log: exact up to 65,536 completions, bounded in memory beyond, and never permissive.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::{Config, Decision, Limit, Machine};

const ENTRY_BYTES: usize = 16;
const BYTES_MAX: usize = 1_153_433; // 1.1 MiB

fn machine(rate: u64, per_ns: u64) -> Machine<()> {
    let limit = Limit::tasks(rate, Duration::from_nanos(per_ns)).unwrap();
    Machine::new(Config::new([limit])).unwrap()
}

#[test]
fn a_full_window_takes_16_bytes_a_completion() {
    for rate in [1, 10, 1_000, 50_000, 65_536] {
        let mut machine = machine(rate, 1_000_000_000);
        for now in 0..rate {
            let permit = machine.try_grant(now, 1).unwrap();
            machine.complete(permit, now, now, None);
        }
        assert!(machine.try_grant(rate, 1).is_err(), "the window is full");
        assert_eq!(machine.log_bytes(), usize::try_from(rate).unwrap() * ENTRY_BYTES);
    }
}

#[test]
fn no_rate_takes_more_than_its_bound() {
    for (rate, step_ns) in [(100_000, 7), (1_000_000, 990), (10_000_000, 90), (10_000_000, 14_000)]
    {
        let mut machine = machine(rate, 1_000_000_000);
        let mut now = 0;
        for _ in 0..1_000_000 {
            now += step_ns;
            if let Ok(permit) = machine.try_grant(now, 1) {
                machine.complete(permit, now, now, None);
            }
        }
        assert!(machine.log_bytes() <= BYTES_MAX, "{} bytes at {rate}", machine.log_bytes());
    }
}

/// Runs tasks as fast as the law allows, with gaps, in the machine and beside a log of every single
/// completion. Returns how often the limit delayed a task.
fn run_beside_an_exact_log(rate: u64, per_ns: u64, gaps: impl Iterator<Item = u64>) -> u64 {
    let slot_ns = per_ns / 65_536;
    let mut machine = machine(rate, per_ns);
    let mut exact: VecDeque<u64> = VecDeque::new();
    let mut now = 0;
    let mut full = 0;
    for gap in gaps {
        now += gap;
        exact.drain(..exact.partition_point(|at| at + per_ns < now));
        let permit = machine.try_grant(now, 1).or_else(|_| {
            // The machine refuses. It may be late by one slot, and never early.
            full += 1;
            let ticket = machine.enqueue(1, ()).unwrap().ticket;
            let Decision::LookAgainAt(at) = machine.poll(now) else { panic!("nothing runs") };
            let opening =
                exact[exact.len() - usize::try_from(rate).unwrap().min(exact.len())] + per_ns + 1;
            assert!(at > opening.saturating_sub(1), "early: {at}, the law says {opening}");
            assert!(at <= opening.max(now) + slot_ns + 1, "late: {at}, the law says {opening}");
            now = at;
            assert!(matches!(machine.poll(now), Decision::Grant { .. }));
            machine.claim(ticket).ok_or(())
        });
        exact.drain(..exact.partition_point(|at| at + per_ns < now));
        assert!((exact.len() as u64) < rate, "the window overflows");
        machine.complete(permit.unwrap(), now, now, None);
        exact.push_back(now);
    }
    full
}

#[test]
fn merged_completions_are_never_held_too_short_nor_more_than_a_slot_too_long() {
    // A window of 2 * SLOTS completions, evenly and in bursts.
    let even = std::iter::repeat_n(7_000, 400_000);
    assert!(run_beside_an_exact_log(131_072, 1_000_000_000, even) > 0, "the limit binds");
    let bursts = (0..400_000_u64).map(|task| if task % 1_000 == 0 { 5_000_000 } else { 3 });
    assert!(run_beside_an_exact_log(131_072, 1_000_000_000, bursts) > 0, "the limit binds");
}

#[test]
fn the_last_completion_before_a_long_gap_is_not_held_until_after_it() {
    // ENTRIES_MAX completions, then none for half a period, then the merge.
    let (entries, per_ns) = (65_536 + 65_536 / 16, 1_000_000_000_u64);
    let step = per_ns / 4 / entries;
    let gaps = std::iter::repeat_n(step, usize::try_from(entries).unwrap());
    let gaps = gaps.chain([per_ns / 2]).chain(std::iter::repeat_n(0, 70_000));
    assert!(run_beside_an_exact_log(entries + 1, per_ns, gaps) > 10_000, "the limit binds");
}

#[test]
fn a_window_of_up_to_65_536_completions_is_exact_to_the_nanosecond() {
    let per_ns = 1_000_000_000;
    let mut machine = machine(65_536, per_ns);
    let mut now = 0;
    let mut ends = vec![];
    for task in 0..65_536_u64 {
        now += 1 + task % 3;
        let permit = machine.try_grant(now, 1).unwrap();
        machine.complete(permit, now, now, None);
        ends.push(now);
    }
    for end in ends {
        machine.enqueue(1, ()).unwrap();
        let opens = end + per_ns + 1;
        assert_eq!(machine.poll(opens - 1), Decision::LookAgainAt(opens));
        let Decision::Grant { ticket, .. } = machine.poll(opens) else { panic!("it is open") };
        let permit = machine.claim(ticket).unwrap();
        machine.complete(permit, opens, opens, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn random_gaps_are_never_held_too_short(
        seeds in proptest::collection::vec(0_u64..20_000, 97..300), rate in 66_000_u64..140_000,
    ) {
        let gaps = (0..300_000_usize).map(|task| seeds[task % seeds.len()] / (1 + task as u64 % 5));
        run_beside_an_exact_log(rate, 400_000_000, gaps);
    }
}
