//! What is awaited, step by step: joining, waiting, running a task, giving the answer.
//!
//! One enum for `push`, `run`, the acquiring calls and `drained`; what differs is its [`Wish`]. Each
//! step takes the turn as it stands and gives the turn as it will stand, so nobody can see it half
//! way. `raw/awaitable.rs` makes it an object.

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyIterator, PyTuple, PyType};
use strict_rate_limiter_core::{Grant, Ticket, TryGrantError};

use crate::error;
use crate::inside::{Frame, FrameKind};
use crate::limiter::RateLimiter;
use crate::line::{self, Waiter};
use crate::permit;
use crate::queued::Queued;
use crate::running::{self, Running};

/// A call to a limiter, from before it is awaited until it has its answer.
pub(crate) enum Turn {
    New {
        limiter: Py<RateLimiter>,
        weight: u64,
        wish: Wish,
    },
    Waiting(Waiting),
    Running(Running),
    /// A step of it is on the stack.
    Executing,
    Done,
}

/// What the caller wants.
pub(crate) enum Wish {
    /// To leave a task to the limiter, and to run it where it may run at once.
    Push(Py<PyAny>),
    /// A task's answer.
    Run(Py<PyAny>),
    /// The right to run something, kept by the limiter: `async with limiter`.
    Enter,
    /// The right to run something, kept by this permit.
    Acquire(Py<permit::Permit>),
    /// To know when nothing runs and nobody waits.
    Drained,
}

/// Waits for a future that the limiter will wake.
pub(crate) struct Waiting {
    limiter: Py<RateLimiter>,
    /// `None` for whoever waits outside the line.
    ticket: Option<Ticket>,
    wish: Wish,
    future: Py<PyAny>,
    awaited: Py<PyIterator>,
}

/// What comes in with a step.
pub(crate) enum Sent<'a, 'py> {
    Value(&'a Bound<'py, PyAny>),
    /// The arguments of `throw`.
    Thrown(&'a Bound<'py, PyTuple>),
}

/// What goes out.
pub(crate) enum Step {
    Yield(Py<PyAny>),
    Return(Py<PyAny>),
}

pub(crate) type Outcome = (Turn, PyResult<Step>);

pub(crate) fn fail(error: PyErr) -> Outcome {
    (Turn::Done, Err(error))
}

pub(crate) fn answer(answer: Py<PyAny>) -> Outcome {
    (Turn::Done, Ok(Step::Return(answer)))
}

pub(crate) fn truth(py: Python<'_>, value: bool) -> Py<PyAny> {
    PyBool::new(py, value).to_owned().into_any().unbind()
}

impl Turn {
    /// The next step.
    #[inline]
    pub(crate) fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        match (self, sent) {
            (Self::New { limiter, weight, wish }, Sent::Value(value)) if value.is_none() => {
                begin(limiter.into_bound(py), weight, wish)
            }
            (Self::Waiting(waiting), sent) => waiting.resume(py, sent),
            (Self::Running(running), sent) => running.resume(py, sent),
            (turn, sent) => turn.refuse(sent),
        }
    }

    #[cold]
    fn refuse(self, sent: &Sent<'_, '_>) -> Outcome {
        match (self, sent) {
            (Self::New { .. }, Sent::Thrown(thrown)) => fail(raised(thrown)),
            (Self::Executing, _) => {
                (Self::Executing, Err(PyValueError::new_err("coroutine already executing")))
            }
            (turn @ Self::New { .. }, Sent::Value(_)) => {
                let error = "can't send non-None value to a just-started coroutine";
                (turn, Err(PyTypeError::new_err(error)))
            }
            _ => fail(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }

    /// Ends it before it has its answer: out of the line, or its task closed where it stands.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Waiting(waiting) => waiting.leave(py),
            Self::Running(running) => return running.close(py),
            Self::New { .. } | Self::Executing | Self::Done => {}
        }
        Ok(())
    }

    /// Its object has come to its end.
    pub(crate) fn forsake(self, py: Python<'_>) {
        let name = self.name();
        let forsaken = match self {
            Self::New { .. } => {
                let warning = format!("coroutine '{name}' was never awaited");
                let kind = py.get_type::<pyo3::exceptions::PyRuntimeWarning>();
                std::ffi::CString::new(warning)
                    .map_err(PyErr::from)
                    .and_then(|warning| PyErr::warn(py, &kind, &warning, 1))
            }
            turn => turn.close(py),
        };
        if let Err(error) = forsaken {
            error.write_unraisable(py, None);
        }
    }

    /// The method that made it.
    pub(crate) fn name(&self) -> &'static str {
        let wish = match self {
            Self::New { wish, .. } | Self::Waiting(Waiting { wish, .. }) => wish,
            Self::Running(running) => return running.name(),
            Self::Executing | Self::Done => return "RateLimiter",
        };
        match wish {
            Wish::Push(_) => "RateLimiter.push",
            Wish::Run(_) => "RateLimiter.run",
            Wish::Enter => "RateLimiter.__aenter__",
            Wish::Acquire(_) => "RateLimiter.acquire",
            Wish::Drained => "RateLimiter.drained",
        }
    }

    /// The Python objects that it holds, for the collector.
    pub(crate) fn held<'a>(&'a self) -> [Option<&'a Py<PyAny>>; 4] {
        let of_wish = |wish: &'a Wish| match wish {
            Wish::Push(task) | Wish::Run(task) => Some(task),
            Wish::Acquire(permit) => Some(permit.as_any()),
            Wish::Enter | Wish::Drained => None,
        };
        match self {
            Self::New { limiter, wish, .. } => [Some(limiter.as_any()), of_wish(wish), None, None],
            Self::Waiting(Waiting { limiter, wish, future, awaited, .. }) => {
                [Some(limiter.as_any()), of_wish(wish), Some(future), Some(awaited.as_any())]
            }
            Self::Running(running) => running.held(),
            Self::Executing | Self::Done => [None; 4],
        }
    }
}

