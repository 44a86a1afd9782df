//! Which of a limiter's tasks are on a thread's stack.
//!
//! So what a task asks of its own limiter is told apart from what others ask: a push that must be queued and not run
//! inside, a wait that could only ever wait for the task itself (`deadlock.rs`).

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::thread_mark::ThreadMark;

/// The tasks that are on a stack right now, outermost first.
#[derive(Default)]
pub(crate) struct Frames(Vec<Frame>);

/// One of this limiter's tasks, while it is on a stack.
pub(crate) struct Frame {
    thread: ThreadMark,
    weight: u64,
    kind: FrameKind,
}

/// How a task of this limiter came to be on the stack.
pub(crate) enum FrameKind {
    /// Called, and it will return whatever becomes of what it asks for meanwhile.
    Called,
    /// Awaited, by this task of the loop where that is needed to tell what it asks for from what a task asks for that
    /// it began eagerly.
    Awaited(Option<Py<PyAny>>),
}

impl Frames {
    /// Whether surely no task of this limiter is asking.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A task goes onto this thread's stack.
    #[inline]
    pub(crate) fn go_in(&mut self, weight: u64, kind: FrameKind) {
        self.0.push(Frame { thread: ThreadMark::here(), weight, kind });
    }

    /// The innermost one of this thread leaves it. What it refers to is to end after the lock does.
    #[inline]
    pub(crate) fn come_out(&mut self) -> Option<Frame> {
        let here = ThreadMark::here();
        if self.0.last().is_some_and(|frame| frame.thread == here) {
            return self.0.pop();
        }
        let innermost = self.0.iter().rposition(|frame| frame.thread == here)?;
        Some(self.0.remove(innermost))
    }

    /// The innermost one of this thread, which was called, has returned something that is now awaited. Returns its
    /// weight.
    #[inline]
    pub(crate) fn await_inside(&mut self, driver: Option<Py<PyAny>>) -> u64 {
        let here = ThreadMark::here();
        self.0.iter_mut().rfind(|frame| frame.thread == here).map_or(1, |frame| {
            frame.kind = FrameKind::Awaited(driver);
            frame.weight
        })
    }

    /// The weights of the tasks on this thread's stack.
    pub(crate) fn here(&self) -> impl Iterator<Item = u64> {
        let here = ThreadMark::here();
        self.0.iter().filter(move |frame| frame.thread == here).map(|frame| frame.weight)
    }

    /// The weights of those that are awaited by this task of the loop.
    pub(crate) fn awaited_by(&self, task: &Bound<'_, PyAny>) -> impl Iterator<Item = u64> {
        let here = ThreadMark::here();
        let is_awaited = move |frame: &&Frame| match &frame.kind {
            FrameKind::Called => false,
            FrameKind::Awaited(driver) => {
                frame.thread == here && driver.as_ref().is_none_or(|driver| task.is(driver))
            }
        };
        self.0.iter().filter(is_awaited).map(|frame| frame.weight)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|frame| match &frame.kind {
            FrameKind::Called => Ok(()),
            FrameKind::Awaited(task) => visit.call(task),
        })
    }
}
