//! The held units as plain entries: out before a restart, and back in after it.
//!
//! An entry stands for completions, or for tasks that may still be running: a restart does not end calls that are on
//! the wire.

use alloc::vec::Vec;

use crate::config::CONCURRENCY_MAX;
use crate::limit::Unit;
use crate::machine::Machine;
use crate::window::Window;
use crate::windows::{Load, Windows};

/// Tasks that end together at `ends_at`, in the machine's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldEntry {
    /// When they completed, or the time until which they count as running.
    pub ends_at: u64,
    /// The number of tasks.
    pub tasks: u64,
    /// The sum of their weights.
    pub weight: u64,
}

impl HeldEntry {
    /// One task of `weight`.
    pub const fn new(ends_at: u64, weight: u64) -> Self {
        Self { ends_at, tasks: 1, weight }
    }

    /// Sets the number of tasks and keeps the sum of their weights.
    #[must_use]
    pub const fn with_tasks(self, tasks: u64) -> Self {
        Self { tasks, ..self }
    }
}

impl<T> Machine<T> {
    /// All held units, in the order of their ends, for [`Self::remember`] after a restart. Waiters are not included.
    ///
    /// Completions are as the window's log has them: beyond 65,536, neighbours are merged into one entry. Tasks that
    /// run now are one entry that ends at `now` and the configured grace; abandoned tasks end with their grace. If no
    /// limit is on weights, an entry weighs 1 for each task; if no limit is on tasks, each entry is one task. So give
    /// the next machine limits on the same units: with others it may hold less than it should.
    pub fn history(&mut self, now: u64) -> Vec<HeldEntry> {
        self.windows.advance(now);
        self.windows.history()
    }

    /// Adds the entries of an earlier machine, so that a restart never bursts. Call it before anything is granted. An
    /// entry with `ends_at <= now` counts as completed at `ends_at`. A later one counts as running until then, and
    /// takes part in the concurrency.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, HeldEntry, Limit, Machine};
    /// let limit: Limit = "2/20ns".parse()?;
    /// let mut before = Machine::<()>::new(Config::new([limit]))?;
    /// let grant = before.try_grant(100, 1)?;
    /// before.complete(grant, 105, 105, None);
    /// let _on_the_wire = before.try_grant(110, 1)?;
    ///
    /// let mut after = Machine::<()>::new(Config::new([limit]))?;
    /// after.remember(112, before.history(112));
    /// assert!(after.try_grant(125, 1).is_err());
    /// assert!(after.try_grant(126, 1).is_ok());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn remember(&mut self, now: u64, entries: impl IntoIterator<Item = HeldEntry>) {
        let mut entries: Vec<HeldEntry> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.ends_at);
        self.windows.advance(now);
        self.assume_earlier_tasks();
        for entry in entries {
            self.windows.remember(entry);
        }
        let now = self.windows.now;
        self.windows.all.iter_mut().for_each(|window| window.expire(now));
    }

    /// An earlier machine with these limits may have granted anything that they allow, and all of it has expired: a
    /// longer period, set later, counts it ([`Self::set_limits`]). [`Self::remember`] assumes it as well, whatever
    /// the entries are.
    pub fn assume_earlier_tasks(&mut self) {
        self.windows.all.iter_mut().for_each(|window| window.expired = u64::MAX);
    }
}

impl<T> Machine<T> {
    /// Nothing is known of the time before `at`, so all limits count as used up by tasks that completed then: for a
    /// state that is missing. Call it before anything is granted.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limit: Limit = "2/20ns".parse()?;
    /// let mut machine = Machine::<()>::new(Config::new([limit]))?;
    /// machine.assume_full(100);
    /// assert!(machine.try_grant(120, 1).is_err());
    /// assert!(machine.try_grant(121, 1).is_ok());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn assume_full(&mut self, at: u64) {
        self.windows.begin_full(at);
    }

    /// The computer has started anew at `at`, by a clock that has started anew as well. All tasks have ended and all
    /// sessions are gone; when the tasks ended is not known, so all limits count as used up then, and what is over a
    /// limit stays over it. What was left of a pause begins again.
    pub fn restart(&mut self, at: u64) {
        let pause_ns = self.windows.paused_until.saturating_sub(self.windows.now);
        let _ = self.queue.take_all();
        self.unclaimed.clear();
        if let Some(owners) = &mut self.owners {
            owners.clear();
        }
        self.windows.begin_full(at);
        self.windows.pause_until(at.saturating_add(pause_ns));
    }
}

