//! Whether a caller would wait for itself: what it asks for needs a task to end that only goes on after the caller.

use pyo3::prelude::*;
use strict_rate_limiter_core::RunningTask;

use crate::event_loop;
use crate::imports::imports;
use crate::state::{Caller, Inner, State, Waiter};
use crate::thread_mark::ThreadMark;

impl State {
    /// Whether a task of this limiter is asking.
    pub(crate) fn is_inside(&self) -> bool {
        self.lock().frames.here().next().is_some()
    }

    /// Whether a task of this limiter is asking that would have to end before it had what it asks for: a permit of this
    /// weight, or, without one, that nothing runs any more.
    pub(crate) fn would_deadlock(&self, py: Python<'_>, weight: Option<u64>) -> PyResult<bool> {
        if self.lock().frames.is_empty() {
            return Ok(false);
        }
        let task = current_task(py)?;
        let inner = self.lock();
        let mut outer = inner.frames.awaited_by(&task);
        Ok(outer.any(|outer| !weight.is_some_and(|weight| could_nest(&inner, outer, weight))))
    }

    /// The same for a thread that is to be blocked. What it holds by `with limiter` cannot end before it goes on; nor can
    /// its own wait, if a signal handler asks meanwhile.
    pub(crate) fn would_block_itself(&self, weight: u64) -> bool {
        let here = ThreadMark::here();
        let inner = self.lock();
        let waits =
            |waiter: &Waiter| matches!(waiter, Waiter::Thread(waiter) if waiter.thread == here);
        // A hook that waits would keep whoever has called it from going on.
        if inner.is_telling_here() || inner.machine.waiters().any(waits) {
            return true;
        }
        let held = inner.blocking.iter().filter(|thread| **thread == here).map(|_| 1);
        let mut outer = inner.frames.here().chain(held);
        outer.any(|outer| !could_nest(&inner, outer, weight))
    }
}

impl State {
    /// Who asks, as far as it can be told; `None` without a hook, which alone wants to know.
    #[inline]
    pub(crate) fn caller(&self, py: Python<'_>) -> Option<Caller> {
        self.is_watched.then(|| match current_task(py) {
            Ok(task) if !task.is_none() => Caller::Task(task.as_ptr().addr()),
            _ => Caller::Thread(ThreadMark::here()),
        })
    }
}

fn could_nest(inner: &Inner, outer: u64, weight: u64) -> bool {
    inner.machine.could_nest(&[RunningTask { id: 0, weight: outer }], weight, &[])
}

/// The task that runs in this thread; `None` where no loop runs.
fn current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    if event_loop::one_runs_here(py)? {
        imports(py).current_task.bind(py).call0()
    } else {
        Ok(py.None().into_bound(py))
    }
}
