//! Damaged states: `restore` returns an error or a working machine, never a panic and never a burst.

#[path = "oracle/restored.rs"]
mod restored;

use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::config::CONCURRENCY_MAX;
use strict_rate_limiter_core::limit::RATE_MAX;
use strict_rate_limiter_core::{
    Config, Decision, HeldEntry, Limit, Machine, OwnersState, PermitState, State, StateError, raw,
};

const PER_NS: u64 = 100;

/// A machine with running, unclaimed, abandoned and waiting tasks and completions.
fn busy_state() -> State {
    busy_state_with(false)
}

fn busy_state_with(with_sessions: bool) -> State {
    let per = Duration::from_nanos(PER_NS);
    let limits = [Limit::tasks(6, per).unwrap(), Limit::weight(20, per).unwrap()];
    let config = Config { concurrency: 4, abandon_grace_ns: 30, ..Config::new(limits) };
    let mut machine = Machine::new(config).unwrap();
    if with_sessions {
        machine.open_session();
        machine.open_session();
    }
    for now in [3, 5] {
        let permit = machine.try_grant(now, 3).unwrap();
        machine.complete(permit, now, now, Some(2));
    }
    let abandoned = machine.try_grant(6, 2).unwrap();
    machine.abandon(abandoned, 7, 7);
    let _still_runs = machine.try_grant(8, 4).unwrap();
    for weight in [1, 2, 9, 1] {
        machine.enqueue(weight, ()).unwrap();
    }
    while let Decision::Grant { .. } = machine.poll(9) {}
    machine.pause_until(12);
    machine.state()
}

/// All numbers of a state, to damage them one by one.
fn numbers(state: &mut State) -> Vec<&mut u64> {
    let pairs = state.queue.iter_mut().chain(&mut state.unclaimed).chain(&mut state.abandoned);
    let mut numbers: Vec<&mut u64> = pairs.flat_map(|(a, b)| [a, b]).collect();
    for window in &mut state.windows {
        numbers.extend([&mut window.expired, &mut window.unbounded]);
        numbers.extend(window.completions.iter_mut().flat_map(|(a, b)| [a, b]));
    }
    if let Some(owners) = &mut state.owners {
        numbers.push(&mut owners.next_session);
        numbers.extend(owners.waiters.iter_mut().flat_map(|(a, b)| [a, b]));
        numbers.extend(owners.told.iter_mut().flat_map(|(a, b)| [a, b]));
        for permit in &mut owners.permits {
            let PermitState { ticket, session, weight, granted_at } = permit;
            numbers.extend([ticket, session, weight, granted_at]);
        }
    }
    numbers.extend([
        &mut state.completed,
        &mut state.next_ticket,
        &mut state.now,
        &mut state.last_end,
        &mut state.paused_until,
        &mut state.config.abandon_grace_ns,
    ]);
    numbers
}

#[test]
fn an_undamaged_state_is_read_back() {
    let state = busy_state();
    let machine: Machine<()> = Machine::restore(&state, |_| ()).unwrap();
    assert_eq!(machine.state(), state);
    assert!(!state.queue.is_empty() && !state.unclaimed.is_empty() && !state.abandoned.is_empty());
}

/// A change that no machine makes.
type OwnersDamage = fn(&mut OwnersState);

