//! A layer for [tower](https://docs.rs/tower) services: hyper's and tonic's clients, and whatever else
//! takes a request and gives a response.
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
//! Every service that the layer makes, and every clone of one, shares the one limiter: they wait in
//! one line, first in, first out.
//!
//! * **Ready** means that a permit is in hand: `poll_ready` waits for it, and `call` sends the
//!   request under it. A ready service that is dropped gives it back as if it had never been granted.
//!   One that is neither called nor dropped keeps it from everyone else, as with any shared
//!   service of tower's.
//! * **Completion** is the response, or an error in its place: unless
//!   [`complete_on`](RateLimitLayer::complete_on) says that it is the end of the response's body.
//! * **Cancelled** (its future dropped, or a body that is not read to its end), a call counts from
//!   that moment, and for the limiter's [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace)
//!   longer.
//! * **Weights** come from the request, by [`weight`](RateLimitLayer::weight). As a request is there
//!   only once the service is called, such a service is ready when the one inside it is, and the
//!   call itself waits in line, in the order of the calls.
//!
//! # A full limiter
//!
//! With [`refuse_when_full`](crate::RateLimiterBuilder::refuse_when_full) a call that finds the queue
//! full is answered with [`AcquireError::Full`](crate::AcquireError::Full) at once: the service is ready,
//! and its call fails. Prefer that to tower's `load_shed` around the layer, which leaves every clone that
//! it sheds in the queue, to be given a permit that nobody calls for. (With a capacity of 0 the two agree:
//! nobody is in the queue.)
//!
//! Errors are boxed, as in tower's own layers: an [`AcquireError`](crate::AcquireError) where the
//! limiter is closed or full, or the weight makes no sense, else the error of the service inside.

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

/// Errors as tower's layers have them.
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

/// A request weighs what a closure says.
#[derive(Clone, Copy)]
pub struct WeightOf<F>(F);

/// What was reserved is what was used.
#[derive(Debug, Clone, Copy)]
pub struct Reserved;

/// What was used is what a closure says of the response.
#[derive(Clone, Copy)]
pub struct ActualOf<F>(F);

/// When a call has completed.
pub mod completion {
    /// When there is a response.
    #[derive(Debug, Clone, Copy)]
    pub struct Response;

    /// When the body of the HTTP response has ended: read to its end, failed, or dropped.
    #[derive(Debug, Clone, Copy)]
    pub struct Body;
}

impl RateLimitLayer {
    /// Every request weighs 1, and its response is its completion.
    pub fn new(limiter: RateLimiter) -> Self {
        Self { limiter, weight: Each, actual: Reserved, complete_on: completion::Response }
    }
}

impl<W, A, C> RateLimitLayer<W, A, C> {
    /// The weight of each request. The service inside has to be `Clone`, as it is called when the
    /// request's turn comes.
    ///
    /// A weight of 0, or over a limit, is an error of the call.
    pub fn weight<R, F: Fn(&R) -> u64>(self, weight: F) -> RateLimitLayer<WeightOf<F>, A, C> {
        let Self { limiter, actual, complete_on, .. } = self;
        RateLimitLayer { limiter, weight: WeightOf(weight), actual, complete_on }
    }

    /// What each call has really used, as its response says: tokens, rows. Where only the body says
    /// it, put the layer around the service that decodes the body.
    ///
    /// A call that fails has used what was reserved for it.
    pub fn actual_weight<R, F: Fn(&R) -> u64>(
        self,
        actual: F,
    ) -> RateLimitLayer<W, ActualOf<F>, C> {
        let Self { limiter, weight, complete_on, .. } = self;
        RateLimitLayer { limiter, weight, actual: ActualOf(actual), complete_on }
    }

    /// When a call has completed: at its [response](completion::Response), unless said otherwise, or
    /// at the end of the response's [body](completion::Body).
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

/// Says what a call has used. Implemented for what a [`RateLimitLayer`] can be told.
pub trait ActualWeight<R>: sealed::Sealed {
    #[doc(hidden)]
    fn of(&self, response: &R) -> Option<u64>;
}

/// Ends a call's permit, with or after its response. Implemented for what a [`RateLimitLayer`] can be
/// told.
pub trait CompleteOn<R>: sealed::Sealed {
    /// What the response is from then on.
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
