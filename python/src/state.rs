//! A limiter's state: the machine under its lock, and what its loops and threads need.
//!
//! Every change goes the same way: lock, change the machine, unlock, and if a waiter may move up, drive (`scheduler.rs`).
//! No Python code runs under the lock: not a call, and not the end of an object. The interpreter's lock is held whenever
//! this lock is, so no thread ever waits for it, and a fork never copies it locked.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;
use pyo3::{PyTraverseError, PyVisit};
use strict_rate_limiter_core::{
    Config, Decision, Grant, Limit, Machine, RequestError, Ticket, raw,
};

use crate::clock::Clock;
use crate::config::value_error;
use crate::errors;
use crate::event_loop::EventLoop;
use crate::fork::forks;
use crate::pushed::Pushed;
use crate::reentrancy::Frames;
use crate::thread_mark::ThreadMark;

/// How often a loop looks whether another one was closed, where it waits for tasks of that.
const WATCH_NS: u64 = 500_000_000;

/// A rate limiter that never lets an interval of length `per` contain more than `rate` tasks,
/// counted until their completion; one at a time, first in, first out. It serves any number of
/// threads and event loops, with one queue.
///
/// `per` is a timedelta, a number of seconds or a text ("1m"); `per_ns` an int of nanoseconds or a
/// timedelta. `limits` adds more limits, as in "500/1m" or "90000w/1m"; all of them hold.
/// `concurrency` tasks may run at once. `paced` spreads tasks evenly over the period.
/// `queue_capacity` bounds the queue: a push then waits for room. With `refuse_when_full`, whatever
/// would wait is refused with QueueFull instead. `abandon_grace` is how long a cancelled task still
/// counts as running. `clock_drift_ppm` is how much faster than the server's this clock may run.
/// `on_error` is called with the exception of a queued task. `clock` returns nanoseconds, as
/// `time.monotonic_ns` does, which is the default. `name` is for people. `history` is what an
/// earlier limiter's `history()` returned.
#[pyclass(frozen, subclass, weakref, module = "async_rate_limiter")]
pub struct RateLimiter {
    /// Empty until `__init__`.
    state: OnceLock<State>,
}

/// All that a limiter has.
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) name: Option<String>,
    /// From `operation.rs`, which stands above the scheduler.
    pub(crate) spawn: Spawn,
    inner: Mutex<Inner>,
}

/// What the lock guards.
pub(crate) struct Inner {
    pub(crate) machine: Machine<Waiter>,
    /// The loops that have waiters, timers or running tasks here.
    pub(crate) loops: Vec<LoopState>,
    next_loop: LoopId,
    /// The tasks of this limiter that are on a thread's stack right now, outermost first.
    pub(crate) frames: Frames,
    /// Pushed tasks that run as tasks of a loop.
    pub(crate) started: HashMap<StartedId, StartedTask>,
    next_started: StartedId,
    /// Futures that wait until nothing runs and nobody waits.
    pub(crate) drained: Vec<(LoopId, Py<PyAny>)>,
    /// Threads that new limits refused, and that have not woken since.
    pub(crate) refused: HashMap<Ticket, RequestError>,
    /// How many hold the limiter itself, by `async with limiter` and `with limiter`.
    entered: usize,
    /// The threads that hold it by `with limiter`.
    pub(crate) blocking: Vec<ThreadMark>,
    pub(crate) on_error: Option<Py<PyAny>>,
    /// Ends of tasks at which the clock could not be read. The next reading stamps them, which is later than the true
    /// end and so is safe.
    unstamped: Vec<(Hold, Ending)>,
    /// The process that this is the state of.
    forks: u32,
    /// Whether the machine is still that of the process that forked.
    is_copied: bool,
}

/// Identifies a loop of this limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopId(u64);

/// A loop that this limiter deals with.
pub(crate) struct LoopState {
    pub(crate) id: LoopId,
    pub(crate) event_loop: EventLoop,
    pub(crate) plan: Plan,
    /// Granted tasks that the loop has yet to start.
    pub(crate) ready: VecDeque<(Pushed, Hold)>,
}

