//! Questions about a limiter. Nothing here changes its decisions.

use std::fmt;
use std::time::Duration;

use strict_rate_limiter_core::Limit;

use crate::error::RequestError;
use crate::history::HistoryEntry;
use crate::limiter::RateLimiter;
use crate::stats::Stats;
use crate::store::StoreError;

impl RateLimiter {
    /// The limiter's name in spans, in metrics and in `Debug`: as given to the
    /// [builder](crate::RateLimiterBuilder::name), else its limits.
    pub fn name(&self) -> &str {
        self.inner.observer.name.as_str()
    }

    /// The limits, in the order in which they were given.
    pub fn limits(&self) -> Vec<Limit> {
        self.inner.limits()
    }

    /// The failure of the place where a [shared](crate::store) limiter's state is kept, if it fails now. While it does,
    /// nothing is granted. `None` for every other limiter.
    pub fn outage(&self) -> Option<StoreError> {
        self.inner.outage()
    }

    /// Sets the gauges of held units to their present values.
    ///
    /// Every grant and every completion does so as well. But held units expire as time passes, without any
    /// event. So call this before the gauges are read, as when they are scraped, or every few seconds.
    #[cfg(feature = "metrics")]
    pub fn publish_gauges(&self) {
        self.inner.observer.held_changed(&*self.inner);
    }

    /// The least time until the last of `tasks` more tasks of `weight` each could start, for the time left in a
    /// progress bar. Assumes that each task takes no time and that running tasks complete now. `tasks`
    /// includes the waiters in the queue. A pause counts.
    ///
    /// It is never too long. It is exact for one limit. For several limits whose periods interlock, or with
    /// pacing, it may be too short by up to two of the longest periods.
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
    /// If a task of this weight could never run.
    pub fn forecast(&self, tasks: u64, weight: u64) -> Result<Duration, RequestError> {
        self.inner.forecast(tasks, weight)
    }

    /// All tasks that are held now, for the [builder](crate::RateLimiterBuilder::history) of the next process's limiter:
    /// completed ones, and those whose calls may still be on the wire. The oldest first. Waiters are not included.
    ///
    /// A task that runs now is an entry that ends [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) from now.
    /// So [close](Self::close) the limiter first, and await [`drained`](Self::drained) if you can.
    ///
    /// Build the next limiter with the same limits, and change them afterwards with
    /// [`set_limits`](Self::set_limits), which knows what a longer period must count. The history itself goes back no
    /// further than the longest period. If no limit is on weights, an entry weighs 1 for each task; if no limit is on
    /// tasks, each entry is one task.
    ///
    /// [`HistoryEntry`] has an example.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let (now, entries) = self.inner.history();
        entries.into_iter().map(|entry| HistoryEntry::from_core(now, entry)).collect()
    }

    /// The present numbers: running and queued tasks, completions, held units, the next opening.
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
