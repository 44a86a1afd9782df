//! `RateLimiterBuilder`: the settings of a limiter.

use std::sync::Arc;
use std::time::Duration;

use strict_rate_limiter_core::limit::saturating_ns;
use strict_rate_limiter_core::{Config, Limit, Machine};

use crate::clock::{Clock, Timeline};
use crate::error::BuildError;
use crate::history::HistoryEntry;
use crate::inner::Inner;
use crate::observe::Name;

/// Makes a [`RateLimiter`](crate::RateLimiter); from [`RateLimiter::builder`](crate::RateLimiter::builder).
///
/// ```
/// use std::time::Duration;
/// use strict_rate_limiter::{Limit, RateLimiter};
///
/// let limiter = RateLimiter::builder()
///     .limit(Limit::tasks(500, Duration::from_secs(60))?)
///     .limit("90000w/1m".parse()?)
///     .concurrency(4)
///     .queue_capacity(10_000)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `build`"]
pub struct RateLimiterBuilder {
    /// Shared by the limiters that are made from clones of the builder, as those of keys are.
    config: Arc<Config>,
    clock: Option<Arc<dyn Clock>>,
    /// `None`: nothing ran before.
    history: Option<Vec<HistoryEntry>>,
    name: Option<Arc<str>>,
    exact_clock: bool,
}

impl RateLimiterBuilder {
    pub(crate) fn new() -> Self {
        Self {
            config: Arc::new(Config::new([])),
            clock: None,
            history: None,
            name: None,
            exact_clock: false,
        }
    }

    /// Adds a limit. A task needs room in all limits. At least one is needed.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.config_mut().limits.push(limit);
        self
    }

    /// Adds several limits.
    pub fn limits(mut self, limits: impl IntoIterator<Item = Limit>) -> Self {
        self.config_mut().limits.extend(limits);
        self
    }

    /// Spreads tasks over the period: for each task limit, at most 1 task in any `per / rate` (rounded up).
    /// Needs a task limit.
    ///
    /// Against a server that estimates its window from two counters, this keeps the estimate within
    /// one task of the limit.
    pub fn paced(mut self) -> Self {
        self.config_mut().paced = true;
        self
    }

    /// How many tasks may run at once: 1 by default, at most
    /// [`CONCURRENCY_MAX`](crate::CONCURRENCY_MAX). The guarantee is the same for any number.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.config_mut().concurrency = tasks;
        self
    }

    /// How many tasks are accepted into the queue; unbounded by default. If the queue is full, `push` waits
    /// for room and `try_push` returns the task. All other calls wait in the queue all the same, unless
    /// [`refuse_when_full`](Self::refuse_when_full) is set.
    pub fn queue_capacity(mut self, waiters: usize) -> Self {
        self.config_mut().queue_capacity = waiters;
        self
    }

    /// Makes the [capacity](Self::queue_capacity) bound all calls: if the queue is full, a call fails at once
    /// instead of waiting. For a server that should refuse its own clients early.
    ///
    /// | | when the queue is full | with `refuse_when_full` |
    /// |---|---|---|
    /// | `acquire`, `run`, `acquire_blocking`, streams | waits | [`AcquireError::Full`](crate::AcquireError::Full) |
    /// | `push`, `push_fn` | waits for room | [`PushRefusal::Full`](crate::PushRefusal::Full), with the task |
    /// | `try_push`, `try_push_fn` | [`PushRefusal::Full`](crate::PushRefusal::Full), with the task | the same |
    /// | `try_acquire` | never waits | the same |
    /// | a service of the tower layer | waits | ready, and the call answers [`AcquireError::Full`](crate::AcquireError::Full) |
    ///
    /// With a capacity of 0 no call waits: it gets a permit at once, or fails.
    ///
    /// ```
    /// # use strict_rate_limiter::{AcquireError, RateLimiter};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder()
    ///     .limit("1/1h".parse()?)
    ///     .queue_capacity(0)
    ///     .refuse_when_full()
    ///     .build()?;
    /// limiter.acquire().await?.complete();
    /// assert_eq!(limiter.acquire().await.unwrap_err(), AcquireError::Full);
    /// # Ok(())
    /// # }
    /// ```
    pub fn refuse_when_full(mut self) -> Self {
        self.config_mut().refuse_when_full = true;
        self
    }

    /// How long a task that was dropped while it ran still counts as running, because its call may still be
    /// on the wire: 0 by default.
    pub fn abandon_grace(mut self, grace: Duration) -> Self {
        self.config_mut().abandon_grace_ns = saturating_ns(grace);
        self
    }

    /// How much faster our clock may run than the protected system's, in parts per million: 0 by default.
    /// Stretches every period. (A server whose clock runs fast sees tasks further apart than they are, which
    /// is safe.)
    pub fn clock_drift(mut self, ppm: u32) -> Self {
        self.config_mut().clock_drift_ppm = ppm;
        self
    }

    /// Uses this clock instead of the real one. Several limiters can share a clock in an `Arc`.
    ///
    /// `wasm32-unknown-unknown` has no real clock: there, building a limiter without your own clock panics.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Reads the operating system's clock at every completion, and never the processor's counter. That
    /// costs about as much again as an uncontended acquire. For machines whose counter is wrong although the
    /// kernel trusts it: see `docs/guarantee.md`, "Assumed". Changes nothing on machines without such a
    /// counter, or with your own [`clock`](Self::clock).
    pub fn exact_clock(mut self) -> Self {
        self.exact_clock = true;
        self
    }

    /// Adds tasks that ran before the limiter was made, so that a restarted program does not burst. Takes pairs (how long
    /// ago the task completed, its weight) in any order, or the entries of
    /// [`RateLimiter::history`](crate::RateLimiter::history).
    ///
    /// Give the builder the limits that the tasks ran under, and change them with
    /// [`RateLimiter::set_limits`](crate::RateLimiter::set_limits) afterwards: a longer period then counts what the
    /// history can no longer know. That goes for an empty history as well.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::builder()
    ///     .limit("2/1h".parse()?)
    ///     .history([(Duration::from_secs(60), 1), (Duration::from_secs(7_200), 1)])
    ///     .build()?;
    /// assert_eq!(limiter.stats().held[0].units, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn history(mut self, entries: impl IntoIterator<Item = impl Into<HistoryEntry>>) -> Self {
        let history = self.history.get_or_insert_default();
        history.extend(entries.into_iter().map(Into::into));
        self
    }

    /// The limiter's name in spans, in metrics and in `Debug`. By default its limits, as text.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn config_mut(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.config)
    }

    /// Has the limiters that are made from clones of the builder share its name.
    #[cfg(feature = "keyed")]
    pub(crate) fn share_name(&mut self) {
        let name = Name::new(self.name.take(), &self.config.limits, true);
        self.name = Some(name.into_text());
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn configured_limits(&self) -> &[Limit] {
        &self.config.limits
    }

    /// `is_shared`: whether other limiters have the same name.
    pub(crate) fn build_inner(self, is_shared: bool) -> Result<Arc<Inner>, BuildError> {
        let name = Name::new(self.name, &self.config.limits, is_shared);
        let mut machine = Machine::new(self.config)?;
        let clock = Timeline::new(self.clock, self.exact_clock);
        let now = clock.now().unwrap_or_else(|panic| panic.resume());
        if let Some(history) = self.history {
            machine.remember(now, history.into_iter().map(|entry| entry.into_core(now)));
        }
        Ok(Inner::new(machine, clock, name))
    }
}
