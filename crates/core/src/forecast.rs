//! When the last of many tasks could be granted: for the time left in a progress bar. It decides nothing.
//!
//! The tasks are assumed to complete as they are granted. If a limit has room for `k` of them in a
//! period, task `j` cannot be granted before `per + 1` ns after task `j - k`, and the first `k` not
//! before the held units leave room for them. With one limit, this bound is the time of the grant. With
//! several, we step back from the last task in whole periods of one limit: first those of the limit that
//! is slowest in the long run, then the rest by the next limit. Each chain of steps is a lower bound
//! for every schedule.

use alloc::vec::Vec;

use crate::machine::Machine;
use crate::types::RequestError;
use crate::window::Window;

/// A limit for tasks of one weight.
pub(crate) struct Steps<'a> {
    window: &'a Window,
    /// The number of tasks that fit into one period.
    tasks: u64,
    /// The least time between a task and the one `tasks` after it.
    ns: u64,
    /// The units that each task takes.
    units: u64,
}

impl<T> Machine<T> {
    /// The earliest time at which the last of `tasks` more tasks of `weight` each could be granted,
    /// beside the units held now. Assumes that each task takes no time and that running tasks complete
    /// now. `tasks` includes the waiters in the queue.
    ///
    /// The last grant is never earlier. For one limit the time is exact to the nanosecond. For several
    /// whose periods interlock, or with a pace, it may be too early by up to two of the longest periods.
    /// Costs `O(log n)` in the number of completions held, whatever the number of tasks.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limit: Limit = "10/20s".parse()?;
    /// let mut machine = Machine::<()>::new(Config::new([limit]))?;
    /// // Ten at once, ten after 20 s, ten after 40 s (and a nanosecond: periods are closed).
    /// assert_eq!(machine.forecast(0, 30, 1)?, 2 * 20_000_000_001);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn forecast(&mut self, now: u64, tasks: u64, weight: u64) -> Result<u64, RequestError> {
        self.check(weight)?;
        self.windows.advance(now);
        if tasks == 0 {
            return Ok(self.windows.now);
        }
        let windows = self.windows.all.iter();
        let limits = windows.map(|window| Steps::new(window, weight)).collect();
        Ok(self.last_of(limits, tasks))
    }

    /// When the last of `tasks` (at least 1) could be granted by these limits.
    pub(crate) fn last_of(&self, mut limits: Vec<Steps<'_>>, tasks: u64) -> u64 {
        let begin = self.windows.now.max(self.windows.paused_until);
        // The slowest limit in the long run first.
        let binds = |a: &Steps<'_>, b: &Steps<'_>| u128::from(a.ns) * u128::from(b.tasks);
        limits.sort_by(|a, b| binds(b, a).cmp(&binds(a, b)));

        let mut latest = begin;
        for first in 0..limits.len() {
            let (mut left, mut passed) = (tasks, 0_u64);
            latest = latest.max(self.fits(&limits, left, begin));
            for limit in &limits[first..] {
                let periods = (left - 1) / limit.tasks;
                if periods > 0 {
                    left -= periods * limit.tasks;
                    passed = passed.saturating_add(periods.saturating_mul(limit.ns));
                    latest = latest.max(self.fits(&limits, left, begin).saturating_add(passed));
                }
            }
        }
        latest
    }

    /// When the `tasks`-th task from now could be granted, by the limits that have room for that many in
    /// one period.
    fn fits(&self, limits: &[Steps<'_>], tasks: u64, begin: u64) -> u64 {
        let say = limits.iter().filter(|limit| tasks <= limit.tasks);
        let fits = say.map(|limit| {
            match limit
                .window
                .surplus(self.windows.running_units(limit.window), tasks * limit.units)
            {
                0 => begin,
                // Running tasks complete now.
                surplus => {
                    let frees = limit.window.frees(surplus);
                    frees
                        .unwrap_or(self.windows.now.saturating_add(limit.ns))
                        .min(begin.saturating_add(limit.ns))
                }
            }
        });
        fits.fold(begin, u64::max)
    }
}

impl<'a> Steps<'a> {
    /// Needs a task of `weight` to fit.
    pub(crate) fn new(window: &'a Window, weight: u64) -> Self {
        let limit = window.limit();
        let units = limit.units(weight);
        let ns = window.per_ns().saturating_add(1);
        Self { window, tasks: limit.rate() / units, ns, units }
    }
}