/// When a loop calls back next.
#[derive(Default)]
pub(crate) struct Plan {
    /// Tells this plan from the ones that it replaced.
    pub(crate) id: u64,
    pub(crate) when: When,
    /// The timer's handle, held weakly: the loop alone keeps its timers, so that a timer that ends without having been
    /// called tells that the loop was closed.
    pub(crate) timer: Option<Py<PyWeakrefReference>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    #[default]
    Never,
    Soon,
    /// For this opening.
    At(u64),
    /// After a look that failed.
    Retry,
}

/// Identifies a pushed task that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StartedId(u64);

/// A pushed task that runs as a task of a loop.
pub(crate) struct StartedTask {
    pub(crate) event_loop: LoopId,
    /// The loop's task, which could be collected while it runs if nobody kept it.
    pub(crate) task: Option<Py<PyAny>>,
    pub(crate) hold: Hold,
}

/// Has a loop run what a pushed task returned to be awaited.
pub(crate) type Spawn = fn(
    &Bound<'_, RateLimiter>,
    (LoopId, &EventLoop),
    &Pushed,
    Bound<'_, PyAny>,
    Hold,
) -> PyResult<()>;

/// The right to run one task.
#[must_use = "a permit that is not returned is held for ever"]
pub(crate) struct Hold {
    grant: Grant,
    /// The process that it was granted in.
    forks: u32,
}

/// Who waits in the queue.
pub(crate) enum Waiter {
    /// A coroutine, by the future of its loop that it awaits.
    Coroutine { event_loop: LoopId, future: Py<PyAny> },
    /// A thread.
    Thread(ThreadWaiter),
    /// A task that was left to the limiter, and the future of the caller that still waits for room in the queue.
    Pushed { event_loop: LoopId, task: Pushed, room: Option<Py<PyAny>> },
}

/// A thread that waits.
pub(crate) struct ThreadWaiter {
    pub(crate) thread: ThreadMark,
    /// What it waits for.
    pub(crate) signal: Arc<Signal>,
    /// Until when it has to wait at most, if it is the first.
    pub(crate) opening: Option<u64>,
}

/// What a thread waits for: it is given once for each change that is for the thread.
#[derive(Default)]
pub(crate) struct Signal {
    is_given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn give(&self) {
        *self.is_given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for it, for at most so long, and takes it. Not to be called while attached to the interpreter.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let is_given = self.is_given.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_given, timeout, |is_given| !*is_given);
        let (mut is_given, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut is_given, false)
    }
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned or failed, with the weight it turned out to have, where that is known.
    Completed { actual: Option<u64> },
    /// It was dropped or cancelled: its call may still be on the wire.
    Cancelled,
}

/// What to do for a waiter after the lock is released.
pub(crate) enum Action {
    /// A coroutine has its permit, or a task its room: wake it. `_task` ends after the lock.
    Wake { ticket: Ticket, event_loop: LoopId, future: Py<PyAny>, _task: Option<Pushed> },
    /// A loop has a task to start.
    Start(LoopId),
    /// The first waiter is this loop's: have it look at the opening.
    LookAt(LoopId, u64),
    /// Nothing, before something else happens.
    Rest,
}

impl Ending {
    /// As most do, with the weight it had reserved.
    pub(crate) const COMPLETED: Self = Self::Completed { actual: None };
}

impl Hold {
    pub(crate) fn weight(&self) -> u64 {
        self.grant.weight()
    }

    /// Whether it was granted in this process: what ran in the parent counts as ended in a forked child.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.forks == forks()
    }
}

impl RateLimiter {
    pub(crate) const fn empty() -> Self {
        Self { state: OnceLock::new() }
    }

    /// What `__init__` does. `false` if that was done before.
    pub(crate) fn initialise(&self, state: State) -> bool {
        self.state.set(state).is_ok()
    }

    /// The state of a limiter whose `__init__` was called.
    #[inline]
    pub(crate) fn initialised(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(errors::not_initialised)
    }

    /// For whatever a limiter has made: then it was initialised.
    #[inline]
    pub(crate) fn state(&self) -> &State {
        self.state.get().expect("the limiter was initialised")
    }
}

