//! The timer of one limiter: the real clock's, or one of a user's clock.

use std::task::{Poll, Waker};
use std::time::Instant;

use super::Timer;
use super::timer_thread::ThreadTimer;
use crate::foreign;

pub(crate) enum LimiterTimer {
    Real(ThreadTimer),
    /// `None` once it was dropped.
    Foreign(Option<Box<dyn Timer>>),
}

/// What came of setting a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerSet {
    /// It will come.
    Set,
    /// That time has come, and nothing is set.
    Due,
    /// The system has no thread for it, and nothing is set.
    Unavailable,
}

impl LimiterTimer {
    pub(crate) fn set(&mut self, at: Instant, waker: &Waker) -> TimerSet {
        match self {
            Self::Real(alarm) => alarm.set(at, waker),
            Self::Foreign(Some(timer)) => match timer.set(at, waker) {
                Poll::Ready(()) => TimerSet::Due,
                Poll::Pending => TimerSet::Set,
            },
            Self::Foreign(None) => TimerSet::Unavailable,
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Real(alarm) => alarm.clear(),
            Self::Foreign(timer) => {
                if let Some(timer) = timer {
                    timer.clear();
                }
            }
        }
    }

    /// Whether what was set will never come: the thread that it was left to is another process's.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Real(alarm) => alarm.is_lost(),
            Self::Foreign(_) => false,
        }
    }
}

impl Drop for LimiterTimer {
    fn drop(&mut self) {
        if let Self::Foreign(timer) = self {
            foreign::discard(timer.take());
        }
    }
}
