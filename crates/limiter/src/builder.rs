//! Making a limiter with more than the defaults.

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
    config: Config,
    clock: Option<Arc<dyn Clock>>,
    history: Vec<HistoryEntry>,
    name: Option<Arc<str>>,
    exact_clock: bool,
}

impl RateLimiterBuilder {
    pub(crate) fn new() -> Self {
        Self {
            config: Config::new([]),
            clock: None,
            history: Vec::new(),
            name: None,
            exact_clock: false,
        }
    }

    /// Adds a limit. All limits must allow a task for it to run; at least one is needed.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.config.limits.push(limit);
        self
    }

    /// Adds several limits.
    pub fn limits(mut self, limits: impl IntoIterator<Item = Limit>) -> Self {
        self.config.limits.extend(limits);
        self
    }

    /// Spreads tasks over the period instead of running them back to back: at most 1 in any
    /// `per / rate` (rounded up), for each task limit. Needs a task limit.
    ///
    /// Against a server that estimates its window from two counters, this keeps the estimate within
    /// one task of the limit.
    pub fn paced(mut self) -> Self {
        self.config.paced = true;
        self
    }

    /// How many tasks may run at once: 1 unless said otherwise, and at most
    /// [`CONCURRENCY_MAX`](crate::CONCURRENCY_MAX). The guarantee is the same for any number.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.config.concurrency = tasks;
        self
    }

    /// How many may wait in the queue; unbounded unless said otherwise. When it is full, `push`
    /// waits for room and `try_push` hands the task back. Everything else waits in either case, in
    /// its place in the queue, unless [`refuse_when_full`](Self::refuse_when_full) says otherwise.
    pub fn queue_capacity(mut self, waiters: usize) -> Self {
        self.config.queue_capacity = waiters;
        self
    }

    /// Has the [capacity](Self::queue_capacity) bound everyone: whoever finds the queue full is refused
    /// at once, in place of waiting. For a server, whose clients had better be told at once.
    ///
    /// | | when the queue is full | with `refuse_when_full` |
    /// |---|---|---|
    /// | `acquire`, `run`, `acquire_blocking`, streams | waits | [`AcquireError::Full`](crate::AcquireError::Full) |
    /// | `push`, `push_fn` | waits for room | [`PushRefusal::Full`](crate::PushRefusal::Full), with the task |
    /// | `try_push`, `try_push_fn` | [`PushRefusal::Full`](crate::PushRefusal::Full), with the task | the same |
    /// | `try_acquire` | never waits | the same |
    /// | a service of the tower layer | waits | ready, and the call answers [`AcquireError::Full`](crate::AcquireError::Full) |
    ///
    /// With a capacity of 0 nobody waits: a permit at once, or a refusal.
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
        self.config.refuse_when_full = true;
        self
    }

    /// How long a task that was dropped while it ran still counts as running, as its call may
    /// still be on its way: 0 unless said otherwise.
    pub fn abandon_grace(mut self, grace: Duration) -> Self {
        self.config.abandon_grace_ns = saturating_ns(grace);
        self
    }

    /// How much faster than the protected system's our clock may run, in parts per million: 0
    /// unless said otherwise. Every period is stretched by it. (A server's clock that runs fast sees
    /// tasks further apart than they are, and needs no allowance.)
    pub fn clock_drift(mut self, ppm: u32) -> Self {
        self.config.clock_drift_ppm = ppm;
        self
    }

    /// Uses this clock instead of the real one. An `Arc` of a clock is a clock, for several limiters.
    ///
    /// `wasm32-unknown-unknown` has no real clock: building a limiter there without a clock of yours panics.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Asks the operating system for the time at every completion, in place of reading the processor's
    /// counter in between, which costs about as much again as an uncontended acquire. For machines whose
    /// counter is not to be trusted although the kernel does: see `docs/guarantee.md`, "Assumed". It
    /// changes nothing where there is no such counter, nor with a [`clock`](Self::clock) of your own.
    pub fn exact_clock(mut self) -> Self {
        self.exact_clock = true;
        self
    }

    /// What ran before the limiter was made, in any order, so that a restarted program does not burst: pairs (how long
    /// ago it completed, its weight), or what [`RateLimiter::history`](crate::RateLimiter::history) gave out.
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
        self.history.extend(entries.into_iter().map(Into::into));
        self
    }

    /// What the limiter is called in spans, in metrics and by `Debug`; its limits, as text, unless
    /// said otherwise.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
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
        let entries = self.history.into_iter().map(|entry| entry.into_core(now));
        machine.remember(now, entries);
        Ok(Inner::new(machine, clock, name))
    }
}
