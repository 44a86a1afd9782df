//! Code that is not ours, and what a panic in it may take along: nothing.
//!
//! The library calls other people's code at these places. Each goes through [`call`], which catches a
//! panic where it happens, so that no change of the limiter stops half-way:
//!
//! | code | called by |
//! |---|---|
//! | wakers: clone, wake, drop | `wake_list.rs`, and `inner.rs` and `update.rs` where one is stored, replaced or kept for later |
//! | clocks: `now` | `clock/timeline.rs` |
//! | timers: `set`, `clear`, drop | `wake_timer.rs` |
//! | the operating system, for a thread | `clock/timer_thread.rs`; a refusal is an answer, not a panic |
//! | recorders of metrics | `observe/metrics.rs` |
//! | subscribers of spans | `observe/tracing.rs` |
//! | tasks | `permit.rs`; its panic goes on to whoever runs it, and the permit knows whose it was |
//! | keys: hash, compare, clone, drop | `keyed.rs` keeps its books in an order that any of them may leave |
//!
//! The rule for the caller: **who asks is told, who gives back is not.** A panic in foreign code goes on to
//! the caller of a method that asks for something (`acquire`, `run`, `stats`), once everything else is as it
//! should be. Completing, dropping, cancelling, closing and the timer thread never panic: what they had to do
//! is done or owed, and the panic hook has reported the panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A panic that was caught on its way out of foreign code.
pub(crate) struct Panic(Box<dyn Any + Send>);

/// The first panic of several calls, each of which is made whatever became of those before it.
#[derive(Default)]
pub(crate) struct FirstPanic(Option<Panic>);

/// Calls foreign code.
#[inline]
pub(crate) fn call<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    // What the work may leave half done is its own: nothing of ours is changed inside.
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic)
}

/// Drops a foreign value. There is nobody to tell of its panic but the panic hook, which has been told.
pub(crate) fn discard<T>(value: T) {
    discard_panic(|| drop(value));
}

/// Calls foreign code on behalf of someone who is not told of its panic.
pub(crate) fn discard_panic(work: impl FnOnce()) {
    // Dropping what a panic carries may panic as well: that is not tried twice.
    if let Err(Panic(payload)) = call(work) {
        std::mem::forget(payload);
    }
}

impl Panic {
    /// Lets it go on to the caller.
    pub(crate) fn resume(self) -> ! {
        resume_unwind(self.0)
    }
}

impl FirstPanic {
    /// What the call answered, if it did.
    pub(crate) fn note<R>(&mut self, outcome: Result<R, Panic>) -> Option<R> {
        match outcome {
            Ok(answer) => Some(answer),
            Err(panic) => {
                match self.0 {
                    None => self.0 = Some(panic),
                    Some(_) => discard(panic.0),
                }
                None
            }
        }
    }

    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn into_result(self) -> Result<(), Panic> {
        self.0.map_or(Ok(()), Err)
    }

    /// Nobody is told: the panic hook has reported it.
    pub(crate) fn discard(self) {
        if let Some(Panic(payload)) = self.0 {
            discard(payload);
        }
    }
}