impl State {
    pub(crate) fn new(
        config: Config,
        name: Option<String>,
        on_error: Option<Py<PyAny>>,
        clock: Clock,
        spawn: Spawn,
    ) -> PyResult<Self> {
        Ok(Self {
            clock,
            name,
            spawn,
            inner: Mutex::new(Inner {
                machine: Machine::new(config).map_err(value_error)?,
                loops: Vec::new(),
                next_loop: LoopId(0),
                frames: Frames::default(),
                started: HashMap::new(),
                next_started: StartedId(0),
                drained: Vec::new(),
                refused: HashMap::new(),
                entered: 0,
                blocking: Vec::new(),
                on_error,
                unstamped: Vec::new(),
                forks: forks(),
                is_copied: false,
            }),
        })
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock but a bug; what it leaves behind is still the machine.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.forks != forks() {
            inner.begin_in_child();
        }
        inner
    }

    /// The time. Tasks whose ends could not be stamped end now.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<u64> {
        let now = self.clock.now(py)?;
        let mut inner = self.lock();
        if inner.is_copied || !inner.unstamped.is_empty() {
            inner.catch_up(now);
        }
        Ok(now)
    }

    /// What it is called: by its name, or by its limits.
    pub(crate) fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("RateLimiter '{name}'"),
            None => format!("RateLimiter {}", self.limits().join(" + ")),
        }
    }

    /// Its limits, as in "10/1s".
    pub(crate) fn limits(&self) -> Vec<String> {
        self.lock().machine.config().limits.iter().map(Limit::to_string).collect()
    }
}

impl Inner {
    /// In a forked child: the waiters, the loops and the running tasks are the parent's.
    #[cold]
    fn begin_in_child(&mut self) {
        (self.forks, self.is_copied) = (forks(), true);
        // Their ends would run Python code under the lock.
        mem::forget(self.machine.cancel_where(|_| true));
        mem::forget(mem::take(&mut self.loops));
        mem::forget(mem::take(&mut self.started));
        mem::forget(mem::take(&mut self.drained));
        mem::forget(mem::take(&mut self.frames));
        self.unstamped.clear();
        (self.entered, self.blocking) = (0, Vec::new());
    }

    /// The first reading of the clock in a forked child. The window is as full as it was, and what ran in the parent
    /// counts as abandoned now.
    #[cold]
    fn restart(&mut self, now: u64) {
        self.is_copied = false;
        let config = self.machine.config().clone();
        let Ok(mut machine) = Machine::new(config) else { return };
        machine.remember(now, self.machine.history(now));
        machine.pause_until(self.machine.paused_until());
        if self.machine.is_closed() {
            machine.close();
        }
        self.machine = machine;
    }

    /// Grants if there is room as far as is known without a look at the time.
    #[inline]
    pub(crate) fn grant_at_once(&mut self, weight: u64) -> Option<Hold> {
        if self.is_copied {
            return None;
        }
        let grant = self.machine.grant_at_once(weight)?;
        Some(self.hold(grant))
    }

    #[inline]
    pub(crate) fn hold(&self, grant: Grant) -> Hold {
        Hold { grant, forks: self.forks }
    }

    /// The permit of a waiter that was granted.
    pub(crate) fn claim(&mut self, ticket: Ticket) -> Option<Hold> {
        let grant = self.machine.claim(ticket)?;
        Some(self.hold(grant))
    }

    /// Takes back a permit whose task never started.
    pub(crate) fn undo(&mut self, hold: Hold) {
        if hold.forks == self.forks {
            self.machine.undo(hold.grant);
        }
    }

    /// A task has ended. Returns what it used beyond what was reserved for it. The parent's tasks end in the parent.
    #[inline]
    pub(crate) fn record(&mut self, hold: Hold, ending: Ending, now: u64) -> u64 {
        if hold.forks != self.forks {
            return 0;
        }
        match ending {
            Ending::Completed { actual } => self.machine.complete(hold.grant, now, now, actual),
            Ending::Cancelled => {
                self.machine.abandon(hold.grant, now, now);
                0
            }
        }
    }

    /// A task has ended, and nobody knows when. The next reading of the clock stamps it.
    pub(crate) fn record_unstamped(&mut self, hold: Hold, ending: Ending) {
        if hold.forks == self.forks {
            self.unstamped.push((hold, ending));
        }
    }