impl Windows {
    fn begin_full(&mut self, at: u64) {
        let held: Vec<u64> = self.all.iter().map(|window| self.held(window)).collect();
        for (window, held) in self.all.iter_mut().zip(held) {
            let limit = window.limit();
            let mut full = Window::new(limit, self.config.clock_drift_ppm);
            full.count_unknown(held.max(limit.rate()), at);
            full.expired = u64::MAX;
            *window = full;
        }
        self.running = Load::default();
        self.kept = Load::default();
        self.abandoned.clear();
        self.paused_until = 0;
        (self.now, self.last_end) = (at, at);
    }

    fn history(&self) -> Vec<HeldEntry> {
        let longest = |unit: Unit| {
            let of_unit = self.all.iter().filter(|window| window.limit().unit() == unit);
            let log = of_unit.max_by_key(|window| window.per_ns()).map(Window::completions);
            log.map(Iterator::collect::<Vec<_>>)
        };
        let mut entries = match (longest(Unit::Task), longest(Unit::Weight)) {
            (Some(tasks), Some(weights)) => join(&tasks, &weights),
            (Some(tasks), None) => {
                each(&tasks, |ends_at, tasks| HeldEntry { ends_at, tasks, weight: tasks })
            }
            (None, Some(weights)) => each(&weights, HeldEntry::new),
            (None, None) => Vec::new(),
        };
        entries.extend(self.running_now());
        entries.extend(self.abandoned.iter().map(|(ends, weight)| HeldEntry::new(*ends, *weight)));
        entries.sort_by_key(|entry| entry.ends_at);
        entries
    }

    /// The tasks whose grants are out or not yet claimed, as if all were abandoned now.
    fn running_now(&self) -> Option<HeldEntry> {
        let tasks = self.running.tasks - self.abandoned.len();
        let abandoned = self.abandoned.iter().map(|(_, weight)| u128::from(*weight)).sum();
        let weight = u64::try_from(self.running.weight.saturating_sub(abandoned));
        (tasks > 0).then(|| HeldEntry {
            ends_at: self.now.saturating_add(self.config.abandon_grace_ns),
            tasks: tasks as u64,
            weight: weight.unwrap_or(u64::MAX),
        })
    }

    fn remember(&mut self, entry: HeldEntry) {
        let HeldEntry { ends_at, tasks, weight } = entry;
        let can_run =
            usize::try_from(tasks).is_ok_and(|tasks| tasks <= CONCURRENCY_MAX - self.running.tasks);
        if ends_at > self.now && can_run {
            // What weighs something is a task.
            let tasks = tasks.max(u64::from(weight > 0));
            let ends_at = self.abandoned.back().map_or(ends_at, |(last, _)| ends_at.max(*last));
            for left in (0..tasks).rev() {
                // They all end together, so only the sum of their weights matters.
                let weight = if left == 0 { weight.saturating_sub(tasks - 1).max(1) } else { 1 };
                self.running.add(weight);
                self.kept.add(weight);
                self.abandoned.push_back((ends_at, weight));
            }
            return;
        }
        let stamp = self.stamp(ends_at);
        for window in self.all.iter_mut() {
            window.count_past(tasks, weight, stamp);
        }
    }
}

fn each(log: &[(u64, u64)], entry: impl Fn(u64, u64) -> HeldEntry) -> Vec<HeldEntry> {
    log.iter().map(|(at, units)| entry(*at, *units)).collect()
}

/// The entries of two logs of the same tasks: one counts them, the other weighs them.
fn join(tasks: &[(u64, u64)], weights: &[(u64, u64)]) -> Vec<HeldEntry> {
    let mut entries: Vec<HeldEntry> = Vec::new();
    let (mut tasks, mut weights) = (tasks.iter().peekable(), weights.iter().peekable());
    while let Some(ends_at) =
        [tasks.peek(), weights.peek()].into_iter().flatten().map(|(at, _)| *at).min()
    {
        let (mut count, mut weight) = (0_u64, 0_u64);
        while let Some((_, units)) = tasks.next_if(|(at, _)| *at == ends_at) {
            count = count.saturating_add(*units);
        }
        while let Some((_, units)) = weights.next_if(|(at, _)| *at == ends_at) {
            weight = weight.saturating_add(*units);
        }
        entries.push(HeldEntry { ends_at, tasks: count, weight });
    }
    entries
}
