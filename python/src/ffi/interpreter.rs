//! Which interpreter imports the module.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

const MAIN_INTERPRETER: i64 = 0;

/// Refuses all interpreters but the main one. The statics of this library hold objects of one interpreter; another one
/// would use them under the wrong lock, or after their end. To be called before anything is kept, so that a
/// subinterpreter that comes first takes nobody's place.
pub(crate) fn refuse_subinterpreter(_: Python<'_>) -> PyResult<()> {
    // SAFETY: this thread is attached to an interpreter, which these functions ask for.
    let interpreter = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if interpreter == MAIN_INTERPRETER {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "async_rate_limiter works in the main interpreter alone, not in a subinterpreter",
    ))
}
