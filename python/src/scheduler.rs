//! Who runs next, and who is woken: the one place where waiters are granted.
//!
//! Every change of the machine ends here. *Driving* it asks core for one decision after the other and carries each out,
//! in whatever thread the change was made: coroutines are woken on their own loops, threads by their locks. Pushed tasks
//! are started by a [`Callback`] of the loop that they were pushed in, one function in each turn of the loop, so that a
//! long queue never keeps the loop from its other work. The first waiter's own loop, or its own thread, keeps the timer
//! for the next opening. So there is no thread of the limiter's.
//!
//! Driving decides nothing by itself, so it may come early, late or for nothing. It may fail half way, as when a signal
//! handler raises: all is done nevertheless, and then the first error is raised.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};
use strict_rate_limiter_core::{EnqueueError, Enqueued, Ticket, TicketStatus, TryGrantError};

use crate::errors::{self, Errors, undisturbed};
use crate::event_loop::{self, EventLoop};
use crate::ffi::Finalize;
use crate::imports::imports;
use crate::pushed::Pushed;
use crate::reentrancy::FrameKind;
use crate::state::{
    Action, Ending, Hold, Inner, LoopId, LoopState, RateLimiter, StartedId, StartedTask, Waiter,
    When,
};

/// How often a loop is asked again after the call has raised: a signal handler may raise at any moment.
const ATTEMPTS: usize = 3;

/// How long until the next look after one that failed.
const RETRY_NS: u64 = 50_000_000;

/// What a loop calls to start tasks and to look at the time.
#[pyclass(frozen, module = "async_rate_limiter._native")]
pub(crate) struct Callback {
    limiter: Py<RateLimiter>,
    event_loop: LoopId,
    plan: u64,
    /// Whether the loop has called it, or it was let go by us.
    is_over: AtomicBool,
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
    let granted = inner.machine.try_grant(now, weight);
    match granted {
        Ok(grant) => Ok(Some(inner.hold(grant))),
        Err(TryGrantError::Busy { .. }) => Ok(None),
        Err(TryGrantError::Request(error)) => Err(errors::weight(&error)),
        Err(_) => Err(errors::closed()),
    }
}

/// The loop that runs here, as this limiter knows it.
pub(crate) fn running_loop(limiter: &Bound<'_, RateLimiter>) -> PyResult<(LoopId, EventLoop)> {
    let py = limiter.py();
    let running = event_loop::running(py)?;
    let mut inner = limiter.get().state().lock();
    if let Some(state) = inner.loops.iter_mut().find(|state| state.event_loop.is(&running)) {
        state.event_loop.is_here_now();
        return Ok((state.id, state.event_loop.clone_ref(py)));
    }
    drop(inner);
    let event_loop = EventLoop::new(running)?;
    let known = event_loop.clone_ref(py);
    let id = limiter.get().state().lock().add_loop(known);
    // Not before the new one is known: to tell of lost tasks runs Python code, which may come here again.
    forget_loops(limiter, Some(id))?;
    Ok((id, event_loop))
}

/// Forgets loops that are closed, or that nothing of this limiter waits for: a program may make a new loop for each of
/// its jobs, and close it or not.
pub(crate) fn forget_loops(limiter: &Bound<'_, RateLimiter>, but: Option<LoopId>) -> PyResult<()> {
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
            lose_loop(limiter, id);
        }
    }
    Ok(())
}

