//! What a loop calls to start pushed tasks and to look at the time, and when it is asked to.
//!
//! A callback starts one function in each turn of the loop, so that a long queue never keeps the loop from its other
//! work. Only the loop keeps its callbacks: one that ends without having been called tells that the loop was closed.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::pushed_tasks::{Started, start};
use super::{Loop, drive, loops};
use crate::errors::{Errors, undisturbed};
use crate::event_loop::EventLoop;
use crate::ffi::{self, Finalize};
use crate::signals::{ATTEMPTS, in_another_thread};
use crate::state::{LoopId, RateLimiter, When};

/// What a loop calls to start tasks and to look at the time.
#[pyclass(frozen, module = "async_rate_limiter._native")]
pub(crate) struct Callback {
    limiter: Py<RateLimiter>,
    event_loop: LoopId,
    plan: u64,
    /// Whether the loop has called it, or it was let go by us.
    is_over: AtomicBool,
}

/// Has a loop call back: in its next turn, or after a delay. From another thread it is asked to call back in its next
/// turn, and sets the timer itself then.
pub(super) fn plan(
    limiter: &Bound<'_, RateLimiter>,
    (id, when): (LoopId, When),
    delay_ns: u64,
) -> PyResult<Loop> {
    let mut errors = Errors::default();
    for _ in 0..ATTEMPTS {
        if let Some(found) = try_plan(limiter, (id, when), delay_ns, &mut errors) {
            return errors.into_result().map(|()| found);
        }
    }
    let same = limiter.as_unbound();
    let found = in_another_thread(limiter.py(), |py| {
        let mut errors = Errors::default();
        let found = try_plan(same.bind(py), (id, When::Soon), 0, &mut errors);
        errors.into_result().map(|()| found)
    });
    let found = found.and_then(|found| errors.note(found)).flatten();
    errors.into_result().map(|()| found.unwrap_or(Loop::IsKnown))
}

/// `None` if the loop raised: then it has to be asked again.
fn try_plan(
    limiter: &Bound<'_, RateLimiter>,
    (id, when): (LoopId, When),
    delay_ns: u64,
    errors: &mut Errors,
) -> Option<Loop> {
    let py = limiter.py();
    let state = limiter.get().state();
    let mut inner = state.lock();
    let Some(known) = inner.loop_mut(id) else {
        drop(inner);
        loops::lose(limiter, id);
        return Some(Loop::IsLost);
    };
    if known.plan.when == When::Soon || known.plan.when == when {
        return Some(Loop::IsKnown);
    }
    let event_loop = known.event_loop.clone_ref(py);
    drop(inner);
    let when = if errors.note(event_loop.runs_here(py))? { when } else { When::Soon };
    let mut inner = state.lock();
    let known = inner.loop_mut(id)?;
    let old = known.plan.replace(when);
    let number = known.plan.id;
    drop(inner);
    let callback = errors.note(Callback::new(limiter, id, number))?;
    let asked = ask(&event_loop, &callback, when, delay_ns, old);
    let error = match asked {
        Ok(timer) => {
            keep_timer(limiter, id, number, timer);
            return Some(Loop::IsKnown);
        }
        Err(error) => error,
    };
    // It may have been asked nevertheless: then it calls back for nothing.
    callback.get().is_over.store(true, Ordering::Relaxed);
    if errors.note(event_loop.is_closed(py)) == Some(true) {
        loops::lose(limiter, id);
        return Some(Loop::IsLost);
    }
    if let Some(known) = state.lock().loop_mut(id).filter(|known| known.plan.id == number) {
        known.plan.replace(When::Never);
    }
    errors.note::<()>(Err(error));
    None
}

fn ask(
    event_loop: &EventLoop,
    callback: &Bound<'_, Callback>,
    when: When,
    delay_ns: u64,
    old: Option<Py<PyWeakrefReference>>,
) -> PyResult<Option<Py<PyWeakrefReference>>> {
    let py = callback.py();
    if let Some(old) = old.and_then(|old| old.bind(py).upgrade())
        && event_loop.runs_here(py)?
    {
        old.call_method0(intern!(py, "cancel"))?;
    }
    let callback = callback.as_any();
    match when {
        When::At(_) | When::Retry => {
            let timer = event_loop.call_later(delay_ns, callback)?;
            Ok(Some(PyWeakrefReference::new(&timer)?.unbind()))
        }
        _ => event_loop.call_soon(callback).map(|()| None),
    }
}

fn keep_timer(
    limiter: &Bound<'_, RateLimiter>,
    id: LoopId,
    number: u64,
    timer: Option<Py<PyWeakrefReference>>,
) {
    let mut inner = limiter.get().state().lock();
    let unused = match inner.loop_mut(id) {
        Some(known) if known.plan.id == number => std::mem::replace(&mut known.plan.timer, timer),
        _ => timer,
    };
    drop(inner);
    drop(unused);
}

impl Callback {
    fn new<'py>(
        limiter: &Bound<'py, RateLimiter>,
        event_loop: LoopId,
        plan: u64,
    ) -> PyResult<Bound<'py, Self>> {
        let (py, is_over) = (limiter.py(), AtomicBool::new(false));
        Bound::new(py, Self { limiter: limiter.clone().unbind(), event_loop, plan, is_over })
    }

    /// Its loop has let go of it. If it was not called and nothing else was planned instead, the loop was closed.
    fn let_go(&self, py: Python<'_>) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let limiter = self.limiter.bind(py);
        let mut inner = limiter.get().state().lock();
        let is_current = inner.loop_mut(self.event_loop).is_some_and(|it| it.plan.id == self.plan);
        drop(inner);
        if !is_current {
            return;
        }
        loops::lose(limiter, self.event_loop);
        if let Err(error) = drive(limiter, None) {
            error.write_unraisable(py, Some(limiter));
        }
    }
}

#[pymethods]
impl Callback {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.is_over.store(true, Ordering::Relaxed);
        let limiter = self.limiter.bind(py);
        let state = limiter.get().state();
        let mut inner = state.lock();
        let Some(known) = inner.loop_mut(self.event_loop) else { return Ok(()) };
        let timer = (known.plan.id == self.plan).then(|| known.plan.replace(When::Never));
        let event_loop = known.event_loop.clone_ref(py);
        drop(inner);
        drop(timer);
        let mut errors = Errors::default();
        loop {
            let mut inner = state.lock();
            let ready = inner.loop_mut(self.event_loop).and_then(|known| known.ready.pop_front());
            drop(inner);
            let Some((pushed, hold)) = ready else { break };
            if let Started::Ended(ended) =
                start(limiter, self.event_loop, &event_loop, &pushed, hold)
            {
                errors.note(ended);
                break;
            }
        }
        if state.lock().loops.len() > 1 {
            errors.note(loops::forget(limiter, Some(self.event_loop)));
        }
        errors.note(drive(limiter, None));
        let mut inner = state.lock();
        let more = inner.loop_mut(self.event_loop).is_some_and(|known| !known.ready.is_empty());
        drop(inner);
        if more {
            // The rest has its turn after the loop has had its own.
            errors.note(plan(limiter, (self.event_loop, When::Soon), 0));
        }
        errors.into_result()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}

impl Finalize for Callback {
    fn finalize(this: &Bound<'_, Self>) {
        undisturbed(this.py(), || this.get().let_go(this.py()));
    }

    fn finalizer() -> &'static PyOnceLock<Py<PyAny>> {
        static FINALIZER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        &FINALIZER
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed) {
            Python::try_attach(|py| {
                if ffi::has_finalizer::<Self>(py) {
                    undisturbed(py, || self.let_go(py));
                }
            });
        }
    }
}
