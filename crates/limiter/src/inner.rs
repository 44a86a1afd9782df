//! The state that all handles, waiters and permits of one limiter share: the machine under its lock, the
//! clock, the timer.
//!
//! Every change is an [`Update`] (`update.rs`), which drives the machine, unlocks and wakes.
//!
//! There is no background task. The timer wakes a [`TimerWaker`], not a waiter. So a waiter that is not polled
//! keeps its own position in the queue, but never delays the timer of the waiters behind it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{
    EnqueueError, Enqueued, InsideWaiter, Machine, Ticket, TicketStatus, TryGrantError,
};

use crate::clock::Timeline;
use crate::error::{AcquireError, TryAcquireError};
use crate::foreign::{self, Panic};
use crate::observe::{Name, Observed, Observer};
use crate::reentrancy::{self, TaskId};
use crate::store::Store;
use crate::sync::{Mutex, MutexGuard};
use crate::update::{Locked, TaskEnd, Update};
use crate::visit::{Owed, Returned};
use crate::wake_ahead::WakeAhead;
use crate::wake_timer::WakeTimer;

pub(crate) struct Inner {
    pub(crate) clock: Timeline,
    pub(crate) observer: Observer,
    /// Where the machine's state is kept, if several processes share it.
    pub(crate) store: Option<Box<dyn Store>>,
    /// Whether any waiter in the queue was requested inside a task of this limiter.
    has_inside_waiters: AtomicBool,
    locked: Mutex<Locked>,
}

/// The timer's waker: looks at the clock.
pub(crate) struct TimerWaker(Weak<Inner>);

/// The kind of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller that waits. If it is a task of the same limiter, it may wait for itself.
    Acquire,
    /// A pushed task, which the runtime runs.
    #[cfg(feature = "tokio")]
    Push,
}

/// The state of a waiter after it joined or was polled. `P` is the type of its permit.
pub(crate) enum Standing<P> {
    Granted(P),
    Queued {
        ticket: Ticket,
        /// Whether it is within the queue's capacity. Only pushes use it.
        accepted: bool,
    },
}

impl Inner {
    pub(crate) fn new(machine: Machine<Waker>, clock: Timeline, name: Name) -> Arc<Self> {
        Self::over(machine, clock, name, None)
    }

    pub(crate) fn over(
        machine: Machine<Waker>,
        clock: Timeline,
        name: Name,
        store: Option<Box<dyn Store>>,
    ) -> Arc<Self> {
        let shortest_per = shortest_per(&machine);
        let observer = Observer::new(name, &machine.config().limits);
        Arc::new_cyclic(|this| Self {
            has_inside_waiters: AtomicBool::new(false),
            locked: Mutex::new(Locked {
                machine,
                fast_clock: clock.fast_clock(shortest_per),
                wake_timer: WakeTimer::new(
                    clock.timer(),
                    Weak::clone(this),
                    WakeAhead::for_clock(&clock, shortest_per),
                ),
                drained: Vec::new(),
                next_drained: 0,
                inside: Vec::new(),
                owed: Vec::new(),
                told: Vec::new(),
                looked_for_dead: 0,
                refused: BTreeMap::new(),
                is_look_owed: false,
            }),
            observer,
            store,
            clock,
        })
    }

    pub(crate) fn try_acquire(&self, weight: u64) -> Result<core::Grant, TryAcquireError> {
        let mut update = self.update();
        if let Err(error) = update.check() {
            update.end_quietly();
            return Err(TryAcquireError::Store(error));
        }
        if self.store.is_none()
            && let Some(permit) = update.locked.machine.grant_at_once(weight)
        {
            return Ok(permit);
        }
        let Some(now) = update.now() else { update.end_and_tell() };
        let mut granted = update.locked.machine.try_grant(now, weight);
        if granted.is_err() && update.end_dead(now) {
            // Those who held or waited are gone.
            update.drive(now);
            granted = update.locked.machine.try_grant(now, weight);
        }
        if granted.is_ok()
            && let Err(error) = update.commit()
        {
            update.end_quietly();
            return Err(TryAcquireError::Store(error));
        }
        update.end_quietly();
        granted.map_err(|error| match error {
            TryGrantError::Request(error) => TryAcquireError::Weight(error),
            TryGrantError::Busy { not_before } => TryAcquireError::Busy {
                not_before: not_before.and_then(|at| self.clock.to_instant(at)),
            },
            _ => TryAcquireError::Closed,
        })
    }

