//! Whether a waiter inside of running tasks could ever be granted, held to what the machine then does:
//! whatever is not waiting inside ends, every window empties, and either the waiter is granted or never.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::{
    Config, Decision, Grant, InsideWaiter, Limit, Machine, RunningTask, Ticket,
};

const PER: Duration = Duration::from_nanos(100);

/// Somebody who asks: how heavy, and inside of which of those that run (by their places), if any.
#[derive(Debug, Clone)]
struct Asks {
    weight: u64,
    inside: Vec<prop::sample::Index>,
}

fn asks() -> impl Strategy<Value = Asks> {
    let inside = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (1_u64..8, inside).prop_map(|(weight, inside)| Asks { weight, inside })
}

/// Lets everything end that does not wait inside, until nothing moves. Whether `newcomer` was granted.
fn is_ever_granted(
    machine: &mut Machine<()>,
    mut running: BTreeMap<u64, Grant>,
    mut inside: Vec<InsideWaiter>,
    newcomer: Ticket,
) -> bool {
    let mut now = 1_000;
    loop {
        now += 1_000;
        let waits = |id: &u64| {
            let tasks = inside.iter().flat_map(|waiter| &waiter.tasks);
            tasks.into_iter().any(|task| task.id == *id)
        };
        let free: Vec<u64> = running.keys().copied().filter(|id| !waits(id)).collect();
        for id in free {
            let permit = running.remove(&id).unwrap();
            machine.complete(permit, now, now, None);
        }
        let mut moved = false;
        now += 1_000;
        while let Decision::Grant { ticket, .. } = machine.poll(now) {
            if ticket == newcomer {
                return true;
            }
            let permit = machine.claim(ticket).unwrap();
            machine.complete(permit, now, now, None);
            inside.retain(|waiter| waiter.ticket != ticket);
            moved = true;
            now += 1_000;
        }
        if !moved {
            return false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_waiter_inside_is_refused_exactly_where_it_would_wait_for_ever(
        concurrency in 1_usize..5,
        rate in 1_u64..12,
        weighs in any::<bool>(),
        runs in prop::collection::vec(1_u64..8, 0..5),
        line in prop::collection::vec(asks(), 0..6),
        newcomer in asks(),
    ) {
        let limit = if weighs { Limit::weight(rate, PER) } else { Limit::tasks(rate, PER) };
        let config = Config { concurrency, ..Config::new([limit.unwrap()]) };
        let mut machine = Machine::new(config).unwrap();
        let mut running = BTreeMap::new();
        for (id, weight) in (0..).zip(runs) {
            running.extend(machine.try_grant(0, weight).ok().map(|permit| (id, permit)));
        }
        let tasks = |asks: &Asks| -> Vec<RunningTask> {
            let mut ids: Vec<u64> = vec![];
            for place in asks.inside.iter().filter(|_| !running.is_empty()) {
                ids.extend(running.keys().nth(place.index(running.len())));
            }
            ids.sort_unstable();
            ids.dedup();
            let task = |id: u64| RunningTask { id, weight: running[&id].weight() };
            ids.into_iter().map(task).collect()
        };
        let mut inside = vec![];
        for asks in &line {
            // Whoever would be granted at once, or is refused, does not join the line.
            if machine.check(asks.weight).is_ok()
                && let Err(_) = machine.try_grant(1, asks.weight).map(|permit| machine.undo(permit))
            {
                let tasks = tasks(asks);
                if tasks.is_empty() || machine.could_nest(&tasks, asks.weight, &inside) {
                    let ticket = machine.enqueue(asks.weight, ()).unwrap().ticket;
                    if !tasks.is_empty() {
                        inside.push(InsideWaiter { ticket, tasks });
                    }
                }
            }
        }
        let newcomers_tasks = tasks(&newcomer);
        if machine.check(newcomer.weight).is_err() || newcomers_tasks.is_empty() {
            return Ok(()); // It is refused as everyone is, or asks from outside.
        }
        let could = machine.could_nest(&newcomers_tasks, newcomer.weight, &inside);
        let ticket = machine.enqueue(newcomer.weight, ()).unwrap().ticket;
        inside.push(InsideWaiter { ticket, tasks: newcomers_tasks });
        prop_assert_eq!(could, is_ever_granted(&mut machine, running, inside, ticket));
    }
}
