//! What is awaited, step by step: joining the queue, waiting, running a task, giving the answer.
//!
//! One enum for `push`, `run`, the acquiring calls and `drained`; what differs is its [`Request`]. `ffi/awaitable.rs`
//! makes it an object.

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use strict_rate_limiter_core::Ticket;

use crate::errors::{self, Errors};
use crate::event_loop::{self, EventLoop};
use crate::ffi::{self, AwaitableType, Operation, Sent, Step};
use crate::permit::Permit;
use crate::pushed::Pushed;
use crate::reentrancy::FrameKind;
use crate::scheduler;
use crate::state::{Ending, Hold, LoopId, RateLimiter, StartedId, StartedTask, Waiter};
use crate::task::{self, Purpose, Ran, Task, raised, truth};

/// A call to a limiter, from before it is awaited until it has its answer.
pub(crate) enum Call {
    New {
        limiter: Py<RateLimiter>,
        weight: u64,
        timeout_ns: Option<u64>,
        request: Request,
    },
    /// A queued task has its permit and has returned this to be awaited; its loop will run it.
    Queued {
        limiter: Py<RateLimiter>,
        id: StartedId,
        returned: Py<PyAny>,
    },
    Waiting(Waiting),
    Running(Task),
    /// A step of it is on the stack.
    Executing,
    Done,
}

/// What the caller wants.
pub(crate) enum Request {
    /// To leave a task to the limiter, and to run it now if it may run at once.
    Push(Py<PyAny>),
    /// A task's answer.
    Run(Py<PyAny>),
    /// The right to run something, kept by the limiter: `async with limiter`.
    Enter,
    /// The right to run something, kept by this permit.
    Acquire(Py<Permit>),
    /// To know when nothing runs and nobody waits.
    Drained,
}

/// Waits for a future that the limiter will wake.
pub(crate) struct Waiting {
    limiter: Py<RateLimiter>,
    /// `None` for a caller that waits outside of the queue.
    ticket: Option<Ticket>,
    request: Request,
    deadline: Option<Deadline>,
    future: Py<PyAny>,
    awaited: Py<PyIterator>,
}

/// Until when it waits, and the loop's timer for that.
struct Deadline {
    at: u64,
    timer: Py<PyAny>,
}

static AWAITABLE: AwaitableType = AwaitableType::new();

type Outcome = (Call, PyResult<Step>);

fn fail(error: PyErr) -> Outcome {
    (Call::Done, Err(error))
}

fn answer(answer: Py<PyAny>) -> Outcome {
    (Call::Done, Ok(Step::Return(answer)))
}

fn ran(ran: Ran) -> Outcome {
    match ran {
        Ran::Waits(task, yielded) => (Call::Running(task), Ok(Step::Yield(yielded))),
        Ran::Ended(ended) => (Call::Done, ended.map(Step::Return)),
    }
}

impl Operation for Call {
    const TYPE_NAME: &'static CStr = c"async_rate_limiter._native.Awaitable";

    fn executing() -> Self {
        Self::Executing
    }

    fn done() -> Self {
        Self::Done
    }

    fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }

    fn is_executing(&self) -> bool {
        matches!(self, Self::Executing)
    }

    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    #[inline]
    fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        match (self, sent) {
            (Self::New { limiter, weight, timeout_ns, request }, Sent::Value(value))
                if value.is_none() =>
            {
                begin(limiter.into_bound(py), weight, timeout_ns, request)
            }
            (Self::Queued { limiter, id, returned }, Sent::Value(value)) if value.is_none() => {
                ran(task::run_queued(limiter.bind(py), id, returned.into_bound(py)))
            }
            (Self::Waiting(waiting), sent) => waiting.resume(py, sent),
            (Self::Running(task), sent) => ran(task.resume(py, sent)),
            (call, sent) => call.refuse(sent),
        }
    }

    /// Ends it before it has its answer: out of the queue, or its task closed where it stands.
    fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Waiting(waiting) => waiting.leave(py),
            Self::Running(task) => task.close(py),
            Self::Queued { limiter, id, returned } => {
                let limiter = limiter.bind(py);
                let close = returned.bind(py).getattr_opt(intern!(py, "close"));
                let closed = close.and_then(|close| close.map(|close| close.call0()).transpose());
                let started = limiter.get().state().lock().started.remove(&id);
                let hold = started.map(|started| started.hold);
                let ended = hold.map(|hold| scheduler::end(limiter, hold, Ending::Cancelled));
                let mut errors = Errors::default();
                errors.note(closed);
                errors.note(ended.transpose());
                errors.into_result()
            }
            Self::New { .. } | Self::Executing | Self::Done => Ok(()),
        }
    }

    fn finalize(self, py: Python<'_>) {
        let name = self.name();
        let ended = match self {
            Self::New { .. } => {
                let warning = format!("coroutine '{name}' was never awaited");
                let kind = py.get_type::<pyo3::exceptions::PyRuntimeWarning>();
                std::ffi::CString::new(warning)
                    .map_err(PyErr::from)
                    .and_then(|warning| PyErr::warn(py, &kind, &warning, 1))
            }
            call => call.close(py),
        };
        if let Err(error) = ended {
            error.write_unraisable(py, None);
        }
    }

    fn let_go(self) {
        Python::attach(|py| match self {
            Self::Waiting(waiting) => {
                let Some(ticket) = waiting.ticket else { return };
                let state = waiting.limiter.bind(py).get().state();
                let waiter = state.lock().machine.cancel(ticket);
                drop(waiter);
            }
            Self::Running(task) => task.let_go(py),
            Self::Queued { limiter, id, .. } => {
                let mut inner = limiter.bind(py).get().state().lock();
                let started = inner.started.remove(&id);
                if let Some(StartedTask { task, hold, .. }) = started {
                    inner.record_unstamped(hold, Ending::Cancelled);
                    drop(inner);
                    drop(task);
                }
            }
            Self::New { .. } | Self::Executing | Self::Done => {}
        });
    }

    fn name(&self) -> &'static str {
        let request = match self {
            Self::New { request, .. } | Self::Waiting(Waiting { request, .. }) => request,
            Self::Running(task) => return task.name(),
            Self::Queued { .. } => return "RateLimiter.push",
            Self::Executing | Self::Done => return "RateLimiter",
        };
        match request {
            Request::Push(_) => "RateLimiter.push",
            Request::Run(_) => "RateLimiter.run",
            Request::Enter => "RateLimiter.__aenter__",
            Request::Acquire(_) => "RateLimiter.acquire",
            Request::Drained => "RateLimiter.drained",
        }
    }

    fn awaited(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Waiting(waiting) => Some(&waiting.future),
            Self::Running(task) => Some(task.awaited()),
            Self::Queued { returned, .. } => Some(returned),
            Self::New { .. } | Self::Executing | Self::Done => None,
        }
    }

    fn held(&self) -> [Option<&Py<PyAny>>; 5] {
        match self {
            Self::New { limiter, request, .. } => {
                [Some(limiter.as_any()), request.held(), None, None, None]
            }
            Self::Queued { limiter, returned, .. } => {
                [Some(limiter.as_any()), Some(returned), None, None, None]
            }
            Self::Waiting(Waiting { limiter, request, future, awaited, deadline, .. }) => {
                let timer = deadline.as_ref().map(|deadline| &deadline.timer);
                [
                    Some(limiter.as_any()),
                    request.held(),
                    Some(future),
                    Some(awaited.as_any()),
                    timer,
                ]
            }
            Self::Running(task) => {
                let [limiter, driver, awaited] = task.held();
                [limiter, driver, awaited, None, None]
            }
            Self::Executing | Self::Done => [None; 5],
        }
    }

    fn awaitable_type() -> &'static AwaitableType {
        &AWAITABLE
    }
}

