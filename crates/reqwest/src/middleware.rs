//! Sends one request under a permit, applies the answer's hints, completes the permit, and follows redirects.

use std::time::SystemTime;

use http::Extensions;
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Error, Middleware, Next, Result};
use strict_rate_limiter::OwnedPermit;
use strict_rate_limiter::tower::LimitedBody;
use strict_rate_limiter_hints::{self as hints, Answer};

use crate::limiters::Target;
use crate::pause::RequestedPause;
use crate::redirect::Sent;
use crate::{Completion, RateLimit, resend};

#[async_trait::async_trait]
impl Middleware for RateLimit {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let mut redirects = self.redirects;
        loop {
            let sent = (redirects > 0).then(|| Sent::new(&request));
            let answered = self.send(request, extensions, next.clone()).await?;
            let following =
                sent.and_then(|sent| sent.redirected(&answered.response, answered.retry_after));
            let Some(following) = following else { return Ok(answered.into_response()) };
            // Complete this permit before acquiring the next one.
            drop(answered);
            request = following;
            redirects -= 1;
        }
    }
}

/// A response, with the permit that is held until its body has ended.
struct Answered {
    response: Response,
    /// `None` if the head of the response has completed it.
    permit: Option<OwnedPermit>,
    /// The wait that it asks for, whatever its status.
    retry_after: Option<hints::Asked>,
}

impl RateLimit {
    async fn send(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Answered> {
        let target = self.limiters.of(request.url());
        let weight = self.weight.as_ref().map_or(1, |weight| weight(&request));
        let permit = self.pauses.acquire(&target, weight, self.max_pause).await?;
        let asked = request.url().clone();
        if !self.sends_once {
            resend::forbid(&mut request);
        }
        let mut response = match next.run(request, extensions).await {
            Ok(response) => response,
            Err(error) => {
                self.failed(&target, weight, permit, &error);
                return Err(error);
            }
        };
        // Apply the hints before the permit completes, and so before the next waiter is granted.
        let retry_after = self.obey(&target, weight, &mut response);
        if let Some(uncounted) = self.uncounted(&target, weight, &asked, &response) {
            permit.complete();
            return Err(Error::middleware(uncounted));
        }
        let permit = match self.complete_on {
            Completion::Response => {
                permit.complete();
                None
            }
            Completion::Body => Some(permit),
        };
        Ok(Answered { response, permit, retry_after })
    }

    /// Completes the permit of a failed request. After a timeout the request may still be on its way, so its permit
    /// is abandoned, as if its future had been dropped.
    fn failed(&self, target: &Target, weight: u64, permit: OwnedPermit, error: &Error) {
        if error.is_redirect() && !self.sends_once {
            resend::count(&target.limiter, weight);
        }
        if error.is_timeout() {
            drop(permit);
        } else {
            permit.complete();
        }
    }

    /// Applies the hints of a response while its request still holds its permit.
    fn obey(&self, target: &Target, weight: u64, response: &mut Response) -> Option<hints::Asked> {
        let headers = response.headers().iter();
        let headers = headers.filter_map(|(name, text)| Some((name.as_str(), text.to_str().ok()?)));
        let answer = Answer::new(response.status().as_u16(), headers, SystemTime::now());
        let asked = answer.wait(&self.heed).or_backoff(|| target.limiter.backoff());
        let asked = asked.map(|asked| RequestedPause { wait: asked.wait, header: asked.header });
        // Pause first, so that a hook that panics does not prevent it.
        let mut too_long = asked.and_then(|asked| self.pause(target, asked));
        for correction in &self.corrections {
            correction.apply(&target.limiter, weight, &answer);
        }
        let retry_after = answer.retry_after();
        if let Some(hook) = &self.hook {
            let hint = hook(response);
            hint.correct(&target.limiter, weight);
            let asked = hint.pause.map(|wait| RequestedPause { wait, header: "hint" });
            too_long = asked.and_then(|asked| self.pause(target, asked)).or(too_long);
        }
        if let Some(too_long) = too_long {
            response.extensions_mut().insert(too_long);
        }
        retry_after
    }

    fn pause(&self, target: &Target, asked: RequestedPause) -> Option<crate::PauseTooLong> {
        self.pauses.pause(target, asked, self.max_pause)
    }

    /// Whether the client has sent more requests than permitted. If so, counts them, also at the host that answered.
    fn uncounted(
        &self,
        target: &Target,
        weight: u64,
        asked: &reqwest::Url,
        response: &Response,
    ) -> Option<resend::UncountedRequests> {
        if self.sends_once {
            return None;
        }
        let uncounted = resend::was_redirected(asked, response.url())?;
        resend::count(&target.limiter, weight);
        let answering = self.limiters.of(response.url());
        if answering.host != target.host {
            resend::count(&answering.limiter, weight);
        }
        Some(uncounted)
    }
}

impl Answered {
    fn into_response(self) -> Response {
        let Some(permit) = self.permit else { return self.response };
        let url = self.response.url().clone();
        let (parts, body) = http::Response::from(self.response).into_parts();
        let body = Body::wrap(LimitedBody::new(body, permit));
        let response = http::Response::builder().status(parts.status).version(parts.version);
        let mut response = response.url(url).body(body).expect("these are the parts of a response");
        *response.headers_mut() = parts.headers;
        response.extensions_mut().extend(parts.extensions);
        response.into()
    }
}
