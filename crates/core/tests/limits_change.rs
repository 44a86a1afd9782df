//! Limits and concurrency that change while tasks run and wait, by example. Random operations are in
//! `machine_against_oracle.rs`.

use std::time::Duration;

use strict_rate_limiter_core::limit::RATE_MAX;
use strict_rate_limiter_core::{
    Config, ConfigError, Decision, Limit, Machine, RequestError, TicketStatus,
};

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

fn machine(limits: &[&str]) -> Machine<&'static str> {
    let config = Config { concurrency: 10, ..Config::new(limits.iter().map(|text| limit(text))) };
    Machine::new(config).unwrap()
}

fn set<T: std::fmt::Debug>(machine: &mut Machine<T>, now: u64, limits: &[&str]) {
    let refused = machine.set_limits(now, now, limits.iter().map(|text| limit(text))).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
}

fn run<T>(machine: &mut Machine<T>, now: u64, weight: u64) -> bool {
    let grant = machine.try_grant(now, weight);
    grant.map(|grant| machine.complete(grant, now, now, None)).is_ok()
}

fn held<T>(machine: &mut Machine<T>, now: u64) -> Vec<u64> {
    machine.stats(now).held.iter().map(|held| held.units).collect()
}

#[test]
fn a_lower_rate_holds_the_tasks_that_ran_under_the_higher_one() {
    let mut machine = machine(&["5/100ns"]);
    (0..4).for_each(|now| assert!(run(&mut machine, now, 1)));
    set(&mut machine, 10, &["2/100ns"]);
    assert_eq!(held(&mut machine, 10), [4]);
    // The third and the fourth still fill it when the first two have expired.
    assert!(!run(&mut machine, 102, 1));
    assert!(run(&mut machine, 103, 1));
}

#[test]
fn a_higher_rate_takes_effect_at_once() {
    let mut machine = machine(&["1/100ns"]);
    assert!(run(&mut machine, 0, 1));
    let ticket = machine.enqueue(1, "waiter").unwrap().ticket;
    assert_eq!(machine.poll(1), Decision::LookAgainAt(101));
    set(&mut machine, 1, &["2/100ns"]);
    assert_eq!(machine.poll(1), Decision::Grant { ticket, waiter: "waiter" });
}

#[test]
fn a_shorter_period_forgets_completions_older_than_it() {
    let mut machine = machine(&["2/100ns"]);
    assert!(run(&mut machine, 0, 1) && run(&mut machine, 50, 1));
    set(&mut machine, 60, &["2/20ns"]);
    assert_eq!(held(&mut machine, 60), [1]);
    assert_eq!(held(&mut machine, 71), [0]);
}

#[test]
fn what_a_longer_period_cannot_know_counts_as_run_at_the_old_rate_until_the_change() {
    let mut machine = machine(&["2/100ns"]);
    for period in 0..50 {
        let now = period * 101;
        assert!(run(&mut machine, now, 1) && run(&mut machine, now, 1));
    }
    // Two of the last 100 ns are known; two more ran in the 100 ns before.
    set(&mut machine, 5_000, &["7/200ns"]);
    assert_eq!(held(&mut machine, 5_000), [4]);
    assert_eq!((0..5).filter(|_| run(&mut machine, 5_000, 1)).count(), 3);
    assert_eq!(held(&mut machine, 5_150), [5]);
    assert_eq!(held(&mut machine, 5_201), [0]);
}

#[test]
fn a_longer_period_counts_no_more_than_ever_ran() {
    let mut machine = machine(&["10/100ns"]);
    assert!(run(&mut machine, 0, 1));
    set(&mut machine, 1_000_000, &["10/1ms"]);
    assert_eq!(held(&mut machine, 1_000_000), [1]);
}

#[test]
fn what_overspent_is_counted_by_a_longer_period() {
    let mut machine = machine(&["10w/100ns"]);
    let grant = machine.try_grant(0, 1).unwrap();
    machine.complete(grant, 0, 0, Some(70));
    // Known in full, so that a higher rate counts all of it.
    set(&mut machine, 50, &["100w/100ns"]);
    assert_eq!(held(&mut machine, 50), [70]);
    set(&mut machine, 150, &["100w/200ns"]);
    assert_eq!(held(&mut machine, 150), [70], "it has expired, but it may be less than 200 ns ago");
}

