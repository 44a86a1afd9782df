//! An event loop that has waiters of a limiter: asking it to call back, and telling it of failures.
//!
//! A limiter serves any number of loops in any number of threads. It belongs to none of them: what can run at once asks
//! no loop. A loop that runs in this thread is asked for callbacks as any of its code would ask; any other one, which may
//! run in whatever thread, by `call_soon_threadsafe`.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::future::Future;
use crate::imports::imports;

pub(crate) struct EventLoop {
    /// The loop itself.
    asyncio: Py<PyAny>,
    /// What callbacks run in, so that no timer keeps the context variables of the caller that set it.
    context: Py<PyAny>,
}

/// The loop that runs in this thread.
pub(crate) fn running(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    imports(py).get_running_loop.bind(py).call0()
}

/// Whether a loop runs in this thread.
pub(crate) fn one_runs_here(py: Python<'_>) -> PyResult<bool> {
    Ok(!imports(py).running_loop_or_none.bind(py).call0()?.is_none())
}

impl EventLoop {
    /// A loop that runs in this thread.
    pub(crate) fn new(event_loop: Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let context = imports(py).context.bind(py).call0()?.unbind();
        Ok(Self { asyncio: event_loop.unbind(), context })
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { asyncio: self.asyncio.clone_ref(py), context: self.context.clone_ref(py) }
    }

    pub(crate) fn is(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        event_loop.is(&self.asyncio)
    }

    /// Whether it runs in this thread right now.
    pub(crate) fn runs_here(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(imports(py).running_loop_or_none.bind(py).call0()?.is(&self.asyncio))
    }

    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.asyncio.bind(py)
    }

    pub(crate) fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.asyncio.bind(py).call_method0(intern!(py, "is_closed"))?.is_truthy()
    }

    /// Has the loop call `callback` in its next turn.
    pub(crate) fn call_soon(&self, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = callback.py();
        let name = if self.runs_here(py)? {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let context = [("context", self.context.bind(py))].into_py_dict(py)?;
        self.asyncio.bind(py).call_method(name, (callback,), Some(&context))?;
        Ok(())
    }

    /// Has the loop, which runs in this thread, call `callback` after so many nanoseconds, as nearly as it can tell the
    /// time. Returns the timer's handle.
    pub(crate) fn call_later<'py>(
        &self,
        delay_ns: u64,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = callback.py();
        let delay = Duration::from_nanos(delay_ns).as_secs_f64();
        let context = [("context", self.context.bind(py))].into_py_dict(py)?;
        let event_loop = self.asyncio.bind(py);
        event_loop.call_method(intern!(py, "call_later"), (delay, callback), Some(&context))
    }

    /// Wakes a future of this loop, or refuses it with an exception, unless it has ended already.
    pub(crate) fn wake(&self, future: &Bound<'_, Future>, refusal: Option<&PyErr>) -> PyResult<()> {
        let py = future.py();
        let refusal = refusal.map(|error| error.value(py).clone().into_any());
        if self.runs_here(py)? {
            return Future::end(future, refusal);
        }
        let arguments = (imports(py).wake.bind(py), future, refusal);
        self.asyncio.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), arguments)?;
        Ok(())
    }

    /// Calls the loop's exception handler.
    pub(crate) fn tell(
        &self,
        py: Python<'_>,
        message: &str,
        exception: Option<&PyErr>,
        limiter: Option<&Bound<'_, PyAny>>,
    ) {
        let tell = || {
            let context = [("message", message)].into_py_dict(py)?;
            if let Some(limiter) = limiter {
                context.set_item("limiter", limiter)?;
            }
            if let Some(exception) = exception {
                context.set_item("exception", exception.value(py))?;
            }
            let event_loop = self.asyncio.bind(py);
            event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))
        };
        if let Err(error) = tell() {
            error.write_unraisable(py, None);
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.asyncio)?;
        visit.call(&self.context)
    }
}

/// A future of the loop that runs in this thread.
pub(crate) fn create_future(py: Python<'_>) -> PyResult<Bound<'_, Future>> {
    Future::new(&running(py)?)
}

/// Has the loop that runs in this thread wake a future after so many nanoseconds. Returns the timer's handle.
pub(crate) fn wake_after<'py>(
    delay_ns: u64,
    future: &Bound<'py, Future>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = future.py();
    let delay = Duration::from_nanos(delay_ns).as_secs_f64();
    let arguments = (delay, imports(py).wake.bind(py), future);
    running(py)?.call_method1(intern!(py, "call_later"), arguments)
}

/// What loops call to wake a future of theirs.
#[pyfunction]
#[pyo3(signature = (future, refusal=None))]
pub(crate) fn wake(future: &Bound<'_, Future>, refusal: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    Future::end(future, refusal)
}
