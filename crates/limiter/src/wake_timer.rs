//! When to look again: the timer for the next opening, and whom to wake ahead of it.
//!
//! The timer is set a little ahead of an opening (the [`WakeAhead`]), to wake the head of the line; once
//! that is done it is set a little past the opening, should the head not come. It decides when to
//! look, never whether to grant.

use std::task::Waker;

use crate::clock::LimiterTimer;
use crate::foreign::{self, Panic};
use crate::wake_ahead::WakeAhead;

pub(crate) use crate::clock::TimerSet;

/// How long after an opening the timer looks for itself, if the head that was woken for it has not.
pub(crate) const HEAD_OVERDUE_NS: u64 = 300_000;

pub(crate) struct WakeTimer {
    timer: LimiterTimer,
    /// What the timer wakes.
    waker: Waker,
    wake_ahead: WakeAhead,
    /// What the timer is set for.
    armed_for: Option<Armed>,
}

/// The next opening, as the machine last named it.
#[derive(Debug, Clone, Copy)]
struct Armed {
    opening: u64,
    head: Head,
}

/// What to set the timer for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    armed: Armed,
    /// When the timer is to come.
    look_at: u64,
}

/// Where the head of the line is about an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Asleep, until the timer wakes it a little ahead of the opening.
    Asleep,
    /// Woken ahead of the opening, and not polled since.
    Woken,
    /// Polled since: from now on it looks for itself.
    Watching,
}

/// What the head of the line sees when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadPoll {
    /// The opening has come.
    Open,
    /// It was woken for an opening that is still ahead, and should look again at once.
    Near,
    /// The timer will wake it.
    Far,
}

impl WakeTimer {
    pub(crate) fn new(timer: LimiterTimer, waker: Waker, wake_ahead: WakeAhead) -> Self {
        Self { timer, waker, wake_ahead, armed_for: None }
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.armed_for.is_some()
    }

    #[cfg(test)]
    pub(crate) fn lead_ns(&self) -> u64 {
        self.wake_ahead.ns()
    }

    /// The head of the line is polled.
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

    /// Plans for an opening: what to set the timer for, and whether to wake the head of the line
    /// now. `None` where all of that is done.
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
        self.armed_for = None;
        let set = foreign::call(|| self.timer.set(plan.look_at, &self.waker))?;
        if set == TimerSet::Set {
            self.armed_for = Some(plan.armed);
        }
        Ok(set)
    }

    /// The timer has come, or cannot any more: whatever it was set for is to be planned anew.
    pub(crate) fn timer_has_come(&mut self) {
        self.armed_for = None;
    }

    /// There is nothing to look out for.
    #[inline]
    pub(crate) fn disarm(&mut self) -> Result<(), Panic> {
        if self.armed_for.take().is_some() {
            foreign::call(|| self.timer.clear())?;
        }
        Ok(())
    }
}

impl Plan {
    /// Whether the head is woken now, ahead of its opening.
    pub(crate) fn wakes_head(&self) -> bool {
        self.armed.head == Head::Woken
    }
}
