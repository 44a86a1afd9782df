//! Running a task that has its permit: calling it, and awaiting what it returned step by step.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyIterator, PyTuple, PyType};

use crate::errors::{self, Errors};
use crate::ffi::{self, Sent, Step};
use crate::imports::imports;
use crate::pushed::is_awaitable;
use crate::reentrancy::FrameKind;
use crate::scheduler::{self, ending_of};
use crate::state::{Ending, Hold, RateLimiter, StartedId};

/// A task that is awaited.
pub(crate) struct Task {
    limiter: Py<RateLimiter>,
    weight: u64,
    purpose: Purpose,
    /// See [`FrameKind::Awaited`].
    driver: Option<Py<PyAny>>,
    awaited: Awaited,
}

/// What a task is run for.
pub(crate) enum Purpose {
    /// For a caller that wants to know that it ran.
    Push(Hold),
    /// For a caller that wants its answer.
    Run(Hold),
    /// For the limiter: it waited in the queue, and the limiter keeps its permit.
    Queued(StartedId),
}

/// What a task returned to be awaited.
enum Awaited {
    Coroutine(Py<PyAny>),
    /// What any other object's `__await__` gave.
    Iterator(Py<PyIterator>),
}

/// What became of a task in a step.
pub(crate) enum Ran {
    /// It waits for something.
    Waits(Task, Py<PyAny>),
    /// It has ended, with an answer for the caller or an error.
    Ended(PyResult<Py<PyAny>>),
}

/// Runs a task that has its permit. It counts as on the stack already.
#[inline]
pub(crate) fn run(
    limiter: &Bound<'_, RateLimiter>,
    purpose: Purpose,
    task: Bound<'_, PyAny>,
) -> Ran {
    let called = task.call0();
    drop(task);
    match called {
        Ok(returned) if returned.is_none() => end(limiter, purpose, Ok(returned)),
        Ok(returned) => Python::attach(|_| run_on(limiter, purpose, returned)),
        Err(error) => Python::attach(|_| end(limiter, purpose, Err(error))),
    }
}

/// Goes on with a queued task that has returned something to be awaited.
pub(crate) fn run_queued(
    limiter: &Bound<'_, RateLimiter>,
    id: StartedId,
    returned: Bound<'_, PyAny>,
) -> Ran {
    let mut inner = limiter.get().state().lock();
    let weight = inner.started.get(&id).map_or(1, |started| started.hold.weight());
    inner.frames.go_in(weight, FrameKind::Called);
    drop(inner);
    run_on(limiter, Purpose::Queued(id), returned)
}

/// The task has returned something, which may have to be awaited.
fn run_on(limiter: &Bound<'_, RateLimiter>, purpose: Purpose, returned: Bound<'_, PyAny>) -> Ran {
    let py = limiter.py();
    let awaited = match begin_await(returned) {
        Ok(Returned::Awaitable(awaited)) => awaited,
        Ok(Returned::Answer(answer)) => return end(limiter, purpose, Ok(answer)),
        Err(error) => return end(limiter, purpose, Err(error)),
    };
    let driver = if imports(py).has_eager_tasks {
        match imports(py).current_task.call0(py) {
            Ok(task) => Some(task),
            // Driven by hand, outside of any loop.
            Err(error) if error.is_instance_of::<PyRuntimeError>(py) => None,
            Err(error) => return end(limiter, purpose, Err(error)),
        }
    } else {
        None
    };
    let same = driver.as_ref().map(|driver| driver.clone_ref(py));
    let weight = limiter.get().state().lock().frames.await_inside(same);
    let task = Task { limiter: limiter.clone().unbind(), weight, purpose, driver, awaited };
    task.step(py, &Sent::Value(py.None().bind(py)))
}

/// What a task returned.
enum Returned<'py> {
    Awaitable(Awaited),
    Answer(Bound<'py, PyAny>),
}

