//! Resuming CPython's own coroutines by their slot, which answers without an exception.
//!
//! It relies on the slot being what CPython documents it to be, from 3.10.

use std::ffi::{c_int, c_void};
use std::{mem, ptr};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::{AM_SEND, SEND_NEXT, SEND_RETURN, Step};
use crate::imports::imports;

/// How CPython's coroutines are resumed, where they can be without an exception.
static SEND: PyOnceLock<Option<SendFunction>> = PyOnceLock::new();

type SendFunction =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut *mut ffi::PyObject) -> c_int;

/// Finds the slot.
pub(super) fn install(py: Python<'_>) {
    SEND.get_or_init(py, || coroutine_send(py));
}

/// The slot of CPython's coroutines, from 3.10.
fn coroutine_send(py: Python<'_>) -> Option<SendFunction> {
    if py.version_info() < (3, 10) {
        return None;
    }
    // SAFETY: from 3.10 a slot may be asked of any type; what is in this one is such a function.
    unsafe {
        let slot = ffi::PyType_GetSlot(imports(py).coroutine.as_ptr().cast(), AM_SEND);
        mem::transmute::<*mut c_void, Option<SendFunction>>(slot)
    }
}

/// Resumes a coroutine without an exception for its answer, where CPython can do that.
pub(crate) fn resume(coroutine: &Bound<'_, PyAny>) -> Option<PyResult<Step>> {
    let py = coroutine.py();
    let send = (*SEND.get(py)?)?;
    let mut result = ptr::null_mut();
    // SAFETY: it is a coroutine, whose slot this is; a result comes with a reference of its own.
    Some(unsafe {
        match send(coroutine.as_ptr(), py.None().as_ptr(), &raw mut result) {
            SEND_RETURN => {
                Bound::from_owned_ptr_or_err(py, result).map(|it| Step::Return(it.unbind()))
            }
            SEND_NEXT => {
                Bound::from_owned_ptr_or_err(py, result).map(|it| Step::Yield(it.unbind()))
            }
            _ => Err(PyErr::fetch(py)),
        }
    })
}
