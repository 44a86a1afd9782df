//! The windows of all limits, the running tasks and the pause.
//!
//! A task takes units of every limit at once or of none. Only [`Windows::has_room`] says whether a task may start,
//! and only [`Windows::take`] starts one. Nothing here knows the queue.
//!
//! Invariants: time never goes backwards (an earlier `now` counts as the latest one seen); completions are
//! stamped in the order in which they were recorded; a grant that was made up frees no more than a grant that is
//! out can hold, and nothing if none is out.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::config::{Config, ConfigError};
use crate::limit::Unit;
use crate::types::{Grant, RequestError};
use crate::window::{Opening, Window};

/// A number of tasks, and the sum of their weights. A sum of weights has 128 bits, as only a limit on weight
/// bounds the weight of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) weight: u128,
}

#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) config: Arc<Config>,
    /// One for each limit of the settings, then one for the pace if there is one.
    pub(crate) all: AllWindows,
    /// Tasks that hold a grant and have not completed.
    pub(crate) running: Load,
    /// Running tasks whose grants the machine keeps, because they are not claimed yet or are abandoned. The
    /// grants of the others are *out*.
    pub(crate) kept: Load,
    /// Tasks dropped while they ran: when their grace is over, and their weight. Sorted by that time.
    pub(crate) abandoned: VecDeque<(u64, u64)>,
    pub(crate) completed: u64,
    pub(crate) now: u64,
    /// The latest completion stamped so far.
    pub(crate) last_end: u64,
    /// 0 if there is no pause.
    pub(crate) paused_until: u64,
    /// Whether the settings have changed since the machine was made.
    pub(crate) is_changed: bool,
}

/// One window or several. The only one is in place: to follow a pointer to it would take as long as the rest of a
/// decision where there are many machines.
#[derive(Debug)]
pub(crate) enum AllWindows {
    One([Window; 1]),
    Several(Vec<Window>),
}

impl FromIterator<Window> for AllWindows {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let windows: Vec<Window> = windows.into_iter().collect();
        windows.try_into().map_or_else(Self::Several, Self::One)
    }
}

impl Deref for AllWindows {
    type Target = [Window];

    #[inline]
    fn deref(&self) -> &[Window] {
        match self {
            Self::One(window) => window,
            Self::Several(windows) => windows,
        }
    }
}

impl DerefMut for AllWindows {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Window] {
        match self {
            Self::One(window) => window,
            Self::Several(windows) => windows,
        }
    }
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

    /// The units that the tasks take from a limit.
    #[inline]
    pub(crate) fn units(self, unit: Unit) -> u64 {
        match unit {
            Unit::Task => self.tasks as u64,
            Unit::Weight => u64::try_from(self.weight).unwrap_or(u64::MAX),
        }
    }
}