    /// What only a reading of the clock can settle.
    #[cold]
    fn catch_up(&mut self, now: u64) {
        if self.is_copied {
            self.restart(now);
        }
        for (hold, ending) in mem::take(&mut self.unstamped) {
            self.record(hold, ending, now);
        }
    }

    /// Whether somebody may move up.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.machine.head().is_some() || !self.drained.is_empty()
    }

    #[expect(clippy::needless_pass_by_value, reason = "the permit is counted from here on")]
    /// A caller holds the limiter itself. Every permit of weight 1 is like any other, so they are only counted.
    pub(crate) fn enter(&mut self, hold: Hold) {
        debug_assert_eq!(hold.weight(), 1);
        self.entered += usize::from(hold.forks == self.forks);
    }

    /// A thread holds the limiter by `with limiter`.
    pub(crate) fn enter_blocking(&mut self, hold: Hold) {
        self.enter(hold);
        self.blocking.push(ThreadMark::here());
    }

    /// One of them leaves: this thread, or another one for it.
    pub(crate) fn leave_blocking(&mut self) {
        let here = ThreadMark::here();
        match self.blocking.iter().rposition(|thread| *thread == here) {
            Some(index) => drop(self.blocking.swap_remove(index)),
            None => drop(self.blocking.pop()),
        }
    }

    /// One of them leaves, with a permit. `None` if there was none.
    pub(crate) fn leave(&mut self) -> Option<Hold> {
        self.entered = self.entered.checked_sub(1)?;
        Some(self.hold(raw::grant(1)))
    }

    /// A pushed task begins to run.
    pub(crate) fn add_started(&mut self, event_loop: LoopId, hold: Hold) -> StartedId {
        let id = self.next_started;
        self.next_started = StartedId(id.0 + 1);
        self.started.insert(id, StartedTask { event_loop, task: None, hold });
        id
    }

    pub(crate) fn loop_mut(&mut self, id: LoopId) -> Option<&mut LoopState> {
        self.loops.iter_mut().find(|state| state.id == id)
    }

    pub(crate) fn add_loop(&mut self, event_loop: EventLoop) -> LoopId {
        let id = self.next_loop;
        self.next_loop = LoopId(id.0 + 1);
        let known = self.keep_loop(id, event_loop);
        debug_assert!(known.is_none(), "its number is new");
        id
    }

    /// A waiter of this loop joins. Another thread may have found the loop idle since it was added, and forgotten it.
    /// Returns the loop if it is known, to be dropped after the lock.
    pub(crate) fn keep_loop(&mut self, id: LoopId, event_loop: EventLoop) -> Option<EventLoop> {
        if self.loop_mut(id).is_some() {
            return Some(event_loop);
        }
        let (plan, ready) = (Plan::default(), VecDeque::new());
        self.loops.push(LoopState { id, event_loop, plan, ready });
        None
    }

    /// Whether something of this limiter waits for that loop.
    pub(crate) fn uses(&self, state: &LoopState) -> bool {
        state.plan.when != When::Never
            || !state.ready.is_empty()
            || self.drained.iter().any(|(id, _)| *id == state.id)
            || self.started.values().any(|task| task.event_loop == state.id)
            || self.machine.waiters().any(|waiter| waiter.event_loop() == Some(state.id))
    }

    /// Asks the machine for its next decision at `now`.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        loop {
            match self.machine.poll(now) {
                Decision::Grant { waiter, ticket } => match waiter {
                    Waiter::Coroutine { event_loop, future } => {
                        return Action::Wake { ticket, event_loop, future, _task: None };
                    }
                    Waiter::Pushed { event_loop, task, room: Some(future) } => {
                        return Action::Wake { ticket, event_loop, future, _task: Some(task) };
                    }
                    Waiter::Pushed { event_loop, task, room: None } => {
                        let hold = self.claim(ticket).expect("it was granted just now");
                        let state = self.loop_mut(event_loop).expect("its waiters keep it");
                        state.ready.push_back((task, hold));
                        return Action::Start(event_loop);
                    }
                    Waiter::Thread(waiter) => waiter.signal.give(),
                },
                Decision::Accept { ticket } => {
                    if let Some(Waiter::Pushed { event_loop, room, .. }) =
                        self.machine.waiter_mut(ticket)
                        && let Some(future) = room.take()
                    {
                        let event_loop = *event_loop;
                        return Action::Wake { ticket, event_loop, future, _task: None };
                    }
                }
                Decision::LookAgainAt(at) => return self.look_at(at),
                Decision::WaitForCompletion => return self.watch_others(now),
                // `Idle`.
                _ => return Action::Rest,
            }
        }
    }

    /// The first waiter waits for tasks to complete. Those of another loop never do if that loop is closed, and nobody
    /// says so: the first waiter's loop looks now and then.
    fn watch_others(&mut self, now: u64) -> Action {
        if self.loops.len() < 2 {
            return Action::Rest;
        }
        let head = self.machine.head().and_then(|head| self.machine.waiter_mut(head));
        match head.and_then(|waiter| waiter.event_loop()) {
            Some(own) if self.started.values().any(|task| task.event_loop != own) => {
                Action::LookAt(own, now.saturating_add(WATCH_NS))
            }
            _ => Action::Rest,
        }
    }

    /// Who has to look at the next opening: the first waiter, or whoever waits for the end.
    pub(crate) fn look_at(&mut self, opening: u64) -> Action {
        let Some(head) = self.machine.head() else {
            let drained = self.drained.first();
            return drained.map_or(Action::Rest, |(id, _)| Action::LookAt(*id, opening));
        };
        match self.machine.waiter_mut(head) {
            Some(Waiter::Coroutine { event_loop, .. } | Waiter::Pushed { event_loop, .. }) => {
                Action::LookAt(*event_loop, opening)
            }
            Some(Waiter::Thread(waiter)) => {
                if waiter.opening.replace(opening) != Some(opening) {
                    waiter.signal.give();
                }
                Action::Rest
            }
            None => Action::Rest,
        }
    }

    pub(crate) fn take_drained(&mut self) -> Vec<(LoopId, Py<PyAny>)> {
        if self.machine.is_drained() { mem::take(&mut self.drained) } else { Vec::new() }
    }

    /// Takes out every Python object, for the collector: nobody refers to the limiter any more.
    pub(crate) fn take_objects(&mut self) -> impl Sized + use<> {
        (
            self.machine.cancel_where(|_| true),
            mem::take(&mut self.loops),
            mem::take(&mut self.started),
            mem::take(&mut self.drained),
            mem::take(&mut self.frames),
            self.on_error.take(),
        )
    }
}

