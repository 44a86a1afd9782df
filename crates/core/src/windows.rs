//! What is held, of all limits together: the windows, the tasks that run, the pause.
//!
//! A task takes units of every limit at once or of none. [`Windows::has_room`] is the one answer to whether a
//! task may start, and [`Windows::take`] the one place that starts it. Nothing here knows who waits.
//!
//! Invariants: time never goes backwards (an earlier `now` counts as the latest one seen); completions are
//! stamped in the order in which they were recorded; a grant that was made up frees no more than a grant that is
//! out can hold, and nothing where none is out.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::limit::Unit;
use crate::types::{Grant, RequestError};
use crate::window::{Opening, Window};

/// A number of tasks, and what they weigh together. A sum of weights has 128 bits, as only a limit on weight
/// bounds the weight of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) weight: u128,
}

#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) config: Config,
    /// One for each limit that was asked for, then one for the pace if there is one.
    pub(crate) all: Vec<Window>,
    /// Tasks that hold a grant and have not completed.
    pub(crate) running: Load,
    /// Those among them whose grants are kept in the machine: not claimed yet, or abandoned. The grants of the
    /// others are *out*.
    pub(crate) kept: Load,
    /// Tasks dropped while they ran: when their grace is over, and their weight. Sorted by that time.
    pub(crate) abandoned: VecDeque<(u64, u64)>,
    pub(crate) completed: u64,
    pub(crate) now: u64,
    /// The latest completion stamped so far.
    pub(crate) last_end: u64,
    /// 0 when not paused.
    pub(crate) paused_until: u64,
    /// Whether the settings are no longer those that the machine was made with.
    pub(crate) is_changed: bool,
}

impl Load {
    #[inline]
    pub(crate) fn add(&mut self, weight: u64) {
        self.tasks += 1;
        self.weight = self.weight.saturating_add(u128::from(weight));
    }

    #[inline]
    pub(crate) fn remove(&mut self, weight: u64) {
        self.tasks -= 1;
        self.weight = self.weight.saturating_sub(u128::from(weight));
    }

    /// What the tasks take from a limit.
    #[inline]
    pub(crate) fn units(self, unit: Unit) -> u64 {
        match unit {
            Unit::Task => self.tasks as u64,
            Unit::Weight => u64::try_from(self.weight).unwrap_or(u64::MAX),
        }
    }
}

