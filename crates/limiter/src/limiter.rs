//! The limiter itself: what a user calls to get a permit, to have a task run, and to stop. What can be
//! asked about the limiter is in `inspect.rs`, what a request can be told in `request.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strict_rate_limiter_core::Limit;
use strict_rate_limiter_core::limit::saturating_ns;

use crate::builder::RateLimiterBuilder;
use crate::error::{AcquireError, BuildError, ConfigError, TryAcquireError, UnknownLimit};
#[cfg(any(feature = "keyed", feature = "tower"))]
use crate::future::AcquireOwned;
use crate::future::{Acquire, Drained};
use crate::inner::{Inner, Kind};
use crate::permit::Permit;
use crate::request::{Request, try_acquire};
use crate::run;
use crate::waiter::Waiter;

#[cfg(feature = "tokio")]
use crate::{error::PushError, push::Pushed};

/// Runs tasks so that no closed interval of length `per` ever contains more than `rate` of them,
/// wherever between its start and its end each of them counts.
///
/// A clone is another handle to the same limiter. When the last is dropped, what was accepted still
/// runs, while its runtime lives.
///
/// # Order
///
/// There is one queue for everything: first in, first out, whoever calls and however heavy. A heavy
/// head blocks the light ones behind it. A waiter that is alive but not polled keeps its place, and
/// a permit that it has been granted, as in any fair lock; a pushed task depends on nobody's polling.
#[derive(Clone)]
pub struct RateLimiter {
    pub(crate) inner: Arc<Inner>,
}

