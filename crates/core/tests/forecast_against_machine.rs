//! The forecast compared with the machine, which grants one task after another, each of no length: the last
//! grant is at the forecast time, or later if several limits interlock.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use strict_rate_limiter_core::{Config, Decision, Grant, Limit, Machine, RequestError};

fn machine(limits: &[&str]) -> Machine<()> {
    let limits = limits.iter().map(|limit| limit.parse::<Limit>().unwrap());
    Machine::new(Config { concurrency: 3, ..Config::new(limits) }).unwrap()
}

/// The time of the last grant, when tasks are granted one after another.
fn last_grant(machine: &mut Machine<()>, mut now: u64, tasks: u64, weight: u64) -> u64 {
    for _ in 0..tasks {
        let ticket = machine.enqueue(weight, ()).unwrap().ticket;
        loop {
            match machine.poll(now) {
                Decision::Grant { .. } => break,
                Decision::LookAgainAt(at) => now = at,
                decision => panic!("{decision:?}"),
            }
        }
        let permit = machine.claim(ticket).unwrap();
        machine.complete(permit, now, now, None);
    }
    now
}

#[test]
fn thirty_items_at_ten_in_twenty_seconds_take_forty_seconds() {
    let mut machine = machine(&["10/20s"]);
    let period = 20_000_000_001;
    for (tasks, periods) in [(0, 0), (1, 0), (10, 0), (11, 1), (20, 1), (21, 2), (30, 2), (31, 3)] {
        assert_eq!(machine.forecast(5, tasks, 1), Ok(5 + periods * period), "{tasks}");
    }
    let first = machine.try_grant(5, 1).unwrap();
    assert_eq!(machine.forecast(6, 29, 1), Ok(6 + 2 * period), "as if it completed now");
    machine.complete(first, 8, 8, None);
    assert_eq!(machine.forecast(9, 9, 1), Ok(9));
    assert_eq!(machine.forecast(9, 10, 1), Ok(8 + period));
    assert_eq!(machine.forecast(9, 29, 1), Ok(9 + 2 * period));
    assert_eq!(machine.forecast(9, 30, 1), Ok(8 + 3 * period));
}

#[test]
fn a_pause_a_weight_and_a_longer_limit_are_taken_into_account() {
    let mut machine = machine(&["10w/1s", "50w/1m"]);
    let (second, minute) = (1_000_000_001, 60_000_000_001);
    assert_eq!(machine.forecast(0, 3, 4), Ok(second), "two of weight 4 a second");
    assert_eq!(machine.forecast(0, 50, 1), Ok(4 * second));
    assert_eq!(machine.forecast(0, 75, 1), Ok(minute + 2 * second));
    machine.pause_until(7);
    assert_eq!(machine.forecast(0, 1, 1), Ok(7));
    assert_eq!(machine.forecast(0, 75, 1), Ok(7 + minute + 2 * second));
    assert!(matches!(machine.forecast(0, 1, 11), Err(RequestError::TooHeavy { .. })));
    assert_eq!(machine.forecast(0, 1, 0), Err(RequestError::ZeroWeight));
}

#[test]
fn a_million_million_tasks_are_forecast_as_quickly_and_the_end_of_time_is_the_last() {
    let mut machine = machine(&["7/1s", "100/1h", "1w/1ns"]);
    let hours = 10_u64.pow(6);
    assert_eq!(machine.forecast(0, 100 * hours + 1, 1), Ok(hours * 3_600_000_000_001));
    assert_eq!(machine.forecast(0, u64::MAX, 1), Ok(u64::MAX));
    assert_eq!(machine.forecast(u64::MAX, 2, 1), Ok(u64::MAX));
    assert_eq!(machine.forecast(u64::MAX, 0, 1), Ok(u64::MAX));
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::<bool>(), 1_u64..8, 1_u64..60).prop_map(|(tasks, rate, per_ns)| {
        let make = if tasks { Limit::tasks } else { Limit::weight };
        make(rate, std::time::Duration::from_nanos(per_ns)).expect("in range")
    })
}

/// Earlier tasks: the gap before each request, its weight, how long it ran.
fn past() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    proptest::collection::vec((0_u64..20, 1_u64..8, 0_u64..20), 0..12)
}

/// A machine with that past, the permits of its running tasks, and the time.
fn lived(config: Config, past: &[(u64, u64, u64)], pause: u64) -> (Machine<()>, Vec<Grant>, u64) {
    let mut machine = Machine::new(config).expect("a valid configuration");
    let (mut now, mut running) = (1, vec![]);
    for (gap, weight, length) in past {
        now += gap;
        running.extend(machine.try_grant(now, *weight).map(|permit| (permit, *length)));
        if running.len() > 2 || *length < 15 {
            for (permit, length) in running.drain(..) {
                now += length;
                machine.complete(permit, now, now, None);
            }
        }
    }
    machine.pause_until(now + pause);
    (machine, running.into_iter().map(|(permit, _)| permit).collect(), now)
}

/// Completes all running tasks now, as the forecast assumes.
fn complete_all(machine: &mut Machine<()>, running: Vec<Grant>, now: u64) {
    for permit in running {
        machine.complete(permit, now, now, None);
    }
}

/// The greatest weight up to this one that could ever run.
fn possible(machine: &Machine<()>, weight: u64) -> u64 {
    (1..=weight).rev().find(|weight| machine.check(*weight).is_ok()).expect("1 can always run")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn under_one_limit_the_forecast_is_when_the_last_is_granted(
        limit in limit(), drift in prop_oneof![Just(0), 1_u32..500_000],
        past in past(), pause in 0_u64..80, tasks in 1_u64..60, weight in 1_u64..8,
    ) {
        let config = Config { concurrency: 3, clock_drift_ppm: drift, ..Config::new([limit]) };
        let (mut machine, running, now) = lived(config, &past, pause);
        let weight = possible(&machine, weight);
        let forecast = machine.forecast(now, tasks, weight).unwrap();
        complete_all(&mut machine, running, now);
        prop_assert_eq!(forecast, last_grant(&mut machine, now, tasks, weight));
    }

    #[test]
    fn under_several_it_is_never_too_late_and_hardly_too_early(
        limits in proptest::collection::vec(limit(), 2..4), paced in any::<bool>(),
        past in past(), pause in 0_u64..80, tasks in 1_u64..60, weight in 1_u64..8,
    ) {
        let paced = paced && limits.iter().any(|limit| limit.units(2) == 1);
        let longest = limits.iter().map(Limit::per_ns).max().unwrap();
        let config = Config { concurrency: 3, paced, ..Config::new(limits) };
        let (mut machine, running, now) = lived(config, &past, pause);
        let weight = possible(&machine, weight);
        let forecast = machine.forecast(now, tasks, weight).unwrap();
        complete_all(&mut machine, running, now);
        let last = last_grant(&mut machine, now, tasks, weight);
        prop_assert!(forecast <= last, "{} and it was {}", forecast, last);
        prop_assert!(last - forecast <= 2 * (longest + 1), "{} and it was {}", forecast, last);
    }
}
