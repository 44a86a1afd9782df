//! Random lives of several sessions that share one state, as bytes: each has a machine of its own, which it moves to
//! the present state, changes and writes. A model that remembers every task checks the law, the order and the
//! permits. Sessions die at any moment, with permits out, granted and never seen, and waiting.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use strict_rate_limiter_core::{
    Config, Decision, Grant, Limit, Machine, SessionId, State, StateError, Ticket, TicketStatus,
};

const PER_NS: u64 = 50;

/// A task that has a permit: until when, as far as the world knows.
#[derive(Debug)]
struct Ran {
    ended: Option<u64>,
    weight: u64,
}

struct Process {
    session: SessionId,
    machine: Machine<u64>,
    permits: Vec<(Grant, usize)>,
    waiting: Vec<Ticket>,
}

struct World {
    now: u64,
    limits: Vec<Limit>,
    grace_ns: u64,
    concurrency: usize,
    bytes: Vec<u8>,
    processes: Vec<Process>,
    /// Sessions whose processes have died, and the tasks of theirs that run on.
    orphans: Vec<(SessionId, Vec<usize>)>,
    ran: Vec<Ran>,
    /// All waiters, first to last: ticket and weight.
    queue: VecDeque<(Ticket, u64)>,
    /// Granted and not seen yet: the ticket and the task in `ran`.
    unseen: BTreeMap<Ticket, usize>,
}

impl World {
    fn new(limits: Vec<Limit>, concurrency: usize, grace_ns: u64) -> Self {
        let config =
            Config { concurrency, abandon_grace_ns: grace_ns, ..Config::new(limits.clone()) };
        let mut machine = Machine::<u64>::new(config).unwrap();
        machine.open_session();
        let mut bytes = Vec::new();
        machine.state().write_to(&mut bytes);
        Self {
            now: 1_000,
            limits,
            grace_ns,
            concurrency,
            bytes,
            processes: Vec::new(),
            orphans: Vec::new(),
            ran: Vec::new(),
            queue: VecDeque::new(),
            unseen: BTreeMap::new(),
        }
    }

    fn begin_process(&mut self) {
        let state = State::from_bytes(&self.bytes).unwrap();
        let mut machine = Machine::restore(&state, |_| u64::MAX).unwrap();
        let session = machine.open_session();
        self.processes.push(Process { session, machine, permits: Vec::new(), waiting: Vec::new() });
        self.write(self.processes.len() - 1);
    }

    /// Moves a process to the present state. Its own waiters must have kept their values.
    fn follow(&mut self, index: usize) {
        let state = State::from_bytes(&self.bytes).unwrap();
        let process = &mut self.processes[index];
        let moved = process.machine.follow(&state, |_| u64::MAX).unwrap();
        for moved in moved {
            assert_eq!(process.machine.status(moved.ticket), TicketStatus::Granted);
            assert!(process.waiting.contains(&moved.ticket));
            assert_ne!(moved.waiter, u64::MAX, "the value that it was stored with");
        }
        for ticket in process.waiting.clone() {
            if let Some(value) = process.machine.waiter_mut(ticket) {
                assert_ne!(*value, u64::MAX, "the value that it was stored with");
            }
            assert_eq!(process.machine.owner(ticket), Some(process.session));
        }
        let queue: Vec<_> =
            process.machine.waiting().map(|(ticket, _, weight)| (ticket, weight)).collect();
        assert_eq!(queue, Vec::from(self.queue.clone()));
    }

    fn write(&mut self, index: usize) {
        let state = self.processes[index].machine.state();
        self.bytes.clear();
        state.write_to(&mut self.bytes);
        assert_eq!(State::from_bytes(&self.bytes).as_ref(), Ok(&state));
    }

