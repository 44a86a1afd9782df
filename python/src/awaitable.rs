//! The object that is awaited, and `push`, which makes most of them: written by hand.
//!
//! As PyO3 classes they would cost a push more than its task does: their calls take their arguments
//! as a tuple and a dict, and an answer has to travel as an exception. This type answers as
//! CPython's own coroutines do, and `push` takes its arguments where they lie.
//!
//! All unsafe code is here. What it rests on:
//!
//! * Only the interpreter calls these functions, and it holds its lock while it does.
//! * An object's turn is written before the object is handed out, and stays valid until its end.
//! * Nobody holds a reference to a turn while Python code runs: a step takes the turn out and leaves
//!   [`Turn::Executing`] in its place, which is what a step within that step finds.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, ptr, slice};

use pyo3::exceptions::{PySystemError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};

use crate::error::{self, undisturbed};
use crate::limiter::RateLimiter;
use crate::names::names;
use crate::turn::{Sent, Step, Turn, Wish};

#[repr(C)]
struct Awaitable {
    head: ffi::PyObject,
    turn: UnsafeCell<Turn>,
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// How CPython's coroutines are resumed, where they can be without an exception.
static COROUTINE_SEND: PyOnceLock<Option<SendFunction>> = PyOnceLock::new();

type SendFunction =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut *mut ffi::PyObject) -> c_int;

/// Memory of objects that have ended, for the next ones: a push lives for a few hundred nanoseconds.
struct Spare(UnsafeCell<[*mut ffi::PyObject; SPARE_MAX]>, UnsafeCell<usize>);

const SPARE_MAX: usize = 16;

static SPARE: Spare = Spare(UnsafeCell::new([ptr::null_mut(); SPARE_MAX]), UnsafeCell::new(0));

// SAFETY: it is only touched under the interpreter's lock.
unsafe impl Sync for Spare {}

impl Spare {
    /// # Safety
    ///
    /// The interpreter's lock is held.
    #[inline]
    unsafe fn take(&self) -> Option<*mut ffi::PyObject> {
        // SAFETY: nobody else is in here; the first `len` places are filled.
        unsafe {
            let len = &mut *self.1.get();
            *len = len.checked_sub(1)?;
            Some((*self.0.get())[*len])
        }
    }

    /// Whether there is room for it.
    ///
    /// # Safety
    ///
    /// The interpreter's lock is held, and the object has ended but for its memory.
    #[inline]
    unsafe fn keep(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: nobody else is in here.
        unsafe {
            let len = &mut *self.1.get();
            let place = (*self.0.get()).get_mut(*len);
            place.is_some_and(|place| {
                *place = object;
                *len += 1;
                true
            })
        }
    }
}

/// The slot by which an object answers without an exception. From 3.10; before, it would refuse
/// the type.
const AM_SEND: c_int = 81;

/// What that slot answers: an error is set, the answer is there, or something is yielded.
const SEND_ERROR: c_int = -1;
const SEND_RETURN: c_int = 0;
const SEND_NEXT: c_int = 1;

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

/// Makes the type, and gives [`RateLimiter`] its `push`.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    TYPE.get_or_try_init(py, || make_type(py))?;
    COROUTINE_SEND.get_or_init(py, || coroutine_send(py));
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

/// The slot of CPython's coroutines, from 3.10.
fn coroutine_send(py: Python<'_>) -> Option<SendFunction> {
    if py.version_info() < (3, 10) {
        return None;
    }
    // SAFETY: from 3.10 a slot may be asked of any type; what is in this one is such a function.
    unsafe {
        let slot = ffi::PyType_GetSlot(names(py).coroutine.as_ptr().cast(), AM_SEND);
        mem::transmute::<*mut c_void, Option<SendFunction>>(slot)
    }
}

/// Resumes a coroutine without an exception for its answer, where CPython can do that.
pub(crate) fn resume_coroutine(coroutine: &Bound<'_, PyAny>) -> Option<PyResult<Step>> {
    let py = coroutine.py();
    let send = (*COROUTINE_SEND.get(py)?)?;
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

/// Does what the interpreter called for. Neither an error nor a panic gets past it.
#[inline]
fn called<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let work = || Python::attach(|py| work(py).map_err(|error| error.restore(py)));
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => result,
        Ok(Err(())) => failed,
        Err(_) => panicked(failed),
    }
}

/// The same, without telling PyO3 that this thread is attached, which it is: the interpreter calls.
/// For what ends no object by [`Py`]'s drop, which would put that off, except where it attaches.
#[inline]
fn called_quickly<R>(failed: R, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let work = || {
        // SAFETY: as the interpreter called, its lock is held until this returns.
        let py = unsafe { Python::assume_attached() };
        work(py).map_err(|error| error.restore(py))
    };
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
    new(py, Turn::New { limiter: limiter.unbind(), weight, wish }).map(Bound::into_ptr)
}
