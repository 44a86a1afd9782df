//! Redirects, one request at a time: what is to be sent next, so that it is sent under a permit of its
//! own.
//!
//! Only to the same origin: the client adds its default headers to whatever it sends, credentials among
//! them, and they are not for another server to see. Methods and bodies go as reqwest has them.

use std::time::Duration;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, TRANSFER_ENCODING,
};
use http::{Method, StatusCode, Version};
use reqwest::{Request, Response, Url};
use strict_rate_limiter_hints::Asked;

/// A request, as far as it can be sent again.
pub(crate) struct Sent {
    method: Method,
    url: Url,
    headers: HeaderMap,
    version: Version,
    timeout: Option<Duration>,
    /// With its body; `None` where that is a stream, which is gone.
    whole: Option<Request>,
}

impl Sent {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            url: request.url().clone(),
            headers: request.headers().clone(),
            version: request.version(),
            timeout: request.timeout().copied(),
            whole: request.try_clone(),
        }
    }

    /// The request that the response redirects to. `None` where it is no redirect, or one that is for
    /// the caller to see: to another origin, with a body that is gone, or with a time to wait before.
    pub(crate) fn redirected(self, response: &Response, asked: Option<Asked>) -> Option<Request> {
        let drops_body = match response.status() {
            StatusCode::SEE_OTHER => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let has_to_wait = asked.is_some_and(|asked| !asked.wait.is_zero());
        let url = self.target(response).filter(|_| !has_to_wait)?;
        if drops_body {
            return Some(self.without_body(url));
        }
        let mut request = self.whole?;
        *request.url_mut() = url;
        Some(request)
    }

    fn target(&self, response: &Response) -> Option<Url> {
        let location = std::str::from_utf8(response.headers().get(LOCATION)?.as_bytes()).ok()?;
        let mut url = self.url.join(location).ok()?;
        url.set_fragment(None);
        let has_credentials =
            url.username() != self.url.username() || url.password() != self.url.password();
        (url.origin() == self.url.origin() && !has_credentials).then_some(url)
    }

    fn without_body(self, url: Url) -> Request {
        let method = if self.method == Method::HEAD { Method::HEAD } else { Method::GET };
        let mut request = Request::new(method, url);
        *request.headers_mut() = self.headers;
        for header in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            request.headers_mut().remove(header);
        }
        *request.version_mut() = self.version;
        *request.timeout_mut() = self.timeout;
        request
    }
}