impl Windows {
    pub(crate) fn new(config: Arc<Config>) -> Result<Self, ConfigError> {
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

    /// The windows of the limits in the settings, without the pace.
    pub(crate) fn asked_for(&self) -> &[Window] {
        &self.all[..self.config.limits.len()]
    }

    /// The units of a window that running tasks hold.
    #[inline]
    pub(crate) fn running_units(&self, window: &Window) -> u64 {
        self.running.units(window.limit().unit())
    }

    /// The units of a window that are held, by running tasks and by completed ones.
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

    /// Whether the law allows a task of `weight`, as of the latest `now`. Held units only become fewer as time
    /// passes. Everything that grants calls this function, so no two answers can differ.
    #[inline]
    pub(crate) fn has_room(&self, weight: u64) -> bool {
        self.paused_until == 0
            && self.running.tasks < self.config.concurrency
            && self.all.iter().all(|window| window.has_room(self.running_units(window), weight))
    }

    /// When a task of `weight` could be granted, if nothing else happens: `Now` exactly if [`Self::has_room`] is
    /// true, else later than now.
    pub(crate) fn opening(&self, weight: u64) -> Opening {
        if self.has_room(weight) {
            return Opening::Now;
        }
        // If only a completion can make room, the next one whose time is known is the end of an abandoned
        // task's grace.
        let next_known_end = self.abandoned.front().map(|(ends, _)| *ends);
        let mut opens_at = (self.paused_until != 0).then_some(self.paused_until);
        if self.running.tasks >= self.config.concurrency {
            let Some(ends) = next_known_end else { return Opening::AfterCompletion };
            opens_at = opens_at.max(Some(ends));
        }
        for window in self.all.iter() {
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

    /// [`Self::opening`] as a time, `None` if it depends on running tasks.
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

    /// Starts a task. All grants come from here. Needs [`Self::has_room`].
    #[inline]
    pub(crate) fn take(&mut self, weight: u64) -> Grant {
        debug_assert!(self.has_room(weight), "granted without room");
        self.running.add(weight);
        Grant::of_weight(weight)
    }

    /// Gives a grant out to a task whose grant was kept until now.
    #[inline]
    pub(crate) fn hand_out(&mut self, weight: u64) -> Grant {
        self.kept.remove(weight);
        Grant::of_weight(weight)
    }

    /// Undoes a grant whose task never started. Does nothing if no grant is out.
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

    /// A grant that is not out has ended: [`Machine::complete`](crate::Machine::complete).
    #[cold]
    pub(crate) fn complete_stranger(
        &mut self,
        grant: Grant,
        now: u64,
        ended_at: u64,
        actual: Option<u64>,
    ) -> u64 {
        self.advance(now);
        let weight = grant.into_weight();
        self.complete_unknown(actual.unwrap_or(weight), ended_at.max(self.now))
    }

    /// See [`Machine::abandon`](crate::Machine::abandon).
    #[inline]
    pub(crate) fn abandon(&mut self, grant: Grant, now: u64, ended_at: u64) {
        match self.config.abandon_grace_ns {
            0 => {
                self.complete(grant, now, ended_at, None);
            }
            grace_ns => self.abandon_for(grace_ns, grant, now, ended_at),
        }
    }

    #[inline(never)]
    fn abandon_for(&mut self, grace_ns: u64, grant: Grant, now: u64, ended_at: u64) {
        self.advance(now);
        let ends = ended_at.max(self.now).saturating_add(grace_ns);
        let weight = grant.into_weight();
        let Some(reserved) = self.reserved(weight) else {
            self.complete_unknown(weight, ends);
            return;
        };
        if ends <= self.now {
            // The time is at its maximum: the grace would never end.
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

    /// Moves time on: abandoned tasks whose grace is over complete, and units that are no longer held expire.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64) {
        // At the same instant nothing can have changed: every stamp is later or equal.
        if now <= self.now {
            return;
        }
        self.now = now;
        self.catch_up();
    }

    /// Ends the pause and completes abandoned tasks if their time has come; drops expired units.
    #[inline]
    pub(crate) fn catch_up(&mut self) {
        if self.paused_until <= self.now {
            self.paused_until = 0;
        }
        if !self.abandoned.is_empty() {
            self.end_abandoned();
        }
        for window in self.all.iter_mut() {
            window.expire(self.now);
        }
    }

    #[cold]
    fn end_abandoned(&mut self) {
        while let Some((ends, weight)) = self.abandoned.front().copied()
            && ends <= self.now
        {
            self.abandoned.pop_front();
            self.kept.remove(weight);
            self.record(weight, weight, ends);
        }
    }

    /// The stamp of a task that ends at `ended_at`: no earlier than any stamp before it.
    pub(crate) fn stamp(&mut self, ended_at: u64) -> u64 {
        self.last_end = self.last_end.max(ended_at);
        self.last_end
    }

    #[expect(
        clippy::inline_always,
        reason = "every completion comes here, and the compiler thinks it too long"
    )]
    #[inline(always)]
    fn record(&mut self, reserved: u64, actual: u64, ended_at: u64) {
        let stamp = self.stamp(ended_at);
        self.running.remove(reserved);
        self.completed = self.completed.saturating_add(1);
        for window in self.all.iter_mut() {
            window.complete(reserved, actual, stamp);
        }
    }

    /// The weight that a returned grant has reserved, `None` if none is out. Core cannot check the weight in the
    /// grant, so it bounds it: the running weight, less what all other running tasks are known to hold. That is
    /// the full weight for each grant that is kept here, and 1 for each that is out.
    #[inline]
    fn reserved(&self, weight: u64) -> Option<u64> {
        let others_out = (self.running.tasks - self.kept.tasks).checked_sub(1)?;
        let others = self.kept.weight + others_out as u128;
        let at_most = u64::try_from(self.running.weight.saturating_sub(others));
        Some(weight.min(at_most.unwrap_or(u64::MAX)).max(1))
    }
}
