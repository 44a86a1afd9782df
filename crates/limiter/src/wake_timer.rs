//! The timer for the next opening.
//!
//! The timer is set a little ahead of the opening ([`WakeAhead`]), to wake the head of the queue. When the
//! head has been woken, the timer is set a little past the opening, in case the head is not polled. The
//! timer decides when the limiter looks, never whether it grants.

use std::sync::Weak;
use std::task::Waker;

use crate::clock::LimiterTimer;
use crate::foreign::{self, Panic};
use crate::inner::{Inner, TimerWaker};
use crate::wake_ahead::WakeAhead;

pub(crate) use crate::clock::TimerSet;

/// How long after an opening the timer fires, in case the head that was woken for it has not been polled.
pub(crate) const HEAD_OVERDUE_NS: u64 = 300_000;

pub(crate) struct WakeTimer {
    timer: LimiterTimer,
    limiter: Weak<Inner>,
    /// The waker that the timer is set with, once it has been set: most of many keys never wait.
    waker: Option<Waker>,
    wake_ahead: WakeAhead,
    /// The opening that the timer is set for.
    armed_for: Option<Armed>,
}

/// The next opening, as the machine last gave it.
#[derive(Debug, Clone, Copy)]
struct Armed {
    opening: u64,
    head: Head,
}

/// What to set the timer for, before it is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    armed: Armed,
    /// The time to set the timer to.
    look_at: u64,
}

/// The state of the head of the queue, with regard to the opening that the timer is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Not woken: the timer wakes it a little ahead of the opening.
    Asleep,
    /// Woken ahead of the opening, and not polled since.
    Woken,
    /// Polled since it was woken: it looks at each poll, until the opening comes.
    Watching,
}

/// What a poll of the head of the queue finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadPoll {
    /// The opening has come.
    Open,
    /// The head was woken for an opening that is still ahead: it should be polled again at once.
    Near,
    /// The timer will wake the head.
    Far,
}

impl WakeTimer {
    pub(crate) fn new(timer: LimiterTimer, limiter: Weak<Inner>, wake_ahead: WakeAhead) -> Self {
        Self { timer, limiter, waker: None, wake_ahead, armed_for: None }
    }

    pub(crate) fn limiter(&self) -> Weak<Inner> {
        Weak::clone(&self.limiter)
    }

    /// Needs the timer to be disarmed.
    pub(crate) fn set_wake_ahead(&mut self, wake_ahead: WakeAhead) {
        self.wake_ahead = wake_ahead;
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.armed_for.is_some()
    }

    #[cfg(test)]
    pub(crate) fn lead_ns(&self) -> u64 {
        self.wake_ahead.ns()
    }

    /// The head of the queue is polled.
    pub(crate) fn head_looks(&mut self, now: u64) -> HeadPoll {
        if self.timer.is_lost() {
            return HeadPoll::Open;
        }
        let Some(armed) = &mut self.armed_for else { return HeadPoll::Far };
        let open = now >= armed.opening;
        if armed.head == Head::Woken {
            armed.head = Head::Watching;
            self.wake_ahead.learn(open);
        }
        match armed.head {
            _ if open => HeadPoll::Open,
            Head::Asleep => HeadPoll::Far,
            Head::Woken | Head::Watching => HeadPoll::Near,
        }
    }

    /// Plans for an opening: the time to set the timer to, and whether to wake the head of the queue now.
    /// `None` if both are done already.
    pub(crate) fn plan(&self, opening: u64, now: u64, has_head: bool) -> Option<Plan> {
        let lead_ns = if has_head { self.wake_ahead.ns() } else { 0 };
        let wake_head_at = opening.saturating_sub(lead_ns);
        let due = lead_ns > 0 && now >= wake_head_at;
        let plan = |head, look_at| Some(Plan { armed: Armed { opening, head }, look_at });
        let is_set = |armed: &Armed| armed.opening == opening && !self.timer.is_lost();
        match self.armed_for.filter(is_set) {
            Some(Armed { head: Head::Asleep, .. }) if !due => None,
            Some(Armed { head: Head::Woken | Head::Watching, .. }) => None,
            _ if due => plan(Head::Woken, opening.saturating_add(HEAD_OVERDUE_NS)),
            _ => plan(Head::Asleep, wake_head_at),
        }
    }

    /// Sets the timer as planned. It counts as set only after the timer has said so: the call may panic.
    pub(crate) fn set_timer(&mut self, plan: Plan) -> Result<TimerSet, Panic> {
        let limiter = &self.limiter;
        let waker = self.waker.get_or_insert_with(|| TimerWaker::waker(Weak::clone(limiter)));
        self.armed_for = None;
        let set = foreign::call(|| self.timer.set(plan.look_at, waker))?;
        if set == TimerSet::Set {
            self.armed_for = Some(plan.armed);
        }
        Ok(set)
    }

    /// The timer has fired, or never will: the next opening is planned anew.
    pub(crate) fn timer_has_fired(&mut self) {
        self.armed_for = None;
    }

    /// Clears the timer: there is no opening to wait for.
    #[inline]
    pub(crate) fn disarm(&mut self) -> Result<(), Panic> {
        if self.armed_for.take().is_some() {
            foreign::call(|| self.timer.clear())?;
        }
        Ok(())
    }
}

impl Plan {
    /// Whether to wake the head now, ahead of its opening.
    pub(crate) fn wakes_head(&self) -> bool {
        self.armed.head == Head::Woken
    }
}