fn begin_await(returned: Bound<'_, PyAny>) -> PyResult<Returned<'_>> {
    let imports = imports(returned.py());
    let kind = returned.get_type();
    let awaited = if kind.is(&imports.coroutine) {
        Awaited::Coroutine(returned.unbind())
    } else if !is_awaitable(&returned)? {
        if kind.is(&imports.generator) || kind.is(&imports.async_generator) {
            return Err(errors::generator());
        }
        return Ok(Returned::Answer(returned));
    } else if kind.is(&imports.generator) {
        Awaited::Iterator(returned.cast_into()?.unbind())
    } else {
        let iterator = returned.call_method0(intern!(returned.py(), "__await__"))?;
        Awaited::Iterator(iterator.cast_into()?.unbind())
    };
    Ok(Returned::Awaitable(awaited))
}

impl Task {
    /// Its next step.
    pub(crate) fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Ran {
        let driver = self.driver.as_ref().map(|driver| driver.clone_ref(py));
        let mut inner = self.limiter.bind(py).get().state().lock();
        inner.frames.go_in(self.weight, FrameKind::Awaited(driver));
        drop(inner);
        self.step(py, sent)
    }

    /// Goes on with the task, which is on the stack already.
    fn step(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Ran {
        let limiter = self.limiter.bind(py);
        match self.advance(py, sent) {
            Ok(Step::Yield(yielded)) => {
                let _frame = limiter.get().state().lock().frames.come_out();
                Ran::Waits(self, yielded)
            }
            Ok(Step::Return(returned)) => end(limiter, self.purpose, Ok(returned.into_bound(py))),
            Err(error) => end(limiter, self.purpose, Err(error)),
        }
    }

    fn advance(&self, py: Python<'_>, sent: &Sent<'_, '_>) -> PyResult<Step> {
        let awaited = self.awaited.bind(py);
        let stepped = match (sent, &self.awaited) {
            (Sent::Value(value), Awaited::Coroutine(_)) if value.is_none() => {
                match ffi::resume(awaited) {
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

    /// The method that made it.
    pub(crate) fn name(&self) -> &'static str {
        match self.purpose {
            Purpose::Run(_) => "RateLimiter.run",
            Purpose::Push(_) | Purpose::Queued(_) => "RateLimiter.push",
        }
    }

    pub(crate) fn awaited(&self) -> &Py<PyAny> {
        self.awaited.as_any()
    }

    /// The Python objects that it holds, for the collector.
    pub(crate) fn held(&self) -> [Option<&Py<PyAny>>; 3] {
        [Some(self.limiter.as_any()), self.driver.as_ref(), Some(self.awaited.as_any())]
    }

    /// Ends the task where it stands.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
        let limiter = self.limiter.bind(py);
        let close = self.awaited.bind(py).getattr_opt(intern!(py, "close"));
        let closed = close.and_then(|close| close.map(|close| close.call0()).transpose());
        drop(self.awaited);
        let hold = self.purpose.into_hold(limiter);
        let ended = hold.map(|hold| scheduler::end(limiter, hold, Ending::Cancelled)).transpose();
        let mut errors = Errors::default();
        errors.note(closed);
        errors.note(ended);
        errors.into_result()
    }

    /// The same without calling Python code: the permit ends at the next reading of the clock.
    pub(crate) fn let_go(self, py: Python<'_>) {
        let limiter = self.limiter.bind(py);
        if let Some(hold) = self.purpose.into_hold(limiter) {
            limiter.get().state().lock().record_unstamped(hold, Ending::Cancelled);
        }
    }
}

impl Purpose {
    /// Its permit, unless it has ended already.
    fn into_hold(self, limiter: &Bound<'_, RateLimiter>) -> Option<Hold> {
        match self {
            Self::Push(hold) | Self::Run(hold) => Some(hold),
            Self::Queued(id) => {
                let started = limiter.get().state().lock().started.remove(&id);
                started.map(|started| started.hold)
            }
        }
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
    purpose: Purpose,
    ended: PyResult<Bound<'_, PyAny>>,
) -> Ran {
    let py = limiter.py();
    let (hold, wants_answer) = match purpose {
        Purpose::Push(hold) => (hold, false),
        Purpose::Run(hold) => (hold, true),
        Purpose::Queued(id) => {
            let ended = scheduler::end_started(limiter, id, ended.map(drop));
            return Ran::Ended(ended.map(|()| py.None()).map_err(|error| not_an_answer(py, error)));
        }
    };
    let answer = match ended {
        Ok(returned) => {
            let ended = scheduler::end_inside(limiter, hold, Ending::COMPLETED);
            ended.map(|()| if wants_answer { returned.unbind() } else { truth(py, true) })
        }
        Err(error) => {
            let ended = scheduler::end_inside(limiter, hold, ending_of(&error, py));
            Err(errors::with(not_an_answer(py, error), ended))
        }
    };
    Ran::Ended(answer)
}

/// To a caller that awaits, a StopIteration would be an answer.
fn not_an_answer(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    let stopped = PyRuntimeError::new_err("the task raised StopIteration");
    stopped.set_cause(py, Some(error));
    stopped
}

pub(crate) fn truth(py: Python<'_>, value: bool) -> Py<PyAny> {
    PyBool::new(py, value).to_owned().into_any().unbind()
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