impl Plan {
    /// Makes a new plan; the old one's timer is to be cancelled.
    pub(crate) fn replace(&mut self, when: When) -> Option<Py<PyWeakrefReference>> {
        self.id += 1;
        self.when = when;
        self.timer.take()
    }
}

impl Waiter {
    pub(crate) fn event_loop(&self) -> Option<LoopId> {
        match self {
            Self::Coroutine { event_loop, .. } | Self::Pushed { event_loop, .. } => {
                Some(*event_loop)
            }
            Self::Thread(_) => None,
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Coroutine { future, .. } => visit.call(future),
            Self::Thread(_) => Ok(()),
            Self::Pushed { task, room, .. } => {
                task.traverse(visit)?;
                visit.call(room)
            }
        }
    }
}

impl RateLimiter {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.get() else { return Ok(()) };
        if let Clock::Given(clock) = &state.clock {
            visit.call(clock)?;
        }
        // The lock is free whenever Python code runs, the collector included.
        let Ok(inner) = state.inner.try_lock() else { return Ok(()) };
        visit.call(&inner.on_error)?;
        for state in &inner.loops {
            state.event_loop.traverse(visit)?;
            for (task, _) in &state.ready {
                task.traverse(visit)?;
            }
        }
        inner.frames.traverse(visit)?;
        for started in inner.started.values() {
            visit.call(&started.task)?;
        }
        for (_, future) in &inner.drained {
            visit.call(future)?;
        }
        inner.machine.waiters().try_for_each(|waiter| waiter.traverse(visit))
    }
}
