//! What an awaitable shows of itself, as coroutines do.
//!
//! No Python frame runs but that of the task: `cr_frame`, `cr_code` and `cr_origin` are those of the coroutine that is
//! awaited, so that asyncio prints the task's stack. Where there is none they are `None`, and `inspect.getcoroutinestate`
//! then says `CORO_CLOSED` before the first step as well.

use std::ffi::{CStr, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::awaitable::{Operation, look};
use super::called;

pub(super) unsafe extern "C" fn name_of<O: Operation>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable`.
        Ok(PyString::new(py, unsafe { look(object, O::name) }).into_ptr())
    })
}

pub(super) unsafe extern "C" fn awaited<O: Operation>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        let shown = |operation: &O| operation.awaited().map(|awaited| awaited.clone_ref(py));
        // SAFETY: as in `name_of`.
        let awaited = unsafe { look(object, shown) };
        Ok(awaited.unwrap_or_else(|| py.None()).into_ptr())
    })
}

pub(super) unsafe extern "C" fn is_running<O: Operation>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: as in `name_of`; a bool is made without fail.
    unsafe { ffi::PyBool_FromLong(look(object, O::is_executing).into()) }
}

pub(super) unsafe extern "C" fn is_suspended<O: Operation>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    let is_suspended =
        |operation: &O| !(operation.is_new() || operation.is_executing() || operation.is_done());
    // SAFETY: as in `is_running`.
    unsafe { ffi::PyBool_FromLong(look(object, is_suspended).into()) }
}

/// An attribute of the coroutine that is awaited; `closure` is its name.
pub(super) unsafe extern "C" fn of_awaited<O: Operation>(
    object: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        let shown = |operation: &O| operation.awaited().map(|awaited| awaited.clone_ref(py));
        // SAFETY: as in `name_of`; the closure is a name that lives for ever.
        let (awaited, name) = unsafe { (look(object, shown), CStr::from_ptr(closure.cast())) };
        let Some(awaited) = awaited else { return Ok(py.None().into_ptr()) };
        let name = PyString::from_bytes(py, name.to_bytes())?;
        let attribute = awaited.bind(py).getattr_opt(name)?;
        Ok(attribute.map_or_else(|| py.None(), Bound::unbind).into_ptr())
    })
}

pub(super) unsafe extern "C" fn repr<O: Operation>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: as in `name_of`.
        let name = unsafe { look(object, O::name) };
        Ok(PyString::new(py, &format!("<coroutine object {name} at {object:p}>")).into_ptr())
    })
}
