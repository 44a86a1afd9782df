//! Tasks that were left to the limiter, and what becomes of them when their turn has come.
//!
//! A function is called in the context that it was pushed in, as the loop's own callbacks are. What
//! it returns to be awaited becomes a task of the loop. Nobody waits for a queued task, so what it
//! raises goes to the loop's exception handler, and the queue goes on.

use std::sync::Mutex;

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use pyo3::{PyTraverseError, PyVisit, intern};
use strict_rate_limiter_core::Grant;

use crate::home::Home;
use crate::inside::{Frame, FrameKind};
use crate::limiter::RateLimiter;
use crate::line::{self, Ending};
use crate::names::names;
use crate::running;

/// A task in the queue.
pub(crate) struct Queued {
    task: Py<PyAny>,
    context: Py<PyAny>,
}

/// What became of a task whose turn has come.
pub(crate) enum Started {
    /// The loop runs it.
    Runs,
    /// It was a function, and has ended. An error is one that ends the program, not the task.
    Ended(PyResult<()>),
}

/// What a task of the loop calls when it is done.
#[pyclass(frozen)]
pub(crate) struct Done {
    limiter: Py<RateLimiter>,
    pub(crate) weight: u64,
    permit: Mutex<Option<Grant>>,
}

impl Queued {
    pub(crate) fn new(task: &Bound<'_, PyAny>) -> PyResult<Self> {
        let context = names(task.py()).copy_context.bind(task.py()).call0()?;
        Ok(Self { task: task.clone().unbind(), context: context.unbind() })
    }

    pub(crate) fn into_task(self) -> Py<PyAny> {
        self.task
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.task)?;
        visit.call(&self.context)
    }
}

/// Runs a task that was granted its permit.
pub(crate) fn start(
    limiter: &Bound<'_, RateLimiter>,
    home: &Home,
    queued: &Queued,
    permit: Grant,
) -> Started {
    let weight = permit.weight();
    let line = &limiter.get().line;
    line.go_in(Frame { weight, kind: FrameKind::Called });
    let called = call(limiter.py(), home, queued);
    line.come_out();
    match called {
        Ok(Some(task)) => match watch(limiter, &task, permit) {
            Ok(()) => Started::Runs,
            Err(error) => Started::Ended(report(limiter, home, error)),
        },
        Ok(None) => {
            line::end(limiter, permit, Ending::COMPLETED);
            Started::Ended(Ok(()))
        }
        Err(error) => {
            let ending = running::ending_of(&error, limiter.py());
            line::end(limiter, permit, ending);
            Started::Ended(report(limiter, home, error))
        }
    }
}

/// Calls the function; the task of the loop that awaits what it returned, if that is awaitable.
fn call<'py>(py: Python<'py>, home: &Home, queued: &Queued) -> PyResult<Option<Bound<'py, PyAny>>> {
    let context = queued.context.bind(py);
    let returned = context.call_method1(intern!(py, "run"), (&queued.task,))?;
    if !running::is_awaitable(&returned)? {
        return Ok(None);
    }
    let of_this_loop = [("loop", home.event_loop.bind(py))].into_py_dict(py)?;
    let begin = (&names(py).ensure_future, returned);
    context.call_method(intern!(py, "run"), begin, Some(&of_this_loop)).map(Some)
}

fn watch(limiter: &Bound<'_, RateLimiter>, task: &Bound<'_, PyAny>, permit: Grant) -> PyResult<()> {
    let py = limiter.py();
    let weight = permit.weight();
    let permit = Mutex::new(Some(permit));
    let done = Bound::new(py, Done { limiter: limiter.clone().unbind(), weight, permit })?;
    if let Err(error) = task.call_method1(intern!(py, "add_done_callback"), (&done,)) {
        done.get().end(limiter, Ending::Cancelled);
        return Err(error);
    }
    limiter.get().line.lock().started.push((task.clone().unbind(), done.unbind()));
    Ok(())
}

/// Tells the loop's exception handler and `on_error` of what a queued task raised, and hands back
/// what is for the whole program.
fn report(limiter: &Bound<'_, RateLimiter>, home: &Home, error: PyErr) -> PyResult<()> {
    let py = limiter.py();
    if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Err(error);
    }
    let message = format!("A queued task of {} failed", limiter.get().name());
    home.tell(py, &message, Some(&error), Some(limiter));
    let on_error = limiter.get().line.lock().on_error.as_ref().map(|call| call.clone_ref(py));
    if let Some(on_error) = on_error
        && let Err(error) = on_error.bind(py).call1((error.value(py),))
    {
        let message = format!("on_error of {} failed", limiter.get().name());
        home.tell(py, &message, Some(&error), Some(limiter));
    }
    Ok(())
}

impl Done {
    /// Takes the permit and ends the task.
    pub(crate) fn end(&self, limiter: &Bound<'_, RateLimiter>, ending: Ending) {
        let permit = self.permit.lock().ok().and_then(|mut permit| permit.take());
        if let Some(permit) = permit {
            line::end(limiter, permit, ending);
        }
    }
}

#[pymethods]
impl Done {
    fn __call__(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let limiter = self.limiter.bind(py);
        let mut inner = limiter.get().line.lock();
        let index = inner.started.iter().position(|(started, _)| started.is(task));
        let started = index.map(|index| inner.started.swap_remove(index));
        let home = inner.home.as_ref().map(|home| home.clone_ref(py));
        drop(inner);
        drop(started);
        if task.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            self.end(limiter, Ending::Cancelled);
            return Ok(());
        }
        let error = task.call_method0(intern!(py, "exception"))?;
        self.end(limiter, Ending::COMPLETED);
        if let Some(home) = home.filter(|_| !error.is_none()) {
            // The loop has raised what is for the whole program already.
            report(limiter, &home, PyErr::from_value(error)).or(Ok(()))
        } else {
            Ok(())
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}
