//! Builds the request that a redirect asks for, so that it is sent under its own permit.
//!
//! Follows only redirects to the same origin: the client adds its default headers to every request, which may contain
//! credentials that no other server may see. Methods and bodies change as in reqwest.

use std::time::Duration;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, TRANSFER_ENCODING,
};
use http::{Method, StatusCode, Version};
use reqwest::{Request, Response, Url};
use strict_rate_limiter_hints::Asked;

/// A copy of a request, for following redirects.
pub(crate) struct Sent {
    method: Method,
    url: Url,
    headers: HeaderMap,
    version: Version,
    timeout: Option<Duration>,
    /// The request with its body; `None` if the body is a stream, which can be sent only once.
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

    /// The request that the response redirects to. `None` if it is not a redirect, or one that the caller must
    /// handle: to another origin, with a body that cannot be sent again, or with a wait before it.
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
