//! An async rate limiter for the client side of a contract: no closed interval of length `per` ever
//! contains more than `rate` of its tasks, **as the other side counts them**.
//!
//! ```
//! use std::time::Duration;
//! use strict_rate_limiter::RateLimiter;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = RateLimiter::new(10, Duration::from_millis(20))?;
//! for call in 0..25 {
//!     let permit = limiter.acquire().await?;
//!     // The call to the fragile thing goes here, while the permit is held.
//!     permit.complete();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A limiter that counts admissions lets the network break its promise: calls that were let through
//! in good order arrive late and bunched up. This one holds a task's place in the window from before
//! it starts until `per` after it has *completed*, so wherever in between the other side counts it,
//! the window cannot overflow. `strict_rate_limiter_core` has the law and its proof.
//!
//! * One task at a time unless [`concurrency`](RateLimiterBuilder::concurrency) says otherwise, and
//!   strictly first in, first out.
//! * Several limits together, of tasks and of weights: 500 requests *and* 90,000 tokens a minute.
//! * [`acquire`](RateLimiter::acquire) a permit, or leave the running to the limiter with
//!   [`run`](RateLimiter::run) and [`push`](RateLimiter::push).
//! * A [`request`](RateLimiter::request) has a weight, a deadline, or a permit that borrows nothing.
//! * Whatever is dropped while it waits leaves no trace; whatever panics takes nothing with it.
//!
//! # Features
//!
//! Each is additive, and costs nothing where it is off.
//!
//! * `tokio` (default): [`RateLimiter::push`] and its kin, and [`clock::TokioClock`]. Everything else
//!   runs on any executor, or on none.
//! * `keyed`: `KeyedRateLimiter`, a limiter for each key.
//! * `stream`: `stream::RateLimitStreamExt`, items of a stream with their permits.
//! * `tower`: `tower::RateLimitLayer`, a layer for hyper, tonic and whatever else is a service.
//! * `tracing`: the spans `queued` and `running` (target `strict_rate_limiter`, at the debug level), with
//!   the fields `limiter`, `weight`, and `end` and `overspent` once they are known. Both belong to the
//!   span that the task was asked for in; what `run` and `push` run is inside the second.
//! * `metrics`: numbers for whichever recorder is installed; see below.
//! * `full`: all of them.
//!
//! Beside these, the crate `strict-rate-limiter-reqwest` is a middleware for reqwest.
//!
//! # Metrics
//!
//! All are labelled `limiter`, with the limiter's [name](RateLimiterBuilder::name); the last two also
//! `limit`, as in `10/1s`. Install the recorder before limiters are made. Limiters that share a name
//! add up; those of a `KeyedRateLimiter` do, and have no gauges of what is held.
//!
//! | name | kind | |
//! |---|---|---|
//! | `rate_limiter_queued` | gauge | tasks waiting for a permit |
//! | `rate_limiter_running` | gauge | tasks holding a permit |
//! | `rate_limiter_wait_seconds` | histogram | from asking to the permit; 0 where it was granted at once |
//! | `rate_limiter_task_seconds` | histogram | from the permit to the completion |
//! | `rate_limiter_completed_total` | counter | tasks completed |
//! | `rate_limiter_abandoned_total` | counter | tasks whose permit was merely dropped, cancelled calls among them |
//! | `rate_limiter_overspent_units_total` | counter | units used beyond what was reserved |
//! | `rate_limiter_held_units` | gauge | units held of the limit; see `RateLimiter::publish_gauges` |
//! | `rate_limiter_utilisation_ratio` | gauge | the same, over the rate |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod builder;
pub mod clock;
mod commands;
mod deadline;
mod error;
mod foreign;
pub mod future;
mod history;
mod inner;
mod inspect;
#[cfg(feature = "keyed")]
mod keyed;
mod limiter;
mod observe;
mod permit;
#[cfg(feature = "tokio")]
mod push;
mod reentrancy;
mod request;
#[cfg(feature = "tokio")]
mod request_push;
mod run;
mod stats;
#[cfg(feature = "stream")]
pub mod stream;
mod sync;
#[cfg(feature = "tower")]
pub mod tower;
mod update;
mod waiter;
mod wake_ahead;
mod wake_list;
mod wake_timer;

pub use builder::RateLimiterBuilder;
pub use error::{
    AcquireError, BuildError, ConfigError, LimitError, ParseLimitError, PushError, PushRefusal,
    RequestError, TaskError, TryAcquireError, UnknownLimit,
};
pub use history::HistoryEntry;
#[cfg(feature = "keyed")]
pub use keyed::{KeyedRateLimiter, KeyedRateLimiterBuilder};
pub use limiter::RateLimiter;
pub use permit::{OwnedPermit, Permit};
#[cfg(feature = "tokio")]
pub use push::{Pushed, TaskHandle};
pub use request::{OwnedRequest, Request};
pub use stats::{Held, Stats};
pub use strict_rate_limiter_core::audit;
pub use strict_rate_limiter_core::config::CONCURRENCY_MAX;
pub use strict_rate_limiter_core::limit::{PER_MAX, RATE_MAX};
pub use strict_rate_limiter_core::{Limit, Unit};

/// The README's Rust is compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
