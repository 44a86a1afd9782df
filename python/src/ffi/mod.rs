//! The parts of CPython that are made by hand, and all of the unsafe code.
//!
//! As PyO3 classes they would cost a push more than its task does: their calls take their arguments as a tuple and a
//! dict, and an answer has to travel as an exception. These answer as CPython's own coroutines do, and read their
//! arguments in place.
//!
//! All of it relies on this: only the interpreter calls these functions, and it holds its lock (the GIL) meanwhile.
//! Each file says what else it relies on.

mod attributes;
mod awaitable;
mod awaitable_type;
mod coroutine;
mod ends;
mod freelist;
mod interpreter;
mod method;
mod recursion;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::ffi;
use pyo3::prelude::*;

pub(crate) use awaitable::{AwaitableType, Operation, Sent, Step, install, new};
pub(crate) use coroutine::resume;
pub(crate) use interpreter::refuse_subinterpreter;
pub(crate) use method::{Arguments, Finalize, Method, add_finalizer, add_method, has_finalizer};

/// The slot by which an object answers without an exception. From 3.10; before, the type would be refused.
const AM_SEND: c_int = 81;

/// What that slot answers: an error is set, the answer is there, or something is yielded.
const SEND_ERROR: c_int = -1;
const SEND_RETURN: c_int = 0;
const SEND_NEXT: c_int = 1;

/// Calls `work` for the interpreter. An error is set; a panic becomes a `SystemError`.
#[inline]
fn called<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    guarded(failed, || {
        // SAFETY: as the interpreter called, this thread is attached to it, also while it is shutting down.
        unsafe { Python::attach_unchecked(|py| work(py).map_err(|error| error.restore(py))) }
    })
}

/// The same, without telling PyO3 that this thread is attached, which it is. For work that drops no [`Py`], which
/// would put off its end, except where it attaches.
#[inline]
fn called_quickly<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    guarded(failed, || {
        // SAFETY: as the interpreter called, its lock is held until this returns.
        let py = unsafe { Python::assume_attached() };
        work(py).map_err(|error| error.restore(py))
    })
}

/// The result of `work`; `failed` if an error is set instead.
#[inline]
fn guarded<R>(failed: R, work: impl FnOnce() -> Result<R, ()>) -> R {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => result,
        Ok(Err(())) => failed,
        Err(_) => panicked(failed),
    }
}

/// Without PyO3, whose own panic this may be.
#[cold]
fn panicked<R>(failed: R) -> R {
    let message = c"a bug in async_rate_limiter: its native half panicked";
    // SAFETY: the interpreter has called, so its lock is held; the exception's type lives as long as it does.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_SystemError, message.as_ptr()) };
    failed
}
