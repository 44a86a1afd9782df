//! When the loop looks, and what it does then: the one place where whoever waited is granted.
//!
//! A look decides nothing by itself. It reads the clock and asks core, so it may come early, late or
//! for nothing. Queued functions are called from here, one for each turn of the loop, so that a long
//! queue never keeps the loop from its other work.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};
use strict_rate_limiter_core::{Decision, Grant};

use crate::error::undisturbed;
use crate::home::Home;
use crate::limiter::RateLimiter;
use crate::line::{Ending, Inner, Waiter};
use crate::queued::{self, Queued, Started};

/// When the loop looks next.
#[derive(Default)]
pub(crate) struct Plan {
    /// Tells this plan from the ones that it replaced.
    id: u64,
    when: When,
    /// The timer's handle, held weakly: the loop alone keeps its timers, so that a timer that ends
    /// without having been called tells that the loop was closed.
    timer: Option<Py<PyWeakrefReference>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum When {
    #[default]
    Never,
    Soon,
    Later,
}

/// What the loop calls.
#[pyclass(frozen)]
pub(crate) struct Look {
    limiter: Py<RateLimiter>,
    plan: u64,
    called: AtomicBool,
}

impl Plan {
    pub(crate) fn is_soon(&self) -> bool {
        self.when == When::Soon
    }

    /// Makes a new plan; the old one's timer is to be cancelled.
    fn replace(&mut self, when: When) -> Option<Py<PyWeakrefReference>> {
        self.id += 1;
        self.when = when;
        self.timer.take()
    }
}

/// Has the loop look in its next turn.
pub(crate) fn soon(limiter: &Bound<'_, RateLimiter>) {
    let py = limiter.py();
    let line = &limiter.get().line;
    let mut inner = line.lock();
    if inner.plan.is_soon() || inner.home.is_none() {
        return;
    }
    let old = inner.plan.replace(When::Soon);
    let plan = inner.plan.id;
    let home = inner.home.as_ref().map(|home| home.clone_ref(py));
    drop(inner);
    cancel(py, old);
    let asked = home.map_or(Ok(()), |home| home.call_soon(&Look::new(limiter, plan)?));
    if asked.is_err() {
        // The loop is closed: nobody will ever look again.
        lose_queue(limiter);
    }
}

/// Has the loop look at a time, unless it looks before that anyway.
fn at(limiter: &Bound<'_, RateLimiter>, home: &Home, now: u64, at: u64) -> PyResult<()> {
    let py = limiter.py();
    let line = &limiter.get().line;
    let mut inner = line.lock();
    if inner.plan.is_soon() {
        return Ok(());
    }
    let old = inner.plan.replace(When::Later);
    let plan = inner.plan.id;
    drop(inner);
    cancel(py, old);
    let timer = home.call_later(at.saturating_sub(now), &Look::new(limiter, plan)?)?;
    let timer = PyWeakrefReference::new(&timer)?.unbind();
    let mut inner = line.lock();
    if inner.plan.id == plan {
        inner.plan.timer = Some(timer);
    }
    Ok(())
}

fn cancel(py: Python<'_>, timer: Option<Py<PyWeakrefReference>>) {
    if let Some(timer) = timer.and_then(|timer| timer.bind(py).upgrade())
        && let Err(error) = timer.call_method0(intern!(py, "cancel"))
    {
        error.write_unraisable(py, Some(&timer));
    }
}

/// What a look found to do.
enum Next {
    /// Wakes a caller. The task, if the caller is still to bring it in, is the caller's again.
    Wake(Py<PyAny>, Option<Queued>),
    Run(Queued, Grant),
    LookAgainAt(u64),
    Nothing,
}

/// Grants all that core grants now.
fn look(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    let py = limiter.py();
    let line = &limiter.get().line;
    let Some(home) = line.home(py) else { return Ok(()) };
    loop {
        let now = line.clock.now(py)?;
        let next = line.lock().next(now);
        match next {
            Next::Wake(future, _task) => wake(future.bind(py))?,
            Next::Run(task, permit) => match queued::start(limiter, &home, &task, permit) {
                Started::Runs => {}
                Started::Ended(ended) => {
                    // The rest has its turn after the loop has had its own.
                    if line.lock().wants_look() {
                        soon(limiter);
                    }
                    ended?;
                    break;
                }
            },
            Next::LookAgainAt(opening) => {
                at(limiter, &home, now, opening)?;
                break;
            }
            Next::Nothing => break,
        }
    }
    let drained = line.lock().take_drained();
    drained.iter().try_for_each(|future| wake(future.bind(py)))
}

impl Inner {
    fn next(&mut self, now: u64) -> Next {
        loop {
            match self.machine.poll(now) {
                Decision::Grant { waiter: Waiter::Caller(future), .. } => {
                    return Next::Wake(future, None);
                }
                Decision::Grant { waiter: Waiter::Task(task, Some(future)), .. } => {
                    return Next::Wake(future, Some(task));
                }
                Decision::Grant { waiter: Waiter::Task(task, None), ticket } => {
                    let permit = self.machine.claim(ticket).expect("it was granted just now");
                    return Next::Run(task, permit);
                }
                Decision::Accept { ticket } => {
                    if let Some(Waiter::Task(_, room)) = self.machine.waiter_mut(ticket)
                        && let Some(future) = room.take()
                    {
                        return Next::Wake(future, None);
                    }
                }
                Decision::LookAgainAt(at)
                    if self.machine.head().is_some() || !self.drained.is_empty() =>
                {
                    return Next::LookAgainAt(at);
                }
                // `LookAgainAt` for nobody, `WaitForCompletion`, `Idle`.
                _ => return Next::Nothing,
            }
        }
    }

