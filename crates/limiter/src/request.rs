//! `Request`: the weight, the deadline and the kind of permit of one task; then the calls that acquire or run.
//!
//! The limiter's own calls are requests of weight 1 without a deadline. The pushes are in `request_push.rs`. The
//! work is done in `waiter.rs`, `run.rs`, `push.rs` and `deadline.rs`.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deadline::{MayExpire, Patience};
use crate::error::{AcquireError, TryAcquireError};
use crate::future::{AcquireBy, AcquireOwnedBy};
use crate::inner::{Inner, Kind};
use crate::observe::Waiting;
use crate::permit::{OwnedPermit, Permit, PermitGuard};
use crate::run;
use crate::waiter::Waiter;

/// A request with a weight or a deadline; from [`RateLimiter::request`](crate::RateLimiter::request). It
/// does nothing until `acquire`, `run`, `push` or one of their variants is called. It joins the queue at
/// that call, or for a call that returns a future, at the first poll.
///
/// ```
/// use std::time::Duration;
/// use strict_rate_limiter::{AcquireError, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = RateLimiter::builder().limit("90000w/1m".parse()?).build()?;
/// let permit = limiter.request().weight(90_000).acquire().await?;
/// permit.complete();
///
/// // The window is full for a minute, so the request is refused at once.
/// let request = limiter.request().weight(10).within(Duration::from_secs(2));
/// let refused = request.acquire().await.unwrap_err();
/// assert!(matches!(refused, AcquireError::DeadlineExceeded { not_before: Some(_) }));
/// # Ok(())
/// # }
/// ```
///
/// # Deadlines
///
/// [`within`](Self::within) and [`until`](Self::until) bound how long the request may wait for its
/// permit, by the limiter's clock. They do not bound the task that then runs.
///
/// * A request is refused at once, with [`AcquireError::DeadlineExceeded`], if a grant in time is known to
///   be impossible. This follows from the completions that are held, from a pause, and, for limits on
///   tasks, from one unit for each task that runs or waits ahead. It assumes that the waiters ahead run
///   their tasks, that no permit is [released unused](Permit::release_unused), that no pause is
///   [ended](crate::RateLimiter::resume) early and that no limit is raised. The weights of running and
///   waiting tasks do not count, as they may turn out smaller.
/// * Otherwise it waits. At the deadline it looks once more: if a permit can be granted at exactly the
///   deadline, it is. Else the request leaves the queue without a trace, with the same error.
/// * A permit that has been granted is never thrown away. So a task that its executor polls late, or a
///   thread that wakes late, may get its permit after the deadline.
/// * A pushed task that is queued keeps the deadline. If it comes before the grant, the task is dropped,
///   and its handle returns [`TaskError::DeadlineExceeded`](crate::TaskError::DeadlineExceeded).
#[must_use = "a request does nothing until it is asked for a permit or given a task"]
#[derive(Clone)]
pub struct Request<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) terms: Terms,
}

/// A [`Request`] that borrows nothing. Its permits and futures may outlive the limiter's handles and move
/// to other threads. From [`Request::owned`] and `KeyedRateLimiter::request`.
///
/// ```
/// # use strict_rate_limiter::RateLimiter;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = RateLimiter::builder().limit("10/1s".parse()?).build()?;
/// let permit = limiter.request().owned().acquire().await?;
/// let call = tokio::spawn(async move {
///     // The call goes here.
///     permit.complete();
/// });
/// call.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until it is asked for a permit or given a task"]
#[derive(Clone)]
pub struct OwnedRequest {
    pub(crate) inner: Arc<Inner>,
    pub(crate) terms: Terms,
}

/// The settings of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    weight: u64,
    patience: Patience,
}

impl Terms {
    /// A waiter with these settings.
    pub(crate) fn waiter<S>(self, inner: S, kind: Kind) -> Waiter<S, MayExpire>
    where
        S: Deref<Target = Inner> + Clone,
    {
        Waiter::with_deadline(inner, self.weight, kind, MayExpire::new(self.patience))
    }
}

impl<'a> Request<'a> {
    #[inline]
    pub(crate) fn new(inner: &'a Arc<Inner>) -> Self {
        Self { inner, terms: Terms { weight: 1, patience: Patience::Endless } }
    }

    /// The same request, but it borrows nothing.
    pub fn owned(self) -> OwnedRequest {
        OwnedRequest { inner: Arc::clone(self.inner), terms: self.terms }
    }

