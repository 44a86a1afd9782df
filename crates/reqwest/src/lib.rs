//! Keeps a [`reqwest`] client within a limit that is never broken, and does as the server says.
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
//! Each request waits its turn, first in, first out, and is sent under a permit. It has completed when the
//! head of its response has come, or when the body has ended: [`RateLimit::complete_on`]. A request
//! that fails has completed; one whose future is dropped, or that times out, counts from then on, and
//! for the limiter's `abandon_grace` longer.
//!
//! # What the server says
//!
//! * **A wait** that it asks for pauses the limiter: `Retry-After` in all its forms, on every status from 400
//!   up, and the time at which a window that is used up begins anew. [`Answer`](strict_rate_limiter_hints) has
//!   the rules, and [`RateLimit::heed`] changes them. A 429 or a 503 that says nothing pauses for the
//!   shortest period of the limits that are used up, or, if none is, for the shortest of all. Nothing is
//!   sent again: that is for a retrying middleware, which belongs *outside* of this one, so that each try is a
//!   task under the limit.
//! * **A wait longer than an hour** (or [`RateLimit::max_pause`]) is kept as well, but nobody waits for it
//!   in silence: requests that would have to wait longer fail at once with [`PauseTooLong`], unless
//!   [`RateLimit::resume`] ends the pause.
//! * **Counts** of what is left or used, in headers that you name, [correct](RateLimit::corrected_by) what
//!   the limiter holds: other programs that use the same account are then allowed for. A correction only
//!   ever tightens.
//! * **Anything else** is for a [hook](RateLimit::hook).
//!
//! # One request, one permit
//!
//! A permit is for one request on the wire, but reqwest by itself follows redirects and repeats requests that
//! a server refused by HTTP/2. So [`RateLimit::client`] builds a client that does neither, and the
//! middleware follows redirects, each with a permit of its own.
//!
//! It may also be put on a client of your own, in any place among other middlewares:
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
//! A client that was not built so is kept from sending again by bodies that it cannot copy. What it sends is
//! the same, but middlewares further in see every body as a stream. There are redirects that
//! drop the body (303, and 301 and 302 to a POST), which such a client still follows by itself: they are
//! counted and are [an error](UncountedRequests). Not seen is one that leads back to the very address that was
//! asked, or that fails on its way.

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
