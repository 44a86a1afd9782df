//! A client that may send a request more than once: reqwest follows redirects and tries again by itself,
//! all under one permit.
//!
//! Neither is possible where reqwest cannot copy the body, so every request to such a client gets a body
//! that cannot be copied. What is left are the redirects that drop the body: a 303, and a 301 or 302 to a
//! POST. They show in the address of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use reqwest::{Body, ClientBuilder, Request, Url, redirect, retry};
use strict_rate_limiter::RateLimiter;

/// How many redirects reqwest follows, unless it is told otherwise.
const REQWEST_FOLLOWS: u64 = 10;

/// The client followed redirects by itself, so requests went out without permits of their own. Ten more
/// are counted, which is as many as reqwest follows by default: with a policy that follows more, the limit
/// may have been broken.
///
/// Build the client with [`RateLimit::client`](crate::RateLimit::client). If it was a middleware further
/// in that changed the address, and the client follows no redirect, say so with
/// [`client_sends_once`](crate::RateLimit::client_sends_once).
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
    /// The address that answered.
    pub fn url(&self) -> &Url {
        &self.answered
    }
}

/// What may be secret is left out.
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

/// Whether the answer is not from where the request was sent.
pub(crate) fn was_redirected(asked: &Url, answered: &Url) -> Option<UncountedRequests> {
    // reqwest sends no fragment, and gives none back.
    let mut asked = asked.clone();
    asked.set_fragment(None);
    (asked != *answered).then(|| UncountedRequests { answered: answered.clone() })
}

/// Counts as many requests as may have gone out beside the one that was permitted.
pub(crate) fn count(limiter: &RateLimiter, weight: u64) {
    let held = limiter.stats().held;
    for (place, (limit, held)) in limiter.limits().iter().zip(held).enumerate() {
        let unseen = limit.units(weight).saturating_mul(REQWEST_FOLLOWS);
        limiter.reconcile(place, held.units.saturating_add(unseen));
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
        // Of a body that says it is empty a copy is easily made.
        if hint.exact() == Some(0) { SizeHint::new() } else { hint }
    }
}
