//! A limiter whose machine several processes share: the seam for the places where its state is kept. For those who
//! write such a place; `strict-rate-limiter-shared` has one, and is what users open.
//!
//! The place (a [`Store`]) locks the state, moves this process's machine to it, and writes what was changed. In between
//! the limiter does what it always does, and each of its changes is one visit to the store:
//!
//! * **Nothing is given out before it is written.** A permit that was granted, and then could not be written, was not
//!   granted: the machine goes back to the state before.
//! * **What must not be lost is owed.** The end of a task, a waiter that leaves and a pause are kept until the store
//!   takes them.
//! * **Whoever makes room grants**, to waiters of other processes as well, and wakes their sessions. A timer is always
//!   set too: for the opening, if the head is ours; else to see whether the others still live.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use strict_rate_limiter_core::{Machine, Moved, SessionId};

use crate::clock::{Clock, Timeline};
use crate::inner::Inner;
use crate::limiter::RateLimiter;
use crate::observe::Name;

/// When the machine's time is the origin of a store's clock: see [`Clock::now_ns`].
pub const ORIGIN_NS: u64 = crate::clock::ORIGIN_NS;

/// A place where processes keep the state of one machine.
///
/// A limiter calls it under its own lock, in this order: [`lock`](Self::lock); if that succeeds, any of
/// [`dead`](Self::dead) and [`save`](Self::save); [`unlock`](Self::unlock). It must not use the limiter.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Locks the state and moves the machine to it ([`Machine::follow`]). Waiters of other sessions have
    /// [`Waker::noop`]. Returns this session's waiters that are no longer in the queue. On an error nothing is locked.
    fn lock(&self, machine: &mut Machine<Waker>) -> Result<Vec<Moved<Waker>>, StoreError>;

    /// Writes the machine's state. On an error nothing has changed, and the next [`lock`](Self::lock) moves the machine
    /// back.
    fn save(&self, machine: &mut Machine<Waker>) -> Result<(), StoreError>;

    /// Unlocks the state.
    fn unlock(&self);

    /// Those of these sessions that have died. The limiter ends them ([`Machine::end_session`]), at a time that it reads
    /// afterwards.
    fn dead(&self, sessions: Vec<SessionId>) -> Vec<SessionId>;

    /// Those of these sessions whose processes have died while tasks of theirs may run on, in other processes. The limiter
    /// takes what they wait for out of the queue ([`Machine::end_waiting`]). By default there are none.
    fn orphaned(&self, sessions: Vec<SessionId>) -> Vec<SessionId> {
        let _ = sessions;
        Vec::new()
    }

    /// Wakes another session, which then looks. Called when nothing is locked. It may get lost.
    fn wake(&self, session: SessionId);

    /// From now on, wakes this waker whenever another process wakes this session. Called when the first waiter waits.
    fn listen(&self, waker: Waker);
}

/// The store of a shared limiter failed. Nothing was granted.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Arc<dyn Error + Send + Sync>);

impl StoreError {
    /// The store's own error.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// The store's own error, if it is one of this type.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

/// The same failure, not merely the same kind.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StoreError {}

/// A limiter over a store. The machine must be at the store's present state, and act as a session of its own; the
/// clock must be the one that all processes of the store share.
pub fn limiter(
    store: impl Store,
    machine: Machine<Waker>,
    clock: impl Clock,
    name: Option<Arc<str>>,
) -> RateLimiter {
    let name = Name::new(name, &machine.config().limits, false);
    let clock = Timeline::new(Some(Arc::new(clock)), false);
    RateLimiter { inner: Inner::over(machine, clock, name, Some(Box::new(store))) }
}
