//! The middleware and its settings.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use strict_rate_limiter::{KeyedRateLimiter, Limit, RateLimiter};
use strict_rate_limiter_hints::{Count, Heed};

use crate::correction::{Correction, CorrectionError};
use crate::hint::Hint;
use crate::limiters::Limiters;
use crate::pause::Pauses;
use crate::resend;

/// A middleware that sends each request under a permit. See the [crate's documentation](crate).
///
/// Clones share the limiters and their pauses. Keep one to call [`resume`](Self::resume).
#[derive(Clone)]
pub struct RateLimit {
    pub(crate) limiters: Limiters,
    pub(crate) weight: Option<Arc<Weight>>,
    pub(crate) corrections: Vec<Correction>,
    pub(crate) heed: Heed,
    pub(crate) hook: Option<Arc<Hook>>,
    pub(crate) max_pause: Duration,
    pub(crate) complete_on: Completion,
    pub(crate) redirects: usize,
    pub(crate) sends_once: bool,
    pub(crate) pauses: Arc<Pauses>,
}

type Weight = dyn Fn(&Request) -> u64 + Send + Sync;
type Hook = dyn Fn(&Response) -> Hint + Send + Sync;

/// When a request has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completion {
    /// When the head of its response has arrived.
    Response,
    /// When the body of its response has been read to its end, or has failed. Dropping the body before that cancels
    /// the request.
    Body,
}

impl RateLimit {
    /// One limiter for every request of the client.
    pub fn new(limiter: RateLimiter) -> Self {
        Self::of(Limiters::One(limiter))
    }

