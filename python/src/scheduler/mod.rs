//! Who runs next, and who is woken: the one place where waiters are granted.
//!
//! Every change of the machine ends here. *Driving* it asks core for one decision after the other and carries each out,
//! in whatever thread the change was made: coroutines are woken on their own loops, threads by their signals. Pushed
//! tasks are started by a callback of the loop that they were pushed in (`callback.rs`). The first waiter's own loop, or
//! its own thread, keeps the timer for the next opening. So there is no thread of the limiter's.
//!
//! Driving decides nothing by itself, so it may come early, late or for nothing. It may fail half way, as when a signal
//! handler raises: all is done nevertheless, and then the errors are raised ([`Errors`]).
//!
//! The files of this folder need each other: a start may end a task, an end drives, driving plans a start.

mod callback;
mod deadline;
mod events;
mod loops;
mod pauses;
mod pushed_tasks;

use pyo3::prelude::*;
use strict_rate_limiter_core::{Enqueued, Ticket, TicketStatus, TryGrantError};

use crate::errors::{self, Errors};
use crate::event_loop::EventLoop;
use crate::future::Future;
use crate::reentrancy::FrameKind;
use crate::signals::{ATTEMPTS, in_another_thread};
use crate::state::{Action, Ending, Hold, Inner, LoopId, RateLimiter, Waiter, When};

pub(crate) use callback::Callback;
pub(crate) use deadline::{check as check_deadline, deadline};
pub(crate) use events::tell;
pub(crate) use loops::{forget as forget_loops, running as running_loop, tell_unreachable};
pub(crate) use pauses::{check as check_pause, pause};
pub(crate) use pushed_tasks::{end_started, ending_of, refuse};

use callback::plan;

/// How long until the next look after one that failed.
const RETRY_NS: u64 = 50_000_000;

/// What a call to a loop found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loop {
    IsKnown,
    /// It is closed, and all that waited for it has left.
    IsLost,
}

/// Grants if there is room as far as is known without a look at the time; `None` says nothing. With `calls`, a task is
/// called next: it is on the stack from here on, and a push from inside a task of this limiter is not granted.
#[inline]
pub(crate) fn grant_at_once(limiter: &RateLimiter, weight: u64, calls: bool) -> Option<Hold> {
    let mut inner = limiter.state().lock();
    let hold = inner.grant_at_once(weight)?;
    if calls {
        inner.frames.go_in(weight, FrameKind::Called);
    }
    Some(hold)
}

/// The same for a push, if surely no task of this limiter is asking.
#[inline]
pub(crate) fn grant_push_at_once(limiter: &RateLimiter, weight: u64) -> Option<Hold> {
    let mut inner = limiter.state().lock();
    if !inner.frames.is_empty() {
        return None;
    }
    let hold = inner.grant_at_once(weight)?;
    inner.frames.go_in(weight, FrameKind::Called);
    Some(hold)
}

/// Grants now or not at all. `None`: something waits, or there is no room.
pub(crate) fn try_grant(limiter: &Bound<'_, RateLimiter>, weight: u64) -> PyResult<Option<Hold>> {
    let state = limiter.get().state();
    let now = state.now(limiter.py())?;
    let mut inner = state.lock();
    let granted = inner.try_grant(now, weight);
    drop(inner);
    match granted {
        Ok(hold) => match tell(limiter) {
            Ok(()) => Ok(Some(hold)),
            // What raises has no effect.
            Err(error) => Err(errors::with(error, undo(limiter, hold))),
        },
        Err(TryGrantError::Busy { .. }) => Ok(None),
        Err(TryGrantError::Request(error)) => Err(errors::weight(&error)),
        Err(_) => Err(errors::closed()),
    }
}

/// Joins the end of the queue. With it comes its loop, if it has one.
pub(crate) fn join(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    waiter: Waiter,
    event_loop: Option<EventLoop>,
) -> PyResult<Enqueued> {
    let state = limiter.get().state();
    let needs_time = state.is_watched || state.max_pause_ns != u64::MAX;
    let now = if needs_time { state.now(limiter.py())? } else { 0 };
    let mut inner = state.lock();
    if let Some(left) = inner.paused_too_long(now, state.max_pause_ns) {
        drop(inner);
        return Err(errors::pause_too_long(limiter.py(), left));
    }
    if let Err(error) = inner.machine.admit(weight) {
        // Refused here, the waiter ends after the lock does.
        drop(inner);
        return Err(errors::enqueue(error));
    }
    let is_first = inner.machine.head().is_none();
    let unused = match (waiter.event_loop(), event_loop) {
        (Some(id), Some(event_loop)) => inner.keep_loop(id, event_loop),
        (_, event_loop) => event_loop,
    };
    let place = inner.machine.enqueue(weight, waiter).map_err(errors::enqueue)?;
    inner.note_queued(place.ticket, weight, now);
    let may_move = is_first && !inner.machine.awaits_completion();
    drop(inner);
    drop(unused);
    if let Err(error) = drive_if(limiter, may_move) {
        // What raises has no effect.
        return Err(errors::with(error, leave(limiter, place.ticket)));
    }
    Ok(place)
}

/// The permit of a waiter, if it was granted. An error if new limits refused it, or the limiter was aborted.
pub(crate) fn claim(limiter: &Bound<'_, RateLimiter>, ticket: Ticket) -> PyResult<Option<Hold>> {
    let mut inner = limiter.get().state().lock();
    match inner.machine.status(ticket) {
        TicketStatus::Queued { .. } => Ok(None),
        TicketStatus::Granted => Ok(inner.claim(ticket)),
        _ => Err(match inner.refused.remove(&ticket) {
            Some(error) => errors::weight(&error),
            None => errors::aborted(),
        }),
    }
}

