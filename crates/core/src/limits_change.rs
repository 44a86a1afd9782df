//! Limits and concurrency that change while tasks run and wait.
//!
//! From the change on, the law holds for the new limits, over windows that began before it too. Each new limit
//! takes over what the earlier limits on its unit know (`Window::take_over`).

use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::limit::Limit;
use crate::machine::Machine;
use crate::types::Refused;
use crate::window::Window;
use crate::windows::Windows;

impl<T> Machine<T> {
    /// Replaces all limits. Running tasks keep their grants; waiters keep their order, but for those that are now
    /// too heavy ever to run, which leave the queue and are handed back. Poll afterwards.
    ///
    /// What completed goes on being held for as long as the new limits say. A longer period would still hold some
    /// of what has expired, and nobody knows when that completed: it counts as completing at the change, as much
    /// of it as the old limits let through in the length of the new period. Of a limit that is the first on its unit
    /// (on weights, where all were on tasks) nothing is known: it counts as full at the change, which
    /// [`Self::stats`] says as [`RATE_MAX`](crate::limit::RATE_MAX) units.
    ///
    /// Times as in [`Self::complete`]: `now` is no later than the true time, `changed_at` no earlier.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limit: Limit = "1/20ns".parse()?;
    /// let mut machine = Machine::<()>::new(Config::new([limit]))?;
    /// let grant = machine.try_grant(0, 1)?;
    /// machine.complete(grant, 0, 0, None);
    ///
    /// // Two fit from now on, and one of them has run.
    /// let refused = machine.set_limits(5, 5, ["2/20ns".parse()?])?;
    /// assert!(refused.is_empty());
    /// let grant = machine.try_grant(5, 1)?;
    /// machine.complete(grant, 5, 5, None);
    /// assert!(machine.try_grant(5, 1).is_err());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]; then nothing has changed.
    pub fn set_limits(
        &mut self,
        now: u64,
        changed_at: u64,
        limits: impl IntoIterator<Item = Limit>,
    ) -> Result<Vec<Refused<T>>, ConfigError> {
        self.windows.set_limits(now, changed_at, limits.into_iter().collect())?;
        let too_heavy = self.queue.waiting().filter_map(|(ticket, weight)| {
            self.windows.check(weight).err().map(|error| (ticket, error))
        });
        let too_heavy: Vec<_> = too_heavy.collect();
        let refused = too_heavy.into_iter().filter_map(|(ticket, error)| {
            let waiter = self.queue.cancel(ticket)?;
            Some(Refused { ticket, waiter, error })
        });
        Ok(refused.collect())
    }

    /// Changes how many tasks may run at once. More that run already go on. Poll afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]; then nothing has changed.
    pub fn set_concurrency(&mut self, tasks: usize) -> Result<(), ConfigError> {
        let config = Config { concurrency: tasks, ..self.windows.config.clone() };
        config.checked_limits()?;
        self.windows.is_changed |= config != self.windows.config;
        self.windows.config = config;
        Ok(())
    }
}

impl Windows {
    fn set_limits(
        &mut self,
        now: u64,
        changed_at: u64,
        limits: Vec<Limit>,
    ) -> Result<(), ConfigError> {
        let config = Config { limits, ..self.config.clone() };
        let all = config.checked_limits()?;
        self.advance(now);
        if config == self.config {
            return Ok(());
        }
        let changed_at = self.stamp(changed_at.max(self.now));
        let successor = |limit: Limit| {
            let mut window = Window::new(limit, config.clock_drift_ppm);
            // The pace knows nothing that the limits do not.
            let same_unit = |old: &&Window| old.limit().unit() == limit.unit();
            let earlier: Vec<&Window> = self.asked_for().iter().filter(same_unit).collect();
            window.take_over(&earlier, changed_at);
            window.expire(self.now);
            window
        };
        self.all = all.into_iter().map(successor).collect();
        self.config = config;
        self.is_changed = true;
        Ok(())
    }
}
