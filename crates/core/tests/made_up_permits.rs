//! Permits and tickets made up from numbers, and impossible times: nothing wraps, nothing panics, and none of
//! them frees units that other tasks hold.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use strict_rate_limiter_core::config::{
    ABANDON_GRACE_NS_MAX, CLOCK_DRIFT_PPM_MAX, CONCURRENCY_MAX,
};
use strict_rate_limiter_core::limit::{PER_MAX, RATE_MAX};
use strict_rate_limiter_core::{
    Config, Decision, HeldEntry, Limit, Machine, TicketStatus, Unit, raw,
};

/// Three tasks at once, a limit on tasks and one on weights, a grace.
fn machine() -> Machine<()> {
    let limits: [Limit; 2] = ["5/100ns".parse().unwrap(), "10w/100ns".parse().unwrap()];
    let config = Config { concurrency: 3, abandon_grace_ns: 30, ..Config::new(limits) };
    Machine::new(config).unwrap()
}

fn held<T>(machine: &mut Machine<T>, now: u64) -> Vec<u64> {
    machine.stats(now).held.iter().map(|held| held.units).collect()
}

#[test]
fn a_permit_too_many_counts_as_a_call_and_frees_nothing() {
    let mut machine = machine();
    assert_eq!(machine.complete(raw::grant(4), 10, 10, None), 4);
    assert_eq!((machine.stats(10).running, held(&mut machine, 10)), (0, vec![1, 4]));
    assert_eq!(machine.complete(raw::grant(u64::MAX), 10, 10, Some(7)), 7);
    assert_eq!((machine.stats(10).running, held(&mut machine, 10)), (0, vec![2, 11]));
    assert!(machine.try_grant(110, 1).is_err(), "what was told of is held");
    assert!(machine.try_grant(111, 10).is_ok(), "and no longer than a task of the limiter's own");
}

#[test]
fn undoing_a_permit_too_many_does_nothing() {
    let mut machine = machine();
    machine.undo(raw::grant(4));
    assert_eq!((machine.stats(0).running, held(&mut machine, 0)), (0, vec![0, 0]));
    let permit = machine.try_grant(0, 4).unwrap();
    machine.undo(raw::grant(9));
    machine.undo(raw::grant(1));
    assert_eq!((machine.stats(0).running, held(&mut machine, 0)), (0, vec![0, 0]));
    machine.undo(permit);
    assert_eq!((machine.stats(0).running, held(&mut machine, 0)), (0, vec![0, 0]));
}

#[test]
fn abandoning_a_permit_too_many_is_held_as_if_its_task_had_run() {
    let mut machine = machine();
    machine.abandon(raw::grant(6), 10, 12);
    assert_eq!((machine.stats(10).running, held(&mut machine, 10)), (0, vec![1, 6]));
    assert!(machine.try_grant(142, 5).is_err(), "12, the grace of 30, the period of 100");
    assert!(machine.try_grant(143, 5).is_ok());
}

#[test]
fn a_permit_that_is_too_heavy_leaves_the_other_tasks_units_held() {
    for actual in [None, Some(0)] {
        let mut machine = machine();
        let abandoned = machine.try_grant(0, 4).unwrap();
        machine.abandon(abandoned, 0, 0);
        let waiting = machine.enqueue(3, ()).unwrap().ticket;
        assert!(matches!(machine.poll(0), Decision::Grant { .. }));
        let _lost = machine.try_grant(0, 2).unwrap();
        machine.complete(raw::grant(1_000), 1, 1, actual);
        assert_eq!(machine.stats(1).running, 2);
        let held = held(&mut machine, 1);
        assert!(held[0] >= 2 && held[1] >= 7, "{held:?}");
        assert_eq!(machine.status(waiting), TicketStatus::Granted);
        machine.complete(raw::grant(1_000), 1, 1, actual);
        assert_eq!(machine.stats(1).running, 2, "none of these two is anyone's permit");
        let permit = machine.claim(waiting).unwrap();
        machine.undo(permit);
        assert_eq!(machine.stats(1).running, 1);
    }
}

#[test]
fn each_permit_that_is_out_keeps_at_least_one_unit() {
    let mut machine = machine();
    let [_lost, kept, _also_kept] = [5, 2, 3].map(|weight| machine.try_grant(0, weight).unwrap());
    machine.complete(raw::grant(u64::MAX), 1, 1, Some(0));
    assert_eq!((machine.stats(1).running, held(&mut machine, 1)), (2, vec![3, 2]));
    machine.complete(kept, 1, 1, None);
    assert_eq!((machine.stats(1).running, held(&mut machine, 1)), (1, vec![3, 3]));
}

#[test]
fn what_a_lighter_permit_does_not_give_back_stays_held() {
    let mut machine = machine();
    let _lost = machine.try_grant(0, 6).unwrap();
    machine.complete(raw::grant(0), 1, 1, None);
    assert_eq!(machine.stats(1).running, 0);
    assert_eq!(held(&mut machine, 1), [1, 6]);
    assert_eq!(held(&mut machine, 1_000), [0, 5], "the machine cannot know that no task holds it");
}

