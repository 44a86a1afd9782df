//! A limiter whose machine several processes share: the seam for the places where its state is kept.
//!
//! The place (a [`Store`]) locks the state, moves this process's machine to it, and writes what was changed. In between
//! a limiter does what it always does: each change under its own lock ([`Update`](crate::update::Update)) is one
//! [`Visit`] to the store as well.
//!
//! * **Nothing is given out before it is written.** A permit that was granted, and then could not be written, was not
//!   granted: the machine goes back to the state before.
//! * **What must not be lost is owed.** The end of a task, and a waiter that leaves, are kept until the store takes
//!   them ([`Owed`]).
//! * **Whoever makes room grants**, to waiters of other processes as well, and wakes their sessions. A timer is always
//!   set too: for the opening, if the head is ours; else to see whether the others still live.
//!
//! `strict-rate-limiter-shared` has the stores, and is what users open.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{Decision, Machine, Moved, SessionId, Ticket, raw};

use crate::clock::{Clock, Timeline};
use crate::inner::Inner;
use crate::limiter::RateLimiter;
use crate::observe::Name;
use crate::update::TaskEnd;

/// When the machine's time is the origin of a store's clock: see [`Clock::now_ns`].
pub const ORIGIN_NS: u64 = crate::clock::ORIGIN_NS;

/// How often a process whose waiter is first looks whether those that it waits for still live.
const HEAD_LOOKS_EVERY_NS: u64 = 100_000_000;

/// How often a process whose waiters are not first looks whether those ahead still live.
const OTHERS_LOOK_EVERY_NS: u64 = 1_000_000_000;

/// The least time between two looks for the dead.
const LOOKS_FOR_DEAD_EVERY_NS: u64 = 50_000_000;

/// How long after a failure the store is tried again.
const TRIES_AGAIN_AFTER_NS: u64 = 100_000_000;

/// A place where processes keep the state of one machine.
///
/// A limiter calls it under its own lock, in this order: [`lock`](Self::lock); if that succeeds, any of
/// [`end_dead`](Self::end_dead) and [`save`](Self::save); [`unlock`](Self::unlock). It must not use the limiter.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Locks the state and moves the machine to it ([`Machine::follow`]). Waiters of other sessions have
    /// [`Waker::noop`]. Returns this session's waiters that are no longer in the queue. On an error nothing is locked.
    fn lock(&self, machine: &mut Machine<Waker>) -> Result<Vec<Moved<Waker>>, StoreError>;

    /// Writes the machine's state. On an error nothing has changed, and the next [`lock`](Self::lock) moves the machine
    /// back.
    fn save(&self, machine: &mut Machine<Waker>) -> Result<(), StoreError>;

    /// Unlocks the state.
    fn unlock(&self);

    /// Ends the sessions that have died ([`Machine::end_session`]). Returns whether there were any.
    fn end_dead(&self, machine: &mut Machine<Waker>, now: u64) -> bool;

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

/// When to try again after a failure.
pub(crate) fn tries_again_at(now: u64) -> u64 {
    now.saturating_add(TRIES_AGAIN_AFTER_NS)
}

/// What this process must still tell the store.
#[derive(Debug, Clone)]
pub(crate) enum Owed {
    /// A waiter has left.
    Leave(Ticket),
    /// A permit was given back unused.
    Undo(Returned),
    /// No grant before this time.
    Pause(u64),
    /// The pause is over.
    Resume,
    /// The server's count of a limit.
    Reconcile(core::Limit, u64),
    /// A task has ended; the next reading of the clock stamps it, which is later than its end and so is safe.
    End(Returned, TaskEnd),
}

/// A permit that was returned, to be told of until that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returned {
    ticket: Option<Ticket>,
    weight: u64,
}

impl Returned {
    pub(crate) fn of(permit: &core::Grant) -> Self {
        Self { ticket: permit.ticket(), weight: permit.weight() }
    }

    pub(crate) fn permit(self) -> core::Grant {
        match self.ticket {
            Some(ticket) => raw::permit(ticket, self.weight),
            None => raw::grant(self.weight),
        }
    }
}

