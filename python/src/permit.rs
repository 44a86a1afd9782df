//! The right to run one task, held by an object until it says that the task has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{PyTraverseError, PyVisit};

use crate::errors::undisturbed;
use crate::ffi::{self, Finalize};
use crate::imports::imports;
use crate::scheduler;
use crate::state::{Ending, Hold, RateLimiter};

/// The right to run one task, held from when it is granted until `complete()`, or the end of a
/// `with` or `async with` block. A permit that is dropped completes then.
#[pyclass(frozen, weakref, module = "async_rate_limiter")]
pub struct Permit {
    pub(crate) limiter: Py<RateLimiter>,
    /// The weight that it reserves.
    #[pyo3(get)]
    pub(crate) weight: u64,
    /// How long it may wait, in nanoseconds.
    pub(crate) timeout_ns: Option<u64>,
    state: Mutex<State>,
}

struct State {
    held: Option<Hold>,
    stage: Stage,
    actual: Option<u64>,
    excess: u64,
    /// The collector has found it, and has let it end.
    is_finalized: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    New,
    Requested,
    Held,
    Completed,
}

impl Permit {
    /// A permit that is yet to be requested.
    pub(crate) fn new(
        limiter: &Bound<'_, RateLimiter>,
        weight: u64,
        timeout_ns: Option<u64>,
    ) -> Self {
        let state =
            State { held: None, stage: Stage::New, actual: None, excess: 0, is_finalized: false };
        Self { limiter: limiter.clone().unbind(), weight, timeout_ns, state: Mutex::new(state) }
    }

    pub(crate) fn hold(&self, hold: Hold) {
        let mut state = self.lock();
        state.held = Some(hold);
        state.stage = Stage::Held;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// It is requested now, which is done once.
    pub(crate) fn request(&self) -> PyResult<()> {
        if std::mem::replace(&mut self.lock().stage, Stage::Requested) != Stage::New {
            return Err(PyRuntimeError::new_err("a permit is acquired once; ask for another one"));
        }
        Ok(())
    }

    pub(crate) fn is_held(&self) -> bool {
        self.lock().held.as_ref().is_some_and(Hold::is_of_this_process)
    }

    pub(crate) fn actual(&self) -> Option<u64> {
        self.lock().actual
    }

    pub(crate) fn set_actual(&self, actual: Option<u64>) -> PyResult<()> {
        let mut state = self.lock();
        if state.stage == Stage::Completed {
            return Err(PyRuntimeError::new_err("the permit has completed already"));
        }
        state.actual = actual;
        Ok(())
    }

    pub(crate) fn excess(&self) -> u64 {
        self.lock().excess
    }

    /// Ends it. `None` if it is not held.
    pub(crate) fn end(&self, py: Python<'_>, cancelled: bool) -> PyResult<Option<u64>> {
        let mut state = self.lock();
        let Some(hold) = state.held.take() else { return Ok(None) };
        state.stage = Stage::Completed;
        let ending = match state.actual {
            None if cancelled => Ending::Cancelled,
            actual => Ending::Completed { actual },
        };
        drop(state);
        let excess = scheduler::end(self.limiter.bind(py), hold, ending)?;
        self.lock().excess = excess;
        Ok(Some(excess))
    }

    /// Gives it back: its task never started. Whether it was held.
    pub(crate) fn release_unused(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.lock();
        let Some(hold) = state.held.take() else { return Ok(false) };
        state.stage = Stage::Completed;
        drop(state);
        scheduler::undo(self.limiter.bind(py), hold)?;
        Ok(true)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}

/// Whether a block ended because it was cancelled.
pub(crate) fn is_cancellation(kind: &Bound<'_, PyAny>) -> PyResult<bool> {
    if kind.is_none() {
        return Ok(false);
    }
    let py = kind.py();
    let kind = kind.cast::<PyType>()?;
    Ok(kind.is_subclass(imports(py).cancelled_error.bind(py))?
        || kind.is_subclass_of::<PyGeneratorExit>()?)
}

impl Finalize for Permit {
    fn finalize(this: &Bound<'_, Self>) {
        let permit = this.get();
        undisturbed(this.py(), || {
            if let Err(error) = permit.end(this.py(), true) {
                error.write_unraisable(this.py(), Some(this));
            }
        });
        permit.lock().is_finalized = true;
    }

    fn finalizer() -> &'static PyOnceLock<Py<PyAny>> {
        static FINALIZER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        &FINALIZER
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_held() {
            return;
        }
        Python::try_attach(|py| {
            let is_whole = ffi::has_finalizer::<Self>(py);
            let mut state = self.lock();
            if !state.is_finalized && is_whole {
                drop(state);
                return undisturbed(py, || {
                    if let Err(error) = self.end(py, true) {
                        error.write_unraisable(py, Some(self.limiter.bind(py)));
                    }
                });
            }
            // Held again after the collector has found it, or nobody could tell: no Python code may run now.
            if let Some(hold) = state.held.take() {
                let limiter = self.limiter.bind(py).get().state();
                limiter.lock().record_unstamped(hold, Ending::Cancelled);
            }
        });
    }
}