#[test]
fn tickets_from_elsewhere_are_unknown() {
    let mut machine = machine();
    let tickets = [0, 1, u64::MAX - 1, u64::MAX].map(raw::ticket);
    for round in 0..3 {
        for ticket in tickets {
            if round == 2 && raw::ticket_number(ticket) < 2 {
                continue;
            }
            assert_eq!(machine.claim(ticket), None);
            assert_eq!(machine.cancel(ticket), None);
            assert_eq!(machine.status(ticket), TicketStatus::Gone);
            assert_eq!(machine.waiter_mut(ticket), None);
        }
        if round == 1 {
            machine.enqueue(1, ()).unwrap();
            machine.enqueue(9, ()).unwrap();
            assert!(matches!(machine.poll(0), Decision::Grant { .. }));
        }
    }
    assert_eq!(machine.load(), (1, 1));
}

#[test]
fn no_decision_has_a_time_that_has_come() {
    for last in [u64::MAX - 101, u64::MAX - 100, u64::MAX - 1, u64::MAX] {
        let mut machine = machine();
        let [first, abandoned] = [4, 4].map(|weight| machine.try_grant(5, weight).unwrap());
        machine.complete(first, last, last, None);
        machine.abandon(abandoned, last, last);
        machine.pause_until(u64::MAX);
        machine.enqueue(9, ()).unwrap();
        for now in [last, u64::MAX - 1, u64::MAX, u64::MAX] {
            for _ in 0..3 {
                match machine.poll(now) {
                    Decision::LookAgainAt(at) => assert!(at > now, "{at} has come at {now}"),
                    Decision::WaitForCompletion => {
                        assert_eq!(now.max(last), u64::MAX, "time has ended");
                    }
                    decision => panic!("{decision:?}"),
                }
            }
        }
        drop(machine.abort());
        assert_eq!(machine.poll(u64::MAX), Decision::Idle);
        assert!(machine.is_drained());
    }
}

#[test]
fn at_the_end_of_time_nothing_expires_and_the_law_holds() {
    let mut machine = machine();
    for _ in 0..2 {
        let permit = machine.try_grant(u64::MAX, 5).unwrap();
        machine.complete(permit, u64::MAX, u64::MAX, None);
    }
    assert!(machine.try_grant(u64::MAX, 1).is_err());
    assert_eq!(held(&mut machine, u64::MAX), [2, 10]);
    assert_eq!(machine.reconcile(u64::MAX, u64::MAX, 0, u64::MAX), 3);
    machine.remember(u64::MAX, [HeldEntry::new(u64::MAX, u64::MAX)]);
    machine.resume();
    assert!(machine.grant_at_once(1).is_none());
}

#[test]
fn the_widest_settings_work_to_the_last_unit() {
    let limits =
        [Limit::tasks(RATE_MAX, PER_MAX).unwrap(), Limit::weight(RATE_MAX, PER_MAX).unwrap()];
    let config = Config {
        paced: true,
        concurrency: CONCURRENCY_MAX,
        queue_capacity: 0,
        abandon_grace_ns: ABANDON_GRACE_NS_MAX,
        clock_drift_ppm: CLOCK_DRIFT_PPM_MAX,
        ..Config::new(limits)
    };
    let mut machine = Machine::<()>::new(config).unwrap();
    for round in 1..4 {
        let now = round * 10 * (PER_MAX.as_nanos() as u64);
        let permit = machine.try_grant(now, RATE_MAX).unwrap();
        assert!(machine.try_grant(now, 1).is_err());
        assert_eq!(machine.complete(permit, now, now, Some(u64::MAX)), u64::MAX - RATE_MAX);
        machine.enqueue(RATE_MAX, ()).unwrap();
        let Decision::LookAgainAt(at) = machine.poll(now) else { panic!() };
        assert_eq!(at, now + 2 * (PER_MAX.as_nanos() as u64) + 1);
        let Decision::Grant { ticket, .. } = machine.poll(at) else { panic!() };
        let permit = machine.claim(ticket).unwrap();
        machine.abandon(permit, at, at);
    }
}

/// Random operations with absurd arguments.
#[derive(Debug, Clone)]
enum Op {
    TryGrant(u64),
    Enqueue(u64),
    Poll,
    Advance(u64),
    Claim(u64),
    Cancel(u64),
    Complete { weight: u64, ended_at: u64, actual: Option<u64> },
    CompleteReal(usize),
    Abandon { weight: u64, ended_at: u64 },
    Undo(u64),
    Pause(u64),
    Resume,
    Reconcile { limit: usize, used: u64, ended_at: u64 },
    Remember { weight: u64, tasks: u64, ends_at: u64 },
    SetLimits(Vec<Limit>),
    SetConcurrency(usize),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..12, 1 => any::<u64>(), 1 => u64::MAX - 3..=u64::MAX]
}

/// Mostly small, as a time in the far future would hold units for ever.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![40 => 0_u64..3_000, 1 => number()]
}

