//! A layer for [tower](https://docs.rs/tower) services, such as hyper's and tonic's clients.
//!
//! ```
//! use std::convert::Infallible;
//! use strict_rate_limiter::{RateLimiter, tower::RateLimitLayer};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let limiter = RateLimiter::builder().limit("10/1s".parse()?).build()?;
//! let mut service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(limiter))
//!     .service(service_fn(async |name: &str| Ok::<_, Infallible>(format!("Hello, {name}"))));
//!
//! let answer = service.ready().await?.call("world").await?;
//! assert_eq!(answer, "Hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! All services of the layer and all their clones share one limiter and its queue, first in, first out.
//!
//! * **Ready** means that the service holds a permit: `poll_ready` waits for it, and `call` sends the
//!   request under it. A ready service that is dropped gives the permit back as if it had never been
//!   granted. One that is neither called nor dropped keeps the permit, as with any shared tower service.
//! * **Completion** is the response or an error. With [`complete_on`](RateLimitLayer::complete_on) it is
//!   the end of the response's body.
//! * **Cancelled** calls (the future dropped, or a body not read to its end) complete
//!   [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) later.
//! * **Weights** come from the request, by [`weight`](RateLimitLayer::weight). `poll_ready` has no
//!   request, so such a service is ready when its inner service is, and the call itself waits in the
//!   queue, in the order of the calls.
//!
//! # A full limiter
//!
//! With [`refuse_when_full`](crate::RateLimiterBuilder::refuse_when_full), if the queue is full, the service
//! is ready and its call fails at once with [`AcquireError::Full`](crate::AcquireError::Full). Prefer that
//! to tower's `load_shed` around the layer: a clone that it sheds stays in the queue, and takes a permit
//! that no call uses. (With a capacity of 0 there is no queue, and the two do the same.)
//!
//! Errors are boxed, as in tower's own layers: an [`AcquireError`](crate::AcquireError) if the limiter is
//! closed or full or refuses the weight, else the error of the inner service.

mod body;
mod future;
mod service;

use std::fmt;

use ::http::Response;
use tower_layer::Layer;

pub use body::LimitedBody;
pub use future::ResponseFuture;
pub use service::RateLimitService;

use crate::limiter::RateLimiter;
use crate::permit::OwnedPermit;

/// A boxed error, as in tower's layers.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Puts services behind a limiter. See the [module](self).
#[derive(Clone)]
pub struct RateLimitLayer<W = Each, A = Reserved, C = completion::Response> {
    limiter: RateLimiter,
    weight: W,
    actual: A,
    complete_on: C,
}

/// Every request weighs 1.
#[derive(Debug, Clone, Copy)]
pub struct Each;

/// A closure returns the weight of each request.
#[derive(Clone, Copy)]
pub struct WeightOf<F>(F);

/// Each call uses what it has reserved.
#[derive(Debug, Clone, Copy)]
pub struct Reserved;

/// A closure returns the actual weight of each call, from its response.
#[derive(Clone, Copy)]
pub struct ActualOf<F>(F);

/// When a call has completed.
pub mod completion {
    /// At the response.
    #[derive(Debug, Clone, Copy)]
    pub struct Response;

    /// At the end of the HTTP response's body: read to its end, failed, or dropped.
    #[derive(Debug, Clone, Copy)]
    pub struct Body;
}

impl RateLimitLayer {
    /// A layer in which each request weighs 1 and its response completes it.
    pub fn new(limiter: RateLimiter) -> Self {
        Self { limiter, weight: Each, actual: Reserved, complete_on: completion::Response }
    }
}

impl<W, A, C> RateLimitLayer<W, A, C> {
    /// Sets a closure that returns the weight of each request. The inner service must be `Clone`, as it is
    /// called later, when the request is granted.
    ///
    /// If a weight is 0 or over a limit, the call fails.
    pub fn weight<R, F: Fn(&R) -> u64>(self, weight: F) -> RateLimitLayer<WeightOf<F>, A, C> {
        let Self { limiter, actual, complete_on, .. } = self;
        RateLimitLayer { limiter, weight: WeightOf(weight), actual, complete_on }
    }

    /// Sets a closure that returns the actual weight of each call, from its response: tokens, rows. If only
    /// the body has it, put the layer around the service that decodes the body.
    ///
    /// A call that fails counts as having used its reservation.
    pub fn actual_weight<R, F: Fn(&R) -> u64>(
        self,
        actual: F,
    ) -> RateLimitLayer<W, ActualOf<F>, C> {
        let Self { limiter, weight, complete_on, .. } = self;
        RateLimitLayer { limiter, weight, actual: ActualOf(actual), complete_on }
    }

    /// Sets when a call completes: at its [response](completion::Response) (the default), or at the end of
    /// the response's [body](completion::Body).
    pub fn complete_on<D>(self, completion: D) -> RateLimitLayer<W, A, D> {
        let Self { limiter, weight, actual, .. } = self;
        RateLimitLayer { limiter, weight, actual, complete_on: completion }
    }
}

impl<S, W: Clone, A: Clone, C: Clone> Layer<S> for RateLimitLayer<W, A, C> {
    type Service = RateLimitService<S, W, A, C>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.clone())
    }
}

/// The actual weight of a call. Implemented for the settings of a [`RateLimitLayer`].
pub trait ActualWeight<R>: sealed::Sealed {
    #[doc(hidden)]
    fn of(&self, response: &R) -> Option<u64>;
}

/// Ends a call's permit, at or after its response. Implemented for the settings of a [`RateLimitLayer`].
pub trait CompleteOn<R>: sealed::Sealed {
    /// The type of the response that the caller gets.
    type Response;

    #[doc(hidden)]
    fn end(&self, permit: OwnedPermit, actual: Option<u64>, response: R) -> Self::Response;
}

impl<R> ActualWeight<R> for Reserved {
    fn of(&self, _response: &R) -> Option<u64> {
        None
    }
}

impl<R, F: Fn(&R) -> u64> ActualWeight<R> for ActualOf<F> {
    fn of(&self, response: &R) -> Option<u64> {
        Some((self.0)(response))
    }
}

impl<R> CompleteOn<R> for completion::Response {
    type Response = R;

    fn end(&self, permit: OwnedPermit, actual: Option<u64>, response: R) -> R {
        complete(permit, actual);
        response
    }
}

impl<B: http_body::Body> CompleteOn<Response<B>> for completion::Body {
    type Response = Response<LimitedBody<B>>;

    fn end(
        &self,
        permit: OwnedPermit,
        actual: Option<u64>,
        response: Response<B>,
    ) -> Self::Response {
        response.map(|body| LimitedBody::with_actual(body, permit, actual))
    }
}

fn complete(permit: OwnedPermit, actual: Option<u64>) {
    match actual {
        Some(actual) => _ = permit.complete_with(actual),
        None => permit.complete(),
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Reserved {}
    impl<F> Sealed for super::ActualOf<F> {}
    impl Sealed for super::completion::Response {}
    impl Sealed for super::completion::Body {}
}

impl<W, A, C: fmt::Debug> fmt::Debug for RateLimitLayer<W, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .field("complete_on", &self.complete_on)
            .finish_non_exhaustive()
    }
}
