//! Pushed tasks whose turn has come, and waiters that are refused: nobody waits for a pushed task, so what becomes of it
//! is told to its loop.

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::{end, loops, wake};
use crate::errors::{self, Errors};
use crate::event_loop::EventLoop;
use crate::imports::imports;
use crate::pushed::Pushed;
use crate::reentrancy::FrameKind;
use crate::state::{Ending, Hold, LoopId, RateLimiter, StartedId, StartedTask, Waiter};

/// What became of a task that was granted its permit.
pub(super) enum Started {
    /// The loop runs it.
    Runs,
    /// It was a function, and has ended. An error is one that ends the program, not the task.
    Ended(PyResult<()>),
}

/// Starts a pushed task that was granted its permit.
pub(super) fn start(
    limiter: &Bound<'_, RateLimiter>,
    id: LoopId,
    event_loop: &EventLoop,
    pushed: &Pushed,
    hold: Hold,
) -> Started {
    let py = limiter.py();
    let state = limiter.get().state();
    state.lock().frames.go_in(hold.weight(), FrameKind::Called);
    let called = pushed.call(py);
    let _frame = state.lock().frames.come_out();
    match called {
        Ok(Some(returned)) => {
            match (state.spawn)(limiter, (id, event_loop), pushed, returned, hold) {
                Ok(()) => Started::Runs,
                Err(error) => Started::Ended(report(limiter, event_loop, error)),
            }
        }
        Ok(None) => Started::Ended(end(limiter, hold, Ending::COMPLETED).map(drop)),
        Err(error) => {
            let ending = ending_of(&error, py);
            let ended = end(limiter, hold, ending);
            let mut errors = Errors::default();
            errors.note(ended);
            errors.note(report(limiter, event_loop, error));
            Started::Ended(errors.into_result())
        }
    }
}

/// A pushed task that ran as a task of its loop has ended, and leaves this thread's stack. What is for the caller to do:
/// to tell of its error, and to raise.
pub(crate) fn end_started(
    limiter: &Bound<'_, RateLimiter>,
    id: StartedId,
    ended: PyResult<()>,
) -> PyResult<()> {
    let py = limiter.py();
    let state = limiter.get().state();
    let mut inner = state.lock();
    let started = inner.started.remove(&id);
    let _frame = inner.frames.come_out();
    drop(inner);
    // Its loop may have been lost before, and it ended then.
    let Some(StartedTask { event_loop, task: _task, hold }) = started else { return ended };
    let ending = ended.as_ref().map_or_else(|error| ending_of(error, py), |()| Ending::COMPLETED);
    let mut errors = Errors::default();
    errors.note(end(limiter, hold, ending).map(drop));
    match ended {
        Ok(()) => {}
        // The loop marks its task as cancelled.
        Err(error) if ending == Ending::Cancelled => errors.note(Err(error)).unwrap_or_default(),
        Err(error) => {
            let reported = match loops::find(limiter, event_loop) {
                Some(event_loop) => report(limiter, &event_loop, error),
                None => Err(error),
            };
            errors.note(reported);
        }
    }
    errors.into_result()
}

/// Tells the loop's exception handler and `on_error` of what a queued task raised, and hands back what is for the whole
/// program.
fn report(limiter: &Bound<'_, RateLimiter>, event_loop: &EventLoop, error: PyErr) -> PyResult<()> {
    let py = limiter.py();
    if errors::ends_program(py, &error) {
        return Err(error);
    }
    let state = limiter.get().state();
    let message = format!("A queued task of {} failed", state.title());
    event_loop.tell(py, &message, Some(&error), Some(limiter.as_any()));
    let on_error = state.lock().on_error.as_ref().map(|call| call.clone_ref(py));
    if let Some(on_error) = on_error
        && let Err(error) = on_error.bind(py).call1((error.value(py),))
    {
        if errors::ends_program(py, &error) {
            return Err(error);
        }
        let message = format!("on_error of {} failed", state.title());
        event_loop.tell(py, &message, Some(&error), Some(limiter.as_any()));
    }
    Ok(())
}

/// Tells a waiter that it gets no permit. Returns a pushed task, which nobody waits for, if the limiter was aborted; else
/// that is told of as the task's own error would be.
pub(crate) fn refuse(
    limiter: &Bound<'_, RateLimiter>,
    waiter: Waiter,
    error: PyErr,
) -> PyResult<Option<Py<PyAny>>> {
    let py = limiter.py();
    match waiter {
        Waiter::Coroutine { event_loop, future }
        | Waiter::Pushed { event_loop, room: Some(future), .. } => {
            let mut errors = Errors::default();
            wake(limiter, event_loop, &future, Some(&error), &mut errors);
            errors.into_result().map(|()| None)
        }
        Waiter::Pushed { task, .. } if error.is_instance_of::<errors::Aborted>(py) => {
            Ok(Some(task.into_task()))
        }
        Waiter::Pushed { event_loop, .. } => match loops::find(limiter, event_loop) {
            Some(event_loop) => report(limiter, &event_loop, error).map(|()| None),
            None => Ok(None),
        },
        Waiter::Thread(waiter) => {
            waiter.signal.give();
            Ok(None)
        }
    }
}

/// What an exception says of how its task ended.
pub(crate) fn ending_of(error: &PyErr, py: Python<'_>) -> Ending {
    let cancelled = error.matches(py, &imports(py).cancelled_error).unwrap_or(false)
        || error.is_instance_of::<PyGeneratorExit>(py);
    if cancelled { Ending::Cancelled } else { Ending::COMPLETED }
}