    /// A limiter for each host. The key is its name and port: `api.example.com:443`.
    ///
    /// ```
    /// use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};
    /// use strict_rate_limiter_reqwest::RateLimit;
    ///
    /// let everyone = RateLimiter::builder().limit("5/1s".parse()?);
    /// let fragile = RateLimiter::builder().limit("1/10s".parse()?);
    /// let hosts = KeyedRateLimiter::builder(everyone).key("fragile.example:443".into(), fragile);
    /// let middleware = RateLimit::per_host(hosts.build()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_host(limiters: KeyedRateLimiter<String>) -> Self {
        Self::of(Limiters::PerHost(limiters))
    }

    fn of(limiters: Limiters) -> Self {
        Self {
            limiters,
            weight: None,
            corrections: Vec::new(),
            heed: Heed::default(),
            hook: None,
            max_pause: Duration::from_secs(3600),
            complete_on: Completion::Response,
            redirects: 10,
            sends_once: false,
            pauses: Arc::default(),
        }
    }

    // --- The client

    /// A client with this middleware that sends each request once. Turns off reqwest's own redirects (the middleware
    /// [follows them](Self::redirects)) and retries, and replaces those settings of the builder.
    pub fn client(&self, builder: reqwest::ClientBuilder) -> reqwest::Result<ClientWithMiddleware> {
        let client = Self::send_once(builder).build()?;
        Ok(ClientBuilder::new(client).with(self.clone().client_sends_once()).build())
    }

    /// Turns off reqwest's own redirects and retries, so that the client sends each request once. Use it for a client
    /// to which you add the middleware yourself, with [`client_sends_once`](Self::client_sends_once).
    pub fn send_once(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        resend::sends_once(builder)
    }

    /// Declares that the client was built with [`send_once`](Self::send_once), so that bodies are passed to it
    /// unchanged.
    #[must_use]
    pub fn client_sends_once(mut self) -> Self {
        self.sends_once = true;
        self
    }

    // --- Settings

    /// Sets the weight of each request; 1 by default. A request with a weight of 0, or over a limit, fails.
    #[must_use]
    pub fn weight(mut self, weight: impl Fn(&Request) -> u64 + Send + Sync + 'static) -> Self {
        self.weight = Some(Arc::new(weight));
        self
    }

    /// Sets when a request has completed: at the head of its response (the default), or at the end of the body.
    ///
    /// A server that answers has usually counted the request. Choose the body if it may count later, because it works
    /// while it sends, or if the limit is about concurrent downloads. The body is not the default, because a response
    /// that is kept but not read then holds its permit: with a concurrency of 1, a second request waits for the body
    /// of the first, and for ever if that is to be read later.
    #[must_use]
    pub fn complete_on(mut self, completion: Completion) -> Self {
        self.complete_on = completion;
        self
    }

    /// Sets how many redirects of a request are followed, each with its own permit; 10 by default. Only redirects to
    /// the same origin are followed: the client would send its default headers, which may contain credentials, to any
    /// other server. Methods and bodies change as in reqwest. Other redirects are returned to the caller: those to
    /// another origin, with a `Retry-After`, of a streamed body, or over the maximum. A timeout of the request
    /// applies to each step.
    #[must_use]
    pub fn redirects(mut self, most: usize) -> Self {
        self.redirects = most;
        self
    }

    /// Sets which answers are searched for a wait, instead of all from 400 up.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// # use strict_rate_limiter_reqwest::{Heed, RateLimit};
    /// # let limiter = RateLimiter::builder().limit("60/1m".parse()?).build()?;
    /// let middleware = RateLimit::new(limiter).heed(Heed::default().statuses([202, 429, 503]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn heed(mut self, heed: Heed) -> Self {
        self.heed = heed;
        self
    }

    /// Sets a function that reads further hints from each response. It is called while the request still holds its
    /// permit, so that no request is sent before the hint is applied. Of several pauses the longest counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strict_rate_limiter::RateLimiter;
    /// use strict_rate_limiter_reqwest::{Hint, RateLimit};
    ///
    /// let limiter = RateLimiter::builder().limit("60/1m".parse()?).build()?;
    /// let middleware = RateLimit::new(limiter).hook(|response| {
    ///     match response.headers().get("x-banned-minutes").and_then(|text| text.to_str().ok()?.parse().ok()) {
    ///         Some(minutes) => Hint::new().pause(60 * Duration::from_secs(minutes)),
    ///         None => Hint::new(),
    ///     }
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(&Response) -> Hint + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Sets how long a request waits for a pause of the server; an hour by default. The limiter is paused for longer
    /// times as well, but requests that would have to wait longer than this fail at once with
    /// [`PauseTooLong`](crate::PauseTooLong).
    #[must_use]
    pub fn max_pause(mut self, max_pause: Duration) -> Self {
        self.max_pause = max_pause;
        self
    }

    /// Corrects a limit with a header of every response. A missing or unreadable header changes nothing. If the
    /// header reports several windows, the one with the length of the limit's period counts. A limiter without this
    /// limit, such as that of a host with its own settings, is not corrected.
    ///
    /// ```
    /// # use strict_rate_limiter::{Limit, RateLimiter};
    /// # use strict_rate_limiter_reqwest::{Count, RateLimit};
    /// // 6,000 units a minute, as Binance counts them.
    /// let limit: Limit = "6000w/1m".parse()?;
    /// let limiter = RateLimiter::builder().limit(limit).build()?;
    /// let middleware =
    ///     RateLimit::new(limiter).corrected_by("x-mbx-used-weight-1m", limit, Count::Used)?;
    ///
    /// let limit: Limit = "60/1m".parse()?;
    /// let limiter = RateLimiter::builder().limit(limit).build()?;
    /// let middleware = RateLimit::new(limiter)
    ///     .corrected_by("x-ratelimit-remaining", limit, Count::Remaining)?
    ///     .corrected_by("ratelimit", limit, Count::Remaining)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// It reads `12`, `3.0`, `39/40`, `39:10,70:120` (a count for each window, in seconds), `12;w=60`,
    /// `limit=40, remaining=3` and the IETF's `"default";r=3;t=10`. `count` is the meaning of numbers without a name.
    /// Remaining units are subtracted from *this* limit's rate.
    ///
    /// # Errors
    ///
    /// If `header` is not a valid header name, or no limiter of the middleware has this limit.
    pub fn corrected_by(
        mut self,
        header: &str,
        limit: Limit,
        count: Count,
    ) -> Result<Self, CorrectionError> {
        let known = self.limiters.limits();
        self.corrections.push(Correction::new(header, limit, count, known)?);
        Ok(self)
    }

    // --- Commands

    /// Ends the pause of the limiter, for whatever reason it was paused. With a limiter for each host, ends the
    /// pauses of the hosts that asked for longer than [`max_pause`](Self::max_pause).
    pub fn resume(&self) {
        match &self.limiters {
            Limiters::One(_) => self.resume_host(""),
            Limiters::PerHost(_) => {
                self.pauses.hosts().into_iter().for_each(|host| self.resume_host(&host));
            }
        }
    }

    /// Ends the pause of a host, given by name and port. With one limiter for all, ends its pause.
    pub fn resume_host(&self, host: &str) {
        self.pauses.resume(&self.limiters.of_host(host.to_owned()));
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("RateLimit");
        match &self.limiters {
            Limiters::One(limiter) => debug.field("limiter", limiter),
            Limiters::PerHost(limiters) => debug.field("per_host", limiters),
        };
        debug.field("corrections", &self.corrections).finish_non_exhaustive()
    }
}
