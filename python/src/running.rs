//! Running a task that has its permit: calling it, and awaiting what it returns step by step.

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use strict_rate_limiter_core::Grant;

use crate::inside::{Frame, FrameKind};
use crate::limiter::RateLimiter;
use crate::line::{self, Ending};
use crate::names::names;
use crate::raw;
use crate::turn::{Outcome, Sent, Step, Turn, answer, fail, raised, truth};

/// Runs a task that is awaited.
pub(crate) struct Running {
    limiter: Py<RateLimiter>,
    permit: Grant,
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

/// Runs a task that has its permit.
#[inline]
pub(crate) fn run(
    limiter: &Bound<'_, RateLimiter>,
    permit: Grant,
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
    permit: Grant,
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
    pub(crate) fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> Outcome {
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
                match raw::resume(awaited) {
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
        if self.wants_answer { "RateLimiter.run" } else { "RateLimiter.push" }
    }

    /// The Python objects that it holds, for the collector.
    pub(crate) fn held(&self) -> [Option<&Py<PyAny>>; 4] {
        let (limiter, awaited) = (self.limiter.as_any(), self.awaited.as_any());
        [Some(limiter), self.driver.as_ref(), Some(awaited), None]
    }

    /// Ends the task where it stands.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
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
    permit: Grant,
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
