//! Permits: the right to run one task.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use strict_rate_limiter_core as core;

use crate::foreign::Panic;
use crate::inner::Inner;
use crate::observe::{PermitEnd, Running, Waiting};

/// The machine's permit inside both kinds of permit. Returns it to the machine exactly once.
pub(crate) struct PermitGuard<S: Deref<Target = Inner>> {
    inner: S,
    /// `None` once returned.
    permit: Option<core::Grant>,
    running: Running,
    /// Not 0 once the task itself has panicked, and so has ended. A whole word: permits are moved on every call, and a
    /// byte with its padding is moved in two overlapping parts, for which the processor waits.
    has_panicked: AtomicUsize,
}

/// The right to run one task now, from [`RateLimiter::acquire`](crate::RateLimiter::acquire) and the
/// other acquiring calls. Keep it while the task runs.
///
/// The end of the permit is the completion of the task. The task is held until `per` later:
///
/// * [`complete`](Self::complete) completes the task;
/// * [`complete_with`](Self::complete_with) completes it with its actual weight;
/// * [`release_unused`](Self::release_unused) gives the permit back for a task that was never started;
/// * dropping it abandons the task: it completes
///   [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) later, as its call may still be on the
///   wire. The same holds for a permit that is dropped while a thread panics, because the limiter cannot
///   know whether its own task panicked. (A task of [`run`](crate::RateLimiter::run) or of a push that
///   panics has completed.)
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct Permit<'a>(pub(crate) PermitGuard<&'a Inner>);

/// A [`Permit`] that borrows nothing: it may outlive the limiter's handles and move to other threads.
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct OwnedPermit(pub(crate) PermitGuard<Arc<Inner>>);

impl<S: Deref<Target = Inner>> PermitGuard<S> {
    /// Guards the permit, and tells the observers that its task begins. If one of them panics, no task will
    /// run, and the permit is given back unused.
    #[inline]
    pub(crate) fn new(inner: S, permit: core::Grant, waiting: &mut Waiting) -> Result<Self, Panic> {
        let (running, has_panicked) = (Running::default(), AtomicUsize::new(0));
        let mut held = Self { inner, permit: Some(permit), running, has_panicked };
        match waiting.granted(&*held.inner, held.weight(), &mut held.running) {
            Ok(()) => Ok(held),
            Err(panic) => {
                held.release_unused();
                Err(panic)
            }
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// Does some of the task's work. A panic of it ends the task.
    #[inline]
    pub(crate) fn work<R>(&self, work: impl FnOnce() -> R) -> R {
        self.running.inside(|| {
            let unwinding = Unwinding(&self.has_panicked);
            let answer = work();
            std::mem::forget(unwinding);
            answer
        })
    }

    pub(crate) fn weight(&self) -> u64 {
        self.permit.as_ref().map_or(0, core::Grant::weight)
    }

    #[inline]
    pub(crate) fn complete(mut self, actual: Option<u64>) -> u64 {
        let Some(permit) = self.permit.take() else { return 0 };
        self.end(permit, actual)
    }

    pub(crate) fn release_unused(mut self) {
        if let Some(permit) = self.permit.take() {
            self.inner.undo(permit);
            self.running.ended(&*self.inner, PermitEnd::Unused);
        }
    }

    #[inline]
    fn end(&mut self, permit: core::Grant, actual: Option<u64>) -> u64 {
        let excess = self.inner.complete(permit, actual);
        self.running.ended(&*self.inner, PermitEnd::Completed { excess });
        excess
    }

    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("weight", &self.weight()).finish_non_exhaustive()
    }
}

impl<S: Deref<Target = Inner>> Drop for PermitGuard<S> {
    #[inline]
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if *self.has_panicked.get_mut() != 0 {
            self.end(permit, None);
        } else {
            self.inner.abandon(permit);
            self.running.ended(&*self.inner, PermitEnd::Abandoned);
        }
    }
}

/// Records a panic: it is forgotten if the work returns, so it is dropped only in unwinding.
struct Unwinding<'a>(&'a AtomicUsize);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

macro_rules! permit_methods {
    () => {
        /// The span of the task, from its grant to its completion. Instrument the task's future with a clone
        /// of it to have the task's own spans and events inside.
        #[cfg(feature = "tracing")]
        pub fn span(&self) -> &tracing::Span {
            self.0.running().span.as_span()
        }

        /// The weight that the permit reserves.
        pub fn weight(&self) -> u64 {
            self.0.weight()
        }

        /// Completes the task.
        #[inline]
        pub fn complete(self) {
            self.0.complete(None);
        }

        /// Completes the task with its actual weight. Less than reserved: the rest is free at once. More: it
        /// is recorded, and later grants wait for it. Returns the units used beyond the reservation.
        ///
        /// ```
        /// # use strict_rate_limiter::RateLimiter;
        /// let limiter = RateLimiter::builder().limit("100w/1h".parse()?).build()?;
        /// let permit = limiter.request().weight(80).try_acquire()?;
        /// assert_eq!(permit.complete_with(30), 0);
        /// assert_eq!(limiter.stats().held[0].units, 30);
        ///
        /// let permit = limiter.request().weight(60).try_acquire()?;
        /// assert_eq!(permit.complete_with(75), 15);
        /// assert!(limiter.try_acquire().is_err());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use = "the units beyond the reservation, for which later grants wait; discard it with `_ =`"]
        pub fn complete_with(self, actual: u64) -> u64 {
            self.0.complete(Some(actual))
        }

        /// Gives the permit back as if it had never been granted, and the next waiter moves up. Only for a
        /// task that was not started, so that nothing can have reached the server.
        ///
        /// ```
        /// # use strict_rate_limiter::RateLimiter;
        /// let limiter = RateLimiter::builder().limit("1/1h".parse()?).build()?;
        /// limiter.try_acquire()?.release_unused();
        /// assert!(limiter.try_acquire().is_ok());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn release_unused(self) {
            self.0.release_unused();
        }
    };
}

impl Permit<'_> {
    permit_methods!();
}

impl OwnedPermit {
    permit_methods!();
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("Permit", f)
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt("OwnedPermit", f)
    }
}
