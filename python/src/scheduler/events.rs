//! Tells a hook what has happened, in the order in which it happened.
//!
//! A hook is Python code. It is called by whoever has made something happen, in any thread, once the lock is free, and
//! never at the end of an object: then the next call to the limiter tells. While a hook is called, what happens waits to
//! be told after it, also what the hook itself does. So a hook is never called within itself, and needs no lock.
//!
//! A hook changes nothing, and what it raises changes nothing: it is told to the loop that runs here, or else to
//! `sys.unraisablehook`. Only what ends the program is raised, in the call that the hook was called from.

use std::time::Duration;

use pyo3::prelude::*;

use crate::errors::{self, Errors};
use crate::event::Event;
use crate::event_loop::{self, EventLoop};
use crate::state::{RateLimiter, Recorded};

/// How many events one call tells, so that other threads cannot keep it for ever. The next call tells the others.
const TOLD_IN_A_ROW_MAX: usize = 4096;

/// Tells the hook what it was not told yet. Without a hook there is nothing to do.
#[inline]
pub(crate) fn tell(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    if limiter.get().state().is_watched { tell_hook(limiter) } else { Ok(()) }
}

#[cold]
fn tell_hook(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    let py = limiter.py();
    let state = limiter.get().state();
    if errors::is_at_an_end() || !state.lock().begin_telling() {
        return Ok(());
    }
    let mut errors = Errors::default();
    for _ in 0..TOLD_IN_A_ROW_MAX {
        let mut inner = state.lock();
        let recorded = inner.next_event();
        let hook = inner.hook().map(|hook| hook.clone_ref(py));
        drop(inner);
        let (Some(recorded), Some(hook)) = (recorded, hook) else { break };
        let told = event(limiter, &recorded, &mut errors)
            .and_then(|event| hook.bind(py).call1((event,)).map(drop));
        if let Err(error) = told {
            errors.note(report(limiter, hook.bind(py), error));
        }
    }
    state.lock().end_telling();
    errors.into_result()
}

fn event(
    limiter: &Bound<'_, RateLimiter>,
    recorded: &Recorded,
    errors: &mut Errors,
) -> PyResult<Py<Event>> {
    let state = limiter.get().state();
    let at = recorded.at.unwrap_or_else(|| {
        // Told at once, unless it happened at the end of an object.
        let now = errors.note(state.now(limiter.py()));
        now.unwrap_or_else(|| state.lock().machine.now())
    });
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    let lasted = recorded.since.map(|since| seconds(at.saturating_sub(since)));
    let is_wait = recorded.kind.ends_wait();
    let event = Event {
        kind: recorded.kind,
        limiter: limiter.clone().into_any().unbind(),
        id: recorded.task.map(|(id, _)| id),
        weight: recorded.task.map(|(_, weight)| weight),
        waited: lasted.filter(|_| is_wait),
        took: lasted.filter(|_| !is_wait),
        excess: recorded.excess,
        pause: recorded.paused_until.map(|until| seconds(until.saturating_sub(at))),
        running: recorded.running,
        queued: recorded.queued,
    };
    Py::new(limiter.py(), event)
}

/// What a hook has raised. Hands back what is for the whole program.
fn report(limiter: &Bound<'_, RateLimiter>, hook: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
    let py = limiter.py();
    if errors::ends_program(py, &error) {
        return Err(error);
    }
    match event_loop::running(py).and_then(EventLoop::new) {
        Ok(event_loop) => {
            let message = format!("on_event of {} failed", limiter.get().state().title());
            event_loop.tell(py, &message, Some(&error), Some(limiter.as_any()));
        }
        Err(_) => error.write_unraisable(py, Some(hook)),
    }
    Ok(())
}
