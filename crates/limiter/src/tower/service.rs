//! `RateLimitService`: waits for a permit before it takes a request, or joins the queue with the request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::future::ResponseFuture;
use super::{ActualWeight, BoxError, CompleteOn, Each, RateLimitLayer, WeightOf};
use crate::error::AcquireError;
use crate::future::AcquireOwned;
use crate::permit::OwnedPermit;

/// A service behind a limiter; from [`RateLimitLayer`]. A clone waits for a permit of its own.
pub struct RateLimitService<S, W, A, C> {
    inner: S,
    layer: RateLimitLayer<W, A, C>,
    /// The future that waits for a permit.
    waiting: Option<AcquireOwned>,
    permit: Unused,
    /// Whether the limiter refused because its queue is full. The next call returns that error.
    is_refused: bool,
}

/// A permit that no call has used yet.
struct Unused(Option<OwnedPermit>);

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.release_unused();
        }
    }
}

impl<S, W, A, C> RateLimitService<S, W, A, C> {
    pub(super) fn new(inner: S, layer: RateLimitLayer<W, A, C>) -> Self {
        Self { inner, layer, waiting: None, permit: Unused(None), is_refused: false }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, W: Clone, A: Clone, C: Clone> Clone for RateLimitService<S, W, A, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.layer.clone())
    }
}

impl<S, R, A, C> Service<R> for RateLimitService<S, Each, A, C>
where
    S: Service<R, Error: Into<BoxError>>,
    A: ActualWeight<S::Response> + Clone,
    C: CompleteOn<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, A, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner service first: a permit that waits for it would keep others from theirs.
        ready!(self.inner.poll_ready(context)).map_err(Into::into)?;
        if self.permit.0.is_none() && !self.is_refused {
            let limiter = &self.layer.limiter;
            let waiting = self.waiting.get_or_insert_with(|| limiter.acquire_owned(1));
            let permit = ready!(Pin::new(waiting).poll(context));
            self.waiting = None;
            match permit {
                Ok(permit) => self.permit.0 = Some(permit),
                // An error of this method would mean that the service has failed for ever.
                Err(AcquireError::Full) => self.is_refused = true,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// # Panics
    ///
    /// If the service is not ready.
    fn call(&mut self, request: R) -> Self::Future {
        let permit = if std::mem::take(&mut self.is_refused) {
            // There may be room since.
            match self.layer.limiter.request().owned().try_acquire() {
                Ok(permit) => permit,
                Err(_) => return ResponseFuture::refused(AcquireError::Full, &self.layer),
            }
        } else {
            self.permit.0.take().expect("poll_ready returned ready")
        };
        ResponseFuture::calling(&mut self.inner, request, permit, &self.layer)
    }
}

impl<S, R, F, A, C> Service<R> for RateLimitService<S, WeightOf<F>, A, C>
where
    S: Service<R, Error: Into<BoxError>> + Clone,
    F: Fn(&R) -> u64,
    A: ActualWeight<S::Response> + Clone,
    C: CompleteOn<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, A, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let weight = (self.layer.weight.0)(&request);
        let waiting = self.layer.limiter.acquire_owned(weight);
        // The service that is ready goes with the request; `poll_ready` then asks its clone.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        ResponseFuture::waiting(inner, request, waiting, &self.layer)
    }
}

impl<S: fmt::Debug, W, A, C: fmt::Debug> fmt::Debug for RateLimitService<S, W, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .field("has_permit", &self.permit.0.is_some())
            .finish_non_exhaustive()
    }
}
