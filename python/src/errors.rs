//! Everything that can go wrong, in words that name the value.

use std::cell::Cell;

use pyo3::create_exception;
use pyo3::exceptions::{
    PyKeyboardInterrupt, PyRuntimeError, PySystemExit, PyTimeoutError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};
use strict_rate_limiter_core::{EnqueueError, RequestError};

create_exception!(
    async_rate_limiter,
    RateLimiterError,
    PyRuntimeError,
    "What a limiter refuses; the more exact exceptions derive from it."
);
create_exception!(
    async_rate_limiter,
    Closed,
    RateLimiterError,
    "The limiter is closed: it takes no new work."
);
create_exception!(
    async_rate_limiter,
    Aborted,
    Closed,
    "The limiter was aborted while this waited in its queue."
);
create_exception!(
    async_rate_limiter,
    QueueFull,
    RateLimiterError,
    "The queue is full, and this may not wait for room in it."
);
create_exception!(
    async_rate_limiter,
    WouldDeadlock,
    RateLimiterError,
    "A task of this limiter would wait for itself: it holds what it is asking for."
);

/// Derives from `TimeoutError` as well, which `create_exception` cannot say.
const DEADLINE_EXCEEDED_DOC: &str = "Nothing could be granted before the timeout's end. \
`next_opening` is when something can be, in seconds on the clock of `time.monotonic()`; None while \
that depends on running tasks.";

static DEADLINE_EXCEEDED: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn deadline_exceeded_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let make = || {
        let bases = (py.get_type::<RateLimiterError>(), py.get_type::<PyTimeoutError>());
        let members = [("__module__", "async_rate_limiter"), ("__doc__", DEADLINE_EXCEEDED_DOC)];
        let arguments = ("DeadlineExceeded", bases, members.into_py_dict(py)?);
        let kind = py.get_type::<PyType>().call1(arguments)?;
        PyResult::Ok(kind.cast_into::<PyType>()?.unbind())
    };
    DEADLINE_EXCEEDED.get_or_try_init(py, make).map(|kind| kind.bind(py))
}

/// `next_opening` in seconds on the user's clock.
pub(crate) fn deadline_exceeded(py: Python<'_>, next_opening: Option<f64>) -> PyErr {
    let make = || {
        let kind = deadline_exceeded_type(py)?;
        let error = kind.call1(("nothing could be granted before the timeout's end",))?;
        error.setattr("next_opening", next_opening)?;
        PyResult::Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}

/// More is left of a pause than is waited for: so many seconds, infinity for ever.
pub(crate) fn pause_too_long(py: Python<'_>, left: f64) -> PyErr {
    let make = || {
        let kind = py.import("async_rate_limiter._pauses")?.getattr("PauseTooLong")?;
        kind.call1((left, left, "pause", None::<&str>))
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("RateLimiterError", py.get_type::<RateLimiterError>())?;
    module.add("Closed", py.get_type::<Closed>())?;
    module.add("Aborted", py.get_type::<Aborted>())?;
    module.add("QueueFull", py.get_type::<QueueFull>())?;
    module.add("WouldDeadlock", py.get_type::<WouldDeadlock>())?;
    module.add("DeadlineExceeded", deadline_exceeded_type(py)?)
}

pub(crate) fn weight(error: &RequestError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub(crate) fn closed() -> PyErr {
    Closed::new_err("the limiter is closed")
}

pub(crate) fn aborted() -> PyErr {
    Aborted::new_err("the limiter was aborted while this waited in its queue")
}

pub(crate) fn queue_full() -> PyErr {
    QueueFull::new_err(
        "the queue is full, and this is pushed from inside a task of the same limiter, for which \
         room might have to wait",
    )
}

pub(crate) fn would_deadlock() -> PyErr {
    WouldDeadlock::new_err(
        "this would wait for ever: the task that asks for its turn holds what it needs; push to \
         the limiter instead, or raise its concurrency",
    )
}

pub(crate) fn would_block_its_loop() -> PyErr {
    WouldDeadlock::new_err(
        "this would block the event loop that runs in this thread, and what it waits for may need \
         that loop: use `async with`, or `await limiter.acquire()`",
    )
}

pub(crate) fn generator() -> PyErr {
    PyTypeError::new_err(
        "the task returned a generator, whose body has not run: use the limiter inside it",
    )
}

pub(crate) fn not_initialised() -> PyErr {
    PyRuntimeError::new_err(
        "the limiter is not made yet: a subclass has to call super().__init__(rate, per_ns)",
    )
}

pub(crate) fn no_copy(class: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "cannot copy or pickle '{class}': a copy would allow as much again; make one limiter in \
         each process, with its share of the limit"
    ))
}

pub(crate) fn enqueue(error: EnqueueError) -> PyErr {
    match error {
        EnqueueError::Request(error) => weight(&error),
        EnqueueError::Full => QueueFull::new_err("the queue is full"),
        _ => closed(),
    }
}

pub(crate) fn not_callable(name: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type();
    let kind = kind.name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let hint = if kind == "coroutine" { "; push the function, not what it returned" } else { "" };
    PyTypeError::new_err(format!("{name} has to be callable, not {kind}{hint}"))
}

/// The errors of several steps: all steps are done before anything is raised. The last error is raised, and the earlier
/// ones are its context.
#[derive(Default)]
pub(crate) struct Errors(Option<PyErr>);

impl Errors {
    pub(crate) fn note<R>(&mut self, result: PyResult<R>) -> Option<R> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0 = Some(match self.0.take() {
                    Some(earlier) => after(earlier, error),
                    None => error,
                });
                None
            }
        }
    }

    pub(crate) fn into_result(self) -> PyResult<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// An error, while whose consequences were dealt with another one may have come.
pub(crate) fn with(error: PyErr, dealt_with: PyResult<()>) -> PyErr {
    match dealt_with {
        Ok(()) => error,
        Err(later) => after(error, later),
    }
}

/// A later error, with an earlier one as the last of its contexts, unless there are too many: contexts may go round in a
/// circle.
fn after(earlier: PyErr, later: PyErr) -> PyErr {
    const CONTEXTS_MAX: usize = 100;
    Python::attach(|py| {
        let mut last = later.clone_ref(py);
        for _ in 0..CONTEXTS_MAX {
            if last.value(py).is(earlier.value(py)) {
                break;
            }
            let Some(context) = last.context(py) else {
                last.set_context(py, Some(earlier));
                break;
            };
            last = context;
        }
        later
    })
}

/// Whether an exception is for the whole program, and not for whoever looks after one task or hook.
pub(crate) fn ends_program(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

thread_local!(static ENDS: Cell<usize> = const { Cell::new(0) });

/// Whether this thread is at the end of an object, where no hook is called.
pub(crate) fn is_at_an_end() -> bool {
    ENDS.get() > 0
}

/// Does something at the end of an object, which may come while an exception is on its way.
pub(crate) fn undisturbed<R>(py: Python<'_>, work: impl FnOnce() -> R) -> R {
    let on_its_way = PyErr::take(py);
    ENDS.set(ENDS.get() + 1);
    let result = work();
    ENDS.set(ENDS.get() - 1);
    if let Some(error) = on_its_way {
        error.restore(py);
    }
    result
}
