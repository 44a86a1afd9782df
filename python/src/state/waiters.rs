//! Who waits in a limiter's queue.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::Py;
use pyo3::{PyTraverseError, PyVisit};

use super::loops::LoopId;
use crate::future::Future;
use crate::pushed::Pushed;
use crate::thread_mark::ThreadMark;

/// Who waits in the queue.
pub(crate) enum Waiter {
    /// A coroutine, by the future of its loop that it awaits.
    Coroutine { event_loop: LoopId, future: Py<Future> },
    /// A thread.
    Thread(ThreadWaiter),
    /// A task that was left to the limiter, and the future of the caller that still waits for room in the queue.
    Pushed { event_loop: LoopId, task: Pushed, room: Option<Py<Future>> },
}

/// A thread that waits.
pub(crate) struct ThreadWaiter {
    pub(crate) thread: ThreadMark,
    /// What it waits for.
    pub(crate) signal: Arc<Signal>,
    /// Until when it has to wait at most, if it is the first.
    pub(crate) opening: Option<u64>,
}

/// What a thread waits for: it is given once for each change that is for the thread.
#[derive(Default)]
pub(crate) struct Signal {
    is_given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn give(&self) {
        *self.is_given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for it, for at most so long, and takes it. Not to be called while attached to the interpreter.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let is_given = self.is_given.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_given, timeout, |is_given| !*is_given);
        let (mut is_given, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut is_given, false)
    }
}

impl Waiter {
    pub(crate) fn event_loop(&self) -> Option<LoopId> {
        match self {
            Self::Coroutine { event_loop, .. } | Self::Pushed { event_loop, .. } => {
                Some(*event_loop)
            }
            Self::Thread(_) => None,
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Coroutine { future, .. } => visit.call(future),
            Self::Thread(_) => Ok(()),
            Self::Pushed { task, room, .. } => {
                task.traverse(visit)?;
                visit.call(room)
            }
        }
    }
}
