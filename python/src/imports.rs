//! What is imported from Python, once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyCFunction;

pub(crate) struct Imports {
    pub(crate) get_running_loop: Py<PyAny>,
    /// The same, `None` where no loop runs.
    pub(crate) running_loop_or_none: Py<PyAny>,
    pub(crate) current_task: Py<PyAny>,
    pub(crate) ensure_future: Py<PyAny>,
    pub(crate) cancelled_error: Py<PyAny>,
    pub(crate) invalid_state_error: Py<PyAny>,
    pub(crate) context: Py<PyAny>,
    pub(crate) copy_context: Py<PyAny>,
    pub(crate) map: Py<PyAny>,
    pub(crate) monotonic_ns: Py<PyAny>,
    pub(crate) next: Py<PyAny>,
    pub(crate) coroutine: Py<PyAny>,
    pub(crate) generator: Py<PyAny>,
    pub(crate) async_generator: Py<PyAny>,
    /// Wakes a future; native.
    pub(crate) wake: Py<PyAny>,
    /// Whether a task can begin inside another one's step (`asyncio.eager_task_factory`).
    pub(crate) has_eager_tasks: bool,
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

/// `wake` is the native function that wakes a future.
pub(crate) fn import(wake: Bound<'_, PyCFunction>) -> PyResult<()> {
    let py = wake.py();
    IMPORTS.get_or_try_init(py, || {
        let asyncio = py.import("asyncio")?;
        let builtins = py.import("builtins")?;
        let contextvars = py.import("contextvars")?;
        let types = py.import("types")?;
        let name = |module: &Bound<'_, PyModule>, name| module.getattr(name).map(Bound::unbind);
        PyResult::Ok(Imports {
            get_running_loop: name(&asyncio, "get_running_loop")?,
            running_loop_or_none: name(&asyncio, "_get_running_loop")?,
            current_task: name(&asyncio, "current_task")?,
            ensure_future: name(&asyncio, "ensure_future")?,
            cancelled_error: name(&asyncio, "CancelledError")?,
            invalid_state_error: name(&asyncio, "InvalidStateError")?,
            context: name(&contextvars, "Context")?,
            copy_context: name(&contextvars, "copy_context")?,
            map: name(&builtins, "map")?,
            next: name(&builtins, "next")?,
            monotonic_ns: name(&py.import("time")?, "monotonic_ns")?,
            coroutine: name(&types, "CoroutineType")?,
            generator: name(&types, "GeneratorType")?,
            async_generator: name(&types, "AsyncGeneratorType")?,
            wake: wake.into_any().unbind(),
            has_eager_tasks: asyncio.hasattr("eager_task_factory")?,
        })
    })?;
    Ok(())
}

#[inline]
pub(crate) fn imports(py: Python<'_>) -> &'static Imports {
    IMPORTS.get(py).expect("the module has been imported")
}