    /// Grants now if that takes no look at the time, which is the usual case. Else the outcome of joining.
    #[inline]
    pub(crate) fn grant_or_join(
        &self,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<core::Grant, Result<Standing<core::Grant>, AcquireError>> {
        if self.store.is_some() {
            return Err(self.join(self.update(), weight, kind, waker));
        }
        let mut locked = self.lock();
        match locked.machine.grant_at_once(weight) {
            Some(permit) => Ok(permit),
            None => Err(self.join(Update::new(&self.clock, locked), weight, kind, waker)),
        }
    }

    /// Grants now, or adds a waiter to the end of the queue.
    #[inline]
    pub(crate) fn enter(
        &self,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<Standing<core::Grant>, AcquireError> {
        match self.grant_or_join(weight, kind, waker) {
            Ok(permit) => Ok(Standing::Granted(permit)),
            Err(standing) => standing,
        }
    }

    pub(crate) fn join(
        &self,
        mut update: Update<'_>,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<Standing<core::Grant>, AcquireError> {
        // If only a completion can make room, the time does not matter.
        let mut now = None;
        if let Err(error) = update.check() {
            update.end_quietly();
            return Err(AcquireError::Store(error));
        }
        let is_shared = self.store.is_some();
        if update.locked.is_look_owed || is_shared || !update.locked.machine.awaits_completion() {
            let Some(read) = update.now() else { update.end_and_tell() };
            if let Ok(permit) = update.locked.machine.try_grant(read, weight) {
                let committed = update.commit();
                update.end_quietly();
                committed.map_err(AcquireError::Store)?;
                return Ok(Standing::Granted(permit));
            }
            now = Some(read);
        }
        let mut admitted = update.locked.machine.admit(weight);
        if let (Err(EnqueueError::Full), Some(now)) = (&admitted, now) {
            // The head may be granted now, which makes room in the queue; and so do waiters that are gone.
            update.end_dead(now);
            update.drive(now);
            admitted = update.locked.machine.admit(weight);
        }
        if let Err(error) = admitted {
            update.end_quietly();
            return Err(error.into());
        }
        let tasks = if kind == Kind::Acquire { reentrancy::tasks_of(self) } else { Vec::new() };
        let Locked { machine, inside, .. } = &mut *update.locked;
        if !tasks.is_empty() && !machine.could_nest(&tasks, weight, inside) {
            update.end_quietly();
            return Err(AcquireError::WouldDeadlock);
        }
        let cloned = foreign::call(|| waker.clone());
        let Some(waker) = update.panics.note(cloned) else { update.end_and_tell() };
        let Enqueued { ticket, accepted, .. } = update.locked.machine.enqueue(weight, waker)?;
        if !tasks.is_empty() {
            update.locked.inside.push(InsideWaiter { ticket, tasks });
            self.has_inside_waiters.store(true, Ordering::Relaxed);
        }
        let Some(now) = now else { return Ok(Standing::Queued { ticket, accepted }) };
        update.drive(now);
        if is_shared {
            Self::watch(&mut update, ticket, now);
        }
        if update.panics.is_some() {
            // The caller gets the panic and no waiter, so the ticket must leave the queue.
            self.forget(&mut update, ticket);
            update.end_and_tell();
        }
        let standing = self.standing(&mut update, ticket);
        if let Err(error) = update.commit() {
            // Nor has the waiter joined.
            update.end_quietly();
            return Err(AcquireError::Store(error));
        }
        update.end_quietly();
        standing
    }

    /// The present state of a waiter that has joined. The first waiter looks at the clock as well.
    pub(crate) fn look_for(
        &self,
        ticket: Ticket,
        waker: &Waker,
    ) -> Result<Standing<core::Grant>, AcquireError> {
        let mut update = self.update();
        if let Err(error) = update.check() {
            update.owe(Owed::Leave(ticket));
            update.end_quietly();
            return Err(AcquireError::Store(error));
        }
        let mut look_at_once = false;
        if let Some(old) = update.locked.machine.waiter_mut(ticket) {
            if !old.will_wake(waker) {
                let cloned = foreign::call(|| waker.clone());
                if let Some(waker) = update.panics.note(cloned)
                    && let Some(old) = update.locked.machine.waiter_mut(ticket)
                {
                    let old = std::mem::replace(old, waker);
                    update.replaced.push(old);
                }
            }
            if update.locked.machine.head() == Some(ticket) {
                look_at_once = update.head_looks();
            }
        }
        if update.panics.is_some() {
            // The waiter stays in the queue until it is dropped.
            update.end_and_tell();
        }
        let standing = self.standing(&mut update, ticket);
        let standing = self.conclude(update, ticket, standing);
        if look_at_once && matches!(standing, Ok(Standing::Queued { .. })) {
            // The opening is near: be polled again as soon as the executor has let other tasks run.
            waker.wake_by_ref();
        }
        standing
    }

    /// A waiter leaves, granted or not. One that was refused has left the queue already: nothing changes.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut update = self.update();
        if update.locked.take_refusal(ticket).is_none() {
            self.forget(&mut update, ticket);
            update.settle(None);
            return update.end_or_owe(|| Owed::Leave(ticket));
        }
        update.end_quietly();
    }

    pub(crate) fn forget(&self, update: &mut Update<'_>, ticket: Ticket) {
        if update.locked.machine.head() == Some(ticket) {
            // The next head has not been woken for the opening.
            update.disarm();
        }
        let waker = update.locked.machine.cancel(ticket);
        update.replaced.extend(waker);
        self.no_longer_waits(update, ticket);
    }

    /// A task has ended. Returns the units used beyond its reservation.
    #[inline]
    pub(crate) fn complete(&self, permit: core::Grant, actual: Option<u64>) -> u64 {
        let excess = actual.map_or(0, |actual| actual.saturating_sub(permit.weight()));
        self.end(permit, TaskEnd::Completed { actual });
        excess
    }

    /// A task was dropped while it ran, or may have been.
    #[inline]
    pub(crate) fn abandon(&self, permit: core::Grant) {
        self.end(permit, TaskEnd::Abandoned);
    }

    #[inline]
    fn end(&self, permit: core::Grant, end: TaskEnd) {
        if self.store.is_some() {
            return self.end_at_store(permit, end);
        }
        let mut locked = self.lock();
        match self.clock.read(locked.fast_clock) {
            Ok(reading) => {
                locked.record(permit, end, reading);
                // The usual case is an empty queue.
                if locked.needs_a_look() {
                    Update::new(&self.clock, locked).settle_and_end(reading.earliest);
                }
            }
            Err(panic) => self.end_unstamped(locked, &permit, end, panic),
        }
    }

    #[cold]
    fn end_unstamped(
        &self,
        mut locked: MutexGuard<'_, Locked>,
        permit: &core::Grant,
        end: TaskEnd,
        panic: Panic,
    ) {
        locked.owed.push(Owed::End(Returned::of(permit), end));
        let mut update = Update::new(&self.clock, locked);
        update.panics.note::<()>(Err(panic));
        update.owe_a_look();
        update.end_quietly();
    }

    /// A task that has its permit will not be started.
    pub(crate) fn undo(&self, permit: core::Grant) {
        let mut update = self.update();
        let returned = Returned::of(&permit);
        update.locked.machine.undo(permit);
        update.settle(None);
        update.end_or_owe(|| Owed::Undo(returned));
    }

    /// A task of this limiter has ended, so no waiter is inside it any more.
    #[inline]
    pub(crate) fn task_ended(&self, task: TaskId) {
        if self.has_inside_waiters.load(Ordering::Relaxed) {
            let locked = &mut *self.lock();
            for waiter in &mut locked.inside {
                waiter.tasks.retain(|outer| outer.id != task);
            }
            locked.inside.retain(|waiter| !waiter.tasks.is_empty());
            self.has_inside_waiters.store(!locked.inside.is_empty(), Ordering::Relaxed);
        }
    }

    /// Ready if no task runs or waits. Else stores `waker`, which is woken once when that is so. `id`
    /// identifies the listener; `None` before its first poll.
    pub(crate) fn poll_drained(&self, id: &mut Option<u64>, waker: &Waker) -> Poll<()> {
        let mut update = self.update();
        let Some(now) = update.now() else { update.end_and_tell() };
        let cloned = foreign::call(|| waker.clone());
        let Some(waker) = update.panics.note(cloned) else { update.end_and_tell() };
        let locked = &mut *update.locked;
        let listener = locked.drained.iter_mut().find(|(listener, _)| Some(*listener) == *id);
        if let Some((_, old)) = listener {
            let old = std::mem::replace(old, waker);
            update.replaced.push(old);
        } else {
            let listener = locked.next_drained;
            locked.next_drained += 1;
            locked.drained.push((listener, waker));
            *id = Some(listener);
        }
        update.drive(now);
        if update.panics.is_some() {
            update.end_and_tell();
        }
        // If the limiter is drained, driving it has emptied the list of listeners.
        let drained = update.locked.machine.is_drained();
        update.end_quietly();
        if drained { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(crate) fn forget_drained(&self, id: u64) {
        let mut update = self.update();
        let index = update.locked.drained.iter().position(|(listener, _)| *listener == id);
        let forgotten = index.map(|index| update.locked.drained.swap_remove(index).1);
        update.replaced.extend(forgotten);
        update.end_quietly();
    }

    /// The timer has fired, early or late.
    fn look(&self) {
        let mut update = self.update();
        update.locked.wake_timer.timer_has_fired();
        update.look();
        update.end_quietly();
    }

    pub(crate) fn standing(
        &self,
        update: &mut Update<'_>,
        ticket: Ticket,
    ) -> Result<Standing<core::Grant>, AcquireError> {
        let machine = &mut update.locked.machine;
        let standing = match machine.status(ticket) {
            TicketStatus::Queued { accepted } => Ok(Standing::Queued { ticket, accepted }),
            TicketStatus::Granted => {
                let permit = machine.claim(ticket);
                permit.map(Standing::Granted).ok_or(AcquireError::Aborted)
            }
            // Out of the queue and not granted: new limits refused it, or the limiter was aborted.
            _ => Err(update.locked.take_refusal(ticket).unwrap_or(AcquireError::Aborted)),
        };
        if !matches!(standing, Ok(Standing::Queued { .. })) {
            self.no_longer_waits(update, ticket);
        }
        standing
    }

    pub(crate) fn no_longer_waits(&self, update: &mut Update<'_>, ticket: Ticket) {
        let inside = &mut update.locked.inside;
        if !inside.is_empty() {
            inside.retain(|waiter| waiter.ticket != ticket);
            self.has_inside_waiters.store(!inside.is_empty(), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn update(&self) -> Update<'_> {
        let update = Update::new(&self.clock, self.lock());
        match &self.store {
            None => update,
            Some(store) => update.at(&**store),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked> {
        // Only a bug panics under the lock, and the machine is still whole after it.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shortest period of the limits. There is always at least one limit.
pub(crate) fn shortest_per(machine: &Machine<Waker>) -> Duration {
    machine.config().limits.iter().map(core::Limit::per).fold(Duration::MAX, Duration::min)
}

impl Observed for Inner {
    fn observer(&self) -> &Observer {
        &self.observer
    }

    #[cfg(feature = "metrics")]
    fn now_ns(&self) -> Result<u64, Panic> {
        self.clock.now()
    }

    #[cfg(feature = "metrics")]
    fn held(&self) -> Vec<core::Held> {
        self.now(Machine::stats).held
    }
}

impl TimerWaker {
    pub(crate) fn waker(limiter: Weak<Inner>) -> Waker {
        Waker::from(Arc::new(Self(limiter)))
    }
}

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(inner) = self.0.upgrade() {
            inner.look();
        }
    }
}

#[cfg(test)]
mod tests;
