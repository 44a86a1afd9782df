//! The right to run one task, held by an object until it says that the task has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::error::undisturbed;
use crate::limiter::RateLimiter;
use crate::line::{self, Ending};
use crate::names::names;
use crate::raw;
use crate::settings::natural;
use crate::turn::{Turn, Wish};

/// The right to run one task, held from when it is granted until `complete()`, or the end of a
/// `with` or `async with` block. A permit that is dropped completes then.
#[pyclass(frozen, module = "async_rate_limiter")]
pub struct Permit {
    limiter: Py<RateLimiter>,
    /// The weight that it reserves.
    #[pyo3(get)]
    weight: u64,
    state: Mutex<State>,
}

struct State {
    held: Option<strict_rate_limiter_core::Grant>,
    stage: Stage,
    actual: Option<u64>,
    excess: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Asked,
    Held,
    Completed,
}

impl Permit {
    /// A permit that is yet to be asked for.
    pub(crate) fn new(limiter: &Bound<'_, RateLimiter>, weight: u64) -> Self {
        let state = State { held: None, stage: Stage::New, actual: None, excess: 0 };
        Self { limiter: limiter.clone().unbind(), weight, state: Mutex::new(state) }
    }

    pub(crate) fn hold(&self, permit: strict_rate_limiter_core::Grant) {
        let mut state = self.state();
        state.held = Some(permit);
        state.stage = Stage::Held;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for it. The answer is the permit itself.
    pub(crate) fn ask<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        if std::mem::replace(&mut this.state().stage, Stage::Asked) != Stage::New {
            return Err(PyRuntimeError::new_err("a permit is acquired once; ask for another one"));
        }
        let (limiter, wish) = (this.limiter.clone_ref(py), Wish::Acquire(slf.clone().unbind()));
        raw::new(py, Turn::New { limiter, weight: this.weight, wish })
    }

    /// Ends it, unless that was done already.
    fn end(&self, py: Python<'_>, cancelled: bool) -> Option<u64> {
        let mut state = self.state();
        let permit = state.held.take()?;
        state.stage = Stage::Completed;
        let actual = state.actual;
        drop(state);
        let ending = match actual {
            None if cancelled => Ending::Cancelled,
            actual => Ending::Completed { actual },
        };
        let excess = line::end(self.limiter.bind(py), permit, ending);
        self.state().excess = excess;
        Some(excess)
    }
}

/// Whether a block ended because it was cancelled.
pub(crate) fn is_cancellation(kind: &Bound<'_, PyAny>) -> PyResult<bool> {
    if kind.is_none() {
        return Ok(false);
    }
    let py = kind.py();
    let kind = kind.cast::<pyo3::types::PyType>()?;
    Ok(kind.is_subclass(names(py).cancelled_error.bind(py))?
        || kind.is_subclass_of::<pyo3::exceptions::PyGeneratorExit>()?)
}

#[pymethods]
impl Permit {
    /// The weight that the task turned out to have; None until it is known. Set it before the
    /// permit completes: less than reserved frees the rest at once, more is recorded in full. It says
    /// that the call has been answered, so a block cancelled after that has no grace.
    #[getter]
    fn actual(&self) -> Option<u64> {
        self.state().actual
    }

    #[setter]
    fn set_actual(&self, actual: &Bound<'_, PyAny>) -> PyResult<()> {
        let actual = if actual.is_none() { None } else { Some(natural("actual", actual)?) };
        let mut state = self.state();
        if state.stage == Stage::Completed {
            return Err(PyRuntimeError::new_err("the permit has completed already"));
        }
        state.actual = actual;
        Ok(())
    }

    /// What the task used beyond the weight it had reserved; 0 until it has completed.
    #[getter]
    fn excess(&self) -> u64 {
        self.state().excess
    }

    /// Whether it is held: granted, and not completed.
    #[getter]
    fn held(&self) -> bool {
        self.state().held.is_some()
    }

    /// Say that the task has ended, with the weight that it turned out to have if that is known.
    ///
    /// Returns what it used beyond its reservation. Raises RuntimeError if the permit is not held.
    #[pyo3(signature = (actual=None))]
    fn complete(&self, py: Python<'_>, actual: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        if let Some(actual) = actual {
            self.set_actual(actual)?;
        }
        self.end(py, false).ok_or_else(|| PyRuntimeError::new_err("the permit is not held"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        if slf.get().state().held.is_none() {
            return Err(PyRuntimeError::new_err(
                "the permit is not held: acquire it by `async with`, or take one by try_acquire()",
            ));
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
        self.end(kind.py(), is_cancellation(kind)?);
        Ok(())
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::ask(slf)
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

    fn __repr__(&self, py: Python<'_>) -> String {
        let stage = match self.state().stage {
            Stage::New => "not asked for",
            Stage::Asked => "waiting",
            Stage::Held => "held",
            Stage::Completed => "completed",
        };
        let limiter = self.limiter.bind(py).get().name();
        format!("<Permit of {limiter}, weight {}, {stage}>", self.weight)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.state().held.is_some() {
            Python::try_attach(|py| undisturbed(py, || self.end(py, true)));
        }
    }
}

/// Awaits nothing, for ends of blocks that have nothing to wait for.
#[pyclass(frozen)]
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
