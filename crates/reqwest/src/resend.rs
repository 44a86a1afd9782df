//! Keeps clients with redirects or retries from sending a request more than once under one permit.
//!
//! reqwest can send a request again only if it can copy the body, so every request to such a client gets a body that
//! cannot be copied. Redirects that drop the body remain: a 303, and a 301 or 302 to a POST. We detect them by the
//! URL of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use reqwest::{Body, ClientBuilder, Request, Url, redirect, retry};
use strict_rate_limiter::RateLimiter;

/// The number of redirects that reqwest follows by default.
const REQWEST_FOLLOWS: u64 = 10;

/// The client followed redirects by itself, so requests were sent without permits. The limiter counts ten more
/// requests, the number of redirects that reqwest follows by default. With a policy that follows more, the limit may
/// have been broken.
///
/// Build the client with [`RateLimit::client`](crate::RateLimit::client). If an inner middleware changed the URL and
/// the client follows no redirects, set [`client_sends_once`](crate::RateLimit::client_sends_once).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the client followed a redirect by itself, to {}, and sent requests that had no permit: they are \
     counted now; build the client with `RateLimit::client`, which follows redirects one permit at a time",
    without_query(.answered)
)]
pub struct UncountedRequests {
    answered: Url,
}

impl UncountedRequests {
    /// The URL that answered.
    pub fn url(&self) -> &Url {
        &self.answered
    }
}

/// The URL without the parts that may be secret.
fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    _ = url.set_password(None);
    url
}

/// Makes the client send each request once.
pub(crate) fn sends_once(builder: ClientBuilder) -> ClientBuilder {
    builder.redirect(redirect::Policy::none()).retry(retry::never())
}

/// Keeps the client from sending the request again by itself.
pub(crate) fn forbid(request: &mut Request) {
    let body = request.body_mut().take().unwrap_or_default();
    *request.body_mut() = Some(Body::wrap(SingleUseBody(body)));
}

/// Whether the answer comes from another URL than the request was sent to.
pub(crate) fn was_redirected(asked: &Url, answered: &Url) -> Option<UncountedRequests> {
    // reqwest neither sends nor returns fragments.
    let mut asked = asked.clone();
    asked.set_fragment(None);
    (asked != *answered).then(|| UncountedRequests { answered: answered.clone() })
}

/// Counts the requests that may have been sent besides the permitted one.
pub(crate) fn count(limiter: &RateLimiter, weight: u64) {
    let held = limiter.stats().held;
    for held in held {
        let unseen = held.limit.units(weight).saturating_mul(REQWEST_FOLLOWS);
        _ = limiter.reconcile(held.limit, held.units.saturating_add(unseen));
    }
}

/// A body that is sent as it is and cannot be copied.
struct SingleUseBody(Body);

impl http_body::Body for SingleUseBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.0.size_hint();
        // reqwest would copy a body that reports to be empty.
        if hint.exact() == Some(0) { SizeHint::new() } else { hint }
    }
}
