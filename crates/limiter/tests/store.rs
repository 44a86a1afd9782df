//! Several limiters over one store, in manual time: processes that die with whatever they hold, wakes that are lost, and
//! a store that fails at any call. Nothing is granted beyond the limits, nobody is forgotten, and what could not be told
//! is told later.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use strict_rate_limiter::clock::{Clock, ManualClock, Timer};
use strict_rate_limiter::store::{self, Store, StoreError};
use strict_rate_limiter::{
    AcquireError, ChangeError, Limit, OwnedPermit, RateLimiter, TryAcquireError,
};
use strict_rate_limiter_core::{Config, Machine, Moved, SessionId, State};
use support::{ByHand, MS};

/// What is stored, and which sessions live.
#[derive(Debug, Default)]
struct Place {
    bytes: Vec<u8>,
    written: u64,
    dead: BTreeSet<SessionId>,
    /// Sessions whose processes are dead, and whose tasks run on.
    orphaned: BTreeSet<SessionId>,
    listening: Vec<(SessionId, Waker)>,
    is_locked: bool,
    /// A clock that goes on while it is looked for the dead.
    looked_for_dead: Option<Arc<AtomicU64>>,
    /// Every how many wakes one is lost.
    loses_one_in: usize,
    wakes: usize,
}

#[derive(Debug)]
struct Memory {
    place: Arc<Mutex<Place>>,
    session: SessionId,
    known: Mutex<u64>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    locking: AtomicBool,
    saving: AtomicBool,
    /// The process is dead: whatever it still calls has no effect.
    is_dead: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("the test's fault")]
struct Fault;

impl Memory {
    fn fails(&self, fault: &AtomicBool) -> Result<(), StoreError> {
        let is_dead = self.faults.is_dead.load(Ordering::SeqCst);
        if is_dead || fault.load(Ordering::SeqCst) { Err(StoreError::new(Fault)) } else { Ok(()) }
    }
}

impl Store for Memory {
    fn lock(&self, machine: &mut Machine<Waker>) -> Result<Vec<Moved<Waker>>, StoreError> {
        self.fails(&self.faults.locking)?;
        let place = &mut *self.place.lock().unwrap();
        assert!(!std::mem::replace(&mut place.is_locked, true), "locked twice");
        let known = &mut *self.known.lock().unwrap();
        if *known == place.written {
            return Ok(Vec::new());
        }
        *known = place.written;
        let state = State::from_bytes(&place.bytes).unwrap();
        Ok(machine.follow(&state, |_| Waker::noop().clone()).unwrap())
    }

    fn save(&self, machine: &mut Machine<Waker>) -> Result<(), StoreError> {
        let place = &mut *self.place.lock().unwrap();
        assert!(place.is_locked);
        let known = &mut *self.known.lock().unwrap();
        if let Err(fault) = self.fails(&self.faults.saving) {
            // What the machine has is not what is stored.
            *known = u64::MAX;
            return Err(fault);
        }
        place.bytes.clear();
        machine.state().write_to(&mut place.bytes);
        place.written += 1;
        *known = place.written;
        Ok(())
    }

    fn unlock(&self) {
        let place = &mut *self.place.lock().unwrap();
        assert!(std::mem::replace(&mut place.is_locked, false), "not locked");
    }

    fn dead(&self, mut sessions: Vec<SessionId>) -> Vec<SessionId> {
        let place = &mut *self.place.lock().unwrap();
        sessions.retain(|session| place.dead.contains(session));
        if let Some(clock) = &place.looked_for_dead {
            clock.fetch_add(1_000, Ordering::SeqCst);
        }
        sessions
    }

    fn orphaned(&self, mut sessions: Vec<SessionId>) -> Vec<SessionId> {
        let place = &mut *self.place.lock().unwrap();
        sessions.retain(|session| place.orphaned.contains(session));
        sessions
    }

    fn wake(&self, session: SessionId) {
        let place = &mut *self.place.lock().unwrap();
        assert_ne!(session, self.session, "nobody wakes itself");
        place.wakes += 1;
        if place.loses_one_in > 0 && place.wakes.is_multiple_of(place.loses_one_in) {
            return;
        }
        let listening = place.listening.iter().filter(|(other, _)| *other == session);
        let wakers: Vec<Waker> = listening.map(|(_, waker)| waker.clone()).collect();
        // A thread of that process looks a little later.
        WOKEN.with_borrow_mut(|woken| woken.extend(wakers));
    }

