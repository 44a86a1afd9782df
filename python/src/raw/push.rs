//! `push`: a method that takes its arguments where they lie.
//!
//! It rests on the interpreter calling a method only on its own class, with as many arguments as it
//! says.

use std::ffi::{CStr, c_int};
use std::{mem, ptr, slice};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::{awaitable, called_quickly};
use crate::error;
use crate::limiter::RateLimiter;
use crate::turn::{Turn, Wish};

/// Arguments as an array. CPython has had it since 3.7, and lists it as stable since 3.10.
const METH_FASTCALL: c_int = 0x80;

/// A method that takes its arguments so, with the names of the last of them.
type FastMethod = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

const PUSH_DOC: &CStr = c"push($self, task, estimated_weight=1)\n--\n
Run a task at once where it may run at once, else leave it to the limiter.

`task` takes no arguments; it is a function, or anything that returns an awaitable.

Awaiting the result gives True if the task ran at once: it has ended, and what it raised is raised
here. It gives False if the task is queued: the limiter runs it in its turn, in the context of this
call, and what it raises goes to the loop's exception handler and to `on_error`. With a
`queue_capacity`, a push waits for room in the queue first.

Raises Closed, ValueError for a weight that could never run, TypeError for a task that is not
callable, and QueueFull from inside a task of this limiter if there is no room.

Cancelled while it waits, it leaves no trace; cancelled while its task runs, it cancels the task,
which counts as its completion.";

/// Gives [`RateLimiter`] its `push`.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the interpreter turns it back, since the flags below say how it takes its arguments.
    let push = unsafe { mem::transmute::<FastMethod, ffi::PyCFunction>(push) };
    // The interpreter refers to it for as long as it lives.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"push".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: push },
        ml_flags: METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: PUSH_DOC.as_ptr(),
    }));
    let limiter = py.get_type::<RateLimiter>();
    // SAFETY: the type and the definition are valid, the latter for ever; the flags say how `push`
    // takes its arguments.
    let push = unsafe {
        let push = ffi::PyDescr_NewMethod(limiter.as_ptr().cast(), definition);
        Bound::from_owned_ptr_or_err(py, push)?
    };
    limiter.setattr("push", push)
}

unsafe extern "C" fn push(
    limiter: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as the interpreter called.
    called_quickly(ptr::null_mut(), |py| unsafe {
        make_push(py, limiter, arguments, positional, names)
    })
}

/// # Safety
///
/// `limiter` is a [`RateLimiter`] and `arguments` are as many as `positional` and `names` say.
#[inline]
unsafe fn make_push(
    py: Python<'_>,
    limiter: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: the interpreter passes a limiter (a method is only ever called on its own class),
    // so many arguments, and behind them a value for each of the names.
    let (limiter, names, arguments) = unsafe {
        let limiter = Bound::from_borrowed_ptr(py, limiter).cast_into_unchecked::<RateLimiter>();
        let names = Bound::from_borrowed_ptr_or_opt(py, names);
        let named = names.as_ref().map_or(0, |names| ffi::PyTuple_Size(names.as_ptr()));
        let count = (positional + named).cast_unsigned();
        let arguments: &[*mut ffi::PyObject] =
            if count == 0 { &[] } else { slice::from_raw_parts(arguments, count) };
        (limiter, names, arguments)
    };
    let (positional, named) = arguments.split_at(positional.cast_unsigned());
    // SAFETY: arguments are live objects for as long as the call lasts.
    let bound = |argument: &*mut ffi::PyObject| unsafe { Bound::from_borrowed_ptr(py, *argument) };
    let mut task = positional.first().map(bound);
    let mut weight = positional.get(1).map(bound);
    if positional.len() > 2 {
        return Err(PyTypeError::new_err(format!(
            "push() takes a task and its estimated weight, not {} arguments",
            positional.len()
        )));
    }
    if let Some(names) = names {
        for (name, argument) in names.try_iter()?.zip(named) {
            let name = name?;
            let place = match name.cast::<PyString>()?.to_cow()?.as_ref() {
                "task" => &mut task,
                "estimated_weight" => &mut weight,
                name => {
                    return Err(PyTypeError::new_err(format!(
                        "push() got an unexpected keyword argument '{name}'"
                    )));
                }
            };
            if place.replace(bound(argument)).is_some() {
                return Err(PyTypeError::new_err(format!(
                    "push() got multiple values for argument '{name}'"
                )));
            }
        }
    }
    let task = task.ok_or_else(|| {
        PyTypeError::new_err("push() missing 1 required positional argument: 'task'")
    })?;
    if !task.is_callable() {
        return Err(error::not_callable("task", &task));
    }
    let weight =
        weight.map_or(Ok(1), |weight| limiter.get().checked_weight("estimated_weight", &weight))?;
    let wish = Wish::Push(task.unbind());
    awaitable::new(py, Turn::New { limiter: limiter.unbind(), weight, wish }).map(Bound::into_ptr)
}
