//! Everything that can go wrong, in words that name the value.

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
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
    "The queue is full, and a task that waited for room in its own limiter might wait for ever."
);
create_exception!(
    async_rate_limiter,
    WouldDeadlock,
    RateLimiterError,
    "A task of this limiter would wait for itself: it holds what it is asking for."
);

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("RateLimiterError", py.get_type::<RateLimiterError>())?;
    module.add("Closed", py.get_type::<Closed>())?;
    module.add("Aborted", py.get_type::<Aborted>())?;
    module.add("QueueFull", py.get_type::<QueueFull>())?;
    module.add("WouldDeadlock", py.get_type::<WouldDeadlock>())
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

pub(crate) fn enqueue(error: EnqueueError) -> PyErr {
    match error {
        EnqueueError::Request(error) => weight(&error),
        _ => closed(),
    }
}

pub(crate) fn not_callable(name: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type();
    let kind = kind.name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let hint = if kind == "coroutine" { "; push the function, not what it returned" } else { "" };
    PyTypeError::new_err(format!("{name} has to be callable, not {kind}{hint}"))
}

/// Does something at the end of an object, which may come while an exception is on its way.
pub(crate) fn undisturbed<R>(py: Python<'_>, work: impl FnOnce() -> R) -> R {
    let on_its_way = PyErr::take(py);
    let result = work();
    if let Some(error) = on_its_way {
        error.restore(py);
    }
    result
}
