//! A limiter whose machine is shared, at its store: how an update begins and ends there, what is owed to the store, and
//! how waiters and permits fare.

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{Moved, Ticket, TicketStatus};

use crate::clock::Reading;
use crate::error::AcquireError;
use crate::foreign;
use crate::inner::{Inner, Standing, TimerWaker};
use crate::store::{Store, StoreError};
use crate::update::{Locked, TaskEnd, Update};
use crate::visit::{self, Owed, Returned, Visit};

impl<'a> Update<'a> {
    /// The machine is shared: locks its store, moves the machine to the present state, and tells what is owed.
    #[cold]
    pub(crate) fn at(mut self, store: &'a dyn Store) -> Self {
        let (visit, moved) = Visit::begin(store, &mut self.locked.machine);
        let is_there = visit.check().is_ok();
        self.visit = Some(visit);
        for Moved { ticket, weight, waiter, .. } in moved {
            let Locked { machine, refused, .. } = &mut *self.locked;
            if machine.status(ticket) == TicketStatus::Gone
                && let Err(error) = machine.check(weight)
            {
                refused.insert(ticket, AcquireError::Weight(error));
            }
            self.wakes.push(waiter);
        }
        if !is_there {
            self.wake_all();
        } else if !self.locked.owed.is_empty() {
            self.now();
        }
        self
    }

    /// Whether the store is there, if there is one. If not, nothing may be granted, and nothing can be told.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.visit.as_ref().map_or(Ok(()), Visit::check)
    }

    /// Writes what was changed, if the machine is shared. Call it before an answer is given out.
    #[inline]
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        let Some(visit) = &mut self.visit else { return Ok(()) };
        let saved = visit.save(&mut self.locked.machine);
        self.locked.note_saved(saved.is_ok());
        if saved.is_err() {
            self.wake_all();
        }
        saved
    }

    /// Ends an update that changed something without an answer; tells the store later if it fails.
    pub(crate) fn end_or_owe(mut self, owed: impl FnOnce() -> Owed) {
        if self.commit().is_err() {
            self.owe(owed());
        }
        self.end_quietly();
    }

    /// Tells later what the store could not be told.
    #[cold]
    pub(crate) fn owe(&mut self, owed: Owed) {
        self.locked.owed.push(owed);
    }

    /// Nothing was changed that other processes must know, but for what was owed.
    pub(crate) fn only_asked(&mut self) {
        if let Some(visit) = &mut self.visit
            && self.locked.told.is_empty()
        {
            visit.only_asked();
        }
    }

    /// The store has failed: all waiters look, and get its error.
    fn wake_all(&mut self) {
        let wakers = self.locked.machine.waiters().map(|waker| foreign::call(|| waker.clone()));
        let wakers: Vec<_> = wakers.collect();
        for waker in wakers {
            let waker = self.panics.note(waker);
            self.wakes.extend(waker);
        }
    }

    /// Sees whether other processes that hold permits or wait have died. Returns whether that has changed anything.
    pub(crate) fn end_dead(&mut self, now: u64) -> bool {
        let Some(visit) = &self.visit else { return false };
        let Locked { machine, looked_for_dead, .. } = &mut *self.locked;
        let (dead, orphaned) = visit.dead(machine, looked_for_dead, now);
        let before = machine.load();
        for session in orphaned {
            self.replaced.extend(machine.end_waiting(session));
        }
        let has_changed = machine.load() != before;
        if dead.is_empty() {
            return has_changed;
        }
        // They may have died since `now` was read.
        let Some(now) = self.now() else { return has_changed };
        for session in dead {
            let left = self.locked.machine.end_session(session, now, now);
            self.replaced.extend(left);
        }
        true
    }

    /// Writes what was not written yet. If the store has failed, tries again a little later, if anything depends on it.
    #[cold]
    pub(crate) fn end_visit(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        // What must not be lost was written before, or is owed.
        let finished = visit.finish(&mut self.locked.machine);
        self.locked.note_saved(finished.is_ok());
        if finished.is_ok() {
            return;
        }
        let depends = self.locked.needs_a_look() || !self.locked.owed.is_empty();
        if depends && let Some(now) = self.panics.note(self.clock.now()) {
            let at = visit::tries_again_at(now);
            self.arm(at, now, false);
        }
    }
}

impl Locked {
    /// Enters the server's count of all windows of this limit. Returns the units added, `None` if there is none.
    pub(crate) fn reconcile(&mut self, now: u64, limit: core::Limit, used: u64) -> Option<u64> {
        let mut added = None;
        for position in 0..self.machine.config().limits.len() {
            if self.machine.config().limits[position] == limit {
                added = added.max(Some(self.machine.reconcile(now, now, position, used)));
            }
        }
        added
    }

    /// Tells the machine what it is owed.
    #[cold]
    pub(crate) fn tell_owed(&mut self, now: u64) {
        for owed in std::mem::take(&mut self.owed) {
            self.told.push(owed.clone());
            match owed {
                Owed::Leave(ticket) => foreign::discard(self.machine.cancel(ticket)),
                Owed::Undo(permit) => self.machine.undo(permit.permit()),
                Owed::Pause(until) => self.machine.pause_until(until),
                Owed::Resume => self.machine.resume(),
                Owed::Reconcile(limit, used) => {
                    self.reconcile(now, limit, used);
                }
                Owed::End(permit, end) => {
                    self.record(permit.permit(), end, Reading::exact(now));
                }
            }
        }
    }

    /// What was told is no longer owed, or it is owed again.
    pub(crate) fn note_saved(&mut self, is_saved: bool) {
        let told = self.told.drain(..);
        if is_saved {
            drop(told);
        } else {
            self.owed.splice(0..0, told);
        }
    }
}

impl Inner {
    /// The first waiter of this process waits on others: hears of them, and sees whether they live.
    #[cold]
    pub(crate) fn watch(update: &mut Update<'_>, ticket: Ticket, now: u64) {
        let limiter = update.locked.wake_timer.limiter();
        if let Some(visit) = &update.visit {
            visit.listen(TimerWaker::waker(limiter));
        }
        if update.locked.machine.head() == Some(ticket) && update.end_dead(now) {
            update.drive(now);
        }
    }

    /// Ends an update that was for a waiter. If the machine is shared, the waiter is told only what is written.
    #[inline]
    pub(crate) fn conclude(
        &self,
        mut update: Update<'_>,
        ticket: Ticket,
        standing: Result<Standing<core::Grant>, AcquireError>,
    ) -> Result<Standing<core::Grant>, AcquireError> {
        if self.store.is_some()
            && let Ok(Standing::Granted(_)) = standing
            && let Err(error) = update.commit()
        {
            update.owe(Owed::Leave(ticket));
            update.end_quietly();
            return Err(AcquireError::Store(error));
        }
        update.end_quietly();
        standing
    }

    /// As [`Self::end`], for a machine that is shared.
    pub(crate) fn end_at_store(&self, permit: core::Grant, end: TaskEnd) {
        let returned = Returned::of(&permit);
        let mut update = self.update();
        // Read under the store's lock, so no other process has seen a later time.
        let now = update.now();
        let told = match now.filter(|_| update.check().is_ok()) {
            Some(now) => {
                update.locked.record(permit, end, Reading::exact(now));
                update.settle(Some(now));
                update.commit().is_ok()
            }
            None => false,
        };
        if !told {
            update.owe(Owed::End(returned, end));
            match now {
                Some(now) => update.drive(now),
                None => update.owe_a_look(),
            }
        }
        update.end_quietly();
    }
}
