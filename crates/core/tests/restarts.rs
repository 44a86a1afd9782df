//! `history` before a restart and `remember` after it: over all runs together, no window overflows.

use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::{Config, Grant, HeldEntry, Limit, Machine, Record, audit};

fn config() -> impl Strategy<Value = Config> {
    let limit = (any::<bool>(), 3_u64..9, 1_u64..80).prop_map(|(tasks, rate, per_ns)| {
        let make = if tasks { Limit::tasks } else { Limit::weight };
        make(rate, Duration::from_nanos(per_ns)).expect("in range")
    });
    let grace = prop_oneof![Just(0), 1_u64..50];
    (proptest::collection::vec(limit, 1..4), 1_usize..5, grace).prop_map(
        |(limits, concurrency, abandon_grace_ns)| Config {
            concurrency,
            abandon_grace_ns,
            ..Config::new(limits)
        },
    )
}

/// One run of a machine. Every 4th task is abandoned, every 5th is left running.
fn run(machine: &mut Machine<()>, now: &mut u64, steps: &[(u64, u64)], ran: &mut Vec<Record>) {
    let grace = machine.config().abandon_grace_ns;
    let mut running: Vec<(Grant, u64)> = vec![];
    for (step, &(gap, weight)) in steps.iter().enumerate() {
        *now += gap;
        if let Ok(grant) = machine.try_grant(*now, weight) {
            running.push((grant, *now));
        }
        if step % 5 != 4
            && let Some((grant, start)) = running.pop()
        {
            let weight = grant.weight();
            if step % 4 == 3 {
                machine.abandon(grant, *now, *now);
                ran.push(Record { start, end: *now + grace, weight });
            } else {
                machine.complete(grant, *now, *now, None);
                ran.push(Record { start, end: *now, weight });
            }
        }
    }
    // A crash: the calls of running tasks are on the wire for at most the grace.
    ran.extend(running.into_iter().map(|(grant, start)| Record {
        start,
        end: *now + grace,
        weight: grant.weight(),
    }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]
    #[test]
    fn no_window_overflows_over_several_runs(
        config in config(),
        runs in proptest::collection::vec(
            (proptest::collection::vec((0_u64..15, 1_u64..4), 1..40), 0_u64..60), 1..4),
    ) {
        let (mut now, mut ran, mut history) = (0, vec![], vec![]);
        for (steps, down) in runs {
            let mut machine: Machine<()> = Machine::new(config.clone()).unwrap();
            machine.remember(now, history);
            run(&mut machine, &mut now, &steps, &mut ran);
            history = machine.history(now);
            now += down;
        }
        for limit in &config.limits {
            let audit = audit::check(limit, &ran).expect("nothing ends before it starts");
            prop_assert!(audit.is_clean(), "{audit:?}");
        }
    }

    #[test]
    fn a_history_that_was_put_back_comes_out_again(
        config in config(),
        steps in proptest::collection::vec((0_u64..15, 1_u64..4), 1..60),
    ) {
        let mut now = 0;
        let mut machine: Machine<()> = Machine::new(config.clone()).unwrap();
        run(&mut machine, &mut now, &steps, &mut vec![]);
        let before = machine.stats(now);
        let mut after: Machine<()> = Machine::new(config).unwrap();
        after.remember(now, machine.history(now));
        // Without a grace, running tasks have ended with the process.
        let units = |stats: &strict_rate_limiter_core::Snapshot| -> Vec<u64> {
            stats.held.iter().map(|held| held.units).collect()
        };
        prop_assert_eq!(units(&after.stats(now)), units(&before));
    }
}

#[test]
fn a_history_is_in_the_order_of_its_ends_and_includes_running_tasks() {
    let limits: [Limit; 2] = ["9/100ns".parse().unwrap(), "99w/50ns".parse().unwrap()];
    let config = Config { concurrency: 5, abandon_grace_ns: 30, ..Config::new(limits) };
    let mut machine: Machine<()> = Machine::new(config).unwrap();
    let grants = [7, 5, 3, 2].map(|weight| machine.try_grant(0, weight).unwrap());
    let [completed, abandoned, _running, _also_running] = grants;
    machine.complete(completed, 10, 10, Some(8));
    machine.abandon(abandoned, 15, 15);
    assert_eq!(
        machine.history(20),
        [HeldEntry::new(10, 8), HeldEntry::new(45, 5), HeldEntry::new(50, 5).with_tasks(2)]
    );
    // The second limit's period is over, the first's is not.
    let history = machine.history(70);
    assert_eq!(history[0], HeldEntry::new(10, 0));
}

#[test]
fn units_of_no_task_are_held_whether_they_have_ended_or_not() {
    let limits: [Limit; 2] = ["9/100ns".parse().unwrap(), "99w/100ns".parse().unwrap()];
    for ends_at in [10, 30] {
        let mut machine: Machine<()> = Machine::new(Config::new(limits)).unwrap();
        machine.remember(20, [HeldEntry::new(ends_at, 90).with_tasks(0)]);
        assert_eq!(machine.stats(20).held[1].units, 90, "{ends_at}");
        let nothing = [HeldEntry::new(ends_at, 0).with_tasks(0)];
        machine.remember(20, nothing);
        assert_eq!(machine.stats(20).held[1].units, 90);
    }
}
