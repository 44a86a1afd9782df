//! Which of a limiter's tasks are on the stack, and whether one of them is asking.
//!
//! What a task asks of its own limiter can so be told apart from what others ask: a push that must be
//! queued and not run inside, a turn that could only ever wait for the task itself.

use pyo3::prelude::*;
use strict_rate_limiter_core::RunningTask;

use crate::line::Line;
use crate::names::names;

/// One of this limiter's tasks, while it is on the stack.
pub(crate) struct Frame {
    pub(crate) weight: u64,
    pub(crate) kind: FrameKind,
}

/// How a task of this limiter came to be on the stack.
pub(crate) enum FrameKind {
    /// Called, and it will return whatever becomes of what it asks for meanwhile.
    Called,
    /// Awaited, by this task of the loop where that is needed to tell what it asks for from what a
    /// task asks for that it began eagerly.
    Awaited(Option<Py<PyAny>>),
}

impl Line {
    /// Whether a task of this limiter is asking.
    pub(crate) fn is_inside(&self, py: Python<'_>) -> PyResult<bool> {
        let inner = self.lock();
        if !inner.inside.is_empty() || inner.started.is_empty() {
            return Ok(!inner.inside.is_empty());
        }
        drop(inner);
        let here = current_task(py)?;
        Ok(self.lock().started.iter().any(|(task, _)| here.is(task)))
    }

    /// Whether a task of this limiter is asking that would have to end before it had what it asks
    /// for: a permit of this weight, or, without one, that nothing runs any more.
    pub(crate) fn would_deadlock(&self, py: Python<'_>, weight: Option<u64>) -> PyResult<bool> {
        let inner = self.lock();
        if inner.inside.is_empty() && inner.started.is_empty() {
            return Ok(false);
        }
        drop(inner);
        let here = current_task(py)?;
        let inner = self.lock();
        let awaited = inner.inside.iter().filter(|frame| match &frame.kind {
            FrameKind::Called => false,
            FrameKind::Awaited(task) => task.as_ref().is_none_or(|task| here.is(task)),
        });
        let started = inner.started.iter().filter(|(task, _)| here.is(task));
        let mut outer =
            awaited.map(|frame| frame.weight).chain(started.map(|(_, done)| done.get().weight));
        let fits = |outer| {
            let outer = RunningTask { id: 0, weight: outer };
            weight.is_some_and(|weight| inner.machine.could_nest(&[outer], weight, &[]))
        };
        Ok(outer.any(|outer| !fits(outer)))
    }

    /// A task of this limiter goes onto the stack.
    #[inline]
    pub(crate) fn go_in(&self, frame: Frame) {
        self.lock().inside.push(frame);
    }

    /// The innermost one, which was called, has returned something that is now awaited.
    #[inline]
    pub(crate) fn await_inside(&self, driver: Option<Py<PyAny>>) {
        if let Some(frame) = self.lock().inside.last_mut() {
            frame.kind = FrameKind::Awaited(driver);
        }
    }

    /// The innermost one leaves it.
    #[inline]
    pub(crate) fn come_out(&self) {
        // Its reference ends after the lock does.
        let _frame = self.lock().inside.pop();
    }
}

fn current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    names(py).current_task.bind(py).call0()
}
