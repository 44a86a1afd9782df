//! Which limiters' tasks this thread is inside of, right now.
//!
//! `run` and `push` enter their limiter's scope for as long as each poll of their task lasts. What
//! the task asks of its own limiter meanwhile can be told apart from what others ask: an `acquire`
//! that could only ever wait for the task itself, a push that must be queued and not run inside.
//! Tasks that the task spawns are outside; so is whoever holds a permit of its own.

use std::cell::RefCell;

use crate::shared::Shared;

thread_local! {
    static RUNNING: RefCell<Vec<(*const Shared, u64)>> = const { RefCell::new(Vec::new()) };
}

struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// Does `work` inside of a task of `weight`.
pub(crate) fn enter<R>(shared: &Shared, weight: u64, work: impl FnOnce() -> R) -> R {
    RUNNING.with_borrow_mut(|running| running.push((std::ptr::from_ref(shared), weight)));
    let _exit = Exit;
    work()
}

/// Whether this thread is inside a task of this limiter whose weight satisfies `predicate`.
pub(crate) fn any_running(shared: &Shared, mut predicate: impl FnMut(u64) -> bool) -> bool {
    RUNNING.with_borrow(|running| {
        let mut here = running.iter().filter(|(limiter, _)| std::ptr::eq(*limiter, shared));
        here.any(|(_, weight)| predicate(*weight))
    })
}
