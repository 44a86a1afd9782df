//! Waiting in a thread, without an event loop.
//!
//! The thread waits for a lock of Python's, so a signal handler that raises ends the wait, and libraries that replace
//! `threading.Lock` replace this one. The first waiter keeps the time itself: it waits until the opening and looks.

use pyo3::intern;
use pyo3::prelude::*;
use strict_rate_limiter_core::Ticket;

use crate::errors;
use crate::event_loop::{self, ThreadMark};
use crate::scheduler::{self, drive};
use crate::state::{Hold, RateLimiter, ThreadWaiter, Waiter};

/// A wait is cut into pieces: a loop whose tasks it waits for may have been closed, and a given clock may jump.
const PIECE_NS: u64 = 500_000_000;

/// Shorter ones would be over at once.
const LEAST_NS: u64 = 10_000;

/// Waits in this thread for a permit, for at most so long.
pub(crate) fn acquire(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    timeout_ns: Option<u64>,
) -> PyResult<Hold> {
    if let Some(hold) = scheduler::grant_at_once(limiter.get(), weight, false) {
        return Ok(hold);
    }
    if let Some(hold) = scheduler::try_grant(limiter, weight)? {
        return Ok(hold);
    }
    let py = limiter.py();
    let state = limiter.get().state();
    if state.would_block_itself(weight) {
        return Err(errors::would_deadlock());
    }
    if event_loop::one_runs_here(py)? && state.lock().machine.load() != (0, 0) {
        return Err(errors::would_block_its_loop());
    }
    let deadline = timeout_ns.map(|ns| scheduler::deadline(limiter, weight, ns)).transpose()?;
    let lock = py.import("threading")?.call_method0(intern!(py, "Lock"))?;
    lock.call_method0(intern!(py, "acquire"))?;
    let waiter = ThreadWaiter {
        thread: ThreadMark::here(),
        lock: lock.clone().unbind(),
        is_signalled: false,
        opening: None,
    };
    let place = scheduler::join(limiter, weight, Waiter::Thread(waiter), None)?;
    let waited = wait(limiter, place.ticket, &lock, deadline);
    waited.map_err(|error| errors::with(error, scheduler::leave(limiter, place.ticket)))
}

fn wait(
    limiter: &Bound<'_, RateLimiter>,
    ticket: Ticket,
    lock: &Bound<'_, PyAny>,
    deadline: Option<u64>,
) -> PyResult<Hold> {
    let py = limiter.py();
    let state = limiter.get().state();
    loop {
        // A signal that came before the lock began to wait.
        py.check_signals()?;
        scheduler::forget_loops(limiter, None)?;
        let now = state.now(py)?;
        drive(limiter, Some(now))?;
        if let Some(hold) = scheduler::claim(limiter, ticket)? {
            return Ok(hold);
        }
        if let Some(deadline) = deadline {
            scheduler::check_deadline(limiter, now, ticket, deadline)?;
        }
        let mut inner = state.lock();
        let is_first = inner.machine.head() == Some(ticket);
        let opening = match inner.machine.waiter_mut(ticket) {
            Some(Waiter::Thread(waiter)) if is_first => waiter.opening,
            _ => None,
        };
        drop(inner);
        let until = [opening, deadline].into_iter().flatten().min().unwrap_or(u64::MAX);
        let piece = until.saturating_sub(now).clamp(LEAST_NS, PIECE_NS);
        #[expect(clippy::cast_precision_loss, reason = "a minute of nanoseconds is exact")]
        let seconds = piece as f64 / 1e9;
        let acquired = lock.call_method1(intern!(py, "acquire"), (true, seconds))?.is_truthy()?;
        if acquired && let Some(Waiter::Thread(waiter)) = state.lock().machine.waiter_mut(ticket) {
            waiter.is_signalled = false;
        }
    }
}
