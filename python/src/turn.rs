//! What is awaited, step by step: joining, waiting, running a task, giving the answer.
//!
//! One enum for `push`, `run`, the acquiring calls and `drained`; what differs is its [`Wish`]. Each
//! step takes the turn as it stands and gives the turn as it will stand, so nobody can see it half
//! way. `awaitable.rs` makes it an object.

use pyo3::exceptions::{
    PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyIterator, PyTuple, PyType};
use strict_rate_limiter_core::{Permit, Ticket, TryGrantError};

use crate::awaitable;
use crate::error;
use crate::limiter::RateLimiter;
use crate::line::{self, Ending, Frame, FrameKind, Waiter};
use crate::names::names;
use crate::permit;
use crate::queued::Queued;

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

/// Runs a task that is awaited.
pub(crate) struct Running {
    limiter: Py<RateLimiter>,
    permit: Permit,
    wants_answer: bool,
    /// See [`FrameKind::Awaited`].
    driver: Option<Py<PyAny>>,
    awaited: Awaited,
}

/// What a task returned to be awaited.
enum Awaited {
    Coroutine(Py<PyAny>),
    /// What any other object's `__await__` gave.
    Iterator(Py<PyIterator>),
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

type Outcome = (Turn, PyResult<Step>);

fn fail(error: PyErr) -> Outcome {
    (Turn::Done, Err(error))
}

fn answer(answer: Py<PyAny>) -> Outcome {
    (Turn::Done, Ok(Step::Return(answer)))
}

fn truth(py: Python<'_>, value: bool) -> Py<PyAny> {
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
            Self::Running(Running { wants_answer: false, .. }) => return "RateLimiter.push",
            Self::Running(_) => return "RateLimiter.run",
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
            Self::Running(Running { limiter, driver, awaited, .. }) => {
                [Some(limiter.as_any()), driver.as_ref(), Some(awaited.as_any()), None]
            }
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

fn try_grant(limiter: &Bound<'_, RateLimiter>, weight: u64) -> PyResult<Option<Permit>> {
    match limiter.get().line.try_grant(limiter.py(), weight)? {
        Ok(permit) => Ok(Some(permit)),
        Err(TryGrantError::Busy { .. }) => Ok(None),
        Err(TryGrantError::Request(error)) => Err(error::weight(error)),
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
fn granted(limiter: &Bound<'_, RateLimiter>, permit: Permit, wish: Wish) -> Outcome {
    if matches!(wish, Wish::Push(_) | Wish::Run(_)) {
        limiter.get().line.go_in(Frame { weight: permit.weight(), kind: FrameKind::Called });
    }
    carry_out(limiter, permit, wish)
}

/// Does what the permit is for. Where that is a task, it counts as on the stack already.
#[inline]
fn carry_out(limiter: &Bound<'_, RateLimiter>, permit: Permit, wish: Wish) -> Outcome {
    let py = limiter.py();
    match wish {
        Wish::Push(task) => run(limiter, permit, task.into_bound(py), false),
        Wish::Run(task) => run(limiter, permit, task.into_bound(py), true),
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

/// Runs a task that has its permit.
#[inline]
fn run(
    limiter: &Bound<'_, RateLimiter>,
    permit: Permit,
    task: Bound<'_, PyAny>,
    wants_answer: bool,
) -> Outcome {
    let called = task.call0();
    drop(task);
    match called {
        Ok(returned) if returned.is_none() => end(limiter, permit, wants_answer, Ok(returned)),
        Ok(returned) => Python::attach(|_| run_on(limiter, permit, returned, wants_answer)),
        Err(error) => Python::attach(|_| end(limiter, permit, wants_answer, Err(error))),
    }
}

/// The task has returned something, which may have to be awaited.
fn run_on(
    limiter: &Bound<'_, RateLimiter>,
    permit: Permit,
    returned: Bound<'_, PyAny>,
    wants_answer: bool,
) -> Outcome {
    let py = limiter.py();
    let awaited = match begin_await(returned) {
        Ok(Returned::Awaitable(awaited)) => awaited,
        Ok(Returned::Answer(answer)) => return end(limiter, permit, wants_answer, Ok(answer)),
        Err(error) => return end(limiter, permit, wants_answer, Err(error)),
    };
    let driver = if names(py).has_eager_tasks {
        match names(py).current_task.call0(py) {
            Ok(task) => Some(task),
            Err(error) => return end(limiter, permit, wants_answer, Err(error)),
        }
    } else {
        None
    };
    limiter.get().line.await_inside(driver.as_ref().map(|driver| driver.clone_ref(py)));
    let limiter = limiter.clone().unbind();
    let running = Running { limiter, permit, wants_answer, driver, awaited };
    running.step(py, &Sent::Value(py.None().bind(py)))
}

/// What a task returned.
enum Returned<'py> {
    Awaitable(Awaited),
    Answer(Bound<'py, PyAny>),
}

fn begin_await(returned: Bound<'_, PyAny>) -> PyResult<Returned<'_>> {
    let names = names(returned.py());
    let kind = returned.get_type();
    let awaited = if kind.is(&names.coroutine) {
        Awaited::Coroutine(returned.unbind())
    } else if !is_awaitable(&returned)? {
        return Ok(Returned::Answer(returned));
    } else if kind.is(&names.generator) {
        Awaited::Iterator(returned.cast_into()?.unbind())
    } else {
        let iterator = returned.call_method0(intern!(returned.py(), "__await__"))?;
        Awaited::Iterator(iterator.cast_into()?.unbind())
    };
    Ok(Returned::Awaitable(awaited))
}

/// Whether something is to be awaited: a coroutine, an object with `__await__`, or a generator that
/// `types.coroutine` made one.
pub(crate) fn is_awaitable(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    const ITERABLE_COROUTINE: u32 = 0x100;
    let py = value.py();
    let kind = value.get_type();
    if kind.is(&names(py).coroutine) {
        return Ok(true);
    }
    if kind.is(&names(py).generator) {
        let flags = value.getattr(intern!(py, "gi_code"))?.getattr(intern!(py, "co_flags"))?;
        return Ok(flags.extract::<u32>()? & ITERABLE_COROUTINE != 0);
    }
    kind.hasattr(intern!(py, "__await__"))
}

impl Running {
    fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        let driver = self.driver.as_ref().map(|driver| driver.clone_ref(py));
        let frame = Frame { weight: self.permit.weight(), kind: FrameKind::Awaited(driver) };
        self.limiter.get().line.go_in(frame);
        self.step(py, sent)
    }

    /// Goes on with the task, which is on the stack already.
    fn step(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
        let limiter = self.limiter.bind(py);
        match self.advance(py, sent) {
            Ok(Step::Yield(yielded)) => {
                limiter.get().line.come_out();
                (Turn::Running(self), Ok(Step::Yield(yielded)))
            }
            Ok(Step::Return(returned)) => {
                end(limiter, self.permit, self.wants_answer, Ok(returned.into_bound(py)))
            }
            Err(error) => end(limiter, self.permit, self.wants_answer, Err(error)),
        }
    }

    fn advance(&self, py: Python<'_>, sent: &Sent<'_, '_>) -> PyResult<Step> {
        let awaited = self.awaited.bind(py);
        let stepped = match (sent, &self.awaited) {
            (Sent::Value(value), Awaited::Coroutine(_)) if value.is_none() => {
                match awaitable::resume_coroutine(awaited) {
                    Some(step) => return step,
                    None => awaited.call_method1(intern!(py, "send"), (value,)),
                }
            }
            (Sent::Value(value), Awaited::Iterator(_)) if value.is_none() => {
                awaited.call_method0(intern!(py, "__next__"))
            }
            (Sent::Value(value), _) => awaited.call_method1(intern!(py, "send"), (value,)),
            (Sent::Thrown(thrown), _) => match awaited.getattr_opt(intern!(py, "throw"))? {
                Some(throw) => throw.call1(*thrown),
                None => Err(raised(thrown)),
            },
        };
        match stepped {
            Ok(yielded) => Ok(Step::Yield(yielded.unbind())),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => error
                .value(py)
                .getattr(intern!(py, "value"))
                .map(|value| Step::Return(value.unbind())),
            Err(error) => Err(error),
        }
    }

    /// Ends the task where it stands.
    fn close(self, py: Python<'_>) -> PyResult<()> {
        let limiter = self.limiter.bind(py);
        let close = self.awaited.bind(py).getattr_opt(intern!(py, "close"));
        let closed = close.and_then(|close| close.map(|close| close.call0()).transpose());
        drop(self.awaited);
        line::end(limiter, self.permit, Ending::Cancelled);
        closed.map(drop)
    }
}

impl Awaited {
    fn as_any(&self) -> &Py<PyAny> {
        match self {
            Self::Coroutine(coroutine) => coroutine,
            Self::Iterator(iterator) => iterator.as_any(),
        }
    }

    fn bind<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyAny> {
        self.as_any().bind(py)
    }
}

/// A task has ended that is on the stack.
#[inline]
fn end(
    limiter: &Bound<'_, RateLimiter>,
    permit: Permit,
    wants_answer: bool,
    ended: PyResult<Bound<'_, PyAny>>,
) -> Outcome {
    match ended {
        Ok(returned) => {
            line::end_inside(limiter, permit, Ending::COMPLETED);
            if wants_answer { answer(returned.unbind()) } else { answer(truth(limiter.py(), true)) }
        }
        Err(error) => {
            let py = limiter.py();
            line::end_inside(limiter, permit, ending_of(&error, py));
            if !error.is_instance_of::<PyStopIteration>(py) {
                return fail(error);
            }
            // To whoever awaits, a StopIteration would be an answer.
            let stopped = PyRuntimeError::new_err("the task raised StopIteration");
            stopped.set_cause(py, Some(error));
            fail(stopped)
        }
    }
}

/// What an exception says of how its task ended.
pub(crate) fn ending_of(error: &PyErr, py: Python<'_>) -> Ending {
    let cancelled = error.matches(py, &names(py).cancelled_error).unwrap_or(false)
        || error.is_instance_of::<PyGeneratorExit>(py);
    if cancelled { Ending::Cancelled } else { Ending::COMPLETED }
}

/// The exception that arguments of `throw` stand for: an instance, or a type with a value.
fn raised(thrown: &Bound<'_, PyTuple>) -> PyErr {
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