#[test]
fn what_no_machine_could_have_been_in_is_refused() {
    type Damage = fn(&mut State);
    let damages: [(&str, Damage); 23] = [
        ("not one window", |state| state.windows.truncate(1)),
        ("queue is not in the order", |state| state.queue.reverse()),
        ("unclaimed are not in the order", |state| state.unclaimed.push((0, 1))),
        ("later than one that still waits", |state| state.queue[0].0 = 0),
        ("later than one that still waits", |state| {
            state.queue[0].0 = state.unclaimed.last().unwrap().0;
        }),
        ("handed out already", |state| state.next_ticket = 3),
        ("handed out already", |state| state.next_ticket = state.queue.last().unwrap().0),
        ("order of their ends", |state| state.abandoned.insert(0, (u64::MAX, 1))),
        ("more tickets handed out", |state| state.next_ticket = u64::MAX),
        ("more are unclaimed or abandoned", |state| state.running = 1),
        ("more are unclaimed or abandoned", |state| state.running = 2),
        ("more run than ever", |state| state.running = CONCURRENCY_MAX + 1),
        ("weight in the queue", |state| state.queue[0].1 = 21),
        ("weight in the queue", |state| state.queue[0].1 = 0),
        ("completion of no units", |state| state.windows[0].completions[0].1 = 0),
        ("more than can be held", |state| state.windows[0].completions[0].1 = u64::MAX),
        ("more is held than", |state| state.windows[1].completions[0].1 = u64::MAX / 2),
        ("out of order", |state| state.windows[0].completions.reverse()),
        ("later than the last one", |state| state.last_end = 4),
        ("weigh more than all", |state| state.unclaimed[0].1 = 15),
        ("less than 1 each", |state| state.unclaimed[0].1 = 5),
        ("could never have been granted", |state| state.unclaimed[0].1 = 0),
        ("could never have been granted", |state| state.abandoned[0].1 = 0),
    ];
    for (words, damage) in damages {
        let mut state = busy_state();
        damage(&mut state);
        match Machine::restore(&state, raw::ticket_number) {
            Err(StateError::Corrupt(what)) => assert!(what.contains(words), "{words}: {what}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    let owner_damages: [(&str, OwnersDamage); 11] = [
        ("not those of the waiters", |owners| owners.waiters.clear()),
        ("not those of the waiters", |owners| owners.waiters.reverse()),
        ("order of their tickets", |owners| owners.permits.push(owners.permits[0])),
        ("ticket that it cannot have", |owners| owners.permits[0].ticket = owners.waiters[0].0),
        ("ticket that it cannot have", |owners| owners.permits[0].ticket = 1_000),
        ("no session ever was", |owners| owners.permits[0].session = 2),
        ("no session ever was", |owners| owners.waiters[0].1 = 2),
        ("sessions opened", |owners| owners.next_session = u64::MAX),
        ("not those that are out", |owners| owners.permits[0].weight += 1),
        ("not those that are out", |owners| owners.permits[0].weight = 0),
        ("not those that are out", |owners| owners.permits.clear()),
    ];
    for (words, damage) in owner_damages {
        let mut state = busy_state_with(true);
        damage(state.owners.as_mut().unwrap());
        match Machine::restore(&state, raw::ticket_number) {
            Err(StateError::Corrupt(what)) => assert!(what.contains(words), "{words}: {what}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    let mut state = busy_state();
    state.version += 1;
    let error = Machine::restore(&state, |_| ()).unwrap_err();
    assert_eq!(error, StateError::Version(3));
    assert_eq!(error.to_string(), "the state has version 3; this program reads version 2");
    let mut state = busy_state();
    state.config.concurrency = 0;
    assert!(matches!(Machine::restore(&state, |_| ()), Err(StateError::Config(_))));
}

#[test]
fn what_is_over_by_the_time_of_a_state_is_over_in_the_machine() {
    let mut state = busy_state();
    let end = state.abandoned[0].0;
    state.now = end + PER_NS;
    let mut machine: Machine<()> = Machine::restore(&state, |_| ()).unwrap();
    let read_back = machine.state();
    assert_eq!((read_back.paused_until, read_back.abandoned), (0, vec![]));
    assert_eq!(read_back.running, state.running - 1);
    assert_eq!(read_back.windows[1].completions, [(end, 2)], "and not what completed long ago");
    loop {
        match machine.poll(state.now) {
            Decision::LookAgainAt(at) => assert!(at > state.now, "{at} has come"),
            Decision::Grant { .. } | Decision::Accept { .. } => continue,
            _ => {}
        }
        break;
    }
}

#[test]
fn a_window_holds_as_much_as_tasks_can_overspend_and_no_more() {
    let mut state = busy_state();
    (state.running, state.queue, state.unclaimed, state.abandoned) = (0, vec![], vec![], vec![]);
    state.running_weight = 0;
    state.windows[0].completions = vec![];
    let of_all_tasks = 2 * RATE_MAX * CONCURRENCY_MAX as u64;
    for (held, is_possible) in [(of_all_tasks, true), (of_all_tasks + 1, false)] {
        state.windows[1].completions = vec![(5, held)];
        assert_eq!(Machine::restore(&state, |_| ()).is_ok(), is_possible, "{held}");
    }
}

#[test]
fn what_weighed_nothing_leaves_nothing_to_write_down() {
    let limit = Limit::weight(6, Duration::from_nanos(PER_NS)).unwrap();
    let mut machine: Machine<()> = Machine::new(Config::new([limit])).unwrap();
    machine.remember(3, [HeldEntry::new(3, 0)]);
    let permit = machine.try_grant(5, 2).unwrap();
    machine.complete(permit, 6, 6, Some(0));
    let state = machine.state();
    assert_eq!(state.windows[0].completions, []);
    let machine: Machine<()> = Machine::restore(&state, |_| ()).unwrap();
    assert_eq!(machine.state(), state);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_state_neither_panics_nor_bursts(
        damages in proptest::collection::vec((any::<usize>(), prop_oneof![
            0_u64..30, Just(u64::MAX), Just(u64::MAX - 50), any::<u64>(),
        ]), 1..4),
        running in proptest::option::of(0_usize..8),
        with_sessions: bool,
    ) {
        let mut state = busy_state_with(with_sessions);
        for (which, value) in damages {
            let mut numbers = numbers(&mut state);
            let which = which % numbers.len();
            *numbers[which] = value;
        }
        state.running = running.unwrap_or(state.running);
        restored::grants_stay_within_the_law(&state);
    }
}
