//! Waiting in a thread, without an event loop.
//!
//! The thread waits detached from the interpreter, in pieces, and looks for signals in between. The first waiter keeps
//! the time itself: it waits until the opening and looks. It does not wait in a lock of Python's: where the interpreter
//! ends meanwhile, that would unwind the thread through native code, which aborts the process.

use std::sync::Arc;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use strict_rate_limiter_core::Ticket;

use crate::errors;
use crate::event_loop;
use crate::scheduler::{self, drive};
use crate::state::{Hold, RateLimiter, Signal, ThreadWaiter, Waiter};
use crate::thread_mark::ThreadMark;

/// How long until the main thread looks for signals again, which it alone handles.
const SIGNALS_NS: u64 = 20_000_000;

/// How long any thread waits at most: a loop whose tasks it waits for may have been closed, and a given clock may jump.
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
    if limiter.get().state().would_block_itself(weight) {
        return Err(errors::would_deadlock());
    }
    if event_loop::one_runs_here(py)? && !waits_for_time_alone(limiter, weight)? {
        return Err(errors::would_block_its_loop());
    }
    let deadline = timeout_ns.map(|ns| scheduler::deadline(limiter, weight, ns)).transpose()?;
    let piece_ns = if is_main_thread(py)? { SIGNALS_NS } else { PIECE_NS };
    let signal = Arc::new(Signal::default());
    let (thread, same) = (ThreadMark::here(), Arc::clone(&signal));
    let waiter = Waiter::Thread(ThreadWaiter { thread, signal: same, opening: None });
    let place = scheduler::join(limiter, weight, waiter, None)?;
    let waited = wait(limiter, place.ticket, &signal, deadline, piece_ns);
    waited.map_err(|error| errors::with(error, scheduler::leave(limiter, place.ticket)))
}

/// Whether there is room at a known time, whatever becomes of the running tasks, and nobody waits ahead.
fn waits_for_time_alone(limiter: &Bound<'_, RateLimiter>, weight: u64) -> PyResult<bool> {
    let state = limiter.get().state();
    let now = state.now(limiter.py())?;
    let opening = state.lock().machine.opening(now, weight);
    Ok(opening.map_err(|error| errors::weight(&error))?.is_some())
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    main.eq(threading.call_method0(intern!(py, "get_ident"))?)
}

fn wait(
    limiter: &Bound<'_, RateLimiter>,
    ticket: Ticket,
    signal: &Signal,
    deadline: Option<u64>,
    piece_ns: u64,
) -> PyResult<Hold> {
    let py = limiter.py();
    let state = limiter.get().state();
    let mut forget_at = state.now(py)?.saturating_add(PIECE_NS);
    loop {
        py.check_signals()?;
        let now = state.now(py)?;
        if now >= forget_at {
            forget_at = now.saturating_add(PIECE_NS);
            scheduler::forget_loops(limiter, None)?;
        }
        scheduler::check_pause(limiter, now)?;
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
        let wait_ns = until.saturating_sub(now).clamp(LEAST_NS, piece_ns);
        py.detach(|| signal.wait(Duration::from_nanos(wait_ns)));
    }
}