    /// Waits for the permit.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder().limit("90000w/1m".parse()?).build()?;
    /// let permit = limiter.request().weight(1_200).acquire().await?;
    /// let tokens_used = 950;
    /// let excess = permit.complete_with(tokens_used);
    /// assert_eq!(excess, 0);
    ///
    /// let error = limiter.request().weight(100_000).acquire().await.unwrap_err();
    /// assert_eq!(error.to_string(), "weight 100000 is over the limit 90000w/1m: it could never run");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Weight`](AcquireError::Weight) at once if the weight is 0 or over a limit, or later if new limits
    /// are too low for it; [`DeadlineExceeded`](AcquireError::DeadlineExceeded) as [above](Self#deadlines);
    /// else as [`RateLimiter::acquire`](crate::RateLimiter::acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::acquire`](crate::RateLimiter::acquire).
    pub fn acquire(self) -> AcquireBy<'a> {
        AcquireBy(self.terms.waiter(&**self.inner, Kind::Acquire))
    }

    /// Waits on this thread for the permit, until the deadline at most. Not for async code.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::{AcquireError, RateLimiter};
    /// let limiter = RateLimiter::builder().limit("2/1h".parse()?).build()?;
    /// let running = limiter.acquire_blocking()?;
    /// // The running task may end at any time, so this waits until its deadline.
    /// let refused = limiter.request().within(Duration::from_millis(5)).acquire_blocking();
    /// assert_eq!(refused.unwrap_err(), AcquireError::DeadlineExceeded { not_before: None });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_blocking(self) -> Result<Permit<'a>, AcquireError> {
        self.acquire().0.block().map(Permit)
    }

    /// Acquires the permit now, or fails. Never overtakes a waiter. It does not wait, so it ignores the
    /// deadline.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// let limiter = RateLimiter::builder().limit("100w/1h".parse()?).build()?;
    /// limiter.request().weight(80).try_acquire()?.complete();
    /// assert!(limiter.request().weight(30).try_acquire().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_acquire(self) -> Result<Permit<'a>, TryAcquireError> {
        Ok(Permit(try_acquire(&**self.inner, self.terms.weight)?))
    }

    /// Waits for a permit, runs the task and returns its answer. See
    /// [`RateLimiter::run`](crate::RateLimiter::run).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder().limit("90000w/1m".parse()?).build()?;
    /// let request = limiter.request().weight(1_200).within(Duration::from_secs(2));
    /// assert_eq!(request.run(async { 6 * 7 }).await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). The task is dropped.
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::run`](crate::RateLimiter::run).
    pub async fn run<R: Future>(self, task: R) -> Result<R::Output, AcquireError> {
        run::run(self.terms.waiter(&**self.inner, Kind::Acquire), task).await
    }
}

impl OwnedRequest {
    /// Waits for the permit. See [`Request::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::acquire`](crate::RateLimiter::acquire).
    pub fn acquire(self) -> AcquireOwnedBy {
        AcquireOwnedBy(self.terms.waiter(self.inner, Kind::Acquire))
    }

    /// Waits on this thread for the permit. See [`Request::acquire_blocking`].
    pub fn acquire_blocking(self) -> Result<OwnedPermit, AcquireError> {
        self.acquire().0.block().map(OwnedPermit)
    }

    /// Acquires the permit now, or fails. See [`Request::try_acquire`].
    pub fn try_acquire(self) -> Result<OwnedPermit, TryAcquireError> {
        Ok(OwnedPermit(try_acquire(self.inner, self.terms.weight)?))
    }

    /// Waits for a permit, runs the task and returns its answer. See [`Request::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`RateLimiter::run`](crate::RateLimiter::run).
    pub async fn run<R: Future>(self, task: R) -> Result<R::Output, AcquireError> {
        run::run(self.terms.waiter(self.inner, Kind::Acquire), task).await
    }
}

/// The methods of both kinds of request.
macro_rules! request_methods {
    () => {
        /// The units that the task takes from each limit on weights: 1 by default.
        pub fn weight(mut self, weight: u64) -> Self {
            self.terms.weight = weight;
            self
        }

        /// Sets a deadline: waits at most this long for the permit, counted from joining the queue (the call,
        /// or the first poll of its future). Replaces an earlier deadline.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use strict_rate_limiter::RateLimiter;
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// let limiter = RateLimiter::builder().limit("1/1h".parse()?).build()?;
        /// limiter.acquire().await?.complete();
        /// let in_a_second = limiter.request().within(Duration::from_secs(1));
        /// assert!(in_a_second.acquire().await.is_err(), "refused at once");
        /// # Ok(())
        /// # }
        /// ```
        pub fn within(mut self, wait: Duration) -> Self {
            self.terms.patience = Patience::Within(wait);
            self
        }

        /// Sets a deadline: waits for the permit until this instant of the limiter's clock. Replaces an
        /// earlier deadline.
        pub fn until(mut self, deadline: Instant) -> Self {
            self.terms.patience = Patience::Until(deadline);
            self
        }
    };
}

impl Request<'_> {
    request_methods!();
}

impl OwnedRequest {
    request_methods!();
}

/// Acquires a permit now, or fails.
pub(crate) fn try_acquire<S: Deref<Target = Inner>>(
    inner: S,
    weight: u64,
) -> Result<PermitGuard<S>, TryAcquireError> {
    let permit = inner.try_acquire(weight)?;
    let held = PermitGuard::new(inner, permit, &mut Waiting::default());
    Ok(held.unwrap_or_else(|panic| panic.resume()))
}

impl Terms {
    fn fmt(self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("weight", &self.weight)
            .field("deadline", &self.patience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.terms.fmt("Request", f)
    }
}

impl fmt::Debug for OwnedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.terms.fmt("OwnedRequest", f)
    }
}