    /// A task begins now; the law must allow it.
    fn begin_task(&mut self, weight: u64) -> usize {
        let now = self.now;
        self.ran.push(Ran { ended: None, weight });
        for limit in &self.limits {
            let is_held = |ran: &&Ran| ran.ended.is_none_or(|ended| ended + limit.per_ns() >= now);
            let held: u64 =
                self.ran.iter().filter(is_held).map(|ran| limit.units(ran.weight)).sum();
            assert!(held <= limit.rate(), "{held} of {limit} at {now}");
        }
        let runs = self.ran.iter().filter(|ran| ran.ended.is_none_or(|ended| ended > now)).count();
        assert!(runs <= self.concurrency, "{runs} run at once");
        self.ran.len() - 1
    }

    fn drive(&mut self, index: usize) {
        loop {
            match self.processes[index].machine.poll(self.now) {
                Decision::Grant { ticket, .. } => {
                    let first = self.queue.pop_front();
                    assert_eq!(
                        first.map(|(ticket, _)| ticket),
                        Some(ticket),
                        "first in, first out"
                    );
                    let task = self.begin_task(first.map_or(0, |(_, weight)| weight));
                    self.unseen.insert(ticket, task);
                }
                Decision::Accept { .. } => {}
                _ => break,
            }
        }
    }

    /// A process dies; its running tasks may be children that run on.
    fn die(&mut self, index: usize, tasks_run_on: bool) {
        let dead = self.processes.remove(index);
        self.queue.retain(|(ticket, _)| !dead.waiting.contains(ticket));
        for ticket in &dead.waiting {
            if let Some(task) = self.unseen.remove(ticket) {
                // It never ran.
                self.ran[task].weight = 0;
                self.ran[task].ended = Some(0);
            }
        }
        if self.processes.is_empty() {
            self.begin_process();
        }
        let tasks: Vec<usize> = dead.permits.into_iter().map(|(_, task)| task).collect();
        if tasks_run_on && !tasks.is_empty() {
            let state = State::from_bytes(&self.bytes).unwrap();
            let process = &mut self.processes[0];
            process.machine.follow(&state, |_| u64::MAX).unwrap();
            process.machine.end_waiting(dead.session);
            assert!(process.machine.other_sessions().contains(&dead.session), "it holds permits");
            self.drive(0);
            self.write(0);
            return self.orphans.push((dead.session, tasks));
        }
        self.end_session(dead.session, &tasks);
    }

    fn end_session(&mut self, session: SessionId, tasks: &[usize]) {
        for task in tasks {
            self.ran[*task].ended = Some(self.now + self.grace_ns);
        }
        self.follow_dead(session);
    }

    /// Any other process ends the dead one's session.
    fn follow_dead(&mut self, dead: SessionId) {
        let state = State::from_bytes(&self.bytes).unwrap();
        let process = &mut self.processes[0];
        process.machine.follow(&state, |_| u64::MAX).unwrap();
        let others = process.machine.other_sessions();
        process.machine.end_session(dead, self.now, self.now);
        let mut left = others;
        left.retain(|session| *session != dead);
        assert_eq!(process.machine.other_sessions(), left);
        self.drive(0);
        self.write(0);
    }

