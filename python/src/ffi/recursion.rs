//! Native recursion, counted as the interpreter counts it: a task that awaits a task that awaits a task.
//!
//! From 3.12 the interpreter counts C calls apart from Python's and allows more of them than a small stack holds. So
//! the stack that is left is looked at as well.

use std::marker::PhantomData;

use pyo3::exceptions::PyRecursionError;
use pyo3::ffi;
use pyo3::prelude::*;

/// What a step needs at most, with the interpreter's own frames up to the next step.
const STACK_BYTES: usize = 96 * 1024;

/// One level of recursion, until it is dropped.
pub(super) struct Level<'py>(PhantomData<Python<'py>>);

impl<'py> Level<'py> {
    /// `RecursionError` if that would be one too many.
    #[inline]
    pub(super) fn enter(py: Python<'py>) -> PyResult<Self> {
        if stacker::remaining_stack().is_some_and(|left| left < STACK_BYTES) {
            return Err(PyRecursionError::new_err(
                "tasks of a rate limiter are nested deeper than this thread's stack allows",
            ));
        }
        // SAFETY: the interpreter's lock is held; the text ends with a zero.
        let refused = unsafe {
            ffi::Py_EnterRecursiveCall(c" while running a task of a rate limiter".as_ptr())
        };
        if refused == 0 { Ok(Self(PhantomData)) } else { Err(PyErr::fetch(py)) }
    }
}

impl Drop for Level<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the interpreter's lock is held for `'py`, and this level was entered once.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
}
