//! Which process this is, counted in forks.
//!
//! A forked child has copies of all limiters: with waiters, loops and running tasks that go on in the parent alone. So
//! each limiter knows in which process it was last used, and starts anew in another one (`state/`).

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

/// How many forks lie between the process that imported this module and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Counts the forks from here on.
pub(crate) fn watch(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let count = PyCFunction::new_closure(py, None, None, |_, _| {
        FORKS.fetch_add(1, Ordering::Relaxed);
    })?;
    let in_child = [("after_in_child", count)].into_py_dict(py)?;
    os.call_method("register_at_fork", (), Some(&in_child))?;
    Ok(())
}
