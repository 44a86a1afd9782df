//! The event loop that a limiter belongs to.
//!
//! A limiter serves one loop in one thread: the first that it is used in, until that loop is
//! closed. Asking asyncio which loop is running costs a system call before Python 3.12, more than
//! all the rest of a push. So the loop's own mark of its present run is remembered: while the loop
//! still shows the very same object, it is the same loop in the same run.

use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::limiter::RateLimiter;
use crate::look::Look;
use crate::names::names;

pub(crate) struct Home {
    pub(crate) event_loop: Py<PyAny>,
    /// The object that asyncio's own loops show while they run; each run has a new one.
    run: Option<Py<PyAny>>,
    thread: usize,
    /// What looks run in, so that no timer keeps the variables of whoever came first.
    context: Py<PyAny>,
}

/// A loop of this thread, and where its mark of its present run is. The limiter keeps that object,
/// so no other can be in the same place.
pub(crate) struct Mark<'py> {
    event_loop: Bound<'py, PyAny>,
    run: usize,
}

impl Mark<'_> {
    /// Whether this is surely the loop that runs here. `false` says nothing.
    #[inline]
    pub(crate) fn is_surely_here(&self) -> bool {
        let shown = self.event_loop.getattr(intern!(self.event_loop.py(), "_thread_id"));
        shown.is_ok_and(|shown| shown.as_ptr().addr() == self.run)
    }
}

impl Home {
    /// The loop that runs in this thread.
    pub(crate) fn find(py: Python<'_>) -> PyResult<Self> {
        let event_loop = names(py).get_running_loop.bind(py).call0()?;
        let run = event_loop.getattr_opt(intern!(py, "_thread_id"))?.filter(|run| !run.is_none());
        Ok(Self {
            event_loop: event_loop.unbind(),
            run: run.map(Bound::unbind),
            thread: this_thread(),
            context: names(py).context.bind(py).call0()?.unbind(),
        })
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            event_loop: self.event_loop.clone_ref(py),
            run: self.run.as_ref().map(|run| run.clone_ref(py)),
            thread: self.thread,
            context: self.context.clone_ref(py),
        }
    }

    /// What tells quickly whether this is the loop that runs here.
    #[inline]
    pub(crate) fn mark<'py>(&self, py: Python<'py>) -> Option<Mark<'py>> {
        let run = self.run.as_ref().filter(|_| self.is_this_thread())?;
        Some(Mark { event_loop: self.event_loop.bind(py).clone(), run: run.as_ptr().addr() })
    }

    pub(crate) fn is_this_thread(&self) -> bool {
        self.thread == this_thread()
    }

    pub(crate) fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.event_loop.bind(py).call_method0(intern!(py, "is_closed"))?.is_truthy()
    }

    /// Has the loop call `look` in its next turn; from another thread as well.
    pub(crate) fn call_soon(&self, look: &Bound<'_, Look>) -> PyResult<()> {
        let py = look.py();
        let name = if self.is_this_thread() {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let context = [("context", self.context.bind(py))].into_py_dict(py)?;
        self.event_loop.bind(py).call_method(name, (look,), Some(&context))?;
        Ok(())
    }

    /// Has the loop call `look` after so many nanoseconds, as nearly as it can tell the time.
    pub(crate) fn call_later<'py>(
        &self,
        delay_ns: u64,
        look: &Bound<'py, Look>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = look.py();
        let delay = Duration::from_nanos(delay_ns).as_secs_f64();
        let context = [("context", self.context.bind(py))].into_py_dict(py)?;
        let event_loop = self.event_loop.bind(py);
        event_loop.call_method(intern!(py, "call_later"), (delay, look), Some(&context))
    }

    /// Calls the loop's exception handler.
    pub(crate) fn tell(
        &self,
        py: Python<'_>,
        message: &str,
        exception: Option<&PyErr>,
        limiter: Option<&Bound<'_, RateLimiter>>,
    ) {
        let tell = || {
            let context = [("message", message)].into_py_dict(py)?;
            if let Some(limiter) = limiter {
                context.set_item("limiter", limiter)?;
            }
            if let Some(exception) = exception {
                context.set_item("exception", exception.value(py))?;
            }
            let event_loop = self.event_loop.bind(py);
            event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))
        };
        if let Err(error) = tell() {
            error.write_unraisable(py, None);
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.run)?;
        visit.call(&self.context)
    }

    /// A future of this loop.
    pub(crate) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.event_loop.bind(py).call_method0(intern!(py, "create_future"))
    }
}

pub(crate) fn elsewhere(limiter: &Bound<'_, RateLimiter>) -> PyErr {
    PyRuntimeError::new_err(format!(
        "{} is bound to a different event loop: a limiter serves one loop in one thread, \
         until that loop is closed",
        limiter.get().name()
    ))
}

/// Tells threads apart that exist at the same time.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}
