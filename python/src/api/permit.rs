//! `Permit`, as Python sees it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::blocking;
use crate::config::natural;
use crate::errors;
use crate::ffi;
use crate::operation::{Call, Request};
use crate::permit::{Permit, Stage, is_cancellation};

/// Requests it. The answer is the permit itself.
pub(crate) fn acquire<'py>(permit: &Bound<'py, Permit>) -> PyResult<Bound<'py, PyAny>> {
    let this = permit.get();
    this.request()?;
    let py = permit.py();
    let (limiter, request) =
        (this.limiter.clone_ref(py), Request::Acquire(permit.clone().unbind()));
    let (weight, timeout_ns) = (this.weight, this.timeout_ns);
    ffi::new(py, Call::New { limiter, weight, timeout_ns, request })
}

/// The same in a thread that waits.
pub(crate) fn acquire_blocking(permit: &Bound<'_, Permit>) -> PyResult<()> {
    let this = permit.get();
    this.request()?;
    let limiter = this.limiter.bind(permit.py());
    this.hold(blocking::acquire(limiter, this.weight, this.timeout_ns)?);
    Ok(())
}

#[pymethods]
impl Permit {
    /// The weight that the task turned out to have; None until it is known. Set it before the
    /// permit completes: less than reserved frees the rest at once, more is recorded in full. It says
    /// that the call has been answered, so a block cancelled after that has no grace.
    #[getter(actual)]
    fn get_actual(&self) -> Option<u64> {
        self.actual()
    }

    #[setter(actual)]
    fn put_actual(&self, actual: &Bound<'_, PyAny>) -> PyResult<()> {
        let actual = if actual.is_none() { None } else { Some(natural("actual", actual)?) };
        self.set_actual(actual)
    }

    /// What the task used beyond the weight it had reserved; 0 until it has completed.
    #[getter(excess)]
    fn get_excess(&self) -> u64 {
        self.excess()
    }

    /// Whether it is held: granted, and not completed.
    #[getter]
    fn held(&self) -> bool {
        self.is_held()
    }

    /// Say that the task has ended, with the weight that it turned out to have if that is known.
    ///
    /// Returns what it used beyond its reservation. Raises RuntimeError if the permit is not held.
    #[pyo3(signature = (actual=None))]
    fn complete(&self, py: Python<'_>, actual: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        if let Some(actual) = actual {
            self.put_actual(actual)?;
        }
        self.end(py, false)?.ok_or_else(|| PyRuntimeError::new_err("the permit is not held"))
    }

    /// Give it back: its task never started, so nothing counts. Raises RuntimeError if the permit is
    /// not held.
    #[pyo3(name = "release_unused")]
    fn give_back(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().release_unused(slf.py())? {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("the permit is not held"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        match slf.get().stage() {
            Stage::New => acquire_blocking(&slf)?,
            Stage::Held => {}
            Stage::Requested | Stage::Completed => {
                return Err(PyRuntimeError::new_err("the permit is not held"));
            }
        }
        Ok(slf)
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __exit__(
        &self,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (value, traceback);
        self.end(kind.py(), is_cancellation(kind)?).map(drop)
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        acquire(slf)
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __aexit__<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.__exit__(kind, value, traceback)?;
        Nothing::get(kind.py())
    }

    #[expect(clippy::unused_self, reason = "the protocol asks for it")]
    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Permit"))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let stage = match self.stage() {
            Stage::New => "not requested",
            Stage::Requested => "waiting",
            Stage::Held => "held",
            Stage::Completed => "completed",
        };
        let limiter = self.limiter.bind(py).get().state().title();
        format!("<Permit of {limiter}, weight {}, {stage}>", self.weight)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }
}

/// Awaits nothing, for ends of blocks that have nothing to wait for.
#[pyclass(frozen, module = "async_rate_limiter._native")]
pub(crate) struct Nothing;

impl Nothing {
    pub(crate) fn get(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static NOTHING: pyo3::sync::PyOnceLock<Py<Nothing>> = pyo3::sync::PyOnceLock::new();
        let nothing = NOTHING.get_or_try_init(py, || Py::new(py, Self))?;
        Ok(nothing.bind(py).clone().into_any())
    }
}

#[pymethods]
impl Nothing {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[expect(clippy::unused_self, reason = "the protocol asks for it")]
    fn __next__(&self) -> Option<()> {
        None
    }
}
