//! A limiter's state: the machine under its lock, and what its loops and threads need.
//!
//! Every change goes the same way: lock, change the machine, unlock, and if a waiter may move up, drive (`scheduler/`).
//! No Python code runs under the lock: not a call, and not the end of an object. The interpreter's lock is held whenever
//! this lock is, so no thread ever waits for it, and a fork never copies it locked.

mod decisions;
mod inner;
mod loops;
mod permits;
mod waiters;
mod watch;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use strict_rate_limiter_core::{Config, Limit};

use crate::clock::Clock;
use crate::errors;

pub(crate) use decisions::Action;
pub(crate) use inner::Inner;
pub(crate) use loops::{LoopId, LoopState, Spawn, StartedId, StartedTask, When};
pub(crate) use permits::{Ending, Hold};
pub(crate) use waiters::{Signal, ThreadWaiter, Waiter};
pub(crate) use watch::{Caller, Recorded};

/// A rate limiter that never lets an interval of length `per` contain more than `rate` tasks,
/// counted until their completion; one at a time, first in, first out. It serves any number of
/// threads and event loops, with one queue.
///
/// `per` is a timedelta, a number of seconds or a text ("1m"); `per_ns` an int of nanoseconds or a
/// timedelta. `limits` adds more limits, as in "500/1m" or "90000w/1m"; all of them hold.
/// `concurrency` tasks may run at once. `paced` spreads tasks evenly over the period.
/// `queue_capacity` bounds the queue: a push then waits for room. With `refuse_when_full`, whatever
/// would wait is refused with QueueFull instead. `abandon_grace` is how long a cancelled task still
/// counts as running. `max_pause` is the longest pause that is waited for: while more is left of one,
/// whoever waits or would wait is refused with `PauseTooLong`. `clock_drift_ppm` is how much faster than the server's this clock may run.
/// `on_error` is called with the exception of a queued task, `on_event` with an Event for whatever
/// happens: see there. `clock` returns nanoseconds, as
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
    /// The longest pause that is waited for; `u64::MAX` if all are.
    pub(crate) max_pause_ns: u64,
    /// Whether there is a hook.
    pub(crate) is_watched: bool,
    /// From `operation/`, which stands above the scheduler.
    pub(crate) spawn: Spawn,
    inner: Mutex<Inner>,
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
        max_pause_ns: u64,
        on_error: Option<Py<PyAny>>,
        on_event: Option<Py<PyAny>>,
        clock: Clock,
        spawn: Spawn,
    ) -> PyResult<Self> {
        let is_watched = on_event.is_some();
        let inner = Mutex::new(Inner::new(config, on_error, on_event)?);
        Ok(Self { clock, name, max_pause_ns, is_watched, spawn, inner })
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock but a bug; what it leaves behind is still the machine.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_of_another_process() {
            inner.begin_in_child();
        }
        inner
    }

    /// The time. Tasks whose ends could not be stamped end now.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<u64> {
        let now = self.clock.now(py)?;
        let mut inner = self.lock();
        if inner.is_behind() {
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

impl RateLimiter {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.get() else { return Ok(()) };
        if let Clock::Given(clock) = &state.clock {
            visit.call(clock)?;
        }
        // The lock is free whenever Python code runs, the collector included.
        let Ok(inner) = state.inner.try_lock() else { return Ok(()) };
        visit.call(&inner.on_error)?;
        visit.call(inner.hook())?;
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
