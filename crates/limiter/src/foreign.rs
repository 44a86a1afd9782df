//! Calls of foreign code. A panic in it loses no permit, no waiter and no wake.
//!
//! The library calls other people's code at these places. Each goes through [`call`], which catches the
//! panic where it happens, so that no change of the limiter stops half-way:
//!
//! | code | called by |
//! |---|---|
//! | wakers: clone, wake, drop | `wake_list.rs`, and `inner.rs`, `update.rs` and `deadline.rs` when one is stored, replaced or kept for later |
//! | clocks: `now_ns` | `clock/timeline.rs` |
//! | clocks: `instant_pair` | `clock/timeline.rs`, outside of the lock: its panic goes straight to the caller |
//! | timers: `set`, `clear`, drop | `wake_timer.rs`, `deadline.rs` |
//! | the operating system, for a thread | `clock/timer_thread.rs`; a refusal is an answer, not a panic |
//! | recorders of metrics | `observe/metrics.rs` |
//! | subscribers of spans | `observe/tracing.rs` |
//! | tasks | `permit.rs`; the panic goes on to the code that polls the task, and the permit records that its own task panicked |
//! | keys: hash, compare, clone, drop | `keyed.rs` changes its maps in an order that a panic of any of them may interrupt |
//!
//! The rule for the caller: **methods that ask for something pass the panic on, methods that give something
//! back do not.** `acquire`, `run` and `stats` pass it on once the limiter's state is whole again. Completing,
//! dropping, cancelling, closing and the timer thread never panic: their work is done or owed, and the panic
//! hook has reported the panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A caught panic of foreign code.
pub(crate) struct Panic(Box<dyn Any + Send>);

/// The first panic of several calls. Each call is made, whether or not those before it panicked.
#[derive(Default)]
pub(crate) struct FirstPanic(Option<Panic>);

/// Calls foreign code.
#[inline]
pub(crate) fn call<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    // Unwind-safe: the closure changes nothing of the limiter, only the foreign code's own state.
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic)
}

/// Drops a foreign value. A panic of its destructor goes no further than the panic hook.
pub(crate) fn discard<T>(value: T) {
    discard_panic(|| drop(value));
}

/// Calls foreign code, and does not pass its panic on.
pub(crate) fn discard_panic(work: impl FnOnce()) {
    // Dropping the panic's payload may panic as well, so it is leaked.
    if let Err(Panic(payload)) = call(work) {
        std::mem::forget(payload);
    }
}

impl Panic {
    /// Continues the panic in the caller.
    pub(crate) fn resume(self) -> ! {
        resume_unwind(self.0)
    }
}

impl FirstPanic {
    /// The call's answer. `None` if it panicked: then keeps the panic, if it is the first.
    #[inline]
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

    #[inline]
    pub(crate) fn into_result(self) -> Result<(), Panic> {
        self.0.map_or(Ok(()), Err)
    }

    /// Drops the panic without passing it on: the panic hook has reported it.
    pub(crate) fn discard(self) {
        if let Some(Panic(payload)) = self.0 {
            discard(payload);
        }
    }
}