    fn listen(&self, waker: Waker) {
        let place = &mut *self.place.lock().unwrap();
        if !place.listening.iter().any(|(session, _)| *session == self.session) {
            place.listening.push((self.session, waker));
        }
    }
}

thread_local! {
    /// Sessions that were woken and have not looked yet.
    static WOKEN: std::cell::RefCell<Vec<Waker>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn deliver_wakes() {
    for waker in WOKEN.take() {
        waker.wake();
    }
}

struct World {
    clock: ManualClock,
    place: Arc<Mutex<Place>>,
}

struct Process {
    limiter: RateLimiter,
    session: SessionId,
    faults: Arc<Faults>,
    waiting: Vec<(ByHand<strict_rate_limiter::future::AcquireOwnedBy>, u64)>,
    permits: Vec<(OwnedPermit, usize)>,
}

impl World {
    fn new(config: Config) -> Self {
        let mut machine = Machine::<()>::new(config).unwrap();
        machine.open_session();
        let mut place = Place { written: 1, ..Place::default() };
        machine.state().write_to(&mut place.bytes);
        Self { clock: ManualClock::new(), place: Arc::new(Mutex::new(place)) }
    }

    fn open(&self) -> Process {
        self.open_with(self.clock.clone())
    }

    fn open_with(&self, clock: impl Clock) -> Process {
        let place = &mut *self.place.lock().unwrap();
        let state = State::from_bytes(&place.bytes).unwrap();
        let mut machine = Machine::restore(&state, |_| Waker::noop().clone()).unwrap();
        let session = machine.open_session();
        place.bytes.clear();
        machine.state().write_to(&mut place.bytes);
        place.written += 1;
        let faults = Arc::<Faults>::default();
        let memory = Memory {
            place: Arc::clone(&self.place),
            session,
            known: Mutex::new(place.written),
            faults: Arc::clone(&faults),
        };
        let limiter = store::limiter(memory, machine, clock, None);
        Process { limiter, session, faults, waiting: Vec::new(), permits: Vec::new() }
    }
}

fn limits(texts: &[&str]) -> Vec<Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn world(texts: &[&str]) -> World {
    World::new(Config::new(limits(texts)))
}

#[test]
fn a_waiter_is_woken_by_the_process_that_makes_room() {
    let world = world(&["1/10ms"]);
    let (first, second) = (world.open(), world.open());
    let permit = first.limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(second.limiter.acquire());
    let mut behind = ByHand::waiting(first.limiter.acquire());
    permit.complete();
    deliver_wakes();
    // It has heard of its opening, and has set its timer for it.
    world.clock.advance(10 * MS);
    assert!(!waits.is_woken());
    world.clock.advance(Duration::from_nanos(1));
    waits.poll_if_woken().expect("woken at the opening").unwrap().complete();
    deliver_wakes();
    world.clock.advance(11 * MS);
    behind.poll_if_woken().expect("woken at the opening").unwrap().complete();
}

#[test]
fn if_the_wake_is_lost_a_timer_finds_the_opening() {
    let world = world(&["1/10ms"]);
    world.place.lock().unwrap().loses_one_in = 1;
    let (first, second) = (world.open(), world.open());
    let permit = first.limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(second.limiter.acquire());
    permit.complete();
    deliver_wakes();
    world.clock.advance(11 * MS);
    assert!(!waits.is_woken(), "nobody has told it");
    world.clock.advance(90 * MS);
    waits.poll_if_woken().expect("it has looked by itself").unwrap().complete();
}

#[test]
fn the_dead_leave_the_queue_and_their_tasks_have_ended() {
    let world =
        World::new(Config { abandon_grace_ns: 5_000_000, ..Config::new(limits(&["1/10ms"])) });
    let (dies, lives) = (world.open(), world.open());
    let _permit = dies.limiter.try_acquire().unwrap();
    let _ahead = ByHand::waiting(dies.limiter.acquire());
    let mut waits = ByHand::waiting(lives.limiter.acquire());
    dies.faults.is_dead.store(true, Ordering::SeqCst);
    world.place.lock().unwrap().dead.insert(dies.session);
    // It is not first in the queue, so it looks once a second.
    world.clock.advance(1_000 * MS);
    assert!(waits.poll_if_woken().is_none());
    assert_eq!((lives.limiter.stats().running, lives.limiter.stats().queued), (1, 1));
    world.clock.advance(5 * MS);
    world.clock.advance(10 * MS);
    assert!(waits.poll_if_woken().is_none(), "its call may be on the wire for the grace");
    world.clock.advance(Duration::from_nanos(1));
    waits.poll_if_woken().expect("the opening").unwrap().complete();
}

#[test]
fn a_dead_process_waits_no_longer_though_its_task_runs_on() {
    let world = world(&["1/10ms"]);
    let (dies, lives) = (world.open(), world.open());
    let _permit = dies.limiter.try_acquire().unwrap();
    let _ahead = ByHand::waiting(dies.limiter.acquire());
    let mut waits = ByHand::waiting(lives.limiter.acquire());
    dies.faults.is_dead.store(true, Ordering::SeqCst);
    world.place.lock().unwrap().orphaned.insert(dies.session);
    world.clock.advance(1_000 * MS);
    assert_eq!((lives.limiter.stats().running, lives.limiter.stats().queued), (1, 1));
    world.clock.advance(1_000 * MS);
    assert!(waits.poll_if_woken().is_none(), "the task runs on");
    // Now it has ended as well. The head looks every 100 ms.
    world.place.lock().unwrap().dead.insert(dies.session);
    world.clock.advance(100 * MS);
    assert_eq!(lives.limiter.stats().running, 0);
    world.clock.advance(10 * MS);
    world.clock.advance(Duration::from_nanos(1));
    waits.poll_if_woken().expect("the opening").unwrap().complete();
}

/// A clock without timers that stands still but for what others add to it.
#[derive(Debug)]
struct Standing(Arc<AtomicU64>);

impl Clock for Standing {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn timer(&self) -> Box<dyn Timer> {
        ManualClock::new().timer()
    }
}

#[test]
fn a_dead_task_has_ended_no_earlier_than_it_was_seen_to_be_dead() {
    let world = world(&["1/10ms"]);
    let time = Arc::new(AtomicU64::new(1_000_000_000));
    let (dies, lives) = (world.open(), world.open_with(Standing(Arc::clone(&time))));
    let _permit = dies.limiter.try_acquire().unwrap();
    dies.faults.is_dead.store(true, Ordering::SeqCst);
    world.place.lock().unwrap().dead.insert(dies.session);
    world.place.lock().unwrap().looked_for_dead = Some(Arc::clone(&time));
    let _waits = ByHand::waiting(lives.limiter.acquire());
    let state = State::from_bytes(&world.place.lock().unwrap().bytes).unwrap();
    let seen_dead = store::ORIGIN_NS + 1_000_001_000;
    assert_eq!(time.load(Ordering::SeqCst), 1_000_001_000);
    assert_eq!(state.windows[0].completions, [(seen_dead, 1)]);
}

#[test]
fn while_the_store_fails_nothing_is_granted_and_nothing_is_lost() {
    let world = world(&["2/10ms"]);
    let (fails, other) = (world.open(), world.open());
    let running = fails.limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(fails.limiter.acquire());
    fails.faults.locking.store(true, Ordering::SeqCst);
    assert!(matches!(fails.limiter.try_acquire(), Err(TryAcquireError::Store(_))));
    let refused = ByHand::new(fails.limiter.acquire()).poll().unwrap().unwrap_err();
    assert!(matches!(refused, AcquireError::Store(_)));
    assert!(matches!(fails.limiter.set_limits(limits(&["3/1ms"])), Err(ChangeError::Store(_))));
    assert!(fails.limiter.outage().is_some());
    // Whoever waits is told.
    assert!(matches!(waits.poll_if_woken(), Some(Err(AcquireError::Store(_)))));
    running.complete();
    fails.limiter.pause_for(50 * MS);
    assert_eq!((other.limiter.stats().running, other.limiter.stats().queued), (1, 1));
    fails.faults.locking.store(false, Ordering::SeqCst);
    world.clock.advance(100 * MS);
    assert_eq!((other.limiter.stats().running, other.limiter.stats().queued), (0, 0), "told later");
    assert_eq!(other.limiter.paused_for(), Duration::ZERO, "the pause is over by now");
    assert!(fails.limiter.outage().is_none());
}

#[test]
fn a_grant_that_cannot_be_written_was_not_made() {
    let world = world(&["1/10ms"]);
    let (fails, other) = (world.open(), world.open());
    fails.faults.saving.store(true, Ordering::SeqCst);
    assert!(matches!(fails.limiter.try_acquire(), Err(TryAcquireError::Store(_))));
    assert_eq!(other.limiter.stats().running, 0);
    fails.faults.saving.store(false, Ordering::SeqCst);
    fails.limiter.try_acquire().unwrap().complete();
    // A waiter whose permit cannot be taken leaves the queue, and the next gets it.
    let mut waits = ByHand::waiting(fails.limiter.acquire());
    world.clock.advance(11 * MS);
    fails.faults.saving.store(true, Ordering::SeqCst);
    assert!(matches!(waits.poll_if_woken(), Some(Err(AcquireError::Store(_)))));
    let mut behind = ByHand::waiting(other.limiter.acquire());
    fails.faults.saving.store(false, Ordering::SeqCst);
    world.clock.advance(100 * MS);
    deliver_wakes();
    behind.poll_if_woken().expect("the other has left").unwrap().complete();
}

#[test]
fn the_waiters_of_all_processes_hear_of_new_limits() {
    let world = world(&["5w/10ms"]);
    let (first, second) = (world.open(), world.open());
    let permit = first.limiter.try_acquire().unwrap();
    let mut heavy = ByHand::waiting(second.limiter.request().weight(5).acquire());
    let mut light = ByHand::waiting(second.limiter.request().weight(2).acquire());
    first.limiter.set_limits(limits(&["3w/10ms"])).unwrap();
    world.clock.advance(1_000 * MS);
    deliver_wakes();
    let refused = heavy.poll().unwrap().unwrap_err();
    assert!(refused.to_string().contains("over the limit 3w/10ms"), "{refused}");
    permit.complete();
    deliver_wakes();
    world.clock.advance(11 * MS);
    light.poll_if_woken().expect("it fits").unwrap().complete();
}

/// A task that has had a permit: from when, until when (as far as it is known), its weight.
struct Ran {
    granted: u64,
    ended: Option<u64>,
    weight: u64,
}

struct Lives {
    world: World,
    limits: Vec<Limit>,
    concurrency: usize,
    processes: Vec<Process>,
    ran: Vec<Ran>,
    random: fastrand::Rng,
}

impl Lives {
    fn now(&self) -> u64 {
        self.world.clock.now_ns()
    }

    fn begin(&mut self, weight: u64) -> usize {
        let now = self.now();
        self.ran.push(Ran { granted: now, ended: None, weight });
        for limit in &self.limits {
            let is_held = |ran: &&Ran| ran.ended.is_none_or(|end| end + limit.per_ns() >= now);
            let held = self.ran.iter().filter(is_held).map(|ran| limit.units(ran.weight));
            assert!(held.sum::<u64>() <= limit.rate(), "{limit} overflows at {now}");
        }
        let running = self.ran.iter().filter(|ran| ran.ended.is_none()).count();
        assert!(running <= self.concurrency, "{running} at once");
        self.ran.len() - 1
    }

    /// Polls whoever was woken.
    fn poll(&mut self) {
        deliver_wakes();
        for index in 0..self.processes.len() {
            let mut at = 0;
            while at < self.processes[index].waiting.len() {
                let (waits, weight) = &mut self.processes[index].waiting[at];
                let weight = *weight;
                match waits.poll_if_woken() {
                    None => at += 1,
                    Some(done) => {
                        drop(self.processes[index].waiting.remove(at));
                        if let Ok(permit) = done {
                            let task = self.begin(weight);
                            self.processes[index].permits.push((permit, task));
                        }
                    }
                }
            }
        }
    }

    fn die(&mut self, index: usize) {
        let dead = self.processes.remove(index);
        dead.faults.is_dead.store(true, Ordering::SeqCst);
        self.world.place.lock().unwrap().dead.insert(dead.session);
        for (_, task) in &dead.permits {
            self.ran[*task].ended = Some(self.now());
        }
        // Nothing of it reaches the store any more.
        drop(dead);
    }

    fn act(&mut self) {
        while self.processes.len() < 3 {
            self.processes.push(self.world.open());
        }
        let index = self.random.usize(0..3);
        let weight = self.random.u64(1..=3);
        match self.random.u8(0..100) {
            0..30 => {
                let request = self.processes[index].limiter.request().weight(weight).owned();
                let mut waits = ByHand::new(request.acquire());
                match waits.poll() {
                    None => self.processes[index].waiting.push((waits, weight)),
                    Some(Ok(permit)) => {
                        let task = self.begin(weight);
                        self.processes[index].permits.push((permit, task));
                    }
                    Some(Err(_)) => {}
                }
            }
            30..60 => {
                if !self.processes[index].permits.is_empty() {
                    let at = self.random.usize(0..self.processes[index].permits.len());
                    let (permit, task) = self.processes[index].permits.swap_remove(at);
                    self.ran[task].ended = Some(self.now());
                    if self.random.bool() { permit.complete() } else { drop(permit) }
                }
            }
            60..65 => {
                let waiting = &mut self.processes[index].waiting;
                if !waiting.is_empty() {
                    drop(waiting.swap_remove(self.random.usize(0..waiting.len())));
                }
            }
            65..68 => self.die(index),
            68..72 => {
                let faults = &self.processes[index].faults;
                let fault = if self.random.bool() { &faults.locking } else { &faults.saving };
                fault.store(self.random.u8(0..3) == 0, Ordering::SeqCst);
            }
            72..74 => self.processes[index]
                .limiter
                .pause_for(Duration::from_nanos(self.random.u64(0..80))),
            74..75 => self.processes[index].limiter.resume(),
            _ => {
                let ns = self.random.u64(0..60);
                self.world.clock.advance(Duration::from_nanos(ns));
            }
        }
        self.poll();
    }

    fn let_all_run(&mut self) {
        for process in &self.processes {
            process.faults.locking.store(false, Ordering::SeqCst);
            process.faults.saving.store(false, Ordering::SeqCst);
        }
        for round in 0.. {
            for index in 0..self.processes.len() {
                for (permit, task) in std::mem::take(&mut self.processes[index].permits) {
                    self.ran[task].ended = Some(self.now());
                    permit.complete();
                }
            }
            self.poll();
            if self.processes.iter().all(|one| one.waiting.is_empty() && one.permits.is_empty()) {
                break;
            }
            assert!(
                round < 2_000,
                "somebody waits for ever: {:?} {:?}",
                self.processes
                    .iter()
                    .map(|one| (one.session, one.waiting.len(), one.limiter.stats()))
                    .collect::<Vec<_>>(),
                State::from_bytes(&self.world.place.lock().unwrap().bytes)
            );
            self.world.clock.advance(MS * 50);
            self.poll();
        }
        // What the dead have left is found by whoever waits next.
        let mut last = ByHand::new(self.processes[0].limiter.acquire());
        let mut permit = last.poll();
        while permit.is_none() {
            self.world.clock.advance_to_next_timer().expect("it has a timer");
            permit = last.poll_if_woken();
        }
        permit.unwrap().unwrap().complete();
    }
}

#[test]
fn whatever_fails_and_whoever_dies_the_limits_hold_and_nobody_is_forgotten() {
    let mut tasks = 0;
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut limits = vec![Limit::tasks(random.u64(1..5), Duration::from_nanos(50)).unwrap()];
        if random.bool() {
            limits.push(Limit::weight(random.u64(3..9), Duration::from_nanos(90)).unwrap());
        }
        let concurrency = random.usize(1..4);
        let world = World::new(Config { concurrency, ..Config::new(limits.clone()) });
        world.place.lock().unwrap().loses_one_in = random.usize(0..5);
        let mut lives =
            Lives { world, limits, concurrency, processes: Vec::new(), ran: Vec::new(), random };
        for _ in 0..500 {
            lives.act();
        }
        lives.let_all_run();
        assert!(lives.ran.is_sorted_by_key(|ran| ran.granted));
        tasks += lives.ran.len();
    }
    assert!(tasks > 4_000, "{tasks} tasks");
}
