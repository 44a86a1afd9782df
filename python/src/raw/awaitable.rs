//! The object that is awaited: a [`Turn`], as CPython's coroutines are.
//!
//! What it rests on:
//!
//! * An object's turn is written before the object is handed out, and stays valid until its end.
//! * Nobody holds a reference to a turn while Python code runs: a step takes the turn out and leaves
//!   [`Turn::Executing`] in its place, which is what a step within that step finds.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, ptr};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};

use super::spare::SPARE;
use super::{AM_SEND, SEND_ERROR, SEND_NEXT, SEND_RETURN, called, called_quickly};
use crate::error::undisturbed;
use crate::turn::{Sent, Step, Turn};

#[repr(C)]
struct Awaitable {
    head: ffi::PyObject,
    turn: UnsafeCell<Turn>,
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
/// Makes the type.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    TYPE.get_or_try_init(py, || make_type(py)).map(|_| ())
}

/// An awaitable at its beginning.
#[inline]
pub(crate) fn new(py: Python<'_>, turn: Turn) -> PyResult<Bound<'_, PyAny>> {
    let kind = TYPE.get(py).expect("the module has been imported").as_ptr();
    // SAFETY: the type is `Awaitable`'s, so the memory is an `Awaitable`'s. The collector knows of it
    // already, and does not run before the turn is written: nothing here calls Python.
    unsafe {
        let (object, is_spare) = match SPARE.take() {
            // It lacks what its end took from it: the count of one reference, and its type.
            Some(object) => (ffi::PyObject_Init(object, kind.cast()), true),
            None => (ffi::PyType_GenericAlloc(kind.cast(), 0), false),
        };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        (&raw mut (*object.cast::<Awaitable>()).turn).write(UnsafeCell::new(turn));
        if is_spare {
            ffi::PyObject_GC_Track(object.cast());
        }
        Ok(Bound::from_owned_ptr(py, object))
    }
}
fn make_type(py: Python<'_>) -> PyResult<Py<PyType>> {
    let method = |name: &'static CStr, function: ffi::PyCFunction, flags| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: ptr::null(),
    };
    let methods = Box::leak(Box::new([
        method(c"send", send, ffi::METH_O),
        method(c"throw", throw, ffi::METH_VARARGS),
        method(c"close", close, ffi::METH_NOARGS),
        ffi::PyMethodDef::zeroed(),
    ]));
    let attribute = |name: &'static CStr| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(name_of),
        ..ffi::PyGetSetDef::default()
    };
    let attributes = Box::leak(Box::new([
        attribute(c"__name__"),
        attribute(c"__qualname__"),
        ffi::PyGetSetDef::default(),
    ]));
    let dealloc: ffi::destructor = dealloc;
    let (traverse, clear): (ffi::traverseproc, ffi::inquiry) = (traverse, clear);
    let itself: ffi::unaryfunc = itself;
    let (repr, next): (ffi::reprfunc, ffi::iternextfunc) = (repr, next);
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = vec![
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, attributes.as_mut_ptr().cast()),
    ];
    if py.version_info() >= (3, 10) {
        slots.push(slot(AM_SEND, am_send as *mut c_void));
    }
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: c"async_rate_limiter._native.Awaitable".as_ptr(),
        basicsize: c_int::try_from(size_of::<Awaitable>())?,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC) as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the slots hold functions of their slots' types and end with a zero; methods and
    // attributes live for ever.
    let kind = unsafe {
        let kind = ffi::PyType_FromSpec(&raw mut spec);
        Bound::from_owned_ptr_or_err(py, kind)?
    };
    Ok(kind.cast_into::<PyType>()?.unbind())
}
/// The turn of an object, in exchange for another.
///
/// # Safety
///
/// `object` is a live [`Awaitable`], and the interpreter's lock is held.
#[inline]
unsafe fn exchange(object: *mut ffi::PyObject, turn: Turn) -> Turn {
    // SAFETY: as above; no reference to the turn outlives this call.
    unsafe { mem::replace(&mut *(*object.cast::<Awaitable>()).turn.get(), turn) }
}

/// # Safety
///
/// As for [`exchange`].
#[inline]
unsafe fn step(py: Python<'_>, object: *mut ffi::PyObject, sent: &Sent<'_, '_>) -> PyResult<Step> {
    // SAFETY: the caller's promise; the caller's reference keeps the object alive in between.
    let turn = unsafe { exchange(object, Turn::Executing) };
    let (turn, outcome) = turn.resume(py, sent);
    // SAFETY: as above.
    unsafe { exchange(object, turn) };
    outcome
}

