//! A middleware that keeps a [`reqwest`] client within strict limits and obeys the server's rate limit headers.
//!
//! ```no_run
//! use strict_rate_limiter::RateLimiter;
//! use strict_rate_limiter_reqwest::RateLimit;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = RateLimiter::builder().limit("10/1s".parse()?).build()?;
//! let client = RateLimit::new(limiter).client(reqwest::Client::builder())?;
//! let answer = client.get("http://localhost/").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Requests queue first in, first out, and each is sent under a permit. The permit completes when the head of the
//! response has arrived, or when the body has ended: see [`RateLimit::complete_on`]. A failed request completes its
//! permit. A request that times out, or whose future is dropped, counts from then on and for the limiter's
//! `abandon_grace` longer.
//!
//! # Reactions to the server
//!
//! * **A wait** that the server asks for pauses the limiter: `Retry-After` in all its forms, on every status from 400
//!   up, and the reset time of a used-up window. [`Answer`](strict_rate_limiter_hints) documents the rules, and
//!   [`RateLimit::heed`] changes them. A 429 or 503 without a time pauses for the shortest period among the used-up
//!   limits or, if none is used up, for the shortest of all. The middleware never retries. Put a retrying middleware
//!   *outside* of this one, so that each try is a task under the limit.
//! * **A wait longer than an hour** (or [`RateLimit::max_pause`]) also pauses the limiter. Requests that would have
//!   to wait longer than that fail at once with [`PauseTooLong`], until [`RateLimit::resume`] ends the pause.
//! * **Counts** of used or remaining units, in headers that you name, [correct](RateLimit::corrected_by) the limiter,
//!   so that usage by other programs of the same account counts too. A correction can only tighten the limit.
//! * **Anything else** is for a [hook](RateLimit::hook).
//!
//! # One request, one permit
//!
//! A permit is for one request on the wire, but reqwest by default follows redirects and repeats requests that an
//! HTTP/2 server refused. So [`RateLimit::client`] builds a client that does neither, and the middleware follows
//! redirects itself, each with its own permit.
//!
//! You can also add the middleware to your own client, at any place among other middlewares:
//!
//! ```
//! # use strict_rate_limiter::RateLimiter;
//! # use strict_rate_limiter_reqwest::RateLimit;
//! # let limiter = RateLimiter::builder().limit("10/1s".parse()?).build()?;
//! use reqwest_middleware::ClientBuilder;
//!
//! let client = RateLimit::send_once(reqwest::Client::builder()).build()?;
//! let client = ClientBuilder::new(client).with(RateLimit::new(limiter).client_sends_once()).build();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! If the client was not built with `send_once`, the middleware replaces each body by one that reqwest cannot copy
//! and so cannot send again. The bytes are the same, but inner middlewares see every body as a stream. Such a client
//! still follows redirects that drop the body (303, and 301 and 302 to a POST). The middleware counts those and
//! returns [an error](UncountedRequests). It cannot detect a redirect back to the same address, or one that fails on
//! its way.

#[cfg(target_arch = "wasm32")]
compile_error!(
    "strict-rate-limiter-reqwest needs a client that sends each request once; in a browser, `fetch` \
     follows redirects by itself and cannot be kept from it"
);

mod correction;
mod hint;
mod limiters;
mod middleware;
mod pause;
mod redirect;
mod resend;
mod settings;

pub use correction::CorrectionError;
pub use hint::Hint;
pub use pause::PauseTooLong;
pub use resend::UncountedRequests;
pub use settings::{Completion, RateLimit};
pub use strict_rate_limiter_hints::{Count, Heed};

/// The README's Rust is compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
