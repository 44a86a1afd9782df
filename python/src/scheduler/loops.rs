//! The loops that a limiter deals with: found, forgotten when nothing waits for them, lost when they are closed.

use std::collections::VecDeque;

use pyo3::prelude::*;

use super::end;
use crate::event_loop::{self, EventLoop};
use crate::pushed::Pushed;
use crate::state::{Ending, Inner, LoopId, LoopState, RateLimiter, StartedId, StartedTask, Waiter};

/// The loop that runs here, as this limiter knows it.
pub(crate) fn running(limiter: &Bound<'_, RateLimiter>) -> PyResult<(LoopId, EventLoop)> {
    let py = limiter.py();
    let running = event_loop::running(py)?;
    let inner = limiter.get().state().lock();
    if let Some(state) = inner.loops.iter().find(|state| state.event_loop.is(&running)) {
        return Ok((state.id, state.event_loop.clone_ref(py)));
    }
    drop(inner);
    let event_loop = EventLoop::new(running)?;
    let known = event_loop.clone_ref(py);
    let id = limiter.get().state().lock().add_loop(known);
    // Not before the new one is known: to tell of lost tasks runs Python code, which may come here again.
    forget(limiter, Some(id))?;
    Ok((id, event_loop))
}

/// Forgets loops that are closed, or that nothing of this limiter waits for: a program may make a new loop for each of
/// its jobs, and close it or not.
pub(crate) fn forget(limiter: &Bound<'_, RateLimiter>, but: Option<LoopId>) -> PyResult<()> {
    let py = limiter.py();
    let state = limiter.get().state();
    let mut inner = state.lock();
    let idle = |inner: &Inner| {
        inner.loops.iter().position(|state| Some(state.id) != but && !inner.uses(state))
    };
    let mut forgotten = Vec::new();
    while let Some(index) = idle(&inner) {
        forgotten.push(inner.loops.swap_remove(index));
    }
    let others = inner.loops.iter().filter(|state| Some(state.id) != but);
    let others: Vec<_> = others.map(|state| (state.id, state.event_loop.clone_ref(py))).collect();
    drop(inner);
    drop(forgotten);
    for (id, event_loop) in others {
        if event_loop.is_closed(py)? {
            lose(limiter, id);
        }
    }
    Ok(())
}

/// A loop that something of this limiter waits for.
pub(super) fn find(limiter: &Bound<'_, RateLimiter>, id: LoopId) -> Option<EventLoop> {
    let mut inner = limiter.get().state().lock();
    inner.loop_mut(id).map(|state| state.event_loop.clone_ref(limiter.py()))
}

/// A loop is closed, and with it goes all that it was to run. Its exception handler is told of tasks that never ran.
pub(super) fn lose(limiter: &Bound<'_, RateLimiter>, id: LoopId) {
    let state = limiter.get().state();
    let mut inner = state.lock();
    let index = inner.loops.iter().position(|known| known.id == id);
    let lost = index.map(|index| inner.loops.swap_remove(index));
    let waiters = inner.cancel_where(|waiter| waiter.event_loop() == Some(id));
    let mut never_ran = count_tasks(&waiters);
    let mut tasks: Vec<Pushed> = Vec::new();
    let (event_loop, ready, plan) = match lost {
        Some(LoopState { event_loop, ready, plan, .. }) => (Some(event_loop), ready, Some(plan)),
        None => (None, VecDeque::new(), None),
    };
    for (task, hold) in ready {
        never_ran += 1;
        inner.undo(hold);
        tasks.push(task);
    }
    let started = inner.started.iter().filter(|(_, task)| task.event_loop == id);
    let started: Vec<StartedId> = started.map(|(id, _)| *id).collect();
    let ended: Vec<StartedTask> =
        started.iter().filter_map(|id| inner.started.remove(id)).collect();
    let (gone, others) =
        std::mem::take(&mut inner.drained).into_iter().partition(|(loop_id, _)| *loop_id == id);
    inner.drained = others;
    drop(inner);
    let drained: Vec<_> = gone;
    tell_lost(limiter, event_loop.as_ref(), never_ran, "the event loop was closed");
    drop((waiters, tasks, drained, plan));
    for StartedTask { hold, task, .. } in ended {
        if let Err(error) = end(limiter, hold, Ending::Cancelled) {
            error.write_unraisable(limiter.py(), Some(limiter));
        }
        drop(task);
    }
}

fn count_tasks(waiters: &[Waiter]) -> usize {
    let tasks = waiters.iter().filter(|waiter| matches!(waiter, Waiter::Pushed { room: None, .. }));
    tasks.count()
}

/// Tells a loop's exception handler of queued tasks that will never run, and why.
fn tell_lost(
    limiter: &Bound<'_, RateLimiter>,
    event_loop: Option<&EventLoop>,
    tasks: usize,
    why: &str,
) {
    let Some(event_loop) = event_loop.filter(|_| tasks > 0) else { return };
    let noun = if tasks == 1 { "task" } else { "tasks" };
    let title = limiter.get().state().title();
    let message = format!("{tasks} queued {noun} of {title} never ran: {why}");
    event_loop.tell(limiter.py(), &message, None, Some(limiter.as_any()));
}

/// Nobody refers to the limiter any more: tells of queued tasks that will never run.
pub(crate) fn tell_unreachable(limiter: &Bound<'_, RateLimiter>) {
    let Ok(state) = limiter.get().initialised() else { return };
    let mut inner = state.lock();
    let waiters = inner.cancel_where(|waiter| matches!(waiter, Waiter::Pushed { .. }));
    let told = inner.loops.first().map(|known| known.event_loop.clone_ref(limiter.py()));
    drop(inner);
    let why = "nothing refers to it any more";
    tell_lost(limiter, told.as_ref(), count_tasks(&waiters), why);
}
