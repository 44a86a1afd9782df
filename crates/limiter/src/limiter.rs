//! `RateLimiter`: the methods to acquire a permit, to run a task, to change and to stop the limiter. Questions
//! about the limiter are in `inspect.rs`, requests with a weight or a deadline in `request.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use strict_rate_limiter_core::Limit;

use crate::builder::RateLimiterBuilder;
use crate::error::{AcquireError, BuildError, TryAcquireError};
use crate::future::Acquire;
#[cfg(any(feature = "keyed", feature = "tower"))]
use crate::future::AcquireOwned;
use crate::inner::{Inner, Kind};
use crate::permit::Permit;
use crate::request::{Request, try_acquire};
use crate::run;
use crate::waiter::Waiter;

#[cfg(feature = "tokio")]
use crate::{error::PushError, push::Pushed};

/// Runs tasks so that no closed interval of length `per` contains more than `rate` of them, wherever
/// between its start and its end each task is counted.
///
/// A clone is another handle to the same limiter. When the last handle is dropped, accepted tasks still
/// run while their runtime exists.
///
/// # Order
///
/// All requests wait in one queue, first in, first out, whatever their weight. A heavy head blocks the
/// light waiters behind it. A waiter that is neither polled nor dropped keeps its position, and keeps a
/// permit that it has been granted, as in any fair lock. The runtime polls pushed tasks.
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

    /// A builder, for all other settings.
    pub fn builder() -> RateLimiterBuilder {
        RateLimiterBuilder::new()
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Whether there is no other handle, permit or waiter, and a new limiter would decide the same from
    /// now on.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_forgettable(&self) -> bool {
        Arc::strong_count(&self.inner) == 1 && self.inner.is_like_new()
    }

    // --- Acquiring a permit

    /// A request with a weight, with a deadline, or for a permit that borrows nothing. See [`Request`].
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
    /// * [`Closed`](AcquireError::Closed) at once if the limiter is closed;
    /// * [`Aborted`](AcquireError::Aborted) if the limiter is aborted while this waits;
    /// * [`Full`](AcquireError::Full) if the queue is full and the limiter
    ///   [refuses when full](RateLimiterBuilder::refuse_when_full);
    /// * [`WouldDeadlock`](AcquireError::WouldDeadlock) if it is called inside a task that this limiter runs
    ///   (`run` or `push`), and all tasks that could make room for it wait for a permit inside as well.
    ///
    /// Two cases are not detected and wait for ever: a task that holds a [`Permit`] and acquires another, and
    /// a task that awaits a spawned task or a push's handle that waits for a permit of the same limiter.
    ///
    /// # Fairness
    ///
    /// On tokio (feature `tokio`) it takes part in cooperative scheduling: a loop that never has to wait
    /// still yields.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Dropped while it waits, it leaves the queue without a trace, and the next waiter moves
    /// up. A grant that it never saw is undone in full.
    #[inline]
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_weighing(1)
    }

    /// Waits on this thread for a permit of weight 1, in the same queue. Not for async code, where it would
    /// block the executor.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
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

    /// Acquires a permit of weight 1 now, or fails. Never overtakes a waiter.
    ///
    /// # Errors
    ///
    /// [`Busy`](TryAcquireError::Busy) with the earliest possible time if there is no room now or the queue is
    /// not empty; [`Closed`](TryAcquireError::Closed).
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

    /// Waits for a permit, runs the task in the caller's task and returns its answer.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). The task is then dropped without being polled.
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
    /// Dropped while it waits, it leaves no trace. Dropped while the task runs, it drops the task, which
    /// then completes [`abandon_grace`](RateLimiterBuilder::abandon_grace) later.
    ///
    /// # Panics
    ///
    /// If the task panics. The panic completes it, and the limiter goes on.
    pub async fn run<R: Future>(&self, task: R) -> Result<R::Output, AcquireError> {
        run::run(Waiter::new(&*self.inner, 1, Kind::Acquire), task).await
    }

    /// Runs the task here if it is granted at once. Else queues it for the tokio runtime and returns. Waits
    /// only if the queue has a [capacity](RateLimiterBuilder::queue_capacity) and is full, and never with
    /// [`refuse_when_full`](RateLimiterBuilder::refuse_when_full).
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
    /// Inside a task of the same limiter it always queues, so that no task runs inside another. There a full
    /// queue is an error, as waiting for room could mean waiting for the task itself.
    ///
    /// # Errors
    ///
    /// The reason is in [`PushError::reason`](crate::PushError::reason), the task in
    /// [`PushError::task`](crate::PushError::task).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, it leaves no trace, and the task is dropped. Dropped while
    /// the task runs here, it drops the task, which then completes
    /// [`abandon_grace`](RateLimiterBuilder::abandon_grace) later. A queued task is not affected.
    ///
    /// # Panics
    ///
    /// If the task runs here and panics. The panic of a queued task goes to its handle. Either completes
    /// the task, and the queue goes on.
    #[cfg(feature = "tokio")]
    pub async fn push<F, R>(&self, task: F) -> Result<Pushed<R::Output>, PushError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output: Send + 'static> + Send + 'static,
    {
        self.request().push(task).await
    }

    /// As [`push`](Self::push), for a synchronous task. It runs on the calling thread or on a thread of the
    /// runtime, so it should not block for long.
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
}

impl RateLimiterBuilder {
    /// Makes the limiter.
    ///
    /// # Errors
    ///
    /// If the settings are refused; the error names the value.
    pub fn build(self) -> Result<RateLimiter, BuildError> {
        Ok(RateLimiter { inner: self.build_inner(false)? })
    }
}
