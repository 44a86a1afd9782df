//! The object that is awaited, as CPython's coroutines are: it drives an [`Operation`].
//!
//! It relies on this:
//!
//! * An object's operation is written before the object is handed out, and stays valid until its end.
//! * Nobody holds a reference to an operation while Python code runs: a step takes the operation out and leaves
//!   [`Operation::executing`] in its place, which is what a step within that step finds.
//! * No Python code runs while the collector clears what it has found, when globals may be gone already: the finalizer
//!   has run before that (PEP 442) and has left nothing to end. Whoever is found whole after its finalizer lets go
//!   without Python code ([`Operation::let_go`]).

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::{mem, ptr};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::awaitable_type::make_type;
use super::ends::end;
use super::freelist::FREE_LIST;
use super::recursion::Level;
use super::{SEND_ERROR, SEND_NEXT, SEND_RETURN, called, called_quickly};
use crate::errors::undisturbed;

/// What comes in with a step.
pub(crate) enum Sent<'a, 'py> {
    Value(&'a Bound<'py, PyAny>),
    /// The arguments of `throw`.
    Thrown(&'a Bound<'py, PyTuple>),
}

/// What goes out.
pub(crate) enum Step {
    Yield(Py<PyAny>),
    Return(Py<PyAny>),
}

/// What an awaitable does. Each step takes the operation as it stands and gives it as it will stand, so nobody can see
/// it half way.
pub(crate) trait Operation: Sized + 'static {
    /// The type's name, with its module.
    const TYPE_NAME: &'static CStr;

    /// What stands in for an operation whose step is on the stack.
    fn executing() -> Self;
    /// An operation that is over.
    fn done() -> Self;
    fn is_new(&self) -> bool;
    fn is_executing(&self) -> bool;
    fn is_done(&self) -> bool;
    /// The next step.
    fn resume(self, py: Python<'_>, sent: &Sent<'_, '_>) -> (Self, PyResult<Step>);
    /// Ends it before it has its answer.
    fn close(self, py: Python<'_>) -> PyResult<()>;
    /// Its object has come to its end.
    fn finalize(self, py: Python<'_>);
    /// The same, without calling Python code.
    fn let_go(self);
    /// The method that made it.
    fn name(&self) -> &'static str;
    /// What it awaits.
    fn awaited(&self) -> Option<&Py<PyAny>>;
    /// The Python objects that it holds, for the collector.
    fn held(&self) -> [Option<&Py<PyAny>>; 4];
    /// Where the type is kept.
    fn awaitable_type() -> &'static AwaitableType;
}

/// The type of the awaitables of one kind of operation.
pub(crate) struct AwaitableType(PyOnceLock<Py<PyType>>);

impl AwaitableType {
    pub(crate) const fn new() -> Self {
        Self(PyOnceLock::new())
    }
}

#[repr(C)]
pub(super) struct Awaitable<O> {
    head: ffi::PyObject,
    /// The list of weak references, which the interpreter keeps.
    pub(super) weak: *mut ffi::PyObject,
    operation: UnsafeCell<O>,
}

/// Makes the type, and finds the slot of CPython's own coroutines.
pub(crate) fn install<O: Operation>(py: Python<'_>) -> PyResult<()> {
    super::coroutine::install(py);
    O::awaitable_type().0.get_or_try_init(py, || make_type::<O>(py)).map(|_| ())
}

/// An awaitable at its beginning.
#[inline]
pub(crate) fn new<O: Operation>(py: Python<'_>, operation: O) -> PyResult<Bound<'_, PyAny>> {
    let kind = O::awaitable_type().0.get(py).expect("the module has been imported").as_ptr();
    // SAFETY: the type is `Awaitable`'s, so the memory is an `Awaitable`'s. The collector knows of it already, and does
    // not run before the operation is written: nothing here calls Python.
    unsafe {
        let (object, is_reused) = match FREE_LIST.take() {
            // It lacks what its end took from it: the count of one reference, and its type.
            Some(object) => (ffi::PyObject_Init(object, kind.cast()), true),
            None => (ffi::PyType_GenericAlloc(kind.cast(), 0), false),
        };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let awaitable = object.cast::<Awaitable<O>>();
        (&raw mut (*awaitable).operation).write(UnsafeCell::new(operation));
        if is_reused {
            ffi::PyObject_GC_Track(object.cast());
        }
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// The operation of an object, in exchange for another.
///
/// # Safety
///
/// `object` is a live [`Awaitable`], and the interpreter's lock is held.
#[inline]
unsafe fn exchange<O: Operation>(object: *mut ffi::PyObject, operation: O) -> O {
    // SAFETY: as above; no reference to the operation outlives this call.
    unsafe { mem::replace(&mut *(*object.cast::<Awaitable<O>>()).operation.get(), operation) }
}

/// Looks at an operation. `look` calls no Python code.
///
/// # Safety
///
/// As for [`exchange`].
#[inline]
pub(super) unsafe fn look<O: Operation, R>(
    object: *mut ffi::PyObject,
    look: impl FnOnce(&O) -> R,
) -> R {
    // SAFETY: as above; nobody takes the operation out meanwhile.
    unsafe { look(&*(*object.cast::<Awaitable<O>>()).operation.get()) }
}

/// # Safety
///
/// As for [`exchange`].
#[inline]
unsafe fn step<O: Operation>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    sent: &Sent<'_, '_>,
) -> PyResult<Step> {
    let _level = Level::enter(py)?;
    // SAFETY: the caller's promise; the caller's reference keeps the object alive in between.
    let operation = unsafe { exchange(object, O::executing()) };
    let (operation, outcome) = operation.resume(py, sent);
    // SAFETY: as above.
    unsafe { exchange(object, operation) };
    outcome
}

/// Yields, or raises `StopIteration` with the answer.
fn yielded(py: Python<'_>, step: Step) -> *mut ffi::PyObject {
    match step {
        Step::Yield(yielded) => yielded.into_ptr(),
        Step::Return(answer) => {
            let answer = answer.bind(py);
            // SAFETY: both are objects. A tuple or an exception would be taken for the arguments of StopIteration, or
            // for itself, so those are wrapped.
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

/// Nobody makes one but the limiter: made by hand, it would have no operation.
pub(super) unsafe extern "C" fn refuse_new(
    _: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |_| {
        Err(PyTypeError::new_err("cannot create an awaitable of a rate limiter: call its methods"))
    })
}

pub(super) unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter passes a live object.
    unsafe { ffi::Py_INCREF(object) };
    object
}

pub(super) unsafe extern "C" fn am_send<O: Operation>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> c_int {
    let work = |py: Python<'_>| {
        // SAFETY: the interpreter passes a live `Awaitable`, a value, and room for the result.
        unsafe {
            *result = ptr::null_mut();
            let value = Bound::from_borrowed_ptr(py, value);
            let (kind, object) = match step::<O>(py, object, &Sent::Value(&value))? {
                Step::Yield(yielded) => (SEND_NEXT, yielded),
                Step::Return(answer) => (SEND_RETURN, answer),
            };
            *result = object.into_ptr();
            Ok(kind)
        }
    };
    // SAFETY: as above.
    let is_new = unsafe { look(object, O::is_new) };
    if is_new { called_quickly(SEND_ERROR, work) } else { called(SEND_ERROR, work) }
}

pub(super) unsafe extern "C" fn next<O: Operation>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable`.
        let step = unsafe { step::<O>(py, object, &Sent::Value(py.None().bind(py))) }?;
        Ok(yielded(py, step))
    })
}

pub(super) unsafe extern "C" fn send<O: Operation>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live `Awaitable` and a value.
        let step = unsafe {
            let value = Bound::from_borrowed_ptr(py, value);
            step::<O>(py, object, &Sent::Value(&value))
        }?;
        Ok(yielded(py, step))
    })
}

pub(super) unsafe extern "C" fn throw<O: Operation>(
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
        let step = unsafe { step::<O>(py, object, &Sent::Thrown(&arguments)) }?;
        Ok(yielded(py, step))
    })
}

pub(super) unsafe extern "C" fn close<O: Operation>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    called(ptr::null_mut(), |py| {
        let _level = Level::enter(py)?;
        // SAFETY: the interpreter passes a live `Awaitable`.
        let operation = unsafe { exchange(object, O::executing()) };
        if operation.is_executing() {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        let closed = operation.close(py);
        // SAFETY: as above.
        unsafe { exchange(object, O::done()) };
        closed.map(|()| py.None().into_ptr())
    })
}

pub(super) unsafe extern "C" fn traverse<O: Operation>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live `Awaitable` and runs no Python code meanwhile; `visit` takes live objects.
    unsafe {
        let visited = visit(ffi::Py_TYPE(object).cast(), arg);
        if visited != 0 {
            return visited;
        }
        look(object, |operation: &O| {
            for held in operation.held().into_iter().flatten() {
                let visited = visit(held.as_ptr(), arg);
                if visited != 0 {
                    return visited;
                }
            }
            0
        })
    }
}

/// The collector calls it before it clears anything.
pub(super) unsafe extern "C" fn finalize<O: Operation>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes a live `Awaitable`.
    let operation = unsafe { exchange(object, O::done()) };
    end(operation, |operation, py| undisturbed(py, || operation.finalize(py)));
}

pub(super) unsafe extern "C" fn clear<O: Operation>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live `Awaitable`.
    let operation = unsafe { exchange(object, O::done()) };
    end(operation, |operation, _| operation.let_go());
    0
}

pub(super) unsafe extern "C" fn dealloc<O: Operation>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes an `Awaitable` that nobody refers to any more. Its operation is taken out and needs
    // no further end. The memory goes back the way it came, and with it the object's reference to its type.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*object.cast::<Awaitable<O>>()).weak.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let operation = exchange(object, O::done());
        // The interpreter keeps that in the memory itself, which is not used again then.
        let is_finalized = ffi::PyObject_GC_IsFinalized(object) != 0;
        if is_finalized {
            end(operation, |operation, _| operation.let_go());
        } else {
            end(operation, |operation, py| undisturbed(py, || operation.finalize(py)));
        }
        let kind = ffi::Py_TYPE(object);
        if is_finalized || !FREE_LIST.keep(object) {
            ffi::PyObject_GC_Del(object.cast());
        }
        ffi::Py_DECREF(kind.cast());
    }
}
