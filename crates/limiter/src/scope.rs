//! Which limiters' tasks this thread is inside of, right now.
//!
//! `run` and `push` enter their limiter's scope for as long as each poll of their task lasts. What
//! the task asks of its own limiter meanwhile can be told apart from what others ask: an `acquire`
//! that could only ever wait for the task itself, a push that must be queued and not run inside.
//! Tasks that the task spawns are outside; so is whoever holds a permit of its own.

use std::cell::RefCell;

thread_local! {
    static RUNNING: RefCell<Vec<(*const (), u64)>> = const { RefCell::new(Vec::new()) };
}

struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// Does `work` inside of a task of `weight`. A limiter is known by its address.
pub(crate) fn enter<L, R>(limiter: &L, weight: u64, work: impl FnOnce() -> R) -> R {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow_mut(|running| running.push((limiter, weight)));
    let _exit = Exit;
    work()
}

/// Whether this thread is inside a task of this limiter whose weight satisfies `predicate`.
pub(crate) fn any_running<L>(limiter: &L, mut predicate: impl FnMut(u64) -> bool) -> bool {
    let limiter = std::ptr::from_ref(limiter).cast();
    RUNNING.with_borrow(|running| {
        let mut here = running.iter().filter(|(outer, _)| std::ptr::eq(*outer, limiter));
        here.any(|(_, weight)| predicate(*weight))
    })
}
