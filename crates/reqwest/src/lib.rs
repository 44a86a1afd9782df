//! Keeps a [`reqwest`] client within a limit that is never broken, and does as the server says.
//!
//! ```no_run
//! use reqwest::redirect::Policy;
//! use reqwest_middleware::ClientBuilder;
//! use strict_rate_limiter::RateLimiter;
//! use strict_rate_limiter_reqwest::RateLimit;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = RateLimiter::builder().limit("10/1s".parse()?).build()?;
//! let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
//! let client = ClientBuilder::new(client).with(RateLimit::new(limiter)).build();
//! let answer = client.get("http://localhost/").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Each request waits its turn, first in, first out, and is sent under a permit, which it holds until
//! the head of its response has come. A request that fails has completed; one whose future is dropped
//! counts from then on, and for the limiter's `abandon_grace` longer.
//!
//! # What the server says
//!
//! * **429 and 503** pause the limiter: for as long as `Retry-After` says, in seconds or as a date, else
//!   for its longest period. Nothing is sent again: that is for a retrying middleware, which belongs
//!   *outside* of this one, so that each try is a task under the limit.
//! * **Counts** of what is left or used, in headers that you name, [correct](RateLimit::corrected_by) what
//!   the limiter holds: other programs that use the same account are then allowed for. A correction only
//!   ever tightens.
//!
//! # One request, one permit
//!
//! A permit is for one request on the wire. reqwest follows redirects by itself, and each step of that is
//! a request more: build the client with `redirect(Policy::none())`, or give the limit that much room.

mod correction;
mod retry_after;

use std::sync::Arc;

use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};

use correction::Correction;
pub use correction::Count;

/// A middleware that sends each request under a permit. See the [crate's documentation](crate).
pub struct RateLimit {
    limiters: Limiters,
    weight: Option<Arc<Weight>>,
    corrections: Vec<Correction>,
}

type Weight = dyn Fn(&Request) -> u64 + Send + Sync;

enum Limiters {
    One(RateLimiter),
    PerHost(KeyedRateLimiter<String>),
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
        Self { limiters, weight: None, corrections: Vec::new() }
    }

    /// The weight of each request; 1 unless said otherwise. A weight of 0, or over a limit, is an error
    /// of the request.
    #[must_use]
    pub fn weight(mut self, weight: impl Fn(&Request) -> u64 + Send + Sync + 'static) -> Self {
        self.weight = Some(Arc::new(weight));
        self
    }

    /// Corrects a limit, by its place among the limiter's limits, by a header of every response. A
    /// header that is not there, or is no number, changes nothing.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// # use strict_rate_limiter_reqwest::{Count, RateLimit};
    /// // 6,000 units a minute, as Binance counts them.
    /// let limiter = RateLimiter::builder().limit("6000w/1m".parse()?).build()?;
    /// let middleware = RateLimit::new(limiter).corrected_by("x-mbx-used-weight-1m", 0, Count::Used)?;
    ///
    /// let limiter = RateLimiter::builder().limit("60/1m".parse()?).build()?;
    /// let middleware = RateLimit::new(limiter)
    ///     .corrected_by("x-ratelimit-remaining", 0, Count::Remaining)?
    ///     .corrected_by("ratelimit-remaining", 0, Count::Remaining)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the name is no name of a header.
    ///
    /// # Panics
    ///
    /// At once, if the one limiter has no such limit; where there is one for each host, at a response
    /// of a host whose limiter has not.
    pub fn corrected_by(
        mut self,
        header: &str,
        limit: usize,
        count: Count,
    ) -> Result<Self, http::header::InvalidHeaderName> {
        let header = header.parse()?;
        if let Limiters::One(limiter) = &self.limiters {
            let limits = limiter.limits().len();
            assert!(limit < limits, "limit {limit} of {limits} does not exist; they count from 0");
        }
        self.corrections.push(Correction { header, limit, count });
        Ok(self)
    }

    fn limiter_for(&self, request: &Request) -> RateLimiter {
        match &self.limiters {
            Limiters::One(limiter) => limiter.clone(),
            Limiters::PerHost(limiters) => limiters.limiter(&host(request)),
        }
    }
}

fn host(request: &Request) -> String {
    let url = request.url();
    let port = url.port_or_known_default().map_or(String::new(), |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// How long the limiter is to pause, if the response says so.
fn told_to_pause(limiter: &RateLimiter, response: &Response) -> Option<std::time::Duration> {
    let status = response.status();
    let told = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    told.then(|| {
        let longest = || limiter.limits().iter().map(strict_rate_limiter::Limit::per).max();
        retry_after::read(response.headers()).or_else(longest).unwrap_or_default()
    })
}

#[async_trait::async_trait]
impl Middleware for RateLimit {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let limiter = self.limiter_for(&request);
        let weight = self.weight.as_ref().map_or(1, |weight| weight(&request));
        let permit = limiter.acquire_weight(weight).await.map_err(Error::middleware)?;
        let answer = next.run(request, extensions).await;
        // What the server says holds before the next in line can be granted.
        if let Ok(response) = &answer {
            if let Some(pause) = told_to_pause(&limiter, response) {
                limiter.pause_for(pause);
            }
            for correction in &self.corrections {
                correction.apply(&limiter, weight, response.headers());
            }
        }
        permit.complete();
        answer
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
