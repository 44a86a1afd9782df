//! Permits: the right to run one task.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;

use strict_rate_limiter_core as core;

use crate::observe::{End, Running};
use crate::shared::Shared;

/// What both kinds of permit are: the machine's permit, to be handed back exactly once.
pub(crate) struct Held<S: Deref<Target = Shared>> {
    shared: S,
    /// `None` once handed back.
    permit: Option<core::Permit>,
    running: Running,
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
///   may be a call that was cancelled half-way, so the grace is added; a panic is a completion.
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct Permit<'a>(pub(crate) Held<&'a Shared>);

/// A [`Permit`] that borrows nothing: it may outlive the limiter's handles and cross threads.
#[must_use = "a permit that is dropped at once is a task that has completed at once"]
pub struct OwnedPermit(pub(crate) Held<Arc<Shared>>);

impl<S: Deref<Target = Shared>> Held<S> {
    #[inline]
    pub(crate) fn new(shared: S, permit: core::Permit, running: Running) -> Self {
        Self { shared, permit: Some(permit), running }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    pub(crate) fn weight(&self) -> u64 {
        self.permit.as_ref().map_or(0, core::Permit::weight)
    }

    #[inline]
    pub(crate) fn complete(mut self, actual: Option<u64>) -> u64 {
        let Some(permit) = self.permit.take() else { return 0 };
        self.end(permit, actual)
    }

    pub(crate) fn release_unused(mut self) {
        if let Some(permit) = self.permit.take() {
            self.shared.undo(permit);
            self.running.ended(&self.shared, End::Unused);
        }
    }

    #[inline]
    fn end(&mut self, permit: core::Permit, actual: Option<u64>) -> u64 {
        let excess = self.shared.complete(permit, actual);
        self.running.ended(&self.shared, End::Completed { excess });
        excess
    }

    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("weight", &self.weight()).finish_non_exhaustive()
    }
}

impl<S: Deref<Target = Shared>> Drop for Held<S> {
    #[inline]
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if thread::panicking() {
            self.end(permit, None);
        } else {
            self.shared.abandon(permit);
            self.running.ended(&self.shared, End::Abandoned);
        }
    }
}

macro_rules! permit_methods {
    () => {
        /// The span of the task, from its grant to its completion. To have what the task does
        /// inside it, instrument the task's future with a clone of it.
        #[cfg(feature = "tracing")]
        pub fn span(&self) -> &tracing::Span {
            &self.0.running().span
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
        /// let permit = limiter.try_acquire_weight(80)?;
        /// assert_eq!(permit.complete_with(30), 0);
        /// assert_eq!(limiter.stats().held[0].units, 30);
        ///
        /// let permit = limiter.try_acquire_weight(60)?;
        /// assert_eq!(permit.complete_with(75), 15);
        /// assert!(limiter.try_acquire().is_err());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
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
