//! What is awaited, step by step: joining the queue, waiting (`waiting.rs`), running a task, giving the answer.
//!
//! One enum for `push`, `run`, the acquiring calls and `drained`; what differs is its [`Request`]. `ffi/awaitable.rs`
//! makes it an object.

mod waiting;

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::{self, Errors};
use crate::event_loop::EventLoop;
use crate::ffi::{self, AwaitableType, Operation, Sent, Step};
use crate::permit::Permit;
use crate::pushed::Pushed;
use crate::reentrancy::FrameKind;
use crate::scheduler;
use crate::state::{Ending, Hold, LoopId, RateLimiter, StartedId, StartedTask};
use crate::task::{self, Purpose, Ran, Task, raised};

use waiting::{Waiting, wait};

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
                let waiter = state.lock().cancel(ticket);
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
            Self::Waiting(waiting) => Some(waiting.future.as_any()),
            Self::Running(task) => Some(task.awaited()),
            Self::Queued { returned, .. } => Some(returned),
            Self::New { .. } | Self::Executing | Self::Done => None,
        }
    }

    fn held(&self) -> [Option<&Py<PyAny>>; 4] {
        match self {
            Self::New { limiter, request, .. } => {
                [Some(limiter.as_any()), request.held(), None, None]
            }
            Self::Queued { limiter, returned, .. } => {
                [Some(limiter.as_any()), Some(returned), None, None]
            }
            Self::Waiting(waiting) => waiting.held(),
            Self::Running(task) => {
                let [limiter, driver, awaited] = task.held();
                [limiter, driver, awaited, None]
            }
            Self::Executing | Self::Done => [None; 4],
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
            let caller = limiter.get().state().caller(py);
            limiter.get().state().lock().enter(hold, caller);
            answer(py.None())
        }
        Request::Acquire(permit) => {
            permit.get().hold(hold);
            answer(permit.into_any())
        }
        Request::Drained => unreachable!("a caller that waits for the end asks for no permit"),
    }
}
