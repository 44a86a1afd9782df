//! Deadlines: a request that is refused at once could not have been granted in time, and a waiter leaves at
//! its deadline, not before.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use strict_rate_limiter_core::{Config, Decision, EnqueueError, Grant, Limit, Machine, Ticket};

fn machine(limits: &[&str], concurrency: usize) -> Machine<()> {
    let limits = limits.iter().map(|limit| limit.parse::<Limit>().unwrap());
    Machine::new(Config { concurrency, ..Config::new(limits) }).unwrap()
}

/// The earliest grant of a new waiter, as the machine says it.
fn earliest(machine: &mut Machine<()>, now: u64, weight: u64) -> u64 {
    match machine.admit_by(now, weight, 0) {
        Err(EnqueueError::TooLate { not_before }) => {
            assert_eq!(machine.admit_by(now, weight, not_before), Ok(()));
            not_before
        }
        other => panic!("{other:?}"),
    }
}

fn complete(machine: &mut Machine<()>, permit: Grant, now: u64, actual: Option<u64>) {
    machine.complete(permit, now, now, actual);
}

#[test]
fn with_room_the_earliest_grant_is_now_and_a_past_deadline_is_refused() {
    let mut machine = machine(&["2/100ns"], 1);
    assert_eq!(machine.admit_by(10, 1, 10), Ok(()), "exactly at the deadline is in time");
    assert_eq!(machine.admit_by(10, 1, 9), Err(EnqueueError::TooLate { not_before: 10 }));
    assert_eq!(machine.load(), (0, 0), "asking changes nothing");
}

#[test]
fn each_one_ahead_counts_and_so_does_each_task_that_runs() {
    let mut machine = machine(&["2/100ns"], 2);
    let first = machine.try_grant(10, 1).unwrap();
    assert_eq!(earliest(&mut machine, 10, 1), 10);
    let second = machine.try_grant(10, 1).unwrap();
    assert_eq!(earliest(&mut machine, 12, 1), 113, "were the first to complete now");
    complete(&mut machine, first, 20, None);
    assert_eq!(earliest(&mut machine, 25, 1), 121);
    machine.enqueue(1, ()).unwrap();
    assert_eq!(earliest(&mut machine, 25, 1), 126, "behind one, when what runs now is over");
    machine.enqueue(1, ()).unwrap();
    machine.enqueue(1, ()).unwrap();
    assert_eq!(earliest(&mut machine, 25, 1), 227);
    complete(&mut machine, second, 30, None);
}

#[test]
fn a_weight_that_runs_may_come_free_and_one_that_has_completed_does_not() {
    let mut machine = machine(&["10w/100ns"], 3);
    let heavy = machine.try_grant(10, 9).unwrap();
    assert_eq!(earliest(&mut machine, 10, 5), 10, "it may turn out to have weighed nothing");
    machine.enqueue(8, ()).unwrap();
    assert_eq!(earliest(&mut machine, 10, 5), 10);
    complete(&mut machine, heavy, 20, Some(4));
    assert_eq!(earliest(&mut machine, 20, 5), 121, "the head needs 8 beside the 4");
}

#[test]
fn a_weight_that_runs_beside_one_that_has_completed_may_come_free() {
    let mut machine = machine(&["10w/100ns"], 3);
    let first = machine.try_grant(10, 4).unwrap();
    complete(&mut machine, first, 20, None);
    let running = machine.try_grant(20, 6).unwrap();
    assert_eq!(earliest(&mut machine, 20, 6), 20);
    assert_eq!(earliest(&mut machine, 20, 7), 121, "beside the 4 there is no room for 7");
    complete(&mut machine, running, 30, Some(0));
    assert!(machine.try_grant(30, 6).is_ok());
}

#[test]
fn a_pause_and_the_pace_count() {
    let limits = ["10/100ns".parse::<Limit>().unwrap()];
    let mut machine = Machine::<()>::new(Config { paced: true, ..Config::new(limits) }).unwrap();
    machine.pause_until(500);
    assert_eq!(earliest(&mut machine, 10, 1), 500);
    machine.enqueue(1, ()).unwrap();
    machine.enqueue(1, ()).unwrap();
    assert_eq!(earliest(&mut machine, 10, 1), 522, "two more at a pace of 10 ns");
    machine.resume();
    assert_eq!(earliest(&mut machine, 10, 1), 32);
}

#[test]
fn other_refusals_come_first() {
    let mut machine = machine(&["10w/100ns"], 1);
    assert!(matches!(machine.admit_by(10, 11, 9), Err(EnqueueError::Request(_))));
    machine.close();
    assert_eq!(machine.admit_by(10, 1, 9), Err(EnqueueError::Closed));
}

