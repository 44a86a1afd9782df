//! What a user tells a running limiter, and asks of it: pauses, other limits, the server's counts, its history, its end.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyDelta};

use crate::config::{self, value_error};
use crate::errors::{self, Errors};
use crate::scheduler;
use crate::state::{RateLimiter, State, Waiter};

type Limiter<'a, 'py> = &'a Bound<'py, RateLimiter>;

/// Lets waiters move up, if there are any.
pub(crate) fn drive(limiter: Limiter<'_, '_>) -> PyResult<()> {
    let has_waiters = limiter.get().initialised()?.lock().has_waiters();
    scheduler::drive_if(limiter, has_waiters)
}

pub(crate) fn pause_until(limiter: Limiter<'_, '_>, when: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = when.py();
    let state = limiter.get().initialised()?;
    if let Ok(when) = when.cast::<PyDateTime>() {
        let zone = when.getattr(intern!(py, "tzinfo"))?;
        if zone.is_none() {
            return Err(PyValueError::new_err(
                "pause_until needs a datetime with a time zone: a naive one is ambiguous",
            ));
        }
        let now = py.get_type::<PyDateTime>().call_method1(intern!(py, "now"), (zone,))?;
        let pause = when.call_method1(intern!(py, "__sub__"), (now,))?;
        let seconds: f64 = pause.call_method0(intern!(py, "total_seconds"))?.extract()?;
        return pause_seconds(limiter, seconds);
    }
    let seconds: f64 = when.extract().map_err(|_| {
        PyTypeError::new_err("pause_until takes seconds of time.monotonic() or a datetime")
    })?;
    let until = state.clock.at_seconds(py, seconds)?;
    let now = state.now(py)?;
    pause(limiter, now, until)
}

pub(crate) fn pause_for(limiter: Limiter<'_, '_>, pause: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = pause.py();
    let seconds = if pause.is_instance_of::<PyDelta>() {
        pause.call_method0(intern!(py, "total_seconds"))?.extract()
    } else {
        pause.extract()
    };
    match seconds {
        Ok(seconds) => pause_seconds(limiter, seconds),
        Err(_) => pause_ns(limiter, config::time_ns("pause_for", pause)?),
    }
}

fn pause_seconds(limiter: Limiter<'_, '_>, seconds: f64) -> PyResult<()> {
    if seconds.is_nan() {
        return Err(PyValueError::new_err("a pause cannot be nan"));
    }
    #[expect(clippy::cast_sign_loss, reason = "none is negative")]
    // Beyond all time, it is for ever.
    let ns = (seconds.max(0.0) * 1e9).ceil() as u64;
    pause_ns(limiter, ns)
}

fn pause_ns(limiter: Limiter<'_, '_>, pause_ns: u64) -> PyResult<()> {
    let state = limiter.get().initialised()?;
    let now = state.now(limiter.py())?;
    // The machine may have seen a later time.
    let now = now.max(state.lock().machine.now());
    pause(limiter, now, now.saturating_add(pause_ns))
}

fn pause(limiter: Limiter<'_, '_>, now: u64, until: u64) -> PyResult<()> {
    let mut errors = Errors::default();
    errors.note(scheduler::pause(limiter, now, until));
    errors.note(drive(limiter));
    errors.into_result()
}

#[expect(clippy::cast_precision_loss, reason = "a float is what users of asyncio expect")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

pub(crate) fn paused_for(limiter: Limiter<'_, '_>) -> PyResult<f64> {
    let state = limiter.get().initialised()?;
    let now = state.now(limiter.py())?;
    Ok(seconds(state.lock().machine.paused_until().saturating_sub(now)))
}

/// Whether a task could be granted now.
pub(crate) fn is_free(limiter: Limiter<'_, '_>, weight: u64) -> PyResult<bool> {
    let state = limiter.get().initialised()?;
    let now = state.now(limiter.py())?;
    let mut inner = state.lock();
    let opening = inner.machine.opening(now, weight).map_err(|error| errors::weight(&error))?;
    Ok(opening == Some(inner.machine.now()) && !inner.machine.is_closed())
}

