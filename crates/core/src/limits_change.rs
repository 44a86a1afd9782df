//! Limits and concurrency that change while tasks run and wait.
//!
//! From the change on, the law holds for the new limits, also in windows that began before the change. Each new limit
//! takes over the history of the earlier limits on its unit (`Window::take_over`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::limit::Limit;
use crate::machine::Machine;
use crate::types::Refused;
use crate::window::Window;
use crate::windows::Windows;

impl<T> Machine<T> {
    /// Replaces all limits. Running tasks keep their grants. Waiters keep their order; those that are now too heavy
    /// ever to run leave the queue and are returned. Poll afterwards.
    ///
    /// Units that are held stay held for the new periods. A longer period would also hold units that have expired
    /// already, and their times are forgotten. So these count as completing at the change: at most as many as have
    /// expired, and at most as many as the old limits allow in the added length (in whole old periods, rounded up)
    /// and did not bound. Nothing is known about a limit that is the first on its unit (on weights, if all earlier
    /// limits were on tasks): it counts as full at the change, and [`Self::stats`] then shows
    /// [`RATE_MAX`](crate::limit::RATE_MAX) units.
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
    /// As for [`Self::new`]. Then nothing changes.
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
            let owner = self.owners.as_mut().and_then(|owners| owners.forget(ticket));
            let waiter = self.queue.cancel(ticket)?;
            Some(Refused { ticket, waiter, error, owner })
        });
        Ok(refused.collect())
    }

    /// Changes how many tasks may run at once. If more run already, they go on. Poll afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]. Then nothing changes.
    pub fn set_concurrency(&mut self, tasks: usize) -> Result<(), ConfigError> {
        let config = Config { concurrency: tasks, ..Config::clone(&self.windows.config) };
        config.checked_limits()?;
        self.windows.is_changed |= config != *self.windows.config;
        self.windows.config = Arc::new(config);
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
        let config = Config { limits, ..Config::clone(&self.config) };
        let all = config.checked_limits()?;
        self.advance(now);
        if config == *self.config {
            return Ok(());
        }
        let changed_at = self.stamp(changed_at.max(self.now));
        let successor = |limit: Limit| {
            let mut window = Window::new(limit, config.clock_drift_ppm);
            // The pace's log has nothing that the limits' logs do not have.
            let same_unit = |old: &&Window| old.limit().unit() == limit.unit();
            let earlier: Vec<&Window> = self.asked_for().iter().filter(same_unit).collect();
            window.take_over(&earlier, changed_at);
            window.expire(self.now);
            window
        };
        self.all = all.into_iter().map(successor).collect();
        self.config = Arc::new(config);
        self.is_changed = true;
        Ok(())
    }
}
