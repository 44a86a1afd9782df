//! Pauses, and `max_pause`: how long a pause may be that is waited for.
//!
//! While more is left of a pause, whoever waits or would wait for a permit is refused. Pushed tasks that are in the queue
//! stay: they were accepted, and nobody waits for them.

use pyo3::prelude::*;

use super::wake;
use crate::errors::{self, Errors};
use crate::future::Future;
use crate::state::{LoopId, RateLimiter, Waiter};

/// Grants nothing before `until`, and refuses those who wait if that is too long.
pub(crate) fn pause(limiter: &Bound<'_, RateLimiter>, now: u64, until: u64) -> PyResult<()> {
    let py = limiter.py();
    let state = limiter.get().state();
    state.lock().pause_until(now, until);
    let Err(error) = check(limiter, now) else { return Ok(()) };
    let inner = state.lock();
    let mut told: Vec<(LoopId, Py<Future>)> = Vec::new();
    for waiter in inner.machine.waiters() {
        match waiter {
            Waiter::Coroutine { event_loop, future }
            | Waiter::Pushed { event_loop, room: Some(future), .. } => {
                told.push((*event_loop, future.clone_ref(py)));
            }
            Waiter::Pushed { room: None, .. } => {}
            // It checks when it wakes.
            Waiter::Thread(waiter) => waiter.signal.give(),
        }
    }
    drop(inner);
    let mut errors = Errors::default();
    for (event_loop, future) in told {
        // Each leaves the queue when its task runs.
        wake(limiter, event_loop, &future, Some(&error), &mut errors);
    }
    errors.into_result()
}

/// An error if more is left of a pause than is waited for.
pub(crate) fn check(limiter: &Bound<'_, RateLimiter>, now: u64) -> PyResult<()> {
    let state = limiter.get().state();
    let left = state.lock().paused_too_long(now, state.max_pause_ns);
    left.map_or(Ok(()), |left| Err(errors::pause_too_long(limiter.py(), left)))
}