#[test]
fn the_first_limit_on_a_unit_is_full_at_the_change() {
    let mut machine = machine(&["10/100ns"]);
    let running = machine.try_grant(0, 3).unwrap();
    set(&mut machine, 50, &["10/100ns", "5w/100ns"]);
    assert_eq!(held(&mut machine, 50), [1, RATE_MAX + 3], "running tasks are known");
    assert!(machine.try_grant(150, 1).is_err());
    assert!(run(&mut machine, 151, 2));
    assert!(!run(&mut machine, 152, 1));
    machine.complete(running, 153, 153, Some(1));
    assert!(run(&mut machine, 153, 1));
}

#[test]
fn a_waiter_that_is_now_too_heavy_is_refused_and_the_others_keep_their_order() {
    let mut machine = machine(&["10w/100ns"]);
    assert!(run(&mut machine, 0, 10));
    let weights = [("light", 2), ("heavy", 8), ("also light", 3), ("heaviest", 10)];
    let tickets = weights.map(|(name, weight)| machine.enqueue(weight, name).unwrap().ticket);
    let refused = machine.set_limits(1, 1, [limit("5w/100ns")]).unwrap();
    let names: Vec<_> =
        refused.iter().map(|refused| (refused.waiter, refused.error.clone())).collect();
    let too_heavy = |weight| RequestError::TooHeavy { weight, limit: limit("5w/100ns") };
    assert_eq!(names, [("heavy", too_heavy(8)), ("heaviest", too_heavy(10))]);
    assert_eq!(machine.status(tickets[1]), TicketStatus::Gone);
    assert!(machine.waiters().eq(&["light", "also light"]));
}

#[test]
fn the_pace_follows_the_limits() {
    let config = Config { paced: true, ..Config::new([limit("10/100ns")]) };
    let mut machine = Machine::<()>::new(config).unwrap();
    assert!(run(&mut machine, 0, 1));
    set(&mut machine, 1, &["2/100ns"]);
    assert!(!run(&mut machine, 50, 1), "one in 50 ns from now on");
    assert!(run(&mut machine, 51, 1));
    let error = machine.set_limits(52, 52, [limit("5w/100ns")]).unwrap_err();
    assert_eq!(error, ConfigError::PacedWithoutTaskLimit);
    assert_eq!(machine.config().limits, [limit("2/100ns")], "and nothing has changed");
    assert_eq!(machine.set_limits(52, 52, []).unwrap_err(), ConfigError::NoLimit);
}

#[test]
fn more_that_run_than_the_new_concurrency_go_on_and_nothing_starts_beside_them() {
    let mut machine = machine(&["9/100ns"]);
    let grants: Vec<_> = (0..3).map(|_| machine.try_grant(0, 1).unwrap()).collect();
    machine.enqueue(1, "waiter").unwrap();
    machine.set_concurrency(2).unwrap();
    assert_eq!(machine.poll(1), Decision::WaitForCompletion);
    for (grant, still_runs) in grants.into_iter().zip([2, 1, 0]) {
        machine.complete(grant, 2, 2, None);
        let may_start = matches!(machine.poll(2), Decision::Grant { .. });
        assert_eq!(may_start, still_runs == 1, "{still_runs} still run");
    }
    assert_eq!(machine.set_concurrency(0).unwrap_err(), ConfigError::ZeroConcurrency);
    machine.set_concurrency(1).unwrap();
    assert_eq!(machine.config().concurrency, 1);
}

#[test]
fn a_machine_whose_settings_were_changed_cannot_be_replaced_by_a_new_one() {
    let mut machine = machine(&["9/100ns"]);
    assert!(machine.is_like_new(0));
    set(&mut machine, 0, &["9/100ns"]);
    assert!(machine.is_like_new(0), "nothing has changed");
    set(&mut machine, 0, &["8/100ns"]);
    assert!(!machine.is_like_new(1_000));
}

#[test]
fn changing_limits_again_and_again_never_forgets_nor_overflows() {
    let mut machine = machine(&["3w/10ns"]);
    let per = Duration::from_nanos(10);
    for round in 0..2_000_u64 {
        let rate = if round % 2 == 0 { RATE_MAX } else { 1 + round % 5 };
        let per = per * u32::try_from(1 + round % 7).unwrap();
        let limit = Limit::weight(rate, per).unwrap();
        let refused = machine.set_limits(round, round, [limit]).unwrap();
        assert!(refused.is_empty());
        if let Ok(grant) = machine.try_grant(round, 1) {
            machine.complete(grant, round, round, Some(u64::MAX));
        }
        let state = machine.state();
        let again = Machine::restore(&state, |_| "waiter").map(|machine| machine.state());
        assert_eq!(again, Ok(state));
    }
}