/// The first step. Whatever goes further than to call a function attaches: until then PyO3 has not
/// been told that this thread is attached, and nothing here ends by [`Py`]'s drop.
#[inline]
fn begin(limiter: Bound<'_, RateLimiter>, weight: u64, wish: Wish) -> Outcome {
    let entered = match wish {
        Wish::Push(_) | Wish::Run(_) => line::enter(&limiter, weight, true),
        Wish::Enter | Wish::Acquire(_) => line::enter(&limiter, weight, false),
        Wish::Drained => line::at_home(&limiter).map(|()| None),
    };
    match entered {
        Ok(Some(permit)) => carry_out(&limiter, permit, wish),
        Ok(None) => Python::attach(|_| wait(limiter, weight, wish).unwrap_or_else(fail)),
        Err(error) => fail(error),
    }
}

/// Not at once, as it seems: joins the line.
#[cold]
fn wait(limiter: Bound<'_, RateLimiter>, weight: u64, wish: Wish) -> PyResult<Outcome> {
    let py = limiter.py();
    let line = &limiter.get().line;
    let (ticket, future) = match &wish {
        Wish::Drained => {
            if line.would_deadlock(py, None)? {
                return Err(error::would_deadlock());
            }
            let future = create_future(&limiter)?;
            line.lock().drained.push(future.clone().unbind());
            crate::look::soon(&limiter);
            (None, future)
        }
        Wish::Push(task) => {
            let inside = line.is_inside(py)?;
            if !inside && let Some(permit) = try_grant(&limiter, weight)? {
                return Ok(granted(&limiter, permit, wish));
            }
            let queued = Queued::new(task.bind(py))?;
            let place = line::join(&limiter, weight, Waiter::Task(queued, None))?;
            if place.accepted {
                return Ok(answer(truth(py, false)));
            }
            if inside {
                line::leave(&limiter, place.ticket);
                return Err(error::queue_full());
            }
            let future = create_future(&limiter)?;
            match line.lock().machine.waiter_mut(place.ticket) {
                Some(Waiter::Task(_, room)) => *room = Some(future.clone().unbind()),
                _ => return Err(error::aborted()),
            }
            (Some(place.ticket), future)
        }
        Wish::Run(_) | Wish::Enter | Wish::Acquire(_) => {
            if let Some(permit) = try_grant(&limiter, weight)? {
                return Ok(granted(&limiter, permit, wish));
            }
            if line.would_deadlock(py, Some(weight))? {
                return Err(error::would_deadlock());
            }
            let future = create_future(&limiter)?;
            let waiter = Waiter::Caller(future.clone().unbind());
            (Some(line::join(&limiter, weight, waiter)?.ticket), future)
        }
    };
    let awaited = future.call_method0(intern!(py, "__await__"))?.cast_into::<PyIterator>()?;
    let (future, awaited) = (future.unbind(), awaited.unbind());
    let waiting = Waiting { limiter: limiter.unbind(), ticket, wish, future, awaited };
    Ok(waiting.look(py))
}