fn limit() -> impl Strategy<Value = Limit> {
    (any::<bool>(), prop_oneof![1_u64..12, Just(RATE_MAX)], 1_u64..300).prop_map(
        |(tasks, rate, per_ns)| {
            let make = if tasks { Limit::tasks } else { Limit::weight };
            make(rate, Duration::from_nanos(per_ns)).expect("in range")
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => number().prop_map(Op::TryGrant),
        4 => number().prop_map(Op::Enqueue),
        4 => Just(Op::Poll),
        8 => (0_u64..120).prop_map(Op::Advance),
        4 => number().prop_map(Op::Claim),
        2 => number().prop_map(Op::Cancel),
        3 => (number(), time(), proptest::option::of(number()))
            .prop_map(|(weight, ended_at, actual)| Op::Complete { weight, ended_at, actual }),
        4 => any::<usize>().prop_map(Op::CompleteReal),
        2 => (number(), time()).prop_map(|(weight, ended_at)| Op::Abandon { weight, ended_at }),
        1 => number().prop_map(Op::Undo),
        1 => time().prop_map(Op::Pause),
        1 => Just(Op::Resume),
        1 => (0_usize..2, number(), time())
            .prop_map(|(limit, used, ended_at)| Op::Reconcile { limit, used, ended_at }),
        1 => (number(), prop_oneof![Just(1), 0_u64..4, Just(u64::MAX)], time())
            .prop_map(|(weight, tasks, ends_at)| Op::Remember { weight, tasks, ends_at }),
        1 => proptest::collection::vec(limit(), 1..3).prop_map(Op::SetLimits),
        1 => (1_usize..4).prop_map(Op::SetConcurrency),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_that_is_made_up_wraps_or_panics_or_takes_the_law_away(
        ops in proptest::collection::vec(op(), 1..120),
        grace in prop_oneof![Just(0), Just(30_u64)],
        only in proptest::option::of(0_usize..2),
    ) {
        let mut config = Config { abandon_grace_ns: grace, ..machine().config().clone() };
        config.limits.retain(|limit| only.is_none_or(|only| *limit == machine().config().limits[only]));
        let mut machine: Machine<()> = Machine::new(config).unwrap();
        let mut now = 0_u64;
        let mut real = vec![];
        for op in ops {
            let before = machine.state();
            let mut has_granted = false;
            match op {
                Op::TryGrant(weight) => {
                    let permit = machine.try_grant(now, weight);
                    has_granted = permit.is_ok();
                    real.extend(permit);
                }
                Op::Enqueue(weight) => drop(machine.enqueue(weight, ())),
                Op::Poll => match machine.poll(now) {
                    Decision::Grant { .. } => has_granted = true,
                    Decision::LookAgainAt(at) => prop_assert!(at > now),
                    _ => {}
                },
                Op::Advance(ns) => now = now.saturating_add(ns),
                Op::Claim(ticket) => real.extend(machine.claim(raw::ticket(ticket))),
                Op::Cancel(ticket) => drop(machine.cancel(raw::ticket(ticket))),
                Op::Complete { weight, ended_at, actual } => {
                    machine.complete(raw::grant(weight), now, ended_at, actual);
                }
                Op::CompleteReal(which) if !real.is_empty() => {
                    let permit = real.swap_remove(which % real.len());
                    machine.complete(permit, now, now, None);
                }
                Op::CompleteReal(_) => {}
                Op::Abandon { weight, ended_at } => {
                    machine.abandon(raw::grant(weight), now, ended_at);
                }
                Op::SetLimits(limits) => drop(machine.set_limits(now, now, limits).unwrap()),
                Op::SetConcurrency(tasks) => machine.set_concurrency(tasks).unwrap(),
                Op::Undo(weight) => machine.undo(raw::grant(weight)),
                Op::Pause(until) => machine.pause_until(until),
                Op::Resume => machine.resume(),
                Op::Reconcile { limit, used, ended_at } => {
                    let limit = limit % machine.config().limits.len();
                    machine.reconcile(now, ended_at, limit, used);
                }
                Op::Remember { weight, tasks, ends_at } => {
                    machine.remember(now, [HeldEntry::new(ends_at, weight).with_tasks(tasks)]);
                }
            }
            let state = machine.state();
            prop_assert!(!has_granted || state.running <= state.config.concurrency);
            // Unclaimed and abandoned tasks are known to hold their weights, whatever is returned.
            let kept = state.unclaimed.iter().chain(&state.abandoned);
            let weights = kept.clone().map(|(_, weight)| u128::from(*weight)).sum::<u128>();
            for ((window, held), limit) in state.windows.iter().zip(state.held()).zip(&state.config.limits) {
                let completed = window.completions.iter().map(|(_, units)| units).sum::<u64>();
                let known = match limit.unit() {
                    Unit::Task => kept.clone().count() as u128,
                    _ => weights,
                };
                let running = u128::from(held - completed);
                prop_assert!(running >= known.min(u128::from(u64::MAX - completed)), "{state:?}");
                prop_assert!(!has_granted || held <= limit.rate(), "{before:?}\n{state:?}");
            }
            // A machine could have this state.
            let again = Machine::restore(&state, |_| ()).map(|machine: Machine<()>| machine.state());
            prop_assert_eq!(again, Ok(state));
        }
    }
}
