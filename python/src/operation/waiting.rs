//! A call that does not run at once: it joins the queue, and waits for a future of its loop.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use strict_rate_limiter_core::Ticket;

use super::{Call, Outcome, Request, answer, fail, granted};
use crate::errors;
use crate::event_loop;
use crate::ffi::{Sent, Step};
use crate::future::Future;
use crate::pushed::Pushed;
use crate::scheduler;
use crate::state::{Hold, RateLimiter, Waiter};
use crate::task::{raised, truth};

/// Waits for a future that the limiter will wake.
pub(crate) struct Waiting {
    pub(super) limiter: Py<RateLimiter>,
    /// `None` for a caller that waits outside of the queue.
    pub(super) ticket: Option<Ticket>,
    pub(super) request: Request,
    deadline: Option<Deadline>,
    pub(super) future: Py<Future>,
}

/// Until when it waits, and the loop's timer for that.
struct Deadline {
    at: u64,
    timer: Py<PyAny>,
}

/// Not at once, as it seems: joins the queue.
#[cold]
pub(super) fn wait(
    limiter: Bound<'_, RateLimiter>,
    weight: u64,
    timeout_ns: Option<u64>,
    request: Request,
) -> PyResult<Outcome> {
    let py = limiter.py();
    let state = limiter.get().state();
    let inside = matches!(request, Request::Push(_)) && state.is_inside();
    if !matches!(request, Request::Drained)
        && !inside
        && let Some(hold) = scheduler::try_grant(&limiter, weight)?
    {
        return Ok(granted(&limiter, hold, request));
    }
    let joined = match &request {
        Request::Drained => wait_for_end(&limiter),
        Request::Push(task) => match push(&limiter, weight, task.bind(py), inside)? {
            Some(joined) => Ok(joined),
            None => return Ok(answer(truth(py, false))),
        },
        Request::Run(_) | Request::Enter | Request::Acquire(_) => {
            join(&limiter, weight, timeout_ns)
        }
    };
    let Joined { ticket, deadline, future } = joined?;
    let (limiter, future) = (limiter.unbind(), future.unbind());
    let mut waiting = Waiting { limiter, ticket, request, deadline: None, future };
    if let Some(ns) = timeout_ns
        && let Err(error) = waiting.begin_timeout(py, ns, deadline)
    {
        return Err(errors::with(error, waiting.leave(py)));
    }
    Ok(waiting.look(py))
}

/// What a caller has that has begun to wait.
struct Joined<'py> {
    ticket: Option<Ticket>,
    deadline: Option<u64>,
    future: Bound<'py, Future>,
}

/// A caller that wants a permit joins the queue.
fn join<'py>(
    limiter: &Bound<'py, RateLimiter>,
    weight: u64,
    timeout_ns: Option<u64>,
) -> PyResult<Joined<'py>> {
    let py = limiter.py();
    if limiter.get().state().would_deadlock(py, Some(weight))? {
        return Err(errors::would_deadlock());
    }
    let deadline = timeout_ns.map(|ns| scheduler::deadline(limiter, weight, ns)).transpose()?;
    let (id, runs) = scheduler::running_loop(limiter)?;
    let future = event_loop::create_future(py)?;
    let waiter = Waiter::Coroutine { event_loop: id, future: future.clone().unbind() };
    let ticket = Some(scheduler::join(limiter, weight, waiter, Some(runs))?.ticket);
    Ok(Joined { ticket, deadline, future })
}

/// A pushed task joins the queue. `None` if nothing is left to wait for.
fn push<'py>(
    limiter: &Bound<'py, RateLimiter>,
    weight: u64,
    task: &Bound<'py, PyAny>,
    inside: bool,
) -> PyResult<Option<Joined<'py>>> {
    let py = limiter.py();
    let (id, runs) = scheduler::running_loop(limiter)?;
    let task = Pushed::new(task)?;
    let future = event_loop::create_future(py)?;
    let waiter = Waiter::Pushed { event_loop: id, task, room: None };
    let place = scheduler::join(limiter, weight, waiter, Some(runs))?;
    if place.accepted {
        return Ok(None);
    }
    if inside {
        scheduler::leave(limiter, place.ticket)?;
        return Err(errors::queue_full());
    }
    let mut inner = limiter.get().state().lock();
    let Some(Waiter::Pushed { room, .. }) = inner.machine.waiter_mut(place.ticket) else {
        // It was granted meanwhile: its loop will start it.
        return Ok(None);
    };
    *room = Some(future.clone().unbind());
    drop(inner);
    Ok(Some(Joined { ticket: Some(place.ticket), deadline: None, future }))
}

/// A caller waits until nothing runs and nobody waits.
fn wait_for_end<'py>(limiter: &Bound<'py, RateLimiter>) -> PyResult<Joined<'py>> {
    let py = limiter.py();
    let state = limiter.get().state();
    if state.would_deadlock(py, None)? {
        return Err(errors::would_deadlock());
    }
    let (id, runs) = scheduler::running_loop(limiter)?;
    let future = event_loop::create_future(py)?;
    let mut inner = state.lock();
    let unused = inner.keep_loop(id, runs);
    inner.drained.push((id, future.clone().unbind()));
    drop(inner);
    drop(unused);
    if let Err(error) = scheduler::drive(limiter, None) {
        forget_drained(limiter, &future);
        return Err(error);
    }
    Ok(Joined { ticket: None, deadline: None, future })
}

fn forget_drained(limiter: &Bound<'_, RateLimiter>, future: &Bound<'_, Future>) {
    let mut inner = limiter.get().state().lock();
    let place = inner.drained.iter().position(|(_, known)| future.is(known));
    let forgotten = place.map(|index| inner.drained.swap_remove(index));
    drop(inner);
    drop(forgotten);
}

