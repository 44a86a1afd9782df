//! Questions about the machine: how full it is, how many tasks run and wait, how long to pause after a refusal.
//! They change nothing but the latest time seen.

use crate::machine::Machine;
use crate::types::{Held, Snapshot};
use crate::window::Window;

impl<T> Machine<T> {
    /// The numbers of running and of waiting tasks, as in [`Self::stats`], as of the latest `now`.
    pub fn load(&self) -> (usize, usize) {
        (self.windows.running.tasks, self.queue.len())
    }

    /// Whether no task runs and no task waits; of the acting session's, if the machine has sessions.
    pub fn is_drained(&self) -> bool {
        if let Some(owners) = &self.owners {
            return !owners.has_own();
        }
        self.windows.running.tasks == 0 && self.queue.is_empty()
    }

    /// The machine in numbers.
    pub fn stats(&mut self, now: u64) -> Snapshot {
        let windows = &mut self.windows;
        windows.advance(now);
        let held = |window: &Window| Held { limit: window.limit(), units: windows.held(window) };
        Snapshot {
            running: windows.running.tasks,
            queued: self.queue.len(),
            completed: windows.completed,
            held: windows.asked_for().iter().map(held).collect(),
            next_opening: windows.not_before(self.queue.head().map_or(1, |(_, weight)| weight)),
        }
    }

    /// Whether a new machine would decide the same from now on: nothing is held, runs or waits, the machine is
    /// neither paused nor closed, and its settings were not changed. Then it can be dropped and made anew.
    pub fn is_like_new(&mut self, now: u64) -> bool {
        self.windows.advance(now);
        let holds_nothing = self.windows.all.iter().all(|window| window.completed() == 0);
        let is_open = self.windows.paused_until == 0 && !self.closed;
        holds_nothing && self.is_drained() && is_open && !self.windows.is_changed
    }

    /// How long to pause after the protected system refused a task without saying for how long, in
    /// nanoseconds: the shortest period, stretched by the clock drift, among the limits that have no
    /// unit left, running tasks included. If each limit has a unit left, the shortest of all periods.
    /// The pace does not count, as the protected system has no such limit.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limits: [Limit; 2] = ["10/1s".parse()?, "2/1h".parse()?];
    /// let mut machine = Machine::<()>::new(Config { concurrency: 2, ..Config::new(limits) })?;
    /// let _running = machine.try_grant(0, 1)?;
    /// assert_eq!(machine.backoff_ns(0), 1_000_000_000);
    /// let _running = machine.try_grant(0, 1)?;
    /// assert_eq!(machine.backoff_ns(0), 3_600_000_000_000);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn backoff_ns(&mut self, now: u64) -> u64 {
        self.windows.advance(now);
        let windows = &self.windows;
        let asked_for = windows.asked_for();
        let is_used_up = |window: &&Window| !window.has_room(windows.running_units(window), 1);
        let used_up = asked_for.iter().filter(is_used_up);
        let shortest = used_up.map(Window::per_ns).min();
        shortest.unwrap_or(asked_for.iter().map(Window::per_ns).fold(u64::MAX, u64::min))
    }

    /// Bytes allocated for the window logs.
    pub fn log_bytes(&self) -> usize {
        self.windows.all.iter().map(Window::log_bytes).sum()
    }
}
