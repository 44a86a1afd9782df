//! A task that was pushed into the queue, and the call of it.

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::errors;
use crate::event_loop::EventLoop;
use crate::imports::imports;

/// A pushed task, and the context (`contextvars`) that it was pushed in.
pub(crate) struct Pushed {
    task: Py<PyAny>,
    context: Py<PyAny>,
}

impl Pushed {
    pub(crate) fn new(task: &Bound<'_, PyAny>) -> PyResult<Self> {
        let context = imports(task.py()).copy_context.bind(task.py()).call0()?;
        Ok(Self { task: task.clone().unbind(), context: context.unbind() })
    }

    pub(crate) fn into_task(self) -> Py<PyAny> {
        self.task
    }

    /// Calls it in its context. Returns what it returned, if that is awaitable.
    pub(crate) fn call<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let returned = self.context.bind(py).call_method1(intern!(py, "run"), (&self.task,))?;
        if is_awaitable(&returned)? {
            return Ok(Some(returned));
        }
        let kind = returned.get_type();
        if kind.is(&imports(py).generator) || kind.is(&imports(py).async_generator) {
            return Err(errors::generator());
        }
        Ok(None)
    }

    /// Has the loop run a coroutine in its context. Returns the loop's task.
    pub(crate) fn spawn<'py>(
        &self,
        event_loop: &EventLoop,
        coroutine: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        let of_this_loop = [("loop", event_loop.bind(py))].into_py_dict(py)?;
        let begin = (&imports(py).ensure_future, coroutine);
        self.context.bind(py).call_method(intern!(py, "run"), begin, Some(&of_this_loop))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.task)?;
        visit.call(&self.context)
    }
}

/// Whether something is to be awaited: a coroutine, an object with `__await__`, or a generator that `types.coroutine`
/// made one.
pub(crate) fn is_awaitable(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    const ITERABLE_COROUTINE: u32 = 0x100;
    let py = value.py();
    let kind = value.get_type();
    if kind.is(&imports(py).coroutine) {
        return Ok(true);
    }
    if kind.is(&imports(py).generator) {
        let flags = value.getattr(intern!(py, "gi_code"))?.getattr(intern!(py, "co_flags"))?;
        return Ok(flags.extract::<u32>()? & ITERABLE_COROUTINE != 0);
    }
    kind.hasattr(intern!(py, "__await__"))
}
