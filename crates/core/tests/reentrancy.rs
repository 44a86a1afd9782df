//! `could_nest` compared with what the machine then does: all tasks that do not wait inside end, all windows
//! empty, and the waiter is granted exactly if `could_nest` said so.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::{
    Config, Decision, Grant, InsideWaiter, Limit, Machine, RunningTask, Ticket,
};

const PER: Duration = Duration::from_nanos(100);

/// A request: its weight, and the running tasks inside which it is made, if any, by their positions.
#[derive(Debug, Clone)]
struct Request {
    weight: u64,
    inside: Vec<prop::sample::Index>,
}

fn request() -> impl Strategy<Value = Request> {
    let inside = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (1_u64..8, inside).prop_map(|(weight, inside)| Request { weight, inside })
}

/// Ends all tasks that do not wait inside, until nothing moves. Returns whether the waiter `last` was granted.
fn is_ever_granted(
    machine: &mut Machine<()>,
    mut running: BTreeMap<u64, Grant>,
    mut inside: Vec<InsideWaiter>,
    last: Ticket,
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
            if ticket == last {
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
    fn a_waiter_inside_is_refused_exactly_if_it_would_wait_for_ever(
        concurrency in 1_usize..5,
        rate in 1_u64..12,
        weighs in any::<bool>(),
        runs in prop::collection::vec(1_u64..8, 0..5),
        queue in prop::collection::vec(request(), 0..6),
        last in request(),
    ) {
        let limit = if weighs { Limit::weight(rate, PER) } else { Limit::tasks(rate, PER) };
        let config = Config { concurrency, ..Config::new([limit.unwrap()]) };
        let mut machine = Machine::new(config).unwrap();
        let mut running = BTreeMap::new();
        for (id, weight) in (0..).zip(runs) {
            running.extend(machine.try_grant(0, weight).ok().map(|permit| (id, permit)));
        }
        let tasks = |request: &Request| -> Vec<RunningTask> {
            let mut ids: Vec<u64> = vec![];
            for position in request.inside.iter().filter(|_| !running.is_empty()) {
                ids.extend(running.keys().nth(position.index(running.len())));
            }
            ids.sort_unstable();
            ids.dedup();
            let task = |id: u64| RunningTask { id, weight: running[&id].weight() };
            ids.into_iter().map(task).collect()
        };
        let mut inside = vec![];
        for request in &queue {
            // A request that is granted at once, or refused, does not join the queue.
            if machine.check(request.weight).is_ok()
                && let Err(_) = machine.try_grant(1, request.weight).map(|permit| machine.undo(permit))
            {
                let tasks = tasks(request);
                if tasks.is_empty() || machine.could_nest(&tasks, request.weight, &inside) {
                    let ticket = machine.enqueue(request.weight, ()).unwrap().ticket;
                    if !tasks.is_empty() {
                        inside.push(InsideWaiter { ticket, tasks });
                    }
                }
            }
        }
        let last_tasks = tasks(&last);
        if machine.check(last.weight).is_err() || last_tasks.is_empty() {
            return Ok(()); // It is too heavy, or is not made inside a task.
        }
        let could = machine.could_nest(&last_tasks, last.weight, &inside);
        let ticket = machine.enqueue(last.weight, ()).unwrap().ticket;
        inside.push(InsideWaiter { ticket, tasks: last_tasks });
        prop_assert_eq!(could, is_ever_granted(&mut machine, running, inside, ticket));
    }
}