    fn act(&mut self, random: &mut fastrand::Rng) {
        self.now += random.u64(0..PER_NS / 2) * random.u64(0..2);
        if self.processes.len() < 2 || random.u8(..) < 8 {
            return self.begin_process();
        }
        let index = random.usize(0..self.processes.len());
        if random.u8(..) < 12 {
            return self.die(index, random.bool());
        }
        if !self.orphans.is_empty() && random.u8(..) < 30 {
            let (session, tasks) = self.orphans.swap_remove(random.usize(0..self.orphans.len()));
            return self.end_session(session, &tasks);
        }
        self.follow(index);
        let now = self.now;
        let weight = random.u64(1..4);
        match random.u8(0..10) {
            0..3 => {
                if let Ok(grant) = self.processes[index].machine.try_grant(now, weight) {
                    assert!(self.queue.is_empty(), "overtook a waiter");
                    let task = self.begin_task(weight);
                    self.processes[index].permits.push((grant, task));
                } else if self.queue.len() < 12 {
                    let value = random.u64(..u64::MAX);
                    let process = &mut self.processes[index];
                    let ticket = process.machine.enqueue(weight, value).unwrap().ticket;
                    process.waiting.push(ticket);
                    self.queue.push_back((ticket, weight));
                }
            }
            3..7 => {
                let process = &mut self.processes[index];
                if !process.permits.is_empty() {
                    let (grant, task) =
                        process.permits.swap_remove(random.usize(0..process.permits.len()));
                    let ended = if random.bool() {
                        process.machine.complete(grant, now, now, None);
                        now
                    } else {
                        process.machine.abandon(grant, now, now);
                        now + self.grace_ns
                    };
                    self.ran[task].ended = Some(ended);
                }
            }
            7 => {
                let process = &mut self.processes[index];
                if !process.waiting.is_empty() {
                    let at = random.usize(0..process.waiting.len());
                    let ticket = process.waiting.swap_remove(at);
                    process.machine.cancel(ticket);
                    self.queue.retain(|(other, _)| *other != ticket);
                    if let Some(task) = self.unseen.remove(&ticket) {
                        self.ran[task].weight = 0;
                        self.ran[task].ended = Some(0);
                    }
                }
            }
            8 => {
                // Another session's ticket or permit is none of ours.
                let other = (index + 1) % self.processes.len();
                let foreign = self.processes[other].waiting.first().copied();
                if let Some(ticket) = foreign {
                    let process = &mut self.processes[index];
                    assert_eq!(process.machine.claim(ticket), None);
                    assert_eq!(process.machine.cancel(ticket), None);
                    assert!(process.machine.owner(ticket).is_some());
                }
            }
            _ => {}
        }
        self.drive(index);
        self.see(index);
        let process = &self.processes[index];
        let is_drained = process.permits.is_empty() && process.waiting.is_empty();
        assert_eq!(process.machine.is_drained(), is_drained);
        self.write(index);
    }

    /// A process takes the permits that were granted to its waiters.
    fn see(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let mut seen = Vec::new();
        process.waiting.retain(|ticket| match process.machine.claim(*ticket) {
            Some(grant) => {
                assert_eq!(grant.ticket(), Some(*ticket));
                seen.push((*ticket, grant));
                false
            }
            None => true,
        });
        for (ticket, grant) in seen {
            let task = self.unseen.remove(&ticket).expect("granted before it was seen");
            process.permits.push((grant, task));
        }
    }

    /// All tasks end, time passes, and whoever waits gets its permit.
    fn let_all_run(&mut self) {
        for (session, tasks) in std::mem::take(&mut self.orphans) {
            self.end_session(session, &tasks);
        }
        for round in 0.. {
            for index in 0..self.processes.len() {
                self.follow(index);
                let process = &mut self.processes[index];
                for (grant, task) in std::mem::take(&mut process.permits) {
                    process.machine.complete(grant, self.now, self.now, None);
                    self.ran[task].ended = Some(self.now);
                }
                self.drive(index);
                self.see(index);
                self.write(index);
            }
            if self.queue.is_empty() && self.processes.iter().all(|one| one.permits.is_empty()) {
                break;
            }
            assert!(round < 1_000, "{:?} wait for ever", self.queue);
            self.now += PER_NS;
        }
    }
}

fn limits(of: &[&str]) -> Vec<Limit> {
    of.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn sessions_that_share_a_state_keep_the_law_and_the_order_whoever_dies() {
    let per = Duration::from_nanos(PER_NS);
    let mut tasks = 0;
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut shared = vec![Limit::tasks(random.u64(1..6), per).unwrap()];
        if random.bool() {
            shared.push(Limit::weight(random.u64(3..9), per * 2).unwrap());
        }
        let grace_ns = random.u64(0..2) * random.u64(1..40);
        let mut world = World::new(shared, random.usize(1..4), grace_ns);
        for _ in 0..1_500 {
            world.act(&mut random);
        }
        tasks += world.ran.len();
        world.let_all_run();
    }
    assert!(tasks > 60 * 80, "{tasks} tasks");
}

