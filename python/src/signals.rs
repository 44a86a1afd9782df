//! Handlers of signals run in the main thread, between any two steps of Python code, and may raise there. Whatever asks a
//! loop for something is tried again then: what the loop was not asked for never happens.

use std::thread;

use pyo3::prelude::*;

/// How often something is tried again after it has raised.
pub(crate) const ATTEMPTS: usize = 3;

/// Does something in another thread, which no handler interrupts, and waits for it. For what has raised at each attempt:
/// signals may come faster than a call to a loop takes. `None` if the system refuses a thread.
pub(crate) fn in_another_thread<R: Send>(
    py: Python<'_>,
    work: impl FnOnce(Python<'_>) -> R + Send,
) -> Option<R> {
    py.detach(|| {
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || Python::attach(work));
            thread.ok()?.join().ok()
        })
    })
}
