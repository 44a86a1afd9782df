//! What a coroutine waits for: a future of its loop.
//!
//! A task of asyncio awaits anything that has `_asyncio_future_blocking` and the methods here. asyncio's own futures
//! forget their callbacks where a signal's handler raises while they ask the loop to call them, and their task would sleep
//! for ever. This one asks until the loop has each callback, and each is called once, however often the loop was asked.
//!
//! What the loop calls is CPython's own (`next` of a `map` with one item), with nothing of ours below it: at the end of
//! the interpreter CPython unwinds a daemon thread that runs a task, which a frame of Rust would not survive.

use std::ffi::CStr;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::errors::Errors;
use crate::ffi::{Arguments, Method};
use crate::imports::imports;
use crate::signals::{ATTEMPTS, in_another_thread};

/// What a waiter awaits.
#[pyclass(frozen, module = "async_rate_limiter._native")]
pub(crate) struct Future {
    /// The loop whose task waits.
    event_loop: Py<PyAny>,
    state: Mutex<State>,
}

struct State {
    outcome: Outcome,
    /// Whether it was yielded to a task that has yet to take note of it.
    is_blocking: bool,
    /// What is to be called at its end, and in which contexts.
    callbacks: Vec<Callback>,
}

struct Callback {
    function: Py<PyAny>,
    context: Py<PyAny>,
}

enum Outcome {
    Pending,
    Woken,
    /// With this exception.
    Refused(Py<PyAny>),
    /// By its task, with a message or `None`.
    Cancelled(Py<PyAny>),
}

impl Future {
    /// A future of this loop.
    pub(crate) fn new<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let state = State { outcome: Outcome::Pending, is_blocking: false, callbacks: Vec::new() };
        let future = Self { event_loop: event_loop.clone().unbind(), state: Mutex::new(state) };
        Bound::new(event_loop.py(), future)
    }

    /// Whether its waiter was woken, as an awaiting coroutine asks: if not, it yields the future. An error if it was
    /// refused or cancelled.
    pub(crate) fn look(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.lock();
        if !matches!(state.outcome, Outcome::Pending) {
            drop(state);
            return self.result(py).map(|()| true);
        }
        if mem::replace(&mut state.is_blocking, true) {
            return Err(PyRuntimeError::new_err("await wasn't used with future"));
        }
        Ok(false)
    }

    /// Wakes its waiter, or refuses it with an exception, unless it has ended already. To be called in the loop's thread.
    pub(crate) fn end(this: &Bound<'_, Self>, refusal: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let refused = |error: Bound<'_, PyAny>| Outcome::Refused(error.unbind());
        Self::end_with(this, refusal.map_or(Outcome::Woken, refused)).map(drop)
    }

    /// Whether it ends now. All callbacks are with the loop then, also where that has raised.
    fn end_with(this: &Bound<'_, Self>, outcome: Outcome) -> PyResult<bool> {
        let mut state = this.get().lock();
        if !matches!(state.outcome, Outcome::Pending) {
            return Ok(false);
        }
        state.outcome = outcome;
        let callbacks = mem::take(&mut state.callbacks);
        drop(state);
        let mut errors = Errors::default();
        for callback in callbacks {
            errors.note(Self::schedule(this, &callback));
        }
        errors.into_result().map(|()| true)
    }

    /// Has the loop call a callback once, in its next turn.
    fn schedule(this: &Bound<'_, Self>, Callback { function, context }: &Callback) -> PyResult<()> {
        let py = this.py();
        let event_loop = &this.get().event_loop;
        // The one item is the one call: whoever asks for the next finds none, and `next` gives its default.
        let calls = imports(py).map.bind(py).call1((function, (this,)))?.unbind();
        let ask = |py: Python<'_>, method: &Bound<'_, PyString>| {
            let keywords = PyDict::new(py);
            keywords.set_item(intern!(py, "context"), context)?;
            let arguments = (&imports(py).next, &calls, py.None());
            event_loop.bind(py).call_method(method, arguments, Some(&keywords)).map(drop)
        };
        let mut errors = Errors::default();
        for _ in 0..ATTEMPTS {
            if errors.note(ask(py, intern!(py, "call_soon"))).is_some() {
                return errors.into_result();
            }
        }
        let is_closed = event_loop.bind(py).call_method0(intern!(py, "is_closed"));
        if !errors.note(is_closed).is_some_and(|is_closed| is_closed.is_truthy().unwrap_or(false)) {
            let asked = in_another_thread(py, |py| ask(py, intern!(py, "call_soon_threadsafe")));
            errors.note(asked.unwrap_or(Ok(())));
        }
        errors.into_result()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pending(&self) -> bool {
        matches!(self.lock().outcome, Outcome::Pending)
    }
}

