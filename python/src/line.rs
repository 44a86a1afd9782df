//! What everything goes through: the machine under its lock, and the loop it belongs to.
//!
//! Every change goes the same way: lock, change the machine, unlock, and where somebody may move
//! up, have the loop look soon (`look.rs`). All grants to whoever waited are made there. No Python
//! code runs under the lock: not a call, and not the end of an object.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use strict_rate_limiter_core::{
    Config, Enqueued, Grant, Machine, RequestError, Ticket, TryGrantError,
};

use crate::clock::Clock;
use crate::error;
use crate::home::{self, Home, Mark};
use crate::inside::{Frame, FrameKind};
use crate::limiter::RateLimiter;
use crate::look::{self, Plan};
use crate::queued::{Done, Queued};
use crate::settings::value_error;

/// A limiter's line and all that belongs to it.
pub(crate) struct Line {
    pub(crate) clock: Clock,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) machine: Machine<Waiter>,
    pub(crate) home: Option<Home>,
    /// When the loop will look next.
    pub(crate) plan: Plan,
    /// This limiter's tasks that are on the stack right now, outermost first.
    pub(crate) inside: Vec<Frame>,
    /// Queued tasks that run as tasks of the loop, and what sees their end. Kept, or they could be
    /// collected while they run.
    pub(crate) started: Vec<(Py<PyAny>, Py<Done>)>,
    /// Futures of those who wait for the limiter to be drained.
    pub(crate) drained: Vec<Py<PyAny>>,
    /// How many hold the limiter itself, by `async with limiter`.
    entered: usize,
    pub(crate) on_error: Option<Py<PyAny>>,
}

/// Who waits in the line.
pub(crate) enum Waiter {
    /// A caller, by its future.
    Caller(Py<PyAny>),
    /// A task that was left to the limiter, and the future of the caller that still waits for room
    /// in the queue for it.
    Task(Queued, Option<Py<PyAny>>),
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned or failed, with the weight it turned out to have, where that is known.
    Completed { actual: Option<u64> },
    /// It was dropped or cancelled: its call may still be on the wire.
    Cancelled,
}

impl Ending {
    /// As most do, with the weight it had reserved.
    pub(crate) const COMPLETED: Self = Self::Completed { actual: None };
}

impl Line {
    pub(crate) fn new(
        config: Config,
        on_error: Option<Bound<'_, PyAny>>,
        clock: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        for (name, value) in [("on_error", &on_error), ("clock", &clock)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_callable()) {
                return Err(error::not_callable(name, value));
            }
        }
        Ok(Self {
            clock: clock.map_or_else(Clock::system, |clock| Clock::Given(clock.unbind())),
            inner: Mutex::new(Inner {
                machine: Machine::new(config).map_err(value_error)?,
                home: None,
                plan: Plan::default(),
                inside: Vec::new(),
                started: Vec::new(),
                drained: Vec::new(),
                entered: 0,
                on_error: on_error.map(Bound::unbind),
            }),
        })
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock but a bug; what it leaves behind is still the machine.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check(&self, weight: u64) -> Result<(), RequestError> {
        self.lock().machine.check(weight)
    }

    /// Grants if there is room and this is not asked for from inside a task of this limiter; `None`
    /// says nothing. The task that is granted is on the stack from here on. With it comes how to
    /// tell whether the limiter's loop runs here: if it does not, see [`Self::take_back`].
    #[inline]
    fn grant_at_once<'py>(
        &self,
        py: Python<'py>,
        weight: u64,
        calls: bool,
    ) -> (Option<Mark<'py>>, Option<Grant>) {
        let mut inner = self.lock();
        let home = inner.home.as_ref().and_then(|home| home.mark(py));
        if !inner.inside.is_empty() || !inner.started.is_empty() {
            return (home, None);
        }
        let permit = inner.machine.grant_at_once(weight);
        if calls && permit.is_some() {
            inner.inside.push(Frame { weight, kind: FrameKind::Called });
        }
        (home, permit)
    }

    /// Takes back what [`Self::grant_at_once`] granted, as if it had never been.
    fn take_back(&self, permit: Grant, calls: bool) {
        let mut inner = self.lock();
        inner.machine.undo(permit);
        if calls {
            inner.inside.pop();
        }
    }

    /// Grants now or not at all.
    pub(crate) fn try_grant(
        &self,
        py: Python<'_>,
        weight: u64,
    ) -> PyResult<Result<Grant, TryGrantError>> {
        let now = self.clock.now(py)?;
        Ok(self.lock().machine.try_grant(now, weight))
    }

    #[inline]
    pub(crate) fn home(&self, py: Python<'_>) -> Option<Home> {
        self.lock().home.as_ref().map(|home| home.clone_ref(py))
    }

    pub(crate) fn claim(&self, ticket: Ticket) -> Option<Grant> {
        self.lock().machine.claim(ticket)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Clock::Given(clock) = &self.clock {
            visit.call(clock)?;
        }
        // The lock is free whenever Python code runs, the collector included.
        let Ok(inner) = self.inner.try_lock() else { return Ok(()) };
        if let Some(home) = &inner.home {
            home.traverse(visit)?;
        }
        visit.call(&inner.on_error)?;
        for frame in &inner.inside {
            if let FrameKind::Awaited(task) = &frame.kind {
                visit.call(task)?;
            }
        }
        for (task, done) in &inner.started {
            visit.call(task)?;
            visit.call(done)?;
        }
        for future in &inner.drained {
            visit.call(future)?;
        }
        for waiter in inner.machine.waiters() {
            match waiter {
                Waiter::Caller(future) => visit.call(future)?,
                Waiter::Task(queued, room) => {
                    queued.traverse(visit)?;
                    visit.call(room)?;
                }
            }
        }
        Ok(())
    }

    /// Lets go of every Python object, for the collector: nobody refers to the limiter any more.
    pub(crate) fn clear(&self, py: Python<'_>, name: &str) {
        let mut inner = self.lock();
        let waiters: Vec<Waiter> = inner.machine.abort().collect();
        let home = inner.home.take();
        let on_error = inner.on_error.take();
        let started = std::mem::take(&mut inner.started);
        let drained = std::mem::take(&mut inner.drained);
        drop(inner);
        look::tell_lost(py, home.as_ref(), &waiters, (name, "nothing refers to it any more"), None);
        drop((waiters, home, on_error, started, drained));
    }
}