impl Call {
    #[cold]
    fn refuse(self, sent: &Sent<'_, '_>) -> Outcome {
        match (self, sent) {
            (Self::New { .. }, Sent::Thrown(thrown)) => fail(raised(thrown)),
            (queued @ Self::Queued { .. }, Sent::Thrown(thrown)) => {
                // Cancelled before it has begun.
                fail(errors::with(raised(thrown), Python::attach(|py| queued.close(py))))
            }
            (Self::Executing, _) => {
                (Self::Executing, Err(PyValueError::new_err("coroutine already executing")))
            }
            (call @ (Self::New { .. } | Self::Queued { .. }), Sent::Value(_)) => {
                let error = "can't send non-None value to a just-started coroutine";
                (call, Err(PyTypeError::new_err(error)))
            }
            _ => fail(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }
}

impl Request {
    fn held(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Push(task) | Self::Run(task) => Some(task),
            Self::Acquire(permit) => Some(permit.as_any()),
            Self::Enter | Self::Drained => None,
        }
    }
}

/// Has a loop run what a pushed task returned to be awaited: by an awaitable of the limiter's, so that it knows when a
/// task of its own is on the stack.
pub(crate) fn spawn(
    limiter: &Bound<'_, RateLimiter>,
    (loop_id, event_loop): (LoopId, &EventLoop),
    pushed: &Pushed,
    returned: Bound<'_, PyAny>,
    hold: Hold,
) -> PyResult<()> {
    let state = limiter.get().state();
    let id = state.lock().add_started(loop_id, hold);
    let (handle, returned) = (limiter.clone().unbind(), returned.unbind());
    let awaitable = ffi::new(limiter.py(), Call::Queued { limiter: handle, id, returned })?;
    // If that raises, the awaitable ends, and with it the task.
    let task = pushed.spawn(event_loop, awaitable)?;
    if let Some(started) = state.lock().started.get_mut(&id) {
        started.task = Some(task.unbind());
    }
    Ok(())
}

/// The first step. Whatever goes further than to call a function attaches: until then PyO3 has not been told that this
/// thread is attached, and nothing here ends by [`Py`]'s drop.
#[inline]
fn begin(
    limiter: Bound<'_, RateLimiter>,
    weight: u64,
    timeout_ns: Option<u64>,
    request: Request,
) -> Outcome {
    let granted = match request {
        Request::Push(_) => scheduler::grant_push_at_once(limiter.get(), weight),
        Request::Run(_) => scheduler::grant_at_once(limiter.get(), weight, true),
        Request::Enter | Request::Acquire(_) => {
            scheduler::grant_at_once(limiter.get(), weight, false)
        }
        Request::Drained => None,
    };
    match granted {
        Some(hold) => carry_out(&limiter, hold, request),
        None => Python::attach(|_| wait(limiter, weight, timeout_ns, request).unwrap_or_else(fail)),
    }
}

/// Not at once, as it seems: joins the queue.
#[cold]
fn wait(
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
    let Joined { ticket, deadline, future, awaited } = joined?;
    let (limiter, future) = (limiter.unbind(), future.unbind());
    let mut waiting = Waiting { limiter, ticket, request, deadline: None, future, awaited };
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
    future: Bound<'py, PyAny>,
    awaited: Py<PyIterator>,
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
    let awaited = await_future(&future)?;
    let waiter = Waiter::Coroutine { event_loop: id, future: future.clone().unbind() };
    let ticket = Some(scheduler::join(limiter, weight, waiter, Some(runs))?.ticket);
    Ok(Joined { ticket, deadline, future, awaited })
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
    let awaited = await_future(&future)?;
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
    Ok(Some(Joined { ticket: Some(place.ticket), deadline: None, future, awaited }))
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
    let awaited = await_future(&future)?;
    let mut inner = state.lock();
    let unused = inner.keep_loop(id, runs);
    inner.drained.push((id, future.clone().unbind()));
    drop(inner);
    drop(unused);
    if let Err(error) = scheduler::drive(limiter, None) {
        forget_drained(limiter, &future);
        return Err(error);
    }
    Ok(Joined { ticket: None, deadline: None, future, awaited })
}

fn await_future(future: &Bound<'_, PyAny>) -> PyResult<Py<PyIterator>> {
    let awaited = future.call_method0(intern!(future.py(), "__await__"))?;
    Ok(awaited.cast_into::<PyIterator>()?.unbind())
}

fn forget_drained(limiter: &Bound<'_, RateLimiter>, future: &Bound<'_, PyAny>) {
    let mut inner = limiter.get().state().lock();
    let place = inner.drained.iter().position(|(_, known)| future.is(known));
    let forgotten = place.map(|index| inner.drained.swap_remove(index));
    drop(inner);
    drop(forgotten);
}

impl Waiting {
    fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        match sent {
            Sent::Value(_) => self.look(py),
            Sent::Thrown(thrown) => fail(errors::with(raised(thrown), self.leave(py))),
        }
    }

    /// Whether the future is done.
    fn look(self, py: Python<'_>) -> Outcome {
        match self.awaited.bind(py).clone().next() {
            Some(Ok(future)) => (Call::Waiting(self), Ok(Step::Yield(future.unbind()))),
            Some(Err(error)) => fail(errors::with(error, self.leave(py))),
            None => self.woken(py),
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
        self.awaited = await_future(&future)?;
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
    fn leave(self, py: Python<'_>) -> PyResult<()> {
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

/// Has its permit after a wait.
fn granted(limiter: &Bound<'_, RateLimiter>, hold: Hold, request: Request) -> Outcome {
    if matches!(request, Request::Push(_) | Request::Run(_)) {
        limiter.get().state().lock().frames.go_in(hold.weight(), FrameKind::Called);
    }
    carry_out(limiter, hold, request)
}

/// Does what the permit is for. A task counts as on the stack already.
#[inline]
fn carry_out(limiter: &Bound<'_, RateLimiter>, hold: Hold, request: Request) -> Outcome {
    let py = limiter.py();
    match request {
        Request::Push(task) => ran(task::run(limiter, Purpose::Push(hold), task.into_bound(py))),
        Request::Run(task) => ran(task::run(limiter, Purpose::Run(hold), task.into_bound(py))),
        Request::Enter => {
            // Every permit of weight 1 is like any other; the limiter counts them.
            limiter.get().state().lock().enter(hold);
            answer(py.None())
        }
        Request::Acquire(permit) => {
            permit.get().hold(hold);
            answer(permit.into_any())
        }
        Request::Drained => unreachable!("a caller that waits for the end asks for no permit"),
    }
}