pub(crate) fn backoff(limiter: Limiter<'_, '_>) -> PyResult<f64> {
    let state = limiter.get().initialised()?;
    let now = state.now(limiter.py())?;
    Ok(seconds(state.lock().machine.backoff_ns(now)))
}

pub(crate) fn reconcile(
    limiter: Limiter<'_, '_>,
    limit: &Bound<'_, PyAny>,
    used: &Bound<'_, PyAny>,
) -> PyResult<u64> {
    let state = limiter.get().initialised()?;
    let (limit, used) = (config::limit_text(limit)?, config::natural("used", used)?);
    let now = state.now(limiter.py())?;
    let mut inner = state.lock();
    let places = inner.machine.config().limits.iter().enumerate();
    let places = places.filter(|(_, known)| **known == limit).map(|(place, _)| place);
    let places: Vec<usize> = places.collect();
    let added = places.iter().map(|place| inner.machine.reconcile(now, now, *place, used)).max();
    drop(inner);
    let added = added.ok_or_else(|| {
        let limits = state.limits().join(", ");
        PyValueError::new_err(format!("the limiter has no limit {limit}; it has {limits}"))
    })?;
    drive(limiter)?;
    Ok(added)
}

pub(crate) fn set_limits(limiter: Limiter<'_, '_>, limits: &Bound<'_, PyAny>) -> PyResult<()> {
    let state = limiter.get().initialised()?;
    let limits = config::limit_texts(limits)?;
    let now = state.now(limiter.py())?;
    let changed = state.lock().machine.set_limits(now, now, limits);
    let mut errors = Errors::default();
    let changed = changed.map_err(value_error)?;
    state.lock().note_all_left();
    for refused in changed {
        let error = errors::weight(&refused.error);
        if let Waiter::Thread(_) = refused.waiter {
            // It asks why when it wakes.
            state.lock().refused.insert(refused.ticket, refused.error);
        }
        errors.note(scheduler::refuse(limiter, refused.waiter, error));
    }
    errors.note(drive(limiter));
    errors.into_result()
}

pub(crate) fn set_concurrency(limiter: Limiter<'_, '_>, tasks: &Bound<'_, PyAny>) -> PyResult<()> {
    let state = limiter.get().initialised()?;
    let tasks = config::narrow("concurrency", tasks)?;
    let changed = state.lock().machine.set_concurrency(tasks);
    changed.map_err(value_error)?;
    drive(limiter)
}

pub(crate) fn history(limiter: Limiter<'_, '_>) -> PyResult<Vec<(i64, u64, u64)>> {
    let state = limiter.get().initialised()?;
    let now = state.now(limiter.py())?;
    let entries = state.lock().machine.history(now);
    let age = |ends_at: u64| i64::try_from(i128::from(now) - i128::from(ends_at));
    let entries = entries.into_iter().map(|entry| {
        let age_ns =
            age(entry.ends_at).unwrap_or(if entry.ends_at > now { i64::MIN } else { i64::MAX });
        (age_ns, entry.tasks, entry.weight)
    });
    Ok(entries.collect())
}

/// Gives a new limiter what an earlier one held.
pub(crate) fn remember(state: &State, history: &Bound<'_, PyAny>) -> PyResult<()> {
    let now = state.now(history.py())?;
    let entries = config::history(history, now)?;
    state.lock().machine.remember(now, entries);
    Ok(())
}

pub(crate) fn abort(limiter: Limiter<'_, '_>) -> PyResult<Vec<Py<PyAny>>> {
    let mut inner = limiter.get().initialised()?.lock();
    let waiters: Vec<Waiter> = inner.machine.abort().collect();
    inner.note_all_left();
    let mut tasks = Vec::new();
    for state in &mut inner.loops {
        tasks.extend(std::mem::take(&mut state.ready));
    }
    let mut never_started = Vec::new();
    for (task, hold) in tasks {
        inner.undo(hold);
        never_started.push(task.into_task());
    }
    drop(inner);
    let mut errors = Errors::default();
    for waiter in waiters {
        let told = scheduler::refuse(limiter, waiter, errors::aborted());
        never_started.extend(errors.note(told).flatten());
    }
    errors.note(drive(limiter));
    errors.into_result().map(|()| never_started)
}
