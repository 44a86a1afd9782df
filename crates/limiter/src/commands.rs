//! Commands to a limiter and questions about it. Each is one [`Update`](crate::update::Update).
//!
//! The machine decides. This module wakes the waiters that a command affects, and sets the timer again if the next
//! opening has moved.

use std::task::Waker;
use std::time::Duration;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{HeldEntry, Machine, Refused};

use crate::error::{AcquireError, ChangeError};
#[cfg(feature = "keyed")]
use crate::foreign;
use crate::inner::{Inner, shortest_per};
use crate::stats::Stats;
use crate::store::StoreError;
use crate::update::{Locked, Update};
use crate::visit::Owed;
use crate::wake_ahead::WakeAhead;

impl Inner {
    /// Enters the server's own count of a limit. `None` if there is no such limit.
    pub(crate) fn reconcile(&self, limit: core::Limit, used: u64) -> Option<u64> {
        let mut update = self.update();
        let Some(now) = update.now() else { update.end_and_tell() };
        let added = update.locked.reconcile(now, limit, used);
        update.settle(Some(now));
        update.end_or_owe(|| Owed::Reconcile(limit, used));
        added
    }

    /// Whether a new limiter would decide the same from now on. `false` if the clock panics.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_like_new(&self) -> bool {
        foreign::call(|| self.now(Machine::is_like_new)).unwrap_or(false)
    }

    pub(crate) fn pause_until(&self, until: u64) {
        let mut update = self.update();
        update.locked.machine.pause_until(until);
        update.settle(None);
        update.end_or_owe(|| Owed::Pause(until));
    }

    pub(crate) fn pause_for(&self, pause_ns: u64) {
        let mut update = self.update();
        let Some(now) = update.now() else { update.end_and_tell() };
        update.locked.machine.pause_for(now, pause_ns);
        update.settle(Some(now));
        update.end_or_owe(|| Owed::Pause(now.saturating_add(pause_ns)));
    }

    pub(crate) fn resume(&self) {
        let mut update = self.update();
        update.locked.machine.resume();
        update.settle(None);
        update.end_or_owe(|| Owed::Resume);
    }

    pub(crate) fn backoff_ns(&self) -> u64 {
        self.now(Machine::backoff_ns)
    }

    /// How long the pause lasts from now, in nanoseconds.
    pub(crate) fn paused_for(&self) -> u64 {
        self.now(|machine, now| machine.paused_until().saturating_sub(now))
    }

    /// Asks the machine something as of now.
    pub(crate) fn now<R>(&self, ask: impl FnOnce(&mut Machine<Waker>, u64) -> R) -> R {
        let mut update = self.update();
        let Some(now) = update.now() else { update.end_and_tell() };
        let answer = ask(&mut update.locked.machine, now);
        update.only_asked();
        update.end_quietly();
        answer
    }

    pub(crate) fn close(&self) {
        self.lock().machine.close();
    }

    pub(crate) fn abort(&self) {
        let mut update = self.update();
        let machine = &mut update.locked.machine;
        let own = machine.waiting().filter(|(_, owner, _)| Some(*owner) == machine.acting());
        let own: Vec<_> = own.map(|(ticket, ..)| ticket).collect();
        let aborted = machine.abort();
        update.wakes.extend(aborted);
        update.settle(None);
        if update.commit().is_err() {
            for ticket in own {
                update.owe(Owed::Leave(ticket));
            }
        }
        update.end_quietly();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().machine.is_closed()
    }

    pub(crate) fn stats(&self) -> Stats {
        let core::Snapshot { running, queued, completed, held, next_opening, .. } =
            self.now(Machine::stats);
        let next_opening = next_opening.and_then(|at| self.clock.to_instant(at));
        Stats { running, queued, completed, held, next_opening }
    }

    pub(crate) fn forecast(&self, tasks: u64, weight: u64) -> Result<Duration, core::RequestError> {
        self.now(|machine, now| {
            let at = machine.forecast(now, tasks, weight)?;
            Ok(Duration::from_nanos(at.saturating_sub(now)))
        })
    }

    pub(crate) fn limits(&self) -> Vec<core::Limit> {
        let mut update = self.update();
        let limits = update.locked.machine.config().limits.clone();
        update.only_asked();
        update.end_quietly();
        limits
    }

    /// Changes the limits. Waiters that are now too heavy are woken, and get the error.
    pub(crate) fn set_limits(&self, limits: Vec<core::Limit>) -> Result<(), ChangeError> {
        let mut update = self.update();
        if let Err(error) = update.check() {
            update.end_quietly();
            return Err(ChangeError::Store(error));
        }
        let Some(now) = update.now() else { update.end_and_tell() };
        let refused = match update.locked.machine.set_limits(now, now, limits) {
            Ok(refused) => refused,
            Err(error) => {
                update.end_quietly();
                return Err(ChangeError::Config(error));
            }
        };
        for Refused { ticket, waiter, error, owner, .. } in refused {
            if let (Some(visit), Some(owner)) = (&mut update.visit, owner)
                && update.locked.machine.acting() != Some(owner)
            {
                visit.wake_later(owner);
                continue;
            }
            update.locked.refused.insert(ticket, AcquireError::Weight(error));
            update.wakes.push(waiter);
            self.no_longer_waits(&mut update, ticket);
        }
        self.refuse_stranded(&mut update);
        let shortest_per = shortest_per(&update.locked.machine);
        update.locked.fast_clock = self.clock.fast_clock(shortest_per);
        // The next opening has moved, and the head of the queue may be another waiter.
        update.disarm();
        update.locked.wake_timer.set_wake_ahead(WakeAhead::for_clock(&self.clock, shortest_per));
        update.settle(Some(now));
        let committed = update.commit();
        update.end_quietly();
        committed.map_err(ChangeError::Store)
    }

    pub(crate) fn set_concurrency(&self, tasks: usize) -> Result<(), ChangeError> {
        let mut update = self.update();
        if let Err(error) = update.check() {
            update.end_quietly();
            return Err(ChangeError::Store(error));
        }
        let set = update.locked.machine.set_concurrency(tasks);
        self.refuse_stranded(&mut update);
        update.settle(None);
        let committed = update.commit();
        update.end_quietly();
        set?;
        committed.map_err(ChangeError::Store)
    }

    /// The failure of the store, if the limiter is shared and its store fails now.
    pub(crate) fn outage(&self) -> Option<StoreError> {
        let mut update = self.update();
        // What is owed must be written before all is well.
        let outage = update.commit().err();
        update.end_quietly();
        outage
    }

    /// Waiters that were requested inside running tasks may now wait for ever.
    fn refuse_stranded(&self, update: &mut Update<'_>) {
        loop {
            let Locked { machine, inside, refused, .. } = &mut *update.locked;
            let Some(ticket) = machine.stranded(inside) else { return };
            let waiter = machine.cancel(ticket);
            refused.insert(ticket, AcquireError::WouldDeadlock);
            update.wakes.extend(waiter);
            self.no_longer_waits(update, ticket);
        }
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn assume_earlier_tasks(&self) {
        self.lock().machine.assume_earlier_tasks();
    }

    /// All held units, and the time as of which they are held.
    pub(crate) fn history(&self) -> (u64, Vec<HeldEntry>) {
        self.now(|machine, now| (now, machine.history(now)))
    }
}
