//! What is made by hand of CPython's own parts, and all of the unsafe code.
//!
//! As PyO3 classes they would cost a push more than its task does: their calls take their arguments
//! as a tuple and a dict, and an answer has to travel as an exception. What is here answers as
//! CPython's own coroutines do, and takes its arguments where they lie.
//!
//! What all of it rests on: only the interpreter calls these functions, and it holds its lock while
//! it does. Each file says what else it rests on.

mod awaitable;
mod coroutine;
mod push;
mod spare;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;

pub(crate) use awaitable::new;
pub(crate) use coroutine::resume;

/// The slot by which an object answers without an exception. From 3.10; before, it would refuse
/// the type.
const AM_SEND: c_int = 81;

/// What that slot answers: an error is set, the answer is there, or something is yielded.
const SEND_ERROR: c_int = -1;
const SEND_RETURN: c_int = 0;
const SEND_NEXT: c_int = 1;

/// Makes the type of what is awaited, and gives `RateLimiter` its `push`.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    awaitable::install(py)?;
    coroutine::install(py);
    push::install(py)
}

/// Does what the interpreter called for. Neither an error nor a panic gets past it.
#[inline]
fn called<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    guarded(failed, || Python::attach(|py| work(py).map_err(|error| error.restore(py))))
}

/// The same, without telling PyO3 that this thread is attached, which it is: the interpreter calls.
/// For what ends no object by [`Py`]'s drop, which would put that off, except where it attaches.
#[inline]
fn called_quickly<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    guarded(failed, || {
        // SAFETY: as the interpreter called, its lock is held until this returns.
        let py = unsafe { Python::assume_attached() };
        work(py).map_err(|error| error.restore(py))
    })
}

/// What `work` gives; `failed` where an error is set instead.
#[inline]
fn guarded<R>(failed: R, work: impl FnOnce() -> Result<R, ()>) -> R {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => result,
        Ok(Err(())) => failed,
        Err(_) => panicked(failed),
    }
}

#[cold]
fn panicked<R>(failed: R) -> R {
    let error = PySystemError::new_err("a bug in async_rate_limiter: its native half panicked");
    Python::attach(|py| error.restore(py));
    failed
}