/// Yields, or raises `StopIteration` with the answer.
fn yielded(py: Python<'_>, step: Step) -> *mut ffi::PyObject {
    match step {
        Step::Yield(yielded) => yielded.into_ptr(),
        Step::Return(answer) => {
            let answer = answer.bind(py);
            // SAFETY: both are objects. A tuple or an exception would be taken for the arguments of
            // StopIteration, or for itself, so those are wrapped.
            unsafe {
                if answer.is_instance_of::<PyTuple>()
                    || ffi::PyExceptionInstance_Check(answer.as_ptr()) != 0
                {
                    let stop = ffi::PyObject_CallFunctionObjArgs(
                        ffi::PyExc_StopIteration,
                        answer.as_ptr(),
                        ptr::null_mut::<ffi::PyObject>(),
                    );
                    if !stop.is_null() {
                        ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop);
                        ffi::Py_DECREF(stop);
                    }
                } else {
                    ffi::PyErr_SetObject(ffi::PyExc_StopIteration, answer.as_ptr());
                }
            }
            ptr::null_mut()
        }
    }
}

unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter passes a live object.
    unsafe { ffi::Py_INCREF(object) };
    object
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> c_int {
    let work = |py: Python<'_>| {
        // SAFETY: the interpreter passes a live `Awaitable`, a value, and room for the result.
        unsafe {
            *result = ptr::null_mut();
            let value = Bound::from_borrowed_ptr(py, value);
            let (kind, object) = match step(py, object, &Sent::Value(&value))? {
                Step::Yield(yielded) => (SEND_NEXT, yielded),
                Step::Return(answer) => (SEND_RETURN, answer),
            };
            *result = object.into_ptr();
            Ok(kind)
        }
    };
    // SAFETY: as above.
    let is_new = unsafe { matches!(*(*object.cast::<Awaitable>()).turn.get(), Turn::New { .. }) };
    if is_new { called_quickly(SEND_ERROR, work) } else { called(SEND_ERROR, work) }
}

unsafe extern "C" fn next(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable`.
        let step = unsafe { step(py, object, &Sent::Value(py.None().bind(py))) }?;
        Ok(yielded(py, step))
    })
}

unsafe extern "C" fn send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable` and a value.
        let step = unsafe {
            let value = Bound::from_borrowed_ptr(py, value);
            step(py, object, &Sent::Value(&value))
        }?;
        Ok(yielded(py, step))
    })
}

unsafe extern "C" fn throw(
    object: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable` and a tuple.
        let arguments = unsafe { Bound::from_borrowed_ptr(py, arguments) };
        let arguments = arguments.cast_into::<PyTuple>()?;
        if !(1..=3).contains(&arguments.len()) {
            return Err(PyTypeError::new_err("throw expected 1 to 3 arguments"));
        }
        // SAFETY: as above.
        let step = unsafe { step(py, object, &Sent::Thrown(&arguments)) }?;
        Ok(yielded(py, step))
    })
}

unsafe extern "C" fn close(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable`.
        let turn = unsafe { exchange(object, Turn::Executing) };
        if matches!(turn, Turn::Executing) {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        let closed = turn.close(py);
        // SAFETY: as above.
        unsafe { exchange(object, Turn::Done) };
        closed.map(|()| py.None().into_ptr())
    })
}

unsafe extern "C" fn name_of(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable`; no Python code runs while it is looked at.
        let name = unsafe { (*(*object.cast::<Awaitable>()).turn.get()).name() };
        Ok(PyString::new(py, name).into_ptr())
    })
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: as in `name_of`.
        let name = unsafe { (*(*object.cast::<Awaitable>()).turn.get()).name() };
        Ok(PyString::new(py, &format!("<coroutine object {name} at {object:p}>")).into_ptr())
    })
}

unsafe extern "C" fn traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live `Awaitable` and runs no Python code meanwhile; `visit` takes
    // live objects.
    unsafe {
        let visited = visit(ffi::Py_TYPE(object).cast(), arg);
        if visited != 0 {
            return visited;
        }
        for held in (*(*object.cast::<Awaitable>()).turn.get()).held().into_iter().flatten() {
            let visited = visit(held.as_ptr(), arg);
            if visited != 0 {
                return visited;
            }
        }
    }
    0
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live `Awaitable`.
    let turn = unsafe { exchange(object, Turn::Done) };
    forsake(turn);
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes an `Awaitable` that nobody refers to any more. Its turn is taken
    // out and needs no further end. The memory goes back the way it came, and with it the object's
    // reference to its type.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        forsake(exchange(object, Turn::Done));
        let kind = ffi::Py_TYPE(object);
        if !SPARE.keep(object) {
            ffi::PyObject_GC_Del(object.cast());
        }
        ffi::Py_DECREF(kind.cast());
    }
}

#[inline]
fn forsake(turn: Turn) {
    if matches!(turn, Turn::Done) {
        return;
    }
    let forsaken = catch_unwind(AssertUnwindSafe(|| {
        // The interpreter may be gone, and with it all there was to end.
        let mut turn = Some(turn);
        let attached = Python::try_attach(|py| {
            if let Some(turn) = turn.take() {
                undisturbed(py, || turn.forsake(py));
            }
        });
        if attached.is_none() {
            mem::forget(turn);
        }
    }));
    debug_assert!(forsaken.is_ok(), "an awaitable's end panicked");
}