    fn take_drained(&mut self) -> Vec<Py<PyAny>> {
        if self.machine.is_drained() { std::mem::take(&mut self.drained) } else { Vec::new() }
    }
}

fn wake(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    // Cancelled meanwhile, it gives back what it was granted in the turn that it learns of that.
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// Wakes whoever waits with an exception.
pub(crate) fn refuse(future: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_exception"), (error.value(py),))?;
    }
    Ok(())
}

/// The loop is closed, and with it goes all that it was to run: asyncio is told of the tasks that
/// never ran, and the limiter is free for another loop, its window as full as it was.
pub(crate) fn lose_queue(limiter: &Bound<'_, RateLimiter>) {
    let py = limiter.py();
    let mut inner = limiter.get().line.lock();
    let mut lost = Vec::new();
    while let Some(head) = inner.machine.head() {
        lost.extend(inner.machine.cancel(head));
    }
    let timer = inner.plan.replace(When::Never);
    let home = inner.home.take();
    let drained = std::mem::take(&mut inner.drained);
    let started = std::mem::take(&mut inner.started);
    drop(inner);
    cancel(py, timer);
    let name = limiter.get().name();
    tell_lost(py, home.as_ref(), &lost, (&name, "the event loop was closed"), Some(limiter));
    for (_, done) in &started {
        done.get().end(limiter, Ending::Cancelled);
    }
    drop((lost, drained, started));
}

/// Tells asyncio of queued tasks that will never run, and why.
pub(crate) fn tell_lost(
    py: Python<'_>,
    home: Option<&Home>,
    lost: &[Waiter],
    (name, why): (&str, &str),
    limiter: Option<&Bound<'_, RateLimiter>>,
) {
    let tasks = lost.iter().filter(|waiter| matches!(waiter, Waiter::Task(_, None))).count();
    if let Some(home) = home.filter(|_| tasks > 0) {
        let noun = if tasks == 1 { "task" } else { "tasks" };
        let message = format!("{tasks} queued {noun} of {name} never ran: {why}");
        home.tell(py, &message, None, limiter);
    }
}

impl Look {
    fn new<'py>(limiter: &Bound<'py, RateLimiter>, plan: u64) -> PyResult<Bound<'py, Self>> {
        let called = AtomicBool::new(false);
        Bound::new(limiter.py(), Self { limiter: limiter.clone().unbind(), plan, called })
    }
}

#[pymethods]
impl Look {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        let limiter = self.limiter.bind(py);
        let mut inner = limiter.get().line.lock();
        let timer = (inner.plan.id == self.plan).then(|| inner.plan.replace(When::Never));
        drop(inner);
        drop(timer);
        look(limiter)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if self.called.load(Ordering::Relaxed) {
            return;
        }
        Python::try_attach(|py| {
            let limiter = self.limiter.bind(py);
            // Not called, and no other look was planned instead: the loop has let go of it.
            let forgotten = limiter.get().line.lock().plan.id == self.plan;
            if forgotten {
                undisturbed(py, || lose_queue(limiter));
            }
        });
    }
}
