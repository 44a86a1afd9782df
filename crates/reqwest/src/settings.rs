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
/// A clone shares the limiters and what they were told; keep one to [`resume`](Self::resume).
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
    /// When the head of its response has come.
    Response,
    /// When the body of its response has ended: read to its end, or failed. One that is dropped
    /// before is a request that was cancelled.
    Body,
}

impl RateLimit {
    /// One limiter for every request of the client.
    pub fn new(limiter: RateLimiter) -> Self {
        Self::of(Limiters::One(limiter))
    }

    /// A limiter for each host, known by its name and port: `api.example.com:443`.
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

    /// A client with this middleware, built so that it sends each request once: its redirects are off
    /// (the middleware [follows them](Self::redirects)), and its retries. Those of the builder's
    /// settings are replaced.
    pub fn client(&self, builder: reqwest::ClientBuilder) -> reqwest::Result<ClientWithMiddleware> {
        let client = Self::send_once(builder).build()?;
        Ok(ClientBuilder::new(client).with(self.clone().client_sends_once()).build())
    }

    /// Turns off what makes a client send a request more than once: its own redirects and retries. For a
    /// client to which you add the middleware yourself, with [`client_sends_once`](Self::client_sends_once).
    pub fn send_once(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        resend::sends_once(builder)
    }

    /// Says that the client sends each request once, because it was built with
    /// [`send_once`](Self::send_once): bodies are then handed to it as they are.
    #[must_use]
    pub fn client_sends_once(mut self) -> Self {
        self.sends_once = true;
        self
    }

    // --- Settings

    /// The weight of each request; 1 unless said otherwise. A weight of 0, or over a limit, is an error
    /// of the request.
    #[must_use]
    pub fn weight(mut self, weight: impl Fn(&Request) -> u64 + Send + Sync + 'static) -> Self {
        self.weight = Some(Arc::new(weight));
        self
    }

    /// When a request has completed: at the head of its response, unless said otherwise, or at the end
    /// of the response's body.
    ///
    /// A server that answers has usually counted. Choose the body where it may not have: where the
    /// server is at work for as long as it sends, or where what is limited is how many downloads there
    /// are at once. It is not the default because a response that is kept without being read then keeps its
    /// place: with a concurrency of 1, a second request waits for the first one's body, for ever if
    /// that is read later.
    #[must_use]
    pub fn complete_on(mut self, completion: Completion) -> Self {
        self.complete_on = completion;
        self
    }

    /// How many redirects of a request are followed, 10 unless said otherwise, each with a permit of its
    /// own. Followed are those to the same origin: the client would send its default headers, credentials
    /// among them, to any other. Methods and bodies go as with reqwest. Whatever is not followed is
    /// the caller's response: redirects to elsewhere, with a `Retry-After`, of a body that was a stream,
    /// and the one too many. A timeout of the request is for each step.
    #[must_use]
    pub fn redirects(mut self, most: usize) -> Self {
        self.redirects = most;
        self
    }

    /// Which answers are asked for a wait, in place of all from 400 up.
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

    /// What a response means beyond what its well-known headers say. It is asked while the request still
    /// holds its permit, so that nothing is sent before the hint holds. Of several pauses the longest
    /// counts.
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

    /// How long a request waits at most because the server asked for a pause; an hour unless said
    /// otherwise. A longer pause is kept as well, but requests that would have to wait longer than this
    /// fail at once with [`PauseTooLong`](crate::PauseTooLong).
    #[must_use]
    pub fn max_pause(mut self, max_pause: Duration) -> Self {
        self.max_pause = max_pause;
        self
    }

    /// Corrects a limit by a header of every response. A header that is not there, or says nothing that
    /// is understood, changes nothing. Where it counts several windows, the one that is as long as the
    /// limit's period counts; and where a limiter has no such limit, as a host with settings of its
    /// own may not, it is not corrected.
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
    /// Read are `12`, `3.0`, `39/40`, `39:10,70:120` (a count for each window, in seconds), `12;w=60`,
    /// `limit=40, remaining=3` and the IETF's `"default";r=3;t=10`. Numbers without a name are what
    /// `count` says. What is left is taken as left of *this* limit's rate.
    ///
    /// # Errors
    ///
    /// If the name is no name of a header, or no limiter here has this limit.
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

    /// Ends the pause of the limiter, whoever asked for it. Where there is one for each host: of every
    /// host that asked for longer than [`max_pause`](Self::max_pause).
    pub fn resume(&self) {
        match &self.limiters {
            Limiters::One(_) => self.resume_host(""),
            Limiters::PerHost(_) => {
                self.pauses.hosts().into_iter().for_each(|host| self.resume_host(&host));
            }
        }
    }

    /// Ends the pause of a host, by its name and port; of the one limiter, where there is no other.
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
