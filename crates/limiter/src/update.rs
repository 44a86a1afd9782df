//! One change of a limiter, under its lock: change the machine, drive it until it has nothing more to
//! grant, set the timer for the next opening, unlock, wake the waiters that were granted.
//!
//! No waker is woken under the lock. If foreign code panics, the update keeps the panic and goes on; it
//! passes the panic on to a caller that asked for something when the update is over (`foreign.rs`).
//!
//! If the clock could not be read or no timer could be set, a look is *owed*: the update wakes the first
//! waiter, which looks at each of its polls until a look succeeds.

use std::collections::BTreeMap;
use std::task::Waker;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{Decision, InsideWaiter, Machine, Ticket};

use crate::clock::{FastClock, Reading, Timeline};
use crate::error::AcquireError;
use crate::foreign::{self, FirstPanic};

use crate::sync::MutexGuard;
use crate::visit::{Owed, Visit};
use crate::wake_list::WakeList;
use crate::wake_timer::{HeadPoll, TimerSet, WakeTimer};

/// One change under the lock: the guard, and the wakers and panics to handle after unlocking.
pub(crate) struct Update<'a> {
    pub(crate) clock: &'a Timeline,
    pub(crate) locked: MutexGuard<'a, Locked>,
    pub(crate) wakes: WakeList,
    /// Wakers that are not needed any more, dropped after the lock is released.
    pub(crate) replaced: Vec<Waker>,
    pub(crate) panics: FirstPanic,
    /// If the machine is shared: what this change does at its store.
    pub(crate) visit: Option<Visit<'a>>,
}

/// The state that the lock guards.
pub(crate) struct Locked {
    pub(crate) machine: Machine<Waker>,
    pub(crate) fast_clock: FastClock,
    pub(crate) wake_timer: WakeTimer,
    pub(crate) drained: Vec<(u64, Waker)>,
    pub(crate) next_drained: u64,
    /// The waiters that were enqueued inside running tasks of this limiter.
    pub(crate) inside: Vec<InsideWaiter>,
    /// Ends of tasks at which the clock could not be read, and what the store could not be told. The next reading
    /// stamps them, which is later than the true end and so is safe.
    pub(crate) owed: Vec<Owed>,
    /// What was told during this visit to the store, and is owed again if it cannot be written.
    pub(crate) told: Vec<Owed>,
    /// When the sessions that have died were last ended.
    pub(crate) looked_for_dead: u64,
    /// Waiters that new limits or a new concurrency refused, and that have not been polled since.
    pub(crate) refused: BTreeMap<Ticket, AcquireError>,
    /// Whether a look is owed: the last one failed, and no timer is set for the next.
    pub(crate) is_look_owed: bool,
}

/// How a task has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TaskEnd {
    Completed { actual: Option<u64> },
    Abandoned,
}

impl<'a> Update<'a> {
    #[inline]
    pub(crate) fn new(clock: &'a Timeline, locked: MutexGuard<'a, Locked>) -> Self {
        let (wakes, panics) = (WakeList::default(), FirstPanic::default());
        Self { clock, locked, wakes, replaced: Vec::new(), panics, visit: None }
    }

    /// The time. `None` if the clock panics; the update keeps the panic.
    pub(crate) fn now(&mut self) -> Option<u64> {
        let read = self.panics.note(self.clock.now())?;
        // A clock that was set back stands still.
        let now = read.max(self.locked.machine.now());
        if !self.locked.owed.is_empty() && self.check().is_ok() {
            self.locked.tell_owed(now);
            if self.visit.is_none() {
                self.locked.note_saved(true);
            }
        }
        Some(now)
    }

    /// Drives the machine after a change that may have made room. `now` if it was read already.
    #[inline]
    pub(crate) fn settle(&mut self, now: Option<u64>) {
        if self.locked.needs_a_look() {
            match now {
                Some(now) => self.drive(now),
                None => self.look(),
            }
        }
    }

    #[inline(never)]
    pub(crate) fn settle_and_end(mut self, now: u64) {
        self.settle(Some(now));
        self.end_quietly();
    }

    /// Reads the clock, and drives the machine.
    pub(crate) fn look(&mut self) {
        match self.now() {
            Some(now) => {
                self.end_dead(now);
                self.drive(now);
            }
            None => self.owe_a_look(),
        }
    }

    /// The head of the queue is polled. Returns whether it should be polled again at once.
    pub(crate) fn head_looks(&mut self) -> bool {
        if self.locked.is_look_owed {
            self.look();
            return false;
        }
        if !self.locked.wake_timer.is_armed() {
            return false;
        }
        let Some(now) = self.now() else {
            self.owe_a_look();
            return false;
        };
        match self.locked.wake_timer.head_looks(now) {
            HeadPoll::Open => self.drive(now),
            HeadPoll::Near => return true,
            HeadPoll::Far => {}
        }
        false
    }

