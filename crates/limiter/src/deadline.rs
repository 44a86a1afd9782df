//! A waiter's deadline: a timer of the limiter's clock wakes its task at the deadline, and the task looks and
//! leaves the queue.
//!
//! Core decides whether a waiter can still be granted in time (`deadline.rs` there). If not, the waiter is refused
//! before it joins. A timer that fires early is set again. If no timer can be set, the task wakes itself and looks
//! at each poll.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::limit::saturating_ns;
use strict_rate_limiter_core::{EnqueueError, Ticket};

use crate::clock::{LimiterTimer, TimerSet};
use crate::error::AcquireError;
use crate::foreign::{self, Panic};
use crate::inner::{Inner, Kind, Standing};
use crate::sync::{Mutex, MutexGuard};
use crate::visit::Owed;

pub(crate) type Entered = Result<Standing<core::Grant>, AcquireError>;

/// How a waiter joins the queue, looks, and is woken for its deadline, if it has one.
pub(crate) trait Deadline: fmt::Debug {
    /// Whether there is none.
    const IS_ENDLESS: bool;

    /// Grants now, or joins the queue.
    fn enter(&mut self, inner: &Inner, weight: u64, kind: Kind, waker: &Waker) -> Entered;

    /// The present state of a waiter that has joined.
    fn look(&self, inner: &Inner, ticket: Ticket, waker: &Waker) -> Entered;

    /// The waiter waits from now on: sets the timer, which wakes this waker.
    fn waits(&mut self, inner: &Inner, waker: &Waker) -> Result<(), Panic>;

    /// The waiter no longer waits: drops the timer.
    fn over(&mut self);
}

/// No deadline: waits for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoDeadline;

/// How long a request may wait, as the user set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Endless,
    /// Counted from joining the queue.
    Within(Duration),
    Until(Instant),
}

/// The deadline of one waiter, if it has one.
pub(crate) struct MayExpire {
    patience: Patience,
    /// In the machine's time; set when the waiter joins.
    at_ns: Option<u64>,
    alarm: Option<Alarm>,
}

/// A timer that is set for the deadline.
struct Alarm {
    /// Never locked, as it is only used through `&mut`. The mutex makes the timer `Sync`.
    timer: std::sync::Mutex<LimiterTimer>,
    wakes: Arc<AlarmWaker>,
}

/// The timer's waker, which wakes the task's present waker. So the timer need not be set again when the task's
/// waker changes.
struct AlarmWaker(Mutex<AlarmState>);

struct AlarmState {
    /// `None` once it was woken.
    waker: Option<Waker>,
    has_come: bool,
}

impl Deadline for NoDeadline {
    const IS_ENDLESS: bool = true;

    #[inline]
    fn enter(&mut self, inner: &Inner, weight: u64, kind: Kind, waker: &Waker) -> Entered {
        inner.enter(weight, kind, waker)
    }

    #[inline]
    fn look(&self, inner: &Inner, ticket: Ticket, waker: &Waker) -> Entered {
        inner.look_for(ticket, waker)
    }

    #[inline]
    fn waits(&mut self, _: &Inner, _: &Waker) -> Result<(), Panic> {
        Ok(())
    }

    #[inline]
    fn over(&mut self) {}
}

impl MayExpire {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, at_ns: None, alarm: None }
    }
}

impl Deadline for MayExpire {
    const IS_ENDLESS: bool = false;

    fn enter(&mut self, inner: &Inner, weight: u64, kind: Kind, waker: &Waker) -> Entered {
        match self.patience {
            Patience::Endless => inner.enter(weight, kind, waker),
            Patience::Until(instant) => {
                // Foreign code: not under the lock.
                let at_ns = *self.at_ns.insert(inner.clock.to_ns(instant));
                inner.enter_by(weight, kind, waker, |_| at_ns)
            }
            Patience::Within(wait) => inner.enter_by(weight, kind, waker, |now| {
                *self.at_ns.insert(now.saturating_add(saturating_ns(wait)))
            }),
        }
    }

    fn look(&self, inner: &Inner, ticket: Ticket, waker: &Waker) -> Entered {
        match self.at_ns {
            None => inner.look_for(ticket, waker),
            Some(at_ns) => inner.look_by(ticket, waker, at_ns),
        }
    }

