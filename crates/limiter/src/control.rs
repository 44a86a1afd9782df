//! What a user tells a running limiter: pauses, the server's counts, other limits, the end.

use std::time::{Duration, Instant};

use strict_rate_limiter_core::Limit;
use strict_rate_limiter_core::limit::saturating_ns;

use crate::error::{ChangeError, UnknownLimit};
use crate::future::Drained;
use crate::limiter::RateLimiter;

impl RateLimiter {
    /// Pauses grants until `until`, as when a server answers `Retry-After`. Running tasks go on. A pause
    /// that ends earlier than the present one changes nothing; [`resume`](Self::resume) ends a pause.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// limiter.pause_until(Instant::now() + Duration::from_secs(3600));
    /// assert!(limiter.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pause_until(&self, until: Instant) {
        self.inner.pause_until(self.inner.clock.to_ns(until));
    }

    /// Pauses grants for this long from now. See [`pause_until`](Self::pause_until).
    pub fn pause_for(&self, pause: Duration) {
        self.inner.pause_for(saturating_ns(pause));
    }

    /// Ends the pause now, if there is one. If there is room for the first waiter, wakes it. The limits hold
    /// as before.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// limiter.pause_for(Duration::from_secs(86_400));
    /// assert!(limiter.try_acquire().is_err());
    /// // The provider has lifted the block.
    /// limiter.resume();
    /// assert!(limiter.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self) {
        self.inner.resume();
    }

    /// How long to [pause](Self::pause_for) after the server refused a call without saying for how long (a
    /// 429 without `Retry-After`): the shortest period among the limits that have no unit left, running
    /// tasks included. If each limit has a unit left, the shortest period of all.
    /// [Pacing](crate::RateLimiterBuilder::paced) does not count.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter =
    ///     RateLimiter::builder().limit("2/1s".parse()?).limit("1000/1d".parse()?).build()?;
    /// limiter.try_acquire()?.complete();
    /// let refused = limiter.try_acquire()?;
    /// // The day has room for 998 more: it is the second that is used up.
    /// assert_eq!(limiter.backoff(), Duration::from_secs(1));
    /// limiter.pause_for(limiter.backoff());
    /// refused.complete();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backoff(&self) -> Duration {
        Duration::from_nanos(self.inner.backoff_ns())
    }

    /// The time left of the present pause, by the limiter's clock. Zero if there is no pause.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::{RateLimiter, clock::ManualClock};
    /// let clock = ManualClock::new();
    /// let limiter = RateLimiter::builder().limit("10/1s".parse()?).clock(clock.clone()).build()?;
    /// limiter.pause_for(Duration::from_secs(5));
    /// clock.advance(Duration::from_secs(2));
    /// assert_eq!(limiter.paused_for(), Duration::from_secs(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn paused_for(&self) -> Duration {
        Duration::from_nanos(self.inner.paused_for())
    }

    /// Enters the server's own count: `used` units of one of the [`limits`](Self::limits) are in use. Units
    /// beyond the completions in our window are other clients' usage, and count as completed now. Running
    /// tasks may not be in its count, so they count as well. It only ever tightens: a smaller count changes
    /// nothing, and at most the rate is recorded. Returns the units that were added.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// let limit = "10/1h".parse()?;
    /// let limiter = RateLimiter::builder().limit(limit).build()?;
    /// limiter.try_acquire()?.complete();
    /// // The response said: RateLimit-Remaining: 0.
    /// assert_eq!(limiter.reconcile(limit, 10)?, 9);
    /// assert!(limiter.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`UnknownLimit`] if the limiter has no such limit.
    pub fn reconcile(&self, limit: Limit, used: u64) -> Result<u64, UnknownLimit> {
        let added = self.inner.reconcile(limit, used);
        added.ok_or_else(|| UnknownLimit { limit, limits: self.limits() })
    }

    /// Replaces all limits. Running tasks go on. Waiters keep their order, and the new limits decide from now on.
    ///
    /// The new limits hold in windows that began before the change, too. Units that are held stay held for the new
    /// periods. A longer period would also hold units that have already expired, and their times are forgotten. So
    /// these count as completed now: at most as many as have expired, and at most as many as the old limits allow in
    /// the added length (in whole old periods, rounded up) and did not bound. Nothing is known about a limit that is the
    /// first on its unit (on weights, if all earlier limits were on tasks), so its window counts as full now, even if nothing has run:
    /// the next grant waits for one period.
    ///
    /// A waiter that is now too heavy is refused with [`AcquireError::Weight`](crate::AcquireError::Weight), which names the limit. A waiter inside a task of this
    /// limiter that would now wait for ever is refused with
    /// [`AcquireError::WouldDeadlock`](crate::AcquireError::WouldDeadlock).
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::builder().limit("1/1h".parse()?).build()?;
    /// limiter.try_acquire()?.complete();
    /// assert!(limiter.try_acquire().is_err());
    /// // The provider has raised our quota. One of the two tasks has run.
    /// limiter.set_limits(["2/1h".parse()?])?;
    /// limiter.try_acquire()?.complete();
    /// assert!(limiter.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The [name](Self::name) stays the same.
    ///
    /// # Errors
    ///
    /// If there is no limit, or the limiter is paced and no limit is on tasks. Then nothing changes.
    pub fn set_limits(&self, limits: impl IntoIterator<Item = Limit>) -> Result<(), ChangeError> {
        self.inner.set_limits(limits.into_iter().collect())
    }

    /// Changes how many tasks may run at once. If more run already, they go on, and the next grant waits until fewer
    /// run.
    ///
    /// A waiter inside a task of this limiter that would now wait for ever is refused with
    /// [`AcquireError::WouldDeadlock`](crate::AcquireError::WouldDeadlock).
    ///
    /// # Errors
    ///
    /// If the number is 0 or over [`CONCURRENCY_MAX`](crate::CONCURRENCY_MAX). Then nothing changes.
    pub fn set_concurrency(&self, tasks: usize) -> Result<(), ChangeError> {
        self.inner.set_concurrency(tasks)
    }

    /// Refuses new requests from now on. Accepted tasks still run; [`drained`](Self::drained) waits for
    /// them.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Whether new requests are refused.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Closes, and empties the queue: its waiters and tasks get `Aborted`. Running tasks end by themselves.
    pub fn abort(&self) {
        self.inner.abort();
    }

    /// Waits until no task runs and the queue is empty, whether or not the limiter is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn drained(&self) -> Drained<'_> {
        Drained::new(&self.inner)
    }
}