/// Joins the end of the queue. With it comes its loop, if it has one.
pub(crate) fn join(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    waiter: Waiter,
    event_loop: Option<EventLoop>,
) -> PyResult<Enqueued> {
    let mut inner = limiter.get().state().lock();
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
    let may_move = is_first && !inner.machine.awaits_completion();
    drop(inner);
    drop(unused);
    if may_move && let Err(error) = drive(limiter, None) {
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

/// The end of a timeout that begins now. An error if nothing can be granted before it.
pub(crate) fn deadline(
    limiter: &Bound<'_, RateLimiter>,
    weight: u64,
    timeout_ns: u64,
) -> PyResult<u64> {
    let state = limiter.get().state();
    let now = state.now(limiter.py())?;
    let deadline = now.saturating_add(timeout_ns);
    let admitted = state.lock().machine.admit_by(now, weight, deadline);
    match admitted {
        Err(EnqueueError::TooLate { not_before }) => missed(limiter, Some(not_before)),
        Err(error) => Err(errors::enqueue(error)),
        Ok(()) => Ok(deadline),
    }
}

/// An error if a waiter that still waits has missed its deadline. Drive first, with the same `now`.
pub(crate) fn check_deadline(
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

/// A waiter leaves: the queue, or the grant that it never saw.
pub(crate) fn leave(limiter: &Bound<'_, RateLimiter>, ticket: Ticket) -> PyResult<()> {
    let mut inner = limiter.get().state().lock();
    let waiter = inner.machine.cancel(ticket);
    inner.refused.remove(&ticket);
    let drives = inner.has_waiters();
    drop(inner);
    drop(waiter);
    if drives { drive(limiter, None) } else { Ok(()) }
}

/// A task that has its permit never starts: as if it had not been granted.
pub(crate) fn undo(limiter: &Bound<'_, RateLimiter>, hold: Hold) -> PyResult<()> {
    let mut inner = limiter.get().state().lock();
    inner.undo(hold);
    let drives = inner.has_waiters();
    drop(inner);
    if drives { drive(limiter, None) } else { Ok(()) }
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
            return Err(error);
        }
    };
    let mut inner = state.lock();
    more(&mut inner);
    let excess = inner.record(hold, ending, now);
    let drives = inner.has_waiters();
    drop(inner);
    if drives {
        Python::attach(|_| drive(limiter, Some(now)))?;
    }
    Ok(excess)
}

/// Asks the machine until it grants nothing more. `now` if it was read already.
pub(crate) fn drive(limiter: &Bound<'_, RateLimiter>, now: Option<u64>) -> PyResult<()> {
    let py = limiter.py();
    let state = limiter.get().state();
    let now = now.map_or_else(|| state.now(py), Ok)?;
    let mut errors = Errors::default();
    loop {
        let action = state.lock().next(now);
        match action {
            Action::Wake { ticket, event_loop, future, _task } => {
                wake(limiter, ticket, event_loop, future.bind(py), &mut errors);
            }
            Action::Start(event_loop) => {
                let event_loop = (event_loop, When::Soon);
                errors.note(plan(limiter, event_loop, 0));
            }
            Action::LookAt(event_loop, opening) => {
                let at = (event_loop, When::At(opening));
                let planned = plan(limiter, at, opening.saturating_sub(now));
                if errors.note(planned) == Some(Planned::IsLost) {
                    continue;
                }
                break;
            }
            Action::Rest => break,
        }
    }
    let drained = state.lock().take_drained();
    for (id, future) in drained {
        let event_loop = loop_of(limiter, id);
        if let Some(event_loop) = event_loop {
            errors.note(event_loop.wake(future.bind(py)));
        }
    }
    errors.into_result()
}

fn loop_of(limiter: &Bound<'_, RateLimiter>, id: LoopId) -> Option<EventLoop> {
    let mut inner = limiter.get().state().lock();
    inner.loop_mut(id).map(|state| state.event_loop.clone_ref(limiter.py()))
}

/// Wakes a coroutine that was granted its permit. If its loop is closed, it never runs, so the grant is undone.
fn wake(
    limiter: &Bound<'_, RateLimiter>,
    ticket: Ticket,
    id: LoopId,
    future: &Bound<'_, PyAny>,
    errors: &mut Errors,
) {
    let py = limiter.py();
    let Some(event_loop) = loop_of(limiter, id) else { return };
    for _ in 0..ATTEMPTS {
        let Err(error) = event_loop.wake(future) else { return };
        if errors.note(event_loop.is_closed(py)) == Some(true) {
            let waiter = limiter.get().state().lock().machine.cancel(ticket);
            drop(waiter);
            lose_loop(limiter, id);
            return;
        }
        errors.note::<()>(Err(error));
    }
}

/// What became of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planned {
    IsSet,
    /// The loop is closed, and all that waited for it has left.
    IsLost,
}