/// One visit to the store: from its lock to its unlocking.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    store: &'a dyn Store,
    is_locked: bool,
    outage: Option<StoreError>,
    /// Whether there is nothing left to write.
    is_saved: bool,
    /// Sessions to wake afterwards.
    to_wake: Vec<SessionId>,
}

impl<'a> Visit<'a> {
    /// Locks the store. Returns this session's waiters that others have moved.
    pub(crate) fn begin(
        store: &'a dyn Store,
        machine: &mut Machine<Waker>,
    ) -> (Self, Vec<Moved<Waker>>) {
        let (moved, outage) = match store.lock(machine) {
            Ok(moved) => (moved, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let is_locked = outage.is_none();
        (Self { store, is_locked, outage, is_saved: false, to_wake: Vec::new() }, moved)
    }

    /// Whether the store is there. If not, nothing may be granted, and what is told to the machine is lost.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.outage.clone().map_or(Ok(()), Err)
    }

    /// Writes what was changed.
    pub(crate) fn save(&mut self, machine: &mut Machine<Waker>) -> Result<(), StoreError> {
        self.check()?;
        let saved = self.store.save(machine);
        self.is_saved = saved.is_ok();
        self.outage = saved.as_ref().err().cloned();
        saved
    }

    /// Nothing was changed that others must know.
    pub(crate) fn only_asked(&mut self) {
        self.is_saved = true;
    }

    /// A waiter was granted: wakes its session if that is another one. Whether it is ours.
    pub(crate) fn granted(&mut self, machine: &Machine<Waker>, ticket: Ticket) -> bool {
        match machine.owner(ticket) {
            Some(owner) if Some(owner) != machine.acting() => {
                self.wake_later(owner);
                false
            }
            _ => true,
        }
    }

    /// When to look next, and whether that is for the head's opening. `None` if nobody here waits.
    pub(crate) fn next_look(
        &mut self,
        machine: &mut Machine<Waker>,
        decision: &Decision<Waker>,
        now: u64,
    ) -> Option<(u64, bool)> {
        let opening = if let Decision::LookAgainAt(at) = decision { Some(*at) } else { None };
        let is_own_head =
            machine.head().is_some_and(|head| machine.owner(head) == machine.acting());
        if is_own_head || machine.head().is_none() {
            let for_the_dead = is_own_head.then(|| now.saturating_add(HEAD_LOOKS_EVERY_NS));
            return opening.map(|at| (at, true)).or(for_the_dead.map(|at| (at, false)));
        }
        if let Some(owner) = opening.and_then(|at| machine.tell_head(at)) {
            self.wake_later(owner);
        }
        let after = now.max(opening.unwrap_or(now)).saturating_add(OTHERS_LOOK_EVERY_NS);
        machine.has_own_waiters().then_some((after, false))
    }

    /// Ends the sessions that have died, unless that was done just now.
    pub(crate) fn end_dead(&self, machine: &mut Machine<Waker>, last: &mut u64, now: u64) -> bool {
        if self.outage.is_some() || now < last.saturating_add(LOOKS_FOR_DEAD_EVERY_NS) {
            return false;
        }
        *last = now;
        self.store.end_dead(machine, now)
    }

    pub(crate) fn listen(&self, waker: Waker) {
        self.store.listen(waker);
    }

    /// Saves if that was not done.
    pub(crate) fn finish(&mut self, machine: &mut Machine<Waker>) -> Result<(), StoreError> {
        if self.is_saved { self.check() } else { self.save(machine) }
    }

    /// Unlocks. Returns the sessions to wake.
    pub(crate) fn end(self) -> Wakes<'a> {
        if self.is_locked {
            self.store.unlock();
        }
        let sessions = if self.is_saved { self.to_wake } else { Vec::new() };
        Wakes { store: self.store, sessions }
    }

    fn wake_later(&mut self, session: SessionId) {
        if !self.to_wake.contains(&session) {
            self.to_wake.push(session);
        }
    }
}

/// The sessions to wake once nothing is locked.
pub(crate) struct Wakes<'a> {
    store: &'a dyn Store,
    sessions: Vec<SessionId>,
}

impl Wakes<'_> {
    pub(crate) fn wake(self) {
        for session in self.sessions {
            self.store.wake(session);
        }
    }
}