#[test]
fn a_waiter_misses_its_deadline_from_that_time_on_and_only_in_the_queue() {
    let mut machine = machine(&["1/100ns"], 1);
    let running = machine.try_grant(10, 1).unwrap();
    let ticket = machine.enqueue(1, ()).unwrap().ticket;
    assert_eq!(machine.misses(49, ticket, 50), None);
    assert_eq!(machine.misses(50, ticket, 50), Some(None), "it depends on what runs");
    complete(&mut machine, running, 60, None);
    assert_eq!(machine.misses(60, ticket, 50), Some(Some(161)));
    assert!(matches!(machine.poll(161), Decision::Grant { .. }));
    assert_eq!(machine.misses(161, ticket, 161), None, "granted at exactly the deadline");
    let permit = machine.claim(ticket).unwrap();
    complete(&mut machine, permit, 161, None);
    assert_eq!(machine.misses(200, ticket, 161), None, "it is long gone");
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::<bool>(), 1_u64..8, 1_u64..60).prop_map(|(tasks, rate, per_ns)| {
        let make = if tasks { Limit::tasks } else { Limit::weight };
        make(rate, Duration::from_nanos(per_ns)).expect("in range")
    })
}

/// One task: its weight, how long it runs once granted, its actual weight.
type Task = (u64, u64, Option<u64>);

fn tasks(most: usize) -> impl Strategy<Value = Vec<Task>> {
    let actual = prop_oneof![Just(None), Just(Some(0)), (0_u64..8).prop_map(Some)];
    let length = prop_oneof![Just(0_u64), 0_u64..40];
    proptest::collection::vec((1_u64..8, length, actual), 0..most)
}

/// The greatest weight up to this one that could ever run.
fn possible(machine: &Machine<()>, weight: u64) -> u64 {
    (1..=weight).rev().find(|weight| machine.check(*weight).is_ok()).expect("1 can always run")
}

/// A running task: when it ends, its permit, its actual weight.
struct Running(Vec<(u64, Grant, Option<u64>)>);

impl Running {
    fn complete_due(&mut self, machine: &mut Machine<()>, now: u64) {
        while let Some(due) = self.0.iter().position(|(ends, ..)| *ends <= now) {
            let (_, permit, actual) = self.0.swap_remove(due);
            complete(machine, permit, now, actual);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_refused_that_could_have_been_granted_in_time(
        limits in proptest::collection::vec(limit(), 1..4), paced in any::<bool>(),
        concurrency in 1_usize..4, past in tasks(8), ahead in tasks(6), last in 1_u64..8,
        pause in prop_oneof![Just(0_u64), 0_u64..80], gap in 0_u64..30,
    ) {
        let paced = paced && limits.iter().any(|limit| limit.units(2) == 1);
        let config = Config { concurrency, paced, ..Config::new(limits) };
        let mut machine = Machine::new(config).expect("a valid configuration");
        let (mut now, mut running) = (1, Running(vec![]));
        for (weight, length, actual) in past {
            now += gap;
            running.complete_due(&mut machine, now);
            let granted = machine.try_grant(now, possible(&machine, weight));
            running.0.extend(granted.map(|permit| (now + length, permit, actual)));
        }
        if pause > 0 {
            machine.pause_until(now + pause);
        }
        let mut waiting: Vec<(Ticket, u64, Option<u64>)> = vec![];
        for (weight, length, actual) in ahead {
            let weight = possible(&machine, weight);
            waiting.push((machine.enqueue(weight, ()).unwrap().ticket, length, actual));
        }

        let last = possible(&machine, last);
        let earliest = earliest(&mut machine, now, last);
        let ticket = machine.enqueue(last, ()).unwrap().ticket;
        // Polled at each nanosecond, so no grant could be earlier.
        let granted_at = 'granted: loop {
            running.complete_due(&mut machine, now);
            while let Decision::Grant { ticket: granted, .. } = machine.poll(now) {
                if granted == ticket {
                    break 'granted now;
                }
                let permit = machine.claim(granted).unwrap();
                let (_, length, actual) =
                    waiting.iter().find(|(ticket, ..)| *ticket == granted).unwrap();
                running.0.push((now + length, permit, *actual));
                running.complete_due(&mut machine, now);
            }
            now += 1;
        };
        prop_assert!(earliest <= granted_at, "refused before {}, granted at {}", earliest, granted_at);
    }

    #[test]
    fn under_one_limit_on_tasks_all_is_refused_that_tasks_of_no_length_leave_no_room_for(
        rate in 1_u64..8, per_ns in 1_u64..60, ahead in 0_u64..30, ran in 0_u64..8, gap in 0_u64..60,
    ) {
        let limit = Limit::tasks(rate, Duration::from_nanos(per_ns)).unwrap();
        let mut machine = Machine::new(Config::new([limit])).unwrap();
        for _ in 0..ran.min(rate) {
            let permit = machine.try_grant(1, 1).unwrap();
            complete(&mut machine, permit, 1, None);
        }
        let now = 1 + gap;
        for _ in 0..ahead {
            machine.enqueue(1, ()).unwrap();
        }
        let earliest = earliest(&mut machine, now, 1);
        let ticket = machine.enqueue(1, ()).unwrap().ticket;
        let mut at = now;
        loop {
            match machine.poll(at) {
                Decision::Grant { ticket: granted, .. } if granted == ticket => break,
                Decision::Grant { ticket: granted, .. } => {
                    let permit = machine.claim(granted).unwrap();
                    complete(&mut machine, permit, at, None);
                }
                Decision::LookAgainAt(opening) => at = opening,
                other => panic!("{other:?}"),
            }
        }
        prop_assert_eq!(earliest, at);
    }
}
