//! Which limiters' tasks this thread is inside of, right now.
//!
//! `run` and `push` enter their limiter's scope for as long as each poll of their task lasts. What
//! the task asks of its own limiter meanwhile can be told apart from what others ask: an `acquire`
//! that could only ever wait for the task itself, a push that must be queued and not run inside.
//! Tasks that the task spawns are outside; so is whoever holds a permit of its own.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use strict_rate_limiter_core::RunningTask;

/// Tells the tasks of a process apart.
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

/// Does `work` inside of a task. A limiter is known by its address.
pub(crate) fn enter<L, R>(limiter: &L, task: RunningTask, work: impl FnOnce() -> R) -> R {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow_mut(|running| running.push((limiter, task)));
    let _exit = Exit;
    work()
}

/// The tasks of this limiter that this thread is inside of, the outermost first.
pub(crate) fn tasks_of<L>(limiter: &L) -> Vec<RunningTask> {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow(|running| {
        let here = running.iter().filter(|(outer, _)| std::ptr::eq(*outer, limiter));
        here.map(|(_, task)| *task).collect()
    })
}

/// Whether this thread is inside a task of this limiter.
#[cfg(feature = "tokio")]
pub(crate) fn is_inside<L>(limiter: &L) -> bool {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow(|running| running.iter().any(|(outer, _)| std::ptr::eq(*outer, limiter)))
}