    fn waits(&mut self, inner: &Inner, waker: &Waker) -> Result<(), Panic> {
        let Some(at) = self.at_ns else { return Ok(()) };
        if let Some(alarm) = &mut self.alarm
            && alarm.will_wake(waker)?
        {
            return Ok(());
        }
        self.alarm = None;
        let waker = foreign::call(|| waker.clone())?;
        let wakes =
            Arc::new(AlarmWaker(Mutex::new(AlarmState { waker: Some(waker), has_come: false })));
        let mut timer = foreign::call(|| inner.clock.timer())?;
        let set = foreign::call(|| timer.set(at, &Waker::from(Arc::clone(&wakes))))?;
        if set == TimerSet::Set {
            self.alarm = Some(Alarm { timer: std::sync::Mutex::new(timer), wakes });
            return Ok(());
        }
        // The deadline has come meanwhile, or no timer can be set: look again.
        foreign::call(|| wakes.wake())
    }

    fn over(&mut self) {
        self.alarm = None;
    }
}

impl Alarm {
    /// Replaces the task's waker. `false` if the timer has fired or is lost, and must be set again.
    fn will_wake(&mut self, waker: &Waker) -> Result<bool, Panic> {
        if self.is_lost() {
            return Ok(false);
        }
        let cloned = foreign::call(|| waker.clone())?;
        let mut state = self.wakes.lock();
        let old = state.waker.replace(cloned);
        let has_come = state.has_come;
        drop(state);
        foreign::discard(old);
        Ok(!has_come)
    }

    fn is_lost(&mut self) -> bool {
        self.timer.get_mut().unwrap_or_else(PoisonError::into_inner).is_lost()
    }
}

impl AlarmWaker {
    fn lock(&self) -> MutexGuard<'_, AlarmState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for AlarmWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        state.has_come = true;
        let waker = state.waker.take();
        // Not woken under the lock: the waker may poll the task at once.
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for AlarmWaker {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        foreign::discard(state.waker.take());
    }
}

impl Inner {
    /// As [`Self::enter`], for a waiter that must be granted at `deadline(now)` or before.
    fn enter_by(
        &self,
        weight: u64,
        kind: Kind,
        waker: &Waker,
        deadline: impl FnOnce(u64) -> u64,
    ) -> Entered {
        let mut update = self.update();
        if let Err(error) = update.check() {
            update.end_quietly();
            return Err(AcquireError::Store(error));
        }
        let Some(now) = update.now() else { update.end_and_tell() };
        if let Err(error) = update.locked.machine.admit_by(now, weight, deadline(now)) {
            update.end_quietly();
            return Err(match error {
                EnqueueError::TooLate { not_before } => {
                    AcquireError::DeadlineExceeded { not_before: self.clock.to_instant(not_before) }
                }
                error => error.into(),
            });
        }
        self.join(update, weight, kind, waker)
    }

    /// As [`Self::look_for`], for a waiter with a deadline. If the deadline has come, the waiter looks once
    /// more, and leaves if it is still not granted.
    fn look_by(&self, ticket: Ticket, waker: &Waker, deadline: u64) -> Entered {
        let standing = self.look_for(ticket, waker)?;
        if matches!(standing, Standing::Granted(_)) {
            return Ok(standing);
        }
        let mut update = self.update();
        let Some(now) = update.now() else { update.end_and_tell() };
        if now < deadline || update.check().is_err() {
            update.only_asked();
            update.end_quietly();
            return Ok(standing);
        }
        update.drive(now);
        if update.panics.is_some() {
            // The waiter stays in the queue until it is dropped.
            update.end_and_tell();
        }
        if let Some(not_before) = update.locked.machine.misses(now, ticket, deadline) {
            self.forget(&mut update, ticket);
            update.settle(Some(now));
            update.end_or_owe(|| Owed::Leave(ticket));
            let not_before = not_before.and_then(|at| self.clock.to_instant(at));
            return Err(AcquireError::DeadlineExceeded { not_before });
        }
        let standing = self.standing(&mut update, ticket);
        self.conclude(update, ticket, standing)
    }
}

impl fmt::Debug for MayExpire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.patience.fmt(f)
    }
}
