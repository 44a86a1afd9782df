//! A thread-local stack of the tasks that this thread is polling, with their limiters.
//!
//! `run` and `push` put their task on the stack for the duration of each poll. So a limiter can tell what
//! its own running task asks for: an `acquire` that could only wait for that task is refused, and a push
//! is queued and not run inside the task. Tasks that the task spawns are not inside it, nor is code that
//! holds a permit outside `run` and `push`.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use strict_rate_limiter_core::RunningTask;

/// A task's id, unique in the process.
pub(crate) type TaskId = u64;

thread_local! {
    static RUNNING: RefCell<Vec<(*const (), RunningTask)>> = const { RefCell::new(Vec::new()) };
}

struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// An id for a task that is about to run.
pub(crate) fn new_task() -> TaskId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Does `work` inside a task. A limiter is identified by its address.
pub(crate) fn enter<L, R>(limiter: &L, task: RunningTask, work: impl FnOnce() -> R) -> R {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow_mut(|running| running.push((limiter, task)));
    let _exit = Exit;
    work()
}

/// The tasks of this limiter that this thread is polling, the outermost first.
pub(crate) fn tasks_of<L>(limiter: &L) -> Vec<RunningTask> {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow(|running| {
        let here = running.iter().filter(|(outer, _)| std::ptr::eq(*outer, limiter));
        here.map(|(_, task)| *task).collect()
    })
}

/// Whether this thread is polling a task of this limiter.
#[cfg(feature = "tokio")]
pub(crate) fn is_inside<L>(limiter: &L) -> bool {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow(|running| running.iter().any(|(outer, _)| std::ptr::eq(*outer, limiter)))
}