impl Windows {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let limits = config.checked_limits()?;
        let windows = limits.into_iter().map(|limit| Window::new(limit, config.clock_drift_ppm));
        Ok(Self {
            all: windows.collect(),
            config,
            running: Load::default(),
            kept: Load::default(),
            abandoned: VecDeque::new(),
            completed: 0,
            now: 0,
            last_end: 0,
            paused_until: 0,
            is_changed: false,
        })
    }

    /// The windows of the limits that were asked for, without the pace.
    pub(crate) fn asked_for(&self) -> &[Window] {
        &self.all[..self.config.limits.len()]
    }

    /// What running tasks hold of a window.
    #[inline]
    pub(crate) fn running_units(&self, window: &Window) -> u64 {
        self.running.units(window.limit().unit())
    }

    /// What is held of a window, by running tasks and by those that completed.
    pub(crate) fn held(&self, window: &Window) -> u64 {
        window.held(self.running_units(window))
    }

    /// Whether a task of `weight` could ever run.
    pub(crate) fn check(&self, weight: u64) -> Result<(), RequestError> {
        if weight == 0 {
            return Err(RequestError::ZeroWeight);
        }
        let mut limits = self.all.iter().map(Window::limit);
        match limits.find(|limit| limit.units(weight) > limit.rate()) {
            Some(limit) => Err(RequestError::TooHeavy { weight, limit }),
            None => Ok(()),
        }
    }

    /// Whether the law allows a task of `weight`, as of the last look at the time. What is held only shrinks as
    /// time passes. The one answer: everything that grants asks it.
    #[inline]
    pub(crate) fn has_room(&self, weight: u64) -> bool {
        self.paused_until == 0
            && self.running.tasks < self.config.concurrency
            && self.all.iter().all(|window| window.has_room(self.running_units(window), weight))
    }

    /// When a task of `weight` could be granted, if nothing else happens: `Now` where [`Self::has_room`] says so
    /// and nowhere else, or later than now.
    pub(crate) fn opening(&self, weight: u64) -> Opening {
        if self.has_room(weight) {
            return Opening::Now;
        }
        // Where only a completion can make room, the next one that is known to come is the end of an abandoned
        // task's grace.
        let next_known_end = self.abandoned.front().map(|(ends, _)| *ends);
        let mut opens_at = (self.paused_until != 0).then_some(self.paused_until);
        if self.running.tasks >= self.config.concurrency {
            let Some(ends) = next_known_end else { return Opening::AfterCompletion };
            opens_at = opens_at.max(Some(ends));
        }
        for window in &self.all {
            let at = match window.opening(self.running_units(window), weight) {
                Opening::Now => continue,
                Opening::At(at) => at,
                Opening::AfterCompletion => match next_known_end {
                    Some(ends) => ends,
                    None => return Opening::AfterCompletion,
                },
            };
            opens_at = opens_at.max(Some(at));
        }
        Opening::later(opens_at, self.now, self.all[0].per_ns())
    }

    /// [`Self::opening`] as a time, `None` where it depends on running tasks.
    pub(crate) fn not_before(&self, weight: u64) -> Option<u64> {
        match self.opening(weight) {
            Opening::Now => Some(self.now),
            Opening::At(at) => Some(at),
            Opening::AfterCompletion => None,
        }
    }

    /// Whether nothing can be granted before a running task completes, whatever the time.
    pub(crate) fn awaits_completion(&self) -> bool {
        self.running.tasks >= self.config.concurrency && self.abandoned.is_empty()
    }

    /// Starts a task. The one way to a grant. Needs [`Self::has_room`].
    #[inline]
    pub(crate) fn take(&mut self, weight: u64) -> Grant {
        debug_assert!(self.has_room(weight), "granted without room");
        self.running.add(weight);
        Grant::of_weight(weight)
    }

    /// A grant goes out to a task, whose weight was kept until now.
    #[inline]
    pub(crate) fn hand_out(&mut self, weight: u64) -> Grant {
        self.kept.remove(weight);
        Grant::of_weight(weight)
    }

    /// Takes a grant back whose task never started. Nothing, where none is out.
    pub(crate) fn undo(&mut self, grant: Grant) {
        if let Some(weight) = self.reserved(grant.into_weight()) {
            self.running.remove(weight);
        }
    }

    /// See [`Machine::complete`](crate::Machine::complete).
    #[inline]
    pub(crate) fn complete(
        &mut self,
        grant: Grant,
        now: u64,
        ended_at: u64,
        actual: Option<u64>,
    ) -> u64 {
        self.advance(now);
        let ended_at = ended_at.max(self.now);
        let weight = grant.into_weight();
        let Some(reserved) = self.reserved(weight) else {
            return self.complete_unknown(actual.unwrap_or(weight), ended_at);
        };
        let actual = actual.unwrap_or(weight.max(reserved));
        self.record(reserved, actual, ended_at);
        actual.saturating_sub(reserved)
    }

    /// See [`Machine::abandon`](crate::Machine::abandon).
    pub(crate) fn abandon(&mut self, grant: Grant, now: u64, ended_at: u64) {
        let grace_ns = self.config.abandon_grace_ns;
        if grace_ns == 0 {
            self.complete(grant, now, ended_at, None);
            return;
        }
        self.advance(now);
        let ends = ended_at.max(self.now).saturating_add(grace_ns);
        let weight = grant.into_weight();
        let Some(reserved) = self.reserved(weight) else {
            self.complete_unknown(weight, ends);
            return;
        };
        if ends <= self.now {
            // The end of time: its grace would never be over.
            self.record(reserved, reserved, ends);
            return;
        }
        let ends = self.abandoned.back().map_or(ends, |(last, _)| ends.max(*last));
        self.abandoned.push_back((ends, reserved));
        self.kept.add(reserved);
    }

    pub(crate) fn pause_until(&mut self, until: u64) {
        if until > self.now {
            self.paused_until = self.paused_until.max(until);
        }
    }

    /// Moves time on: abandoned tasks whose grace is over complete, what is no longer held expires.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64) {
        // At the same instant nothing can have changed: whatever is stamped ends no earlier.
        if now <= self.now {
            return;
        }
        self.now = now;
        self.catch_up();
    }

    /// Ends and drops whatever is over by now.
    #[inline]
    pub(crate) fn catch_up(&mut self) {
        if self.paused_until <= self.now {
            self.paused_until = 0;
        }
        while let Some((ends, weight)) = self.abandoned.front().copied()
            && ends <= self.now
        {
            self.abandoned.pop_front();
            self.kept.remove(weight);
            self.record(weight, weight, ends);
        }
        for window in &mut self.all {
            window.expire(self.now);
        }
    }

    /// The stamp of what ends at `ended_at`: no earlier than any stamp before it.
    pub(crate) fn stamp(&mut self, ended_at: u64) -> u64 {
        self.last_end = self.last_end.max(ended_at);
        self.last_end
    }

    #[inline]
    fn record(&mut self, reserved: u64, actual: u64, ended_at: u64) {
        let stamp = self.stamp(ended_at);
        self.running.remove(reserved);
        self.completed = self.completed.saturating_add(1);
        for window in &mut self.all {
            window.complete(reserved, actual, stamp);
        }
    }

    /// What a grant that comes back has reserved, `None` where none is out. The caller says its weight, which
    /// core cannot know; but no more can come free than what is held less what every other running task is known
    /// to hold: those whose grants are kept in here their weights, those whose grants are out 1 each.
    #[inline]
    fn reserved(&self, weight: u64) -> Option<u64> {
        let others_out = (self.running.tasks - self.kept.tasks).checked_sub(1)?;
        let others = self.kept.weight + others_out as u128;
        let at_most = u64::try_from(self.running.weight.saturating_sub(others));
        Some(weight.min(at_most.unwrap_or(u64::MAX)).max(1))
    }
}