/// Joins the end of the line.
pub(crate) fn join(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    waiter: Waiter,
) -> PyResult<Enqueued> {
    let mut inner = limiter.get().line.lock();
    if inner.machine.is_closed() {
        // Refused here, the waiter ends after the lock does.
        drop(inner);
        return Err(error::closed());
    }
    let is_first = inner.machine.head().is_none();
    let place = inner.machine.enqueue(weight, waiter).map_err(error::enqueue)?;
    let look = is_first && !inner.machine.awaits_completion();
    drop(inner);
    if look {
        look::soon(limiter);
    }
    Ok(place)
}

/// A waiter leaves: the line, or the grant that it never saw.
pub(crate) fn leave(limiter: &Bound<'_, RateLimiter>, ticket: Ticket) {
    let mut inner = limiter.get().line.lock();
    let waiter = inner.machine.cancel(ticket);
    let look = inner.wants_look();
    drop(inner);
    drop(waiter);
    if look {
        look::soon(limiter);
    }
}

/// A task has ended. Returns what it used beyond what was reserved for it.
#[inline]
pub(crate) fn end(limiter: &Bound<'_, RateLimiter>, permit: Grant, ending: Ending) -> u64 {
    end_and(limiter, permit, ending, |_| ())
}

/// The task that is innermost on the stack has ended, and leaves it.
#[inline]
pub(crate) fn end_inside(limiter: &Bound<'_, RateLimiter>, permit: Grant, ending: Ending) {
    // What the frame refers to ends after the lock does.
    let mut frame = None;
    end_and(limiter, permit, ending, |inner| frame = inner.inside.pop());
}

#[inline]
fn end_and(
    limiter: &Bound<'_, RateLimiter>,
    permit: Grant,
    ending: Ending,
    more: impl FnOnce(&mut Inner),
) -> u64 {
    let line = &limiter.get().line;
    let now = line.clock.stamp(limiter.py());
    let mut inner = line.lock();
    more(&mut inner);
    let excess = match ending {
        Ending::Completed { actual } => {
            inner.machine.complete(permit, now.earliest, now.latest, actual)
        }
        Ending::Cancelled => {
            inner.machine.abandon(permit, now.earliest, now.latest);
            0
        }
    };
    let look = inner.wants_look();
    drop(inner);
    if look {
        Python::attach(|_| look::soon(limiter));
    }
    excess
}

/// Grants at once, if that can be, in the loop that is the limiter's; the first one becomes it.
/// `calls` says that a task is called next. `None` says nothing.
#[inline]
pub(crate) fn enter(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    calls: bool,
) -> PyResult<Option<Grant>> {
    let py = limiter.py();
    let line = &limiter.get().line;
    match line.grant_at_once(py, weight, calls) {
        (Some(home), permit) if home.is_surely_here() => Ok(permit),
        (_, permit) => {
            if let Some(permit) = permit {
                line.take_back(permit, calls);
            }
            Python::attach(|_| at_home(limiter))?;
            Ok(line.grant_at_once(py, weight, calls).1)
        }
    }
}

/// Makes sure that the loop that runs here is the limiter's; the first one becomes it.
#[cold]
pub(crate) fn at_home(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    let py = limiter.py();
    let here = Home::find(py)?;
    let known = limiter.get().line.home(py);
    if let Some(known) = known.filter(|known| !known.event_loop.is(&here.event_loop)) {
        if !known.is_closed(py)? {
            return Err(home::elsewhere(limiter));
        }
        look::lose_queue(limiter);
    }
    let old = limiter.get().line.lock().home.replace(here);
    drop(old);
    Ok(())
}

/// Makes sure, where no loop needs to run, that this is at least the right thread.
pub(crate) fn near_home(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    let py = limiter.py();
    match limiter.get().line.home(py) {
        Some(home) if !home.is_this_thread() && !home.is_closed(py)? => {
            Err(home::elsewhere(limiter))
        }
        _ => Ok(()),
    }
}

impl Inner {
    /// A caller holds the limiter itself. Every permit of weight 1 is like any other, so they are
    /// only counted.
    pub(crate) fn enter(&mut self, permit: &Grant) {
        debug_assert_eq!(permit.weight(), 1);
        self.entered += 1;
    }

    /// One of them lets go; whether there was one.
    pub(crate) fn leave(&mut self) -> bool {
        let left = self.entered.checked_sub(1);
        self.entered = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether somebody may have moved up, and nobody is about to look.
    #[inline]
    pub(crate) fn wants_look(&self) -> bool {
        let somebody_waits = self.machine.head().is_some() || !self.drained.is_empty();
        somebody_waits && !self.plan.is_soon()
    }
}