#[test]
fn a_permit_is_returned_by_its_owner_alone_and_once() {
    let mut machine =
        Machine::<()>::new(Config { concurrency: 2, ..Config::new(limits(&["2/20ns"])) }).unwrap();
    let first = machine.open_session();
    let permit = machine.try_grant(5, 1).unwrap();
    let mut bytes = Vec::new();
    machine.state().write_to(&mut bytes);
    machine.end_session(first, 6, 6);
    // It is known no more: it frees nothing, and its usage counts once more.
    machine.complete(permit, 10, 10, None);
    assert_eq!(machine.stats(10).held[0].units, 2);

    let state = State::from_bytes(&bytes).unwrap();
    let mut other = Machine::<()>::restore(&state, |_| ()).unwrap();
    other.open_session();
    assert_eq!(other.other_sessions(), [first]);
    assert_eq!(other.permits_out().count(), 1);
    let stolen = other.try_grant(6, 1).unwrap();
    other.act_as(first);
    other.undo(stolen);
    assert_eq!(other.stats(6).running, 2, "not the owner");
}

#[test]
fn bytes_that_are_cut_off_longer_or_of_another_version_are_an_error() {
    let mut machine = Machine::<()>::new(Config::new(limits(&["3/20ns", "9w/1s"]))).unwrap();
    machine.open_session();
    let permit = machine.try_grant(5, 2).unwrap();
    machine.complete(permit, 6, 6, None);
    let _out = machine.try_grant(40, 3).unwrap();
    machine.enqueue(1, ()).unwrap();
    let mut bytes = Vec::new();
    machine.state().write_to(&mut bytes);
    for len in 0..bytes.len() {
        assert!(State::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    for index in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[index / 8] ^= 1 << (index % 8);
        if let Ok(state) = State::from_bytes(&damaged) {
            let _ = Machine::<()>::restore(&state, |_| ());
        }
    }
    bytes.push(0);
    assert_eq!(State::from_bytes(&bytes), Err(StateError::Corrupt("bytes behind the end")));
    bytes[0] = 77;
    assert_eq!(State::from_bytes(&bytes), Err(StateError::Version(77)));
}

#[test]
fn a_large_window_is_merged_before_it_is_stored() {
    let limit: Limit = "100000/1ms".parse().unwrap();
    let mut machine = Machine::<()>::new(Config::new([limit])).unwrap();
    machine.open_session();
    for at in 0..20_000_u64 {
        let permit = machine.try_grant(at, 1).unwrap();
        machine.complete(permit, at, at, None);
    }
    machine.coarsen();
    let state = machine.state();
    assert!(
        state.windows[0].completions.len() <= 4_096 + 256,
        "{}",
        state.windows[0].completions.len()
    );
    assert_eq!(machine.stats(20_000).held[0].units, 20_000);
    let last_slot = machine.stats(1_000_000 + 19_999).held[0].units;
    assert!((1..=1 + 1_000_000 / 4_096).contains(&last_slot), "{last_slot} held after a period");
    let mut bytes = Vec::new();
    state.write_to(&mut bytes);
    assert!(bytes.len() < 80_000, "{} bytes", bytes.len());
}

#[test]
fn after_a_restart_of_the_computer_all_limits_are_used_up_and_the_rest_of_a_pause_is_kept() {
    let mut machine = Machine::<()>::new(Config::new(limits(&["2/20ns", "9w/40ns"]))).unwrap();
    machine.open_session();
    let permit = machine.try_grant(1_000, 2).unwrap();
    machine.complete(permit, 1_000, 1_000, Some(12));
    let _out = machine.try_grant(1_050, 1).unwrap();
    machine.enqueue(1, ()).unwrap();
    machine.pause_until(1_080);
    machine.restart(7);
    let stats = machine.stats(7);
    assert_eq!((stats.running, stats.queued), (0, 0));
    assert_eq!(stats.held.iter().map(|held| held.units).collect::<Vec<_>>(), [2, 9]);
    assert_eq!(machine.paused_until(), 7 + 30);
    assert!(machine.try_grant(7 + 40, 1).is_err());
    assert!(machine.try_grant(7 + 41, 1).is_ok());
}
