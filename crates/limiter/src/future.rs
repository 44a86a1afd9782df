//! The futures that the limiter's methods return. None of them needs a particular runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::AcquireError;
use crate::inner::Inner;
use crate::permit::{OwnedPermit, Permit};
use crate::waiter::Waiter;

/// Waits for a permit; from [`RateLimiter::acquire`](crate::RateLimiter::acquire) and
/// [`acquire_weight`](crate::RateLimiter::acquire_weight).
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a>(pub(crate) Waiter<&'a Inner>);

/// Waits for an owned permit; from
/// [`RateLimiter::acquire_owned`](crate::RateLimiter::acquire_owned) and
/// [`acquire_weight_owned`](crate::RateLimiter::acquire_weight_owned).
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireOwned(pub(crate) Waiter<Arc<Inner>>);

/// Waits until nothing runs and nothing is queued; from
/// [`RateLimiter::drained`](crate::RateLimiter::drained).
#[must_use = "futures do nothing unless polled"]
pub struct Drained<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, AcquireError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map_ok(Permit)
    }
}

impl Future for AcquireOwned {
    type Output = Result<OwnedPermit, AcquireError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map_ok(OwnedPermit)
    }
}

impl<'a> Drained<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, id: None }
    }
}

impl Future for Drained<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let inner = self.inner;
        inner.poll_drained(&mut self.id, context.waker())
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.forget_drained(id);
        }
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").finish_non_exhaustive()
    }
}

impl fmt::Debug for AcquireOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireOwned").finish_non_exhaustive()
    }
}

impl fmt::Debug for Drained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained").finish_non_exhaustive()
    }
}