/// A waiter leaves: the queue, or the grant that it never saw.
pub(crate) fn leave(limiter: &Bound<'_, RateLimiter>, ticket: Ticket) -> PyResult<()> {
    let mut inner = limiter.get().state().lock();
    let waiter = inner.cancel(ticket);
    inner.refused.remove(&ticket);
    let drives = inner.has_waiters();
    drop(inner);
    drop(waiter);
    drive_if(limiter, drives)
}

/// A task that has its permit never starts: as if it had not been granted.
pub(crate) fn undo(limiter: &Bound<'_, RateLimiter>, hold: Hold) -> PyResult<()> {
    let mut inner = limiter.get().state().lock();
    inner.undo(hold);
    let drives = inner.has_waiters();
    drop(inner);
    drive_if(limiter, drives)
}

/// A task has ended. Returns what it used beyond what was reserved for it.
#[inline]
pub(crate) fn end(limiter: &Bound<'_, RateLimiter>, hold: Hold, ending: Ending) -> PyResult<u64> {
    end_and(limiter, hold, ending, |_| ())
}

/// The task that is innermost on this thread's stack has ended, and leaves it.
#[inline]
pub(crate) fn end_inside(
    limiter: &Bound<'_, RateLimiter>,
    hold: Hold,
    ending: Ending,
) -> PyResult<()> {
    // What the frame refers to ends after the lock does.
    let mut frame = None;
    end_and(limiter, hold, ending, |inner| frame = inner.frames.come_out()).map(drop)
}

#[inline]
fn end_and(
    limiter: &Bound<'_, RateLimiter>,
    hold: Hold,
    ending: Ending,
    more: impl FnOnce(&mut Inner),
) -> PyResult<u64> {
    let state = limiter.get().state();
    let now = match state.now(limiter.py()) {
        Ok(now) => now,
        Err(error) => {
            // The end is recorded whatever happens.
            let mut inner = state.lock();
            more(&mut inner);
            inner.record_unstamped(hold, ending);
            drop(inner);
            return Err(errors::with(error, Python::attach(|_| look_later(limiter))));
        }
    };
    let mut inner = state.lock();
    more(&mut inner);
    let excess = inner.record(hold, ending, now);
    let drives = inner.has_waiters();
    drop(inner);
    if drives {
        Python::attach(|_| drive(limiter, Some(now)))?;
    } else if state.is_watched {
        Python::attach(|_| tell(limiter))?;
    }
    Ok(excess)
}

/// Drives if somebody may move up. Else there may be something to tell.
pub(crate) fn drive_if(limiter: &Bound<'_, RateLimiter>, drives: bool) -> PyResult<()> {
    if drives { drive(limiter, None) } else { tell(limiter) }
}

/// Asks the machine until it grants nothing more. `now` if it was read already.
pub(crate) fn drive(limiter: &Bound<'_, RateLimiter>, now: Option<u64>) -> PyResult<()> {
    let state = limiter.get().state();
    let now = match now.map_or_else(|| state.now(limiter.py()), Ok) {
        Ok(now) => now,
        Err(error) => return Err(errors::with(error, look_later(limiter))),
    };
    let mut errors = Errors::default();
    loop {
        let action = state.lock().next(now);
        match action {
            Action::Wake { ticket, event_loop: id, future, _task } => {
                if wake(limiter, id, &future, None, &mut errors) == Loop::IsLost {
                    // Its waiter never runs, so the grant is undone.
                    let waiter = state.lock().cancel(ticket);
                    drop(waiter);
                }
            }
            Action::Start(id) => {
                errors.note(plan(limiter, (id, When::Soon), 0));
            }
            Action::LookAt(id, opening) => {
                let delay_ns = opening.saturating_sub(now);
                let planned = errors.note(plan(limiter, (id, When::At(opening)), delay_ns));
                if planned != Some(Loop::IsLost) {
                    break;
                }
            }
            Action::Rest => break,
        }
    }
    let drained = state.lock().take_drained();
    for (id, future) in drained {
        wake(limiter, id, &future, None, &mut errors);
    }
    errors.note(tell(limiter));
    errors.into_result()
}

/// The clock could not be read: whoever looks at the next opening looks a little later.
fn look_later(limiter: &Bound<'_, RateLimiter>) -> PyResult<()> {
    let action = limiter.get().state().lock().look_at(0);
    match action {
        Action::LookAt(id, _) => plan(limiter, (id, When::Retry), RETRY_NS).map(drop),
        _ => Ok(()),
    }
}

/// Wakes a future of a loop, or refuses it with an exception.
fn wake(
    limiter: &Bound<'_, RateLimiter>,
    id: LoopId,
    future: &Py<Future>,
    refusal: Option<&PyErr>,
    errors: &mut Errors,
) -> Loop {
    let py = limiter.py();
    let Some(event_loop) = loops::find(limiter, id) else { return Loop::IsLost };
    for _ in 0..ATTEMPTS {
        let Err(error) = event_loop.wake(future.bind(py), refusal) else { return Loop::IsKnown };
        if errors.note(event_loop.is_closed(py)) == Some(true) {
            loops::lose(limiter, id);
            return Loop::IsLost;
        }
        errors.note::<()>(Err(error));
    }
    let woken = in_another_thread(py, |py| event_loop.wake(future.bind(py), refusal));
    errors.note(woken.unwrap_or(Ok(())));
    Loop::IsKnown
}