/// Has a loop call back: in its next turn, or after a delay. From another thread it is asked to call back in its next
/// turn, and sets the timer itself then.
fn plan(
    limiter: &Bound<'_, RateLimiter>,
    (id, when): (LoopId, When),
    delay_ns: u64,
) -> PyResult<Planned> {
    let py = limiter.py();
    let state = limiter.get().state();
    let mut errors = Errors::default();
    for _ in 0..ATTEMPTS {
        let mut inner = state.lock();
        let Some(known) = inner.loop_mut(id) else {
            drop(inner);
            lose_loop(limiter, id);
            return errors.into_result().map(|()| Planned::IsLost);
        };
        if known.plan.when == When::Soon || known.plan.when == when {
            break;
        }
        let event_loop = known.event_loop.clone_ref(py);
        let when = if event_loop.is_in_this_thread() { when } else { When::Soon };
        let old = known.plan.replace(when);
        let number = known.plan.id;
        drop(inner);
        let callback = Callback::new(limiter, id, number)?;
        let asked = ask(&event_loop, &callback, when, delay_ns, old);
        let Err(error) = asked.map(|timer| keep_timer(limiter, id, number, timer)) else { break };
        // It may have been asked nevertheless: then it calls back for nothing.
        callback.get().is_over.store(true, Ordering::Relaxed);
        if errors.note(event_loop.is_closed(py)) == Some(true) {
            lose_loop(limiter, id);
            return errors.into_result().map(|()| Planned::IsLost);
        }
        if let Some(known) = state.lock().loop_mut(id).filter(|known| known.plan.id == number) {
            known.plan.replace(When::Never);
        }
        errors.note::<()>(Err(error));
    }
    errors.into_result().map(|()| Planned::IsSet)
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
        && event_loop.is_in_this_thread()
    {
        old.call_method0(intern!(py, "cancel"))?;
    }
    let callback = callback.as_any();
    match when {
        When::At(_) => {
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
            let event_loop = loop_of(limiter, event_loop);
            let refused = event_loop.map(|it| it.refuse(future.bind(py), &error)).transpose();
            refused.map(|_| None)
        }
        Waiter::Pushed { task, .. } if error.is_instance_of::<errors::Aborted>(py) => {
            Ok(Some(task.into_task()))
        }
        Waiter::Pushed { event_loop, .. } => match loop_of(limiter, event_loop) {
            Some(event_loop) => report(limiter, &event_loop, error).map(|()| None),
            None => Ok(None),
        },
        Waiter::Thread(waiter) => {
            waiter.signal.give();
            Ok(None)
        }
    }
}

/// A loop is closed, and with it goes all that it was to run. Its exception handler is told of tasks that never ran.
fn lose_loop(limiter: &Bound<'_, RateLimiter>, id: LoopId) {
    let state = limiter.get().state();
    let mut inner = state.lock();
    let index = inner.loops.iter().position(|known| known.id == id);
    let lost = index.map(|index| inner.loops.swap_remove(index));
    let waiters = inner.machine.cancel_where(|waiter| waiter.event_loop() == Some(id));
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

/// What became of a task that was granted its permit.
enum Started {
    /// The loop runs it.
    Runs,
    /// It was a function, and has ended. An error is one that ends the program, not the task.
    Ended(PyResult<()>),
}

/// Starts a pushed task that was granted its permit.
fn start(
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
            let reported = match loop_of(limiter, event_loop) {
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
pub(crate) fn report(
    limiter: &Bound<'_, RateLimiter>,
    event_loop: &EventLoop,
    error: PyErr,
) -> PyResult<()> {
    let py = limiter.py();
    if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Err(error);
    }
    let state = limiter.get().state();
    let message = format!("A queued task of {} failed", state.title());
    event_loop.tell(py, &message, Some(&error), Some(limiter.as_any()));
    let on_error = state.lock().on_error.as_ref().map(|call| call.clone_ref(py));
    if let Some(on_error) = on_error
        && let Err(error) = on_error.bind(py).call1((error.value(py),))
    {
        let message = format!("on_error of {} failed", state.title());
        event_loop.tell(py, &message, Some(&error), Some(limiter.as_any()));
    }
    Ok(())
}

/// What an exception says of how its task ended.
pub(crate) fn ending_of(error: &PyErr, py: Python<'_>) -> Ending {
    let cancelled = error.matches(py, &imports(py).cancelled_error).unwrap_or(false)
        || error.is_instance_of::<pyo3::exceptions::PyGeneratorExit>(py);
    if cancelled { Ending::Cancelled } else { Ending::COMPLETED }
}

/// Nobody refers to the limiter any more: tells of queued tasks that will never run.
pub(crate) fn tell_unreachable(limiter: &Bound<'_, RateLimiter>) {
    let Ok(state) = limiter.get().initialised() else { return };
    let mut inner = state.lock();
    let waiters = inner.machine.cancel_where(|waiter| matches!(waiter, Waiter::Pushed { .. }));
    let told = inner.loops.first().map(|known| known.event_loop.clone_ref(limiter.py()));
    drop(inner);
    let why = "nothing refers to it any more";
    tell_lost(limiter, told.as_ref(), count_tasks(&waiters), why);
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
        lose_loop(limiter, self.event_loop);
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
            errors.note(forget_loops(limiter, Some(self.event_loop)));
        }
        if errors.note(drive(limiter, None)).is_none() {
            errors.note(plan(limiter, (self.event_loop, When::At(u64::MAX)), RETRY_NS));
        }
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
}

impl Drop for Callback {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed) {
            Python::try_attach(|py| undisturbed(py, || self.let_go(py)));
        }
    }
}