    /// Polls the machine until it grants nothing more, and sets the timer for the next opening.
    #[inline]
    pub(crate) fn drive(&mut self, mut now: u64) {
        self.locked.is_look_owed = false;
        if self.check().is_err() {
            return;
        }
        if !self.locked.owed.is_empty() {
            match self.now() {
                Some(read) => now = read,
                None => return self.owe_a_look(),
            }
        }
        loop {
            let decision = self.locked.machine.poll(now);
            let next = match &mut self.visit {
                None => match decision {
                    Decision::LookAgainAt(opening) => Some((opening, true)),
                    _ => None,
                },
                Some(visit) => visit.next_look(&mut self.locked.machine, &decision, now),
            };
            match (decision, next) {
                (Decision::Grant { waiter, ticket }, _) => self.granted(ticket, waiter),
                (Decision::Accept { ticket }, _) => self.wake_later(ticket),
                (_, Some((at, is_opening))) => match self.arm(at, now, is_opening) {
                    TimerSet::Due => match self.now() {
                        Some(read) => now = read,
                        None => return self.owe_a_look(),
                    },
                    TimerSet::Set => break,
                    TimerSet::Unavailable => return self.owe_a_look(),
                },
                // Nobody here waits for a time.
                (_, None) => {
                    self.disarm();
                    break;
                }
            }
        }
        if !self.locked.drained.is_empty() && self.locked.machine.is_drained() {
            let listeners = self.locked.drained.drain(..).map(|(_, waker)| waker);
            self.wakes.extend(listeners);
        }
    }

    /// A waiter was granted: wakes it, or the session whose it is.
    #[inline]
    fn granted(&mut self, ticket: Ticket, waiter: Waker) {
        let is_own = match &mut self.visit {
            None => true,
            Some(visit) => visit.granted(&self.locked.machine, ticket),
        };
        if is_own {
            self.wakes.push(waiter);
        }
    }

    /// Sets the timer. If it is for the opening of the head, wakes the head a little ahead of it.
    #[inline(never)]
    pub(crate) fn arm(&mut self, opening: u64, now: u64, is_opening: bool) -> TimerSet {
        let head = self.locked.machine.head().filter(|_| is_opening);
        let Some(plan) = self.locked.wake_timer.plan(opening, now, head.is_some()) else {
            return TimerSet::Set;
        };
        if let Some(head) = head.filter(|_| plan.wakes_head()) {
            self.wake_later(head);
        }
        let set = self.locked.wake_timer.set_timer(plan);
        self.panics.note(set).unwrap_or(TimerSet::Unavailable)
    }

    pub(crate) fn disarm(&mut self) {
        let disarmed = self.locked.wake_timer.disarm();
        self.panics.note(disarmed);
    }

    /// A look has failed, or no timer is set for the next: wakes the first waiter, which looks when polled.
    #[cold]
    pub(crate) fn owe_a_look(&mut self) {
        self.locked.is_look_owed = true;
        match self.locked.machine.head() {
            Some(head) => self.wake_later(head),
            None => {
                let listeners = self.locked.drained.drain(..).map(|(_, waker)| waker);
                self.wakes.extend(listeners);
            }
        }
    }

    /// Wakes a waiter after the lock is released. The waiter stays in the queue.
    fn wake_later(&mut self, ticket: Ticket) {
        let waker = self.locked.machine.waiter_mut(ticket);
        let cloned = waker.map(|waker| foreign::call(|| waker.clone()));
        let waker = cloned.and_then(|cloned| self.panics.note(cloned));
        self.wakes.extend(waker);
    }

    /// Releases the lock, then wakes.
    #[inline]
    fn end(mut self) -> FirstPanic {
        if self.visit.is_some() {
            self.end_visit();
        }
        let Self { locked, mut wakes, replaced, mut panics, visit, .. } = self;
        let others = visit.map(Visit::end);
        drop(locked);
        if let Some(others) = others {
            others.wake();
        }
        wakes.wake(&mut panics);
        for waker in replaced {
            panics.note(foreign::call(|| drop(waker)));
        }
        panics
    }

    /// Ends without passing panics on: the caller requested nothing, or has its answer.
    #[inline]
    pub(crate) fn end_quietly(self) {
        self.end().discard();
    }

    /// Ends and passes the panic on, because the caller has no answer.
    #[cold]
    pub(crate) fn end_and_tell(self) -> ! {
        match self.end().into_result() {
            Err(panic) => panic.resume(),
            Ok(()) => unreachable!("an update fails by a panic alone"),
        }
    }
}

impl Locked {
    /// Takes the reason for which new limits or a new concurrency refused this waiter, if they did.
    pub(crate) fn take_refusal(&mut self, ticket: Ticket) -> Option<AcquireError> {
        self.refused.remove(&ticket)
    }

    #[inline]
    pub(crate) fn record(
        &mut self,
        permit: core::Grant,
        end: TaskEnd,
        Reading { earliest, latest }: Reading,
    ) {
        match end {
            TaskEnd::Completed { actual } => {
                self.machine.complete(permit, earliest, latest, actual);
            }
            TaskEnd::Abandoned => self.machine.abandon(permit, earliest, latest),
        }
    }

    /// Whether a change may let a waiter move up.
    #[inline]
    pub(crate) fn needs_a_look(&self) -> bool {
        self.machine.head().is_some()
            || !self.drained.is_empty()
            || self.wake_timer.is_armed()
            || self.is_look_owed
    }
}