impl RateLimiter {
    /// At most `rate` tasks in any closed interval of length `per`, one at a time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// assert!(RateLimiter::new(0, Duration::from_secs(1)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(rate: u64, per: Duration) -> Result<Self, BuildError> {
        Self::builder().limit(Limit::tasks(rate, per)?).build()
    }

    /// Everything else that can be set.
    pub fn builder() -> RateLimiterBuilder {
        RateLimiterBuilder::new()
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Whether nobody else has a handle, a permit or a waiter, and a limiter made just now would
    /// decide the same from here on.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_forgettable(&self) -> bool {
        Arc::strong_count(&self.inner) == 1 && self.inner.is_blank()
    }

    // --- Acquiring a permit

    /// A request for a permit or a run with more than the defaults: another weight, a deadline, a
    /// permit that borrows nothing. See [`Request`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder().limit("90000w/1m".parse()?).build()?;
    /// let request = limiter.request().weight(1_200).within(Duration::from_secs(2));
    /// request.acquire().await?.complete();
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn request(&self) -> Request<'_> {
        Request::new(&self.inner)
    }

    /// Waits for a permit of this weight.
    #[inline]
    pub(crate) fn acquire_weighing(&self, weight: u64) -> Acquire<'_> {
        Acquire(Waiter::new(&*self.inner, weight, Kind::Acquire))
    }

    /// Waits for a permit of this weight that borrows nothing.
    #[cfg(any(feature = "keyed", feature = "tower"))]
    pub(crate) fn acquire_owned(&self, weight: u64) -> AcquireOwned {
        AcquireOwned(Waiter::new(Arc::clone(&self.inner), weight, Kind::Acquire))
    }

    /// Waits for a permit of weight 1.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// let permit = limiter.acquire().await?;
    /// // Call the fragile thing here.
    /// permit.complete();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Closed`](AcquireError::Closed) at once, if the limiter is; [`Aborted`](AcquireError::Aborted)
    /// when it is aborted meanwhile; [`Full`](AcquireError::Full) at once, if the queue is full and the
    /// limiter [refuses](RateLimiterBuilder::refuse_when_full) whoever finds it so;
    /// [`WouldDeadlock`](AcquireError::WouldDeadlock) if it is called inside
    /// a task that this limiter runs (`run` or `push`), and every task that could make room for it waits
    /// for a permit inside as well.
    ///
    /// Not detected, and a wait for ever: a task that holds a [`Permit`] and acquires another; a task that
    /// awaits a spawned task, or the handle of a push, which waits for a permit of the same limiter.
    ///
    /// # Fairness
    ///
    /// On tokio (feature `tokio`) it takes part in cooperative scheduling: a loop that never has to wait
    /// yields now and then.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropped while it waits, it leaves no trace and the next in line moves up; a
    /// grant that it never saw is undone in full. It gives up its place in the queue.
    #[inline]
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_weighing(1)
    }

    /// Waits on this thread for a permit, in the same queue as everyone else. Not for async code,
    /// where it would block the executor.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_millis(10))?;
    /// std::thread::scope(|threads| {
    ///     for _ in 0..4 {
    ///         threads.spawn(|| {
    ///             let permit = limiter.acquire_blocking().expect("not closed");
    ///             permit.complete();
    ///         });
    ///     }
    /// });
    /// assert_eq!(limiter.stats().completed, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire_blocking(&self) -> Result<Permit<'_>, AcquireError> {
        Waiter::new(&*self.inner, 1, Kind::Acquire).block().map(Permit)
    }

    /// A permit now or not at all. Never overtakes a waiter.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::{RateLimiter, TryAcquireError};
    /// let limiter = RateLimiter::new(1, Duration::from_secs(3600))?;
    /// limiter.try_acquire()?.complete();
    /// let Err(TryAcquireError::Busy { not_before }) = limiter.try_acquire() else { panic!() };
    /// assert!(not_before.is_some(), "an hour from now");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        Ok(Permit(try_acquire(&*self.inner, 1)?))
    }

    // --- Running a task

    /// Waits its turn, runs the task on the spot and gives its answer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// let answer = limiter.run(async { 6 * 7 }).await?;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it leaves no trace. Dropped while the task runs, it drops the task,
    /// which is its completion (plus the limiter's grace).
    ///
    /// # Panics
    ///
    /// If the task does. That counts as its completion, and the limiter goes on.
    pub async fn run<R: Future>(&self, task: R) -> Result<R::Output, AcquireError> {
        run::run(Waiter::new(&*self.inner, 1, Kind::Acquire), task).await
    }

    /// Runs the task here if it is permitted at once; else queues it and returns, and the tokio
    /// runtime runs it in its turn. Waits only where the queue has a capacity and is full; not even then
    /// with [`refuse_when_full`](RateLimiterBuilder::refuse_when_full).
    ///
    /// ```
    /// use std::time::Duration;
    /// use strict_rate_limiter::{Pushed, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::new(1, Duration::from_millis(5))?;
    /// assert!(matches!(limiter.push(|| async { "first" }).await?, Pushed::Ran("first")));
    /// match limiter.push(|| async { "second" }).await? {
    ///     Pushed::Ran(answer) => println!("{answer}: it had a free window at once"),
    ///     Pushed::Queued(handle) => assert_eq!(handle.await?, "second"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// From inside a task of the same limiter it always queues, so that a task never runs inside
    /// another; there a full queue is an error, as room might have to wait for the task itself.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, it leaves no trace, and the task is dropped. Dropped while
    /// the task runs here, it drops the task, which is its completion. A task that was queued is
    /// not affected.
    ///
    /// # Panics
    ///
    /// If the task runs here and panics. That of a queued task goes to its handle. Either counts as
    /// its completion, and the queue behind it goes on.
    #[cfg(feature = "tokio")]
    pub async fn push<F, R>(&self, task: F) -> Result<Pushed<R::Output>, PushError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output: Send + 'static> + Send + 'static,
    {
        self.request().push(task).await
    }

    /// As [`push`](Self::push), for a synchronous task. It runs on the thread that pushes it or on
    /// one of the runtime's, so it should not block for long.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// let pushed = limiter.push_fn(|| 6 * 7).await?;
    /// assert_eq!(pushed.answer().await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As [`push`](Self::push).
    #[cfg(feature = "tokio")]
    pub async fn push_fn<F, T>(&self, task: F) -> Result<Pushed<T>, PushError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.request().push_fn(task).await
    }

    // --- Commands

    /// No grant before `until`, as when a server answers `Retry-After`. What runs is not affected;
    /// a pause that ends earlier than the present one changes nothing, and [`resume`](Self::resume)
    /// ends it.
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

    /// No grant for this long from now.
    pub fn pause_for(&self, pause: Duration) {
        let pause_ns = saturating_ns(pause);
        let now = self.inner.clock.now().unwrap_or_else(|panic| panic.resume());
        self.inner.pause_until(now.saturating_add(pause_ns));
    }

    /// Ends a pause at once, whenever it was to end, and wakes the first waiter where there is room
    /// for it. The limits hold as ever: what was held during the pause is held after it. Does
    /// nothing where there is no pause.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::new(10, Duration::from_secs(1))?;
    /// limiter.pause_for(Duration::from_secs(86_400));
    /// assert!(limiter.try_acquire().is_err());
    /// // Somebody has raised the quota.
    /// limiter.resume();
    /// assert!(limiter.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self) {
        self.inner.resume();
    }

    /// How long to [pause](Self::pause_for) where the other side refuses a call and does not say for
    /// how long (a 429 without `Retry-After`): the shortest period among the limits that have no
    /// unit left, running tasks included; where each has a unit left, the shortest period of all.
    /// [Pacing](RateLimiterBuilder::paced) is not among them.
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

    /// How long the present pause lasts, from now and by the limiter's clock. Zero where it is not
    /// paused.
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

    /// The other side says that `used` units of one of the [`limits`](Self::limits) are in use: what it has counted beyond the completions in our window (another program's
    /// calls, say) counts as having completed now. Calls that still run it may not have counted yet,
    /// so they come on top. It only ever tightens: too small a figure changes nothing, and no more
    /// than the rate is recorded. Returns the units that were added.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// let limit = "10/1h".parse()?;
    /// let limiter = RateLimiter::builder().limit(limit).build()?;
    /// limiter.try_acquire()?.complete();
    /// // The answer said: RateLimit-Remaining: 0.
    /// assert_eq!(limiter.reconcile(limit, 10)?, 9);
    /// assert!(limiter.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the limiter has no such limit.
    pub fn reconcile(&self, limit: Limit, used: u64) -> Result<u64, UnknownLimit> {
        let added = self.inner.reconcile(limit, used);
        added.ok_or_else(|| UnknownLimit { limit, limits: self.limits() })
    }

    /// Replaces all limits. Running tasks go on; waiters keep their order and are granted by the new limits from now
    /// on.
    ///
    /// From this instant the law holds for the new limits, over windows that began before it too. What completed goes
    /// on being held for as long as the new limits say. A longer period would still hold some of what has expired, and
    /// nobody knows when that completed: it counts as completing now, as much of it as the old limits let through in
    /// the length of the new period. Of a limit that is the first on its unit (on weights, where all were on tasks)
    /// nothing is known, and its window counts as full now.
    ///
    /// A waiter that is now too heavy is refused: its call answers [`AcquireError::Weight`], which names the limit.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::builder().limit("1/1h".parse()?).build()?;
    /// limiter.try_acquire()?.complete();
    /// assert!(limiter.try_acquire().is_err());
    /// // The provider has raised our quota. One of the two has run.
    /// limiter.set_limits(["2/1h".parse()?])?;
    /// limiter.try_acquire()?.complete();
    /// assert!(limiter.try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The [name](Self::name) stays what it was.
    ///
    /// # Errors
    ///
    /// There is no limit, or the limiter is paced and none of them counts tasks. Then nothing has changed.
    pub fn set_limits(&self, limits: impl IntoIterator<Item = Limit>) -> Result<(), ConfigError> {
        self.inner.set_limits(limits.into_iter().collect())
    }

    /// Changes how many tasks may run at once. More that run already go on, and nothing starts beside them.
    ///
    /// [`WouldDeadlock`](AcquireError::WouldDeadlock) is decided as a call is made: a call that waits inside of a task
    /// of this limiter may wait for ever once the concurrency is lowered under it.
    ///
    /// # Errors
    ///
    /// The number is 0, or over [`CONCURRENCY_MAX`](crate::CONCURRENCY_MAX). Then nothing has changed.
    pub fn set_concurrency(&self, tasks: usize) -> Result<(), ConfigError> {
        self.inner.set_concurrency(tasks)
    }

    /// Refuses new work from now on. What was accepted still runs; [`drained`](Self::drained) tells
    /// when that is done.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Whether new work is refused.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Closes, and drops what is still queued: it gets `Aborted` for an answer. What runs ends by
    /// itself.
    pub fn abort(&self) {
        self.inner.abort();
    }

    /// Waits until nothing runs and nothing is queued, whether or not the limiter is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn drained(&self) -> Drained<'_> {
        Drained::new(&self.inner)
    }
}

impl RateLimiterBuilder {
    /// Makes the limiter.
    pub fn build(self) -> Result<RateLimiter, BuildError> {
        Ok(RateLimiter { inner: self.build_inner(false)? })
    }
}