fn create_future<'py>(limiter: &Bound<'py, RateLimiter>) -> PyResult<Bound<'py, PyAny>> {
    let py = limiter.py();
    let home = limiter.get().line.home(py);
    home.ok_or_else(|| PyRuntimeError::new_err("no running event loop"))?.create_future(py)
}

fn try_grant(limiter: &Bound<'_, RateLimiter>, weight: u64) -> PyResult<Option<Grant>> {
    match limiter.get().line.try_grant(limiter.py(), weight)? {
        Ok(permit) => Ok(Some(permit)),
        Err(TryGrantError::Busy { .. }) => Ok(None),
        Err(TryGrantError::Request(error)) => Err(error::weight(&error)),
        Err(_) => Err(error::closed()),
    }
}

impl Waiting {
    fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        match sent {
            Sent::Value(_) => self.look(py),
            Sent::Thrown(thrown) => {
                self.leave(py);
                fail(raised(thrown))
            }
        }
    }

    /// Whether the future is done.
    fn look(self, py: Python<'_>) -> Outcome {
        match self.awaited.bind(py).clone().next() {
            Some(Ok(future)) => (Turn::Waiting(self), Ok(Step::Yield(future.unbind()))),
            Some(Err(error)) => {
                self.leave(py);
                fail(error)
            }
            None => self.woken(py),
        }
    }

    fn woken(self, py: Python<'_>) -> Outcome {
        let limiter = self.limiter.bind(py);
        let Some(ticket) = self.ticket else { return answer(py.None()) };
        match limiter.get().line.claim(ticket) {
            Some(permit) => granted(limiter, permit, self.wish),
            // It waited for room, and the queue has its task now.
            None => answer(truth(py, false)),
        }
    }

    /// Leaves no trace.
    fn leave(self, py: Python<'_>) {
        let limiter = self.limiter.bind(py);
        if let Some(ticket) = self.ticket {
            line::leave(limiter, ticket);
            return;
        }
        let mut inner = limiter.get().line.lock();
        let place = inner.drained.iter().position(|future| future.is(&self.future));
        let future = place.map(|index| inner.drained.swap_remove(index));
        drop(inner);
        drop(future);
    }
}

/// Has its permit after a wait.
fn granted(limiter: &Bound<'_, RateLimiter>, permit: Grant, wish: Wish) -> Outcome {
    if matches!(wish, Wish::Push(_) | Wish::Run(_)) {
        limiter.get().line.go_in(Frame { weight: permit.weight(), kind: FrameKind::Called });
    }
    carry_out(limiter, permit, wish)
}

/// Does what the permit is for. Where that is a task, it counts as on the stack already.
#[inline]
fn carry_out(limiter: &Bound<'_, RateLimiter>, permit: Grant, wish: Wish) -> Outcome {
    let py = limiter.py();
    match wish {
        Wish::Push(task) => running::run(limiter, permit, task.into_bound(py), false),
        Wish::Run(task) => running::run(limiter, permit, task.into_bound(py), true),
        Wish::Enter => {
            // Every permit of weight 1 is like any other; the limiter counts them.
            limiter.get().line.lock().enter(&permit);
            answer(py.None())
        }
        Wish::Acquire(held) => {
            held.get().hold(permit);
            answer(held.into_any())
        }
        Wish::Drained => unreachable!("whoever waits for the end asks for no permit"),
    }
}

/// The exception that arguments of `throw` stand for: an instance, or a type with a value.
pub(crate) fn raised(thrown: &Bound<'_, PyTuple>) -> PyErr {
    let made = || {
        let kind = thrown.get_item(0)?;
        let value = thrown.get_item(1).ok().filter(|value| !value.is_none());
        match value {
            Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => Ok(value),
            Some(value) if kind.is_instance_of::<PyType>() => kind.call1((value,)),
            _ if kind.is_instance_of::<PyType>() => kind.call0(),
            _ => Ok(kind),
        }
    };
    made().map_or_else(|error| error, PyErr::from_value)
}
