//! When to look again: the timer for the next opening, and whom to wake ahead of it.
//!
//! The timer is set a little ahead of an opening (the [`Lead`]), to wake the head of the line; once
//! that is done it is set a little past the opening, should the head not come. It decides when to
//! look, never whether to grant.

use std::task::{Poll, Waker};
use std::time::Instant;

use crate::clock::Timer;
use crate::lead::Lead;

/// How long after an opening the timer looks for itself, if the head that was woken for it has not.
pub(crate) const HEAD_OVERDUE_NS: u64 = 300_000;

pub(crate) struct Lookout {
    timer: Box<dyn Timer>,
    /// What the timer wakes.
    looker: Waker,
    lead: Lead,
    /// What the timer is set for.
    armed_for: Option<Armed>,
}

/// The next opening, as the machine last named it.
#[derive(Debug, Clone, Copy)]
struct Armed {
    opening: u64,
    head: Head,
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
pub(crate) enum Look {
    /// The opening has come.
    Open,
    /// It was woken for an opening that is still ahead, and should look again at once.
    Near,
    /// The timer will wake it.
    Far,
}

impl Lookout {
    pub(crate) fn new(timer: Box<dyn Timer>, looker: Waker, lead: Lead) -> Self {
        Self { timer, looker, lead, armed_for: None }
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.armed_for.is_some()
    }

    #[cfg(test)]
    pub(crate) fn lead_ns(&self) -> u64 {
        self.lead.ns()
    }

    /// The head of the line is polled.
    pub(crate) fn head_looks(&mut self, now: u64) -> Look {
        let Some(armed) = &mut self.armed_for else { return Look::Far };
        let open = now >= armed.opening;
        if armed.head == Head::Woken {
            armed.head = Head::Watching;
            self.lead.learn(open);
        }
        match armed.head {
            _ if open => Look::Open,
            Head::Asleep => Look::Far,
            Head::Woken | Head::Watching => Look::Near,
        }
    }

    /// Plans for an opening: when the timer is to come, unless it is set already, and whether to
    /// wake the head of the line now.
    pub(crate) fn plan(&mut self, opening: u64, now: u64, has_head: bool) -> (Option<u64>, bool) {
        let lead_ns = if has_head { self.lead.ns() } else { 0 };
        let wake_head_at = opening - lead_ns;
        let due = lead_ns > 0 && now >= wake_head_at;
        match self.armed_for.filter(|armed| armed.opening == opening) {
            Some(Armed { head: Head::Asleep, .. }) if !due => (None, false),
            Some(Armed { head: Head::Woken | Head::Watching, .. }) => (None, false),
            _ if due => {
                self.armed_for = Some(Armed { opening, head: Head::Woken });
                (Some(opening.saturating_add(HEAD_OVERDUE_NS)), true)
            }
            _ => {
                self.armed_for = Some(Armed { opening, head: Head::Asleep });
                (Some(wake_head_at), false)
            }
        }
    }

    /// `Ready`: that time has come, and the timer is not set.
    pub(crate) fn set_timer(&mut self, at: Instant) -> Poll<()> {
        let set = self.timer.set(at, &self.looker);
        if set.is_ready() {
            self.timer_has_come();
        }
        set
    }

    /// The timer has come, or cannot any more: whatever it was set for is to be planned anew.
    pub(crate) fn timer_has_come(&mut self) {
        self.armed_for = None;
    }

    /// There is nothing to look out for.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        if self.armed_for.take().is_some() {
            self.timer.clear();
        }
    }
}