/// What a task of asyncio asks of a future.
#[pymethods]
impl Future {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.lock().is_blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, is_blocking: bool) {
        self.lock().is_blocking = is_blocking;
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    fn remove_done_callback(&self, function: &Bound<'_, PyAny>) -> PyResult<usize> {
        // Comparing may run Python code.
        let callbacks = mem::take(&mut self.lock().callbacks);
        let mut errors = Errors::default();
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for callback in callbacks {
            let is_same = errors.note(function.eq(&callback.function)).unwrap_or(false);
            if is_same { removed.push(callback) } else { kept.push(callback) }
        }
        let mut state = self.lock();
        kept.append(&mut state.callbacks);
        state.callbacks = kept;
        drop(state);
        errors.into_result().map(|()| removed.len())
    }

    /// Whether it was not done before. Its waiter gives back what it was granted when it learns of that.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let message = msg.unwrap_or_else(|| slf.py().None());
        Self::end_with(slf, Outcome::Cancelled(message))
    }

    fn done(&self) -> bool {
        !self.is_pending()
    }

    fn cancelled(&self) -> bool {
        matches!(self.lock().outcome, Outcome::Cancelled(_))
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.lock();
        let (class, argument) = match &state.outcome {
            Outcome::Woken => return Ok(()),
            Outcome::Refused(error) => {
                let error = error.clone_ref(py).into_bound(py);
                drop(state);
                return Err(PyErr::from_value(error));
            }
            Outcome::Pending => (&imports(py).invalid_state_error, None),
            Outcome::Cancelled(message) => {
                (&imports(py).cancelled_error, Some(message.clone_ref(py)))
            }
        };
        drop(state);
        let argument = argument.filter(|message| !message.is_none(py));
        let error = argument.map_or_else(|| class.call0(py), |message| class.call1(py, (message,)));
        Err(PyErr::from_value(error?.into_bound(py)))
    }

    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if let Outcome::Refused(error) = &self.lock().outcome {
            return Ok(Some(error.clone_ref(py)));
        }
        self.result(py).map(|()| None)
    }

    fn __repr__(&self) -> &'static str {
        if self.is_pending() {
            "<Future of a limiter, pending>"
        } else {
            "<Future of a limiter, done>"
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        // The lock is free whenever Python code runs, the collector included.
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        if let Outcome::Refused(object) | Outcome::Cancelled(object) = &state.outcome {
            visit.call(object)?;
        }
        for Callback { function, context } in &state.callbacks {
            visit.call(function)?;
            visit.call(context)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let callbacks = mem::take(&mut self.lock().callbacks);
        drop(callbacks);
    }
}

/// `add_done_callback`, which each wait calls: it reads its arguments in place.
pub(crate) struct AddDoneCallback;

impl Method for AddDoneCallback {
    type Class = Future;
    const NAME: &'static CStr = c"add_done_callback";
    const DOC: &'static CStr = c"add_done_callback($self, fn, /, *, context=None)\n--\n
Have the loop call `fn` with this future at its end, in this context.";

    fn call<'py>(
        future: &Bound<'py, Future>,
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = arguments.py();
        let [function, context] = arguments.by_name("add_done_callback", 1, ["fn", "context"])?;
        let function = function.ok_or_else(|| {
            PyTypeError::new_err("add_done_callback() missing 1 required positional argument: 'fn'")
        })?;
        let context = context.map_or_else(|| imports(py).copy_context.bind(py).call0(), Ok)?;
        let callback = Callback { function: function.unbind(), context: context.unbind() };
        let mut state = future.get().lock();
        if matches!(state.outcome, Outcome::Pending) {
            state.callbacks.push(callback);
        } else {
            drop(state);
            Future::schedule(future, &callback)?;
        }
        Ok(py.None().into_bound(py))
    }
}
