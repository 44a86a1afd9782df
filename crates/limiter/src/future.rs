//! The futures that the limiter's methods return. None of them needs a particular runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::deadline::MayExpire;
use crate::error::AcquireError;
use crate::inner::Inner;
use crate::permit::{OwnedPermit, Permit};
use crate::waiter::Waiter;

/// Waits for a permit; from [`RateLimiter::acquire`](crate::RateLimiter::acquire).
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a>(pub(crate) Waiter<&'a Inner>);

/// Waits for a permit that borrows nothing; from `KeyedRateLimiter::acquire`.
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireOwned(pub(crate) Waiter<Arc<Inner>>);

/// Waits for a permit, no longer than its deadline; from
/// [`Request::acquire`](crate::Request::acquire).
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireBy<'a>(pub(crate) Waiter<&'a Inner, MayExpire>);

/// Waits for a permit that borrows nothing, no longer than its deadline; from
/// [`OwnedRequest::acquire`](crate::OwnedRequest::acquire).
///
/// It joins the queue when it is first polled, and leaves it without a trace when it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireOwnedBy(pub(crate) Waiter<Arc<Inner>, MayExpire>);

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

impl<'a> Future for AcquireBy<'a> {
    type Output = Result<Permit<'a>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map_ok(Permit)
    }
}

impl Future for AcquireOwnedBy {
    type Output = Result<OwnedPermit, AcquireError>;

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

impl fmt::Debug for AcquireBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireBy").finish_non_exhaustive()
    }
}

impl fmt::Debug for AcquireOwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireOwnedBy").finish_non_exhaustive()
    }
}

impl fmt::Debug for Drained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained").finish_non_exhaustive()
    }
}
