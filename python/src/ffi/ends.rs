//! The ends of awaitables, one inside of the other's.

use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

use super::awaitable::Operation;

/// How deep ends may be nested: an operation's end drops what it holds, which may be the last reference to another
/// awaitable, and so on. Deeper ones are put off, so that a long chain takes no stack.
const NESTED_MAX: usize = 50;

/// Of this thread: how deep ends are nested right now, and what was put off.
struct Ends {
    nested: Cell<usize>,
    put_off: RefCell<Vec<Box<dyn FnOnce()>>>,
}

thread_local!(static ENDS: Ends = const {
    Ends { nested: Cell::new(0), put_off: RefCell::new(Vec::new()) }
});

/// Ends what an object did.
#[inline]
pub(super) fn end<O: Operation>(operation: O, work: impl FnOnce(O, Python<'_>) + 'static) {
    if operation.is_done() {
        return;
    }
    let nested = ENDS.with(|ends| ends.nested.get());
    if nested >= NESTED_MAX {
        let end = Box::new(move || end_now(operation, work));
        return ENDS.with(|ends| ends.put_off.borrow_mut().push(end));
    }
    ENDS.with(|ends| ends.nested.set(nested + 1));
    end_now(operation, work);
    if nested == 0 {
        while let Some(end) = ENDS.with(|ends| ends.put_off.borrow_mut().pop()) {
            end();
        }
    }
    ENDS.with(|ends| ends.nested.set(nested));
}

fn end_now<O: Operation>(operation: O, work: impl FnOnce(O, Python<'_>)) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // The interpreter may be gone, and with it all there was to end.
        let mut operation = Some(operation);
        let attached = Python::try_attach(|py| {
            if let Some(operation) = operation.take() {
                work(operation, py);
            }
        });
        if attached.is_none() {
            mem::forget(operation);
        }
    }));
    debug_assert!(ended.is_ok(), "an awaitable's end panicked");
}
