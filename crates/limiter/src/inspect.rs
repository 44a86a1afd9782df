//! What can be asked of a limiter about itself. Nothing here changes what it decides.

use std::fmt;
use std::time::Duration;

use strict_rate_limiter_core::Limit;

use crate::error::RequestError;
use crate::history::HistoryEntry;
use crate::limiter::RateLimiter;
use crate::stats::Stats;

impl RateLimiter {
    /// What it is called in spans, in metrics and by `Debug`: as the
    /// [builder](RateLimiterBuilder::name) was told, else its limits.
    pub fn name(&self) -> &str {
        self.inner.observer.name.as_str()
    }

    /// The limits, in the order in which they were given.
    pub fn limits(&self) -> Vec<Limit> {
        self.inner.limits()
    }

    /// Sets the gauges of what is held to what is held at this instant.
    ///
    /// Every grant and every completion does so as well. But what is held expires as time passes,
    /// without anything happening: call this before the gauges are read, as when they are scraped,
    /// or every few seconds.
    #[cfg(feature = "metrics")]
    pub fn publish_gauges(&self) {
        self.inner.observer.held_changed(&*self.inner);
    }

    /// How long until the last of `tasks` more tasks of `weight` each could start, at the least: for
    /// a progress bar's time left. As if each of them took no time, and what runs now completed now;
    /// those that wait in the queue are to be counted among them. A pause counts.
    ///
    /// Never more than it will take. Exact for one limit; for several whose periods interlock, or with a
    /// pace, it may be too short by up to two of the longest periods.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(20))?;
    /// // Ten now, ten after 20 s, ten after 40 s.
    /// assert_eq!(limiter.forecast(30, 1)?.as_secs(), 40);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A task of this weight could never run.
    pub fn forecast(&self, tasks: u64, weight: u64) -> Result<Duration, RequestError> {
        self.inner.forecast(tasks, weight)
    }

    /// Everything that the windows hold at this instant, for the [builder](crate::RateLimiterBuilder::history) of a
    /// limiter in the next process: what completed, and what may still be on the wire. The oldest first.
    ///
    /// A task that runs now counts as ending now, or [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) later:
    /// take the history when the process stops starting tasks, and wait for [`drained`](Self::drained) first if you
    /// can. Waiters are not part of it. Where no limit counts weights an entry weighs 1 for each task, and where none
    /// counts tasks it is one task: give the next limiter limits of the same units.
    ///
    /// [`HistoryEntry`] has an example.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let (now, entries) = self.inner.history();
        entries.into_iter().map(|entry| HistoryEntry::from_core(now, entry)).collect()
    }

    /// The limiter in numbers, at this instant.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { running, queued, completed, .. } = self.stats();
        let limits: Vec<String> = self.limits().iter().map(Limit::to_string).collect();
        f.debug_struct("RateLimiter")
            .field("name", &self.name())
            .field("limits", &limits.join(" "))
            .field("running", &running)
            .field("queued", &queued)
            .field("completed", &completed)
            .finish_non_exhaustive()
    }
}
