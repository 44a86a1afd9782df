//! The timer of one limiter: the real clock's timer thread, or a timer of the user's clock.

use std::task::{Poll, Waker};

use super::Timer;
use super::timeline::to_clock;
use super::timer_thread::ThreadTimer;
use crate::foreign;

pub(crate) enum LimiterTimer {
    Real(ThreadTimer),
    /// `None` after it was dropped.
    Foreign(Option<Box<dyn Timer>>),
}

/// The outcome of setting a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerSet {
    /// The timer is set.
    Set,
    /// The time has come already. Nothing is set.
    Due,
    /// The system refuses the timer thread. Nothing is set.
    Unavailable,
}

impl LimiterTimer {
    /// Sets the timer to a time of the machine.
    pub(crate) fn set(&mut self, at: u64, waker: &Waker) -> TimerSet {
        match self {
            Self::Real(timer) => timer.set(to_clock(at), waker),
            Self::Foreign(Some(timer)) => match timer.set(to_clock(at), waker) {
                Poll::Ready(()) => TimerSet::Due,
                Poll::Pending => TimerSet::Set,
            },
            Self::Foreign(None) => TimerSet::Unavailable,
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Real(timer) => timer.clear(),
            Self::Foreign(timer) => {
                if let Some(timer) = timer {
                    timer.clear();
                }
            }
        }
    }

    /// Whether the timer will never fire, because its thread is in another process.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Real(timer) => timer.is_lost(),
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
