//! What a change of a shared limiter does at its store: one visit from the store's lock to its unlocking, and what this
//! process still owes it.

use std::task::Waker;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{Decision, Machine, Moved, SessionId, Ticket, raw};

use crate::store::{Store, StoreError};
use crate::update::TaskEnd;

/// How often a process whose waiter is first looks whether those that run tasks still live.
const HEAD_LOOKS_EVERY_NS: u64 = 100_000_000;

/// How often a process that waits looks in any case.
const OTHERS_LOOK_EVERY_NS: u64 = 1_000_000_000;

/// The least time between two looks for the dead.
const LOOKS_FOR_DEAD_EVERY_NS: u64 = 50_000_000;

/// How long after a failure the store is tried again.
const TRIES_AGAIN_AFTER_NS: u64 = 100_000_000;

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
        if let Some(owner) = opening.and_then(|at| machine.tell_head(at)) {
            self.wake_later(owner);
        }
        let Some(head) = machine.head() else {
            // Abandoned tasks end by the clock.
            return opening.map(|at| (at, true));
        };
        // Any of the others may die, or be killed before it has told us.
        if machine.owner(head) != machine.acting() {
            let after = now.saturating_add(OTHERS_LOOK_EVERY_NS);
            return machine.has_own_waiters().then_some((after, false));
        }
        let others_run = machine.permits_out().any(|out| Some(out.session) != machine.acting());
        let every = if others_run { HEAD_LOOKS_EVERY_NS } else { OTHERS_LOOK_EVERY_NS };
        let after = now.saturating_add(every);
        Some(opening.filter(|at| *at <= after).map_or((after, false), |at| (at, true)))
    }

    /// The sessions that have died and still hold or wait, and those of which only the process has. None if it was looked
    /// for them just now.
    pub(crate) fn dead(
        &self,
        machine: &Machine<Waker>,
        last: &mut u64,
        now: u64,
    ) -> (Vec<SessionId>, Vec<SessionId>) {
        if self.outage.is_some() || now < last.saturating_add(LOOKS_FOR_DEAD_EVERY_NS) {
            return (Vec::new(), Vec::new());
        }
        *last = now;
        let others = machine.other_sessions();
        (self.store.dead(others.clone()), self.store.orphaned(others))
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

    pub(crate) fn wake_later(&mut self, session: SessionId) {
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
