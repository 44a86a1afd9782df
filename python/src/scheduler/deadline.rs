//! Timeouts of waiters. Core decides who misses its deadline.

use pyo3::prelude::*;
use strict_rate_limiter_core::{EnqueueError, Ticket};

use crate::errors;
use crate::state::RateLimiter;

/// The end of a timeout that begins now. An error if nothing can be granted before it.
pub(crate) fn deadline(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    timeout_ns: u64,
) -> PyResult<u64> {
    let state = limiter.get().state();
    let now = state.now(limiter.py())?;
    // The reason why nothing comes in time, if it is one.
    super::check_pause(limiter, now)?;
    let deadline = now.saturating_add(timeout_ns);
    let admitted = state.lock().machine.admit_by(now, weight, deadline);
    match admitted {
        Err(EnqueueError::TooLate { not_before }) => missed(limiter, Some(not_before)),
        Err(error) => Err(errors::enqueue(error)),
        Ok(()) => Ok(deadline),
    }
}

/// An error if a waiter that still waits has missed its deadline. Drive first, with the same `now`.
pub(crate) fn check(
    limiter: &Bound<'_, RateLimiter>,
    now: u64,
    ticket: Ticket,
    deadline: u64,
) -> PyResult<()> {
    let misses = limiter.get().state().lock().machine.misses(now, ticket, deadline);
    misses.map_or(Ok(()), |next_opening| missed(limiter, next_opening))
}

fn missed<R>(limiter: &Bound<'_, RateLimiter>, next_opening: Option<u64>) -> PyResult<R> {
    let py = limiter.py();
    let clock = &limiter.get().state().clock;
    let next_opening = next_opening.map(|at| clock.to_seconds(py, at)).transpose()?;
    Err(errors::deadline_exceeded(py, next_opening))
}