impl Waiting {
    /// The Python objects that it holds, for the collector.
    pub(super) fn held(&self) -> [Option<&Py<PyAny>>; 4] {
        let timer = self.deadline.as_ref().map(|deadline| &deadline.timer);
        let (limiter, future) = (Some(self.limiter.as_any()), Some(self.future.as_any()));
        [limiter, self.request.held(), future, timer]
    }

    pub(super) fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        match sent {
            Sent::Value(_) => self.look(py),
            Sent::Thrown(thrown) => fail(errors::with(raised(thrown), self.leave(py))),
        }
    }

    /// Whether the future is done.
    fn look(self, py: Python<'_>) -> Outcome {
        match self.future.get().look(py) {
            Ok(true) => self.woken(py),
            Ok(false) => {
                let future = self.future.clone_ref(py).into_any();
                (Call::Waiting(self), Ok(Step::Yield(future)))
            }
            Err(error) => fail(errors::with(error, self.leave(py))),
        }
    }

    fn woken(mut self, py: Python<'_>) -> Outcome {
        self.cancel_timer(py);
        let limiter = self.limiter.bind(py).clone();
        let Some(ticket) = self.ticket else {
            // By the timer, if it is still known.
            let is_known = self.is_drained_known(py);
            return if is_known { self.missed_drained(py) } else { answer(py.None()) };
        };
        match self.settle(&limiter, ticket) {
            Ok(Settled::Granted(hold)) => granted(&limiter, hold, self.request),
            // It waited for room, and the queue has its task now.
            Ok(Settled::Accepted) => answer(truth(py, false)),
            Ok(Settled::Waits) => self.look(py),
            Err(error) => fail(errors::with(error, self.leave(py))),
        }
    }

    /// What a waiter that was woken finds.
    fn settle(&mut self, limiter: &Bound<'_, RateLimiter>, ticket: Ticket) -> PyResult<Settled> {
        let py = limiter.py();
        let state = limiter.get().state();
        if let Request::Push(_) = self.request {
            let mut inner = state.lock();
            let waits = matches!(
                inner.machine.waiter_mut(ticket),
                Some(Waiter::Pushed { room: Some(_), .. })
            );
            let hold = if waits { None } else { inner.claim(ticket) };
            drop(inner);
            if let Some(hold) = hold {
                return Ok(Settled::Granted(hold));
            }
            if !waits {
                return Ok(Settled::Accepted);
            }
        } else if let Some(hold) = scheduler::claim(limiter, ticket)? {
            return Ok(Settled::Granted(hold));
        }
        // The timer has woken it.
        let Some(at) = self.deadline.as_ref().map(|deadline| deadline.at) else {
            return Err(PyRuntimeError::new_err("the future of a limiter was set from outside"));
        };
        let now = state.now(py)?;
        scheduler::drive(limiter, Some(now))?;
        if let Some(hold) = state.lock().claim(ticket) {
            return Ok(Settled::Granted(hold));
        }
        scheduler::check_deadline(limiter, now, ticket, at)?;
        // Too early, by the loop's own clock: once more, with another future.
        let future = event_loop::create_future(py)?;
        let again = future.clone().unbind();
        let replaced = match state.lock().machine.waiter_mut(ticket) {
            Some(Waiter::Coroutine { future, .. }) => Some(std::mem::replace(future, again)),
            Some(Waiter::Pushed { room: Some(room), .. }) => Some(std::mem::replace(room, again)),
            _ => None,
        };
        self.future = future.unbind();
        if replaced.is_none() {
            return Ok(Settled::Accepted);
        }
        self.set_timer(py, at)?;
        Ok(Settled::Waits)
    }

    fn begin_timeout(
        &mut self,
        py: Python<'_>,
        timeout_ns: u64,
        deadline: Option<u64>,
    ) -> PyResult<()> {
        let at = match deadline {
            Some(at) => at,
            None => self.limiter.get().state().now(py)?.saturating_add(timeout_ns),
        };
        self.set_timer(py, at)
    }

    fn set_timer(&mut self, py: Python<'_>, at: u64) -> PyResult<()> {
        let now = self.limiter.get().state().now(py)?;
        let timer = event_loop::wake_after(at.saturating_sub(now), self.future.bind(py))?;
        self.deadline = Some(Deadline { at, timer: timer.unbind() });
        Ok(())
    }

    fn cancel_timer(&self, py: Python<'_>) {
        if let Some(Deadline { timer, .. }) = &self.deadline
            && let Err(error) = timer.bind(py).call_method0(intern!(py, "cancel"))
        {
            error.write_unraisable(py, Some(timer.bind(py)));
        }
    }

    fn is_drained_known(&self, py: Python<'_>) -> bool {
        let inner = self.limiter.bind(py).get().state().lock();
        inner.drained.iter().any(|(_, future)| future.is(&self.future))
    }

    fn missed_drained(self, py: Python<'_>) -> Outcome {
        let left = self.leave(py);
        fail(left.err().unwrap_or_else(|| errors::deadline_exceeded(py, None)))
    }

    /// Leaves no trace.
    pub(super) fn leave(self, py: Python<'_>) -> PyResult<()> {
        self.cancel_timer(py);
        let limiter = self.limiter.bind(py);
        match self.ticket {
            Some(ticket) => scheduler::leave(limiter, ticket),
            None => {
                forget_drained(limiter, self.future.bind(py));
                Ok(())
            }
        }
    }
}

/// What a waiter that was woken finds.
enum Settled {
    Granted(Hold),
    /// A pushed task is in the queue.
    Accepted,
    /// It was woken too early.
    Waits,
}
