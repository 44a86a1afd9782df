//! Permits: the right to run one task.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strict_rate_limiter_core as core;

use crate::foreign::Panic;
use crate::inner::Inner;
use crate::observe::{PermitEnd, Running, Waiting};

/// What both kinds of permit are: the machine's permit, to be handed back exactly once.
pub(crate) struct PermitGuard<S: Deref<Target = Inner>> {
    inner: S,
    /// `None` once handed back.
    permit: Option<core::Grant>,
    running: Running,
    /// Whether the task itself has panicked, which is how it ended.
    has_panicked: AtomicBool,
}

/// The right to run one task now, from [`RateLimiter::acquire`](crate::RateLimiter::acquire) and its
/// kin. Keep it for as long as the task runs.
///
/// The end of the permit is the completion of the task, and the window counts from it:
///
/// * [`complete`](Self::complete) says that the task has ended;
/// * [`complete_with`](Self::complete_with) says so, and what it really weighed;
/// * [`release_unused`](Self::release_unused) says that it was never started;
/// * dropping it is a completion too. Where the limiter has an
///   [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace), a permit that is merely dropped
///   may be a call that was cancelled half-way, so the grace is added. That goes for a permit that is
///   dropped while a thread panics, too: whose panic it is cannot be known. (A task of
///   [`run`](crate::RateLimiter::run) or a push that panics has completed.)
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct Permit<'a>(pub(crate) PermitGuard<&'a Inner>);

/// A [`Permit`] that borrows nothing: it may outlive the limiter's handles and cross threads.
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct OwnedPermit(pub(crate) PermitGuard<Arc<Inner>>);

impl<S: Deref<Target = Inner>> PermitGuard<S> {
    /// Takes the permit into custody, and tells whoever listens that its task begins. Where that panics,
    /// no task will run: the permit is given back unused.
    #[inline]
    pub(crate) fn new(inner: S, permit: core::Grant, waiting: &mut Waiting) -> Result<Self, Panic> {
        let (running, has_panicked) = (Running::default(), AtomicBool::new(false));
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

    /// Does some of the task's work. If that panics, the task has: the panic is its end.
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
        if *self.has_panicked.get_mut() {
            self.end(permit, None);
        } else {
            self.inner.abandon(permit);
            self.running.ended(&*self.inner, PermitEnd::Abandoned);
        }
    }
}

/// Dropped only where the work that it stands beside does not return.
struct Unwinding<'a>(&'a AtomicBool);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

macro_rules! permit_methods {
    () => {
        /// The span of the task, from its grant to its completion. To have what the task does
        /// inside it, instrument the task's future with a clone of it.
        #[cfg(feature = "tracing")]
        pub fn span(&self) -> &tracing::Span {
            self.0.running().span.as_span()
        }

        /// The weight that the permit reserves.
        pub fn weight(&self) -> u64 {
            self.0.weight()
        }

        /// The task has ended.
        #[inline]
        pub fn complete(self) {
            self.0.complete(None);
        }

        /// The task has ended, and weighed `actual` units in the end. Of a smaller actual weight,
        /// the rest is free at once; a larger one is recorded and later grants wait for it.
        /// Returns how much more than reserved it was.
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
        #[must_use = "what it used beyond its reservation: later grants wait for it; discard it with `_ =`"]
        pub fn complete_with(self, actual: u64) -> u64 {
            self.0.complete(Some(actual))
        }

        /// The task was not started and will not be: takes the permit back as if it had never been
        /// granted, and the next in line moves up. Only for a call of which nothing can have
        /// reached the other side.
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
