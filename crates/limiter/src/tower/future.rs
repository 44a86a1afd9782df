//! `ResponseFuture`: one call. It waits in the queue if it has no permit yet, and then holds the permit until the
//! response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ActualWeight, BoxError, CompleteOn, RateLimitLayer};
use crate::error::AcquireError;
use crate::future::AcquireOwned;
use crate::permit::OwnedPermit;

pin_project! {
    /// A call behind a limiter; from [`RateLimitService`](super::RateLimitService).
    ///
    /// # Cancel safety
    ///
    /// Dropped in the queue, it leaves no trace, and nothing is sent. Dropped during the call, it completes
    /// [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) later.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S: Service<R>, R, A, C> {
        #[pin]
        state: State<S, S::Future, R>,
        actual: A,
        complete_on: C,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, R> {
        /// In the queue, with the service and the request of the call.
        Waiting { waiting: AcquireOwned, call: Option<(S, R)> },
        Refused { error: Option<AcquireError> },
        Calling { #[pin] response: F, permit: Option<OwnedPermit> },
    }
}

impl<S: Service<R>, R, A: Clone, C: Clone> ResponseFuture<S, R, A, C> {
    fn new<W>(state: State<S, S::Future, R>, layer: &RateLimitLayer<W, A, C>) -> Self {
        Self { state, actual: layer.actual.clone(), complete_on: layer.complete_on.clone() }
    }

    pub(super) fn calling<W>(
        service: &mut S,
        request: R,
        permit: OwnedPermit,
        layer: &RateLimitLayer<W, A, C>,
    ) -> Self {
        Self::new(State::call(service, request, permit), layer)
    }

    pub(super) fn refused<W>(error: AcquireError, layer: &RateLimitLayer<W, A, C>) -> Self {
        Self::new(State::Refused { error: Some(error) }, layer)
    }

    /// Joins the queue at once, so that the queue has the order of the calls.
    pub(super) fn waiting<W>(
        mut service: S,
        request: R,
        mut waiting: AcquireOwned,
        layer: &RateLimitLayer<W, A, C>,
    ) -> Self {
        let state = match waiting.0.join() {
            Some(Ok(permit)) => State::call(&mut service, request, OwnedPermit(permit)),
            Some(Err(error)) => State::Refused { error: Some(error) },
            None => State::Waiting { waiting, call: Some((service, request)) },
        };
        Self::new(state, layer)
    }
}

impl<S: Service<R>, R> State<S, S::Future, R> {
    fn call(service: &mut S, request: R, permit: OwnedPermit) -> Self {
        let response = permit.0.work(|| service.call(request));
        Self::Calling { response, permit: Some(permit) }
    }
}

impl<S, R, A, C> Future for ResponseFuture<S, R, A, C>
where
    S: Service<R, Error: Into<BoxError>>,
    A: ActualWeight<S::Response>,
    C: CompleteOn<S::Response>,
{
    type Output = Result<C::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Waiting { waiting, call } => {
                    let permit = ready!(Pin::new(waiting).poll(context))?;
                    let (mut service, request) = call.take().expect("it is called once");
                    this.state.set(State::call(&mut service, request, permit));
                }
                StateProjection::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
                StateProjection::Calling { response, permit } => {
                    let held = permit.as_ref().expect("polled after it was ready");
                    let response = ready!(held.0.work(|| response.poll(context)));
                    let permit = permit.take().expect("it was there just now");
                    return Poll::Ready(match response {
                        Ok(response) => {
                            let actual = permit.0.work(|| this.actual.of(&response));
                            Ok(this.complete_on.end(permit, actual, response))
                        }
                        Err(error) => {
                            permit.complete();
                            Err(error.into())
                        }
                    });
                }
            }
        }
    }
}

impl<S: Service<R>, R, A, C> fmt::Debug for ResponseFuture<S, R, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
