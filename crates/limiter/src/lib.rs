//! An async rate limiter for clients of a rate-limited server: no closed interval of length `per` contains
//! more than `rate` of its tasks, **as the server counts them**.
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
//!     // Make the call here, while the permit is held.
//!     permit.complete();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A limiter that counts only starts can overflow the server's window: the network delays calls, and they
//! arrive in a burst. This one holds a task from before it starts until `per` after it has *completed*. So
//! wherever in between the server counts it, the window cannot overflow. `strict_rate_limiter_core` has the
//! law and its proof.
//!
//! * One queue, strictly first in, first out; one task at a time, or as many as
//!   [`concurrency`](RateLimiterBuilder::concurrency) allows.
//! * Several limits together, of tasks and of weights: 500 requests *and* 90,000 tokens a minute.
//! * [`acquire`](RateLimiter::acquire) a permit, or let the limiter [`run`](RateLimiter::run) or
//!   [`push`](RateLimiter::push) the task.
//! * A [`request`](RateLimiter::request) has a weight, a deadline, or a permit that borrows nothing.
//! * A waiter that is dropped leaves no trace. A task that panics loses no permit and stops no other task.
//!
//! # Features
//!
//! Each is additive, and costs nothing if it is off.
//!
//! * `tokio` (default): [`RateLimiter::push`], [`RateLimiter::push_fn`], the pushes of requests, and
//!   [`clock::TokioClock`]. Everything else runs on any executor, or on none.
//! * `keyed`: `KeyedRateLimiter`, a limiter for each key.
//! * `stream`: `stream::RateLimitStreamExt`, items of a stream with their permits.
//! * `tower`: `tower::RateLimitLayer`, a layer for hyper, tonic and other services.
//! * `tracing`: the spans `queued` and `running` (target `strict_rate_limiter`, at the debug level), with
//!   the fields `limiter`, `weight`, and `end` and `overspent` once they are known. Their parent is the span
//!   in which the task was requested. Tasks of `run` and `push` run inside `running`.
//! * `metrics`: numbers for the installed recorder; see below.
//! * `full`: all of them.
//!
//! Beside these, the crate `strict-rate-limiter-reqwest` is a middleware for reqwest.
//!
//! # Metrics
//!
//! All have the label `limiter`, the limiter's [name](RateLimiterBuilder::name); the last two also have
//! `limit`, such as `10/1s`. Install the recorder before limiters are made. The numbers of limiters with the
//! same name add up. Those of a `KeyedRateLimiter` do, and they have no gauges of held units.
//!
//! | name | kind | |
//! |---|---|---|
//! | `rate_limiter_queued` | gauge | tasks waiting for a permit |
//! | `rate_limiter_running` | gauge | tasks holding a permit |
//! | `rate_limiter_wait_seconds` | histogram | from the request to the permit; 0 if it was granted at once |
//! | `rate_limiter_task_seconds` | histogram | from the permit to the completion |
//! | `rate_limiter_completed_total` | counter | tasks completed |
//! | `rate_limiter_abandoned_total` | counter | tasks whose permit was dropped, such as cancelled calls |
//! | `rate_limiter_overspent_units_total` | counter | units used beyond the reservation |
//! | `rate_limiter_held_units` | gauge | units held of the limit; see `RateLimiter::publish_gauges` |
//! | `rate_limiter_utilisation_ratio` | gauge | the same, over the rate |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod at_store;
mod builder;
pub mod clock;
mod commands;
mod control;
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
pub mod store;
#[cfg(feature = "stream")]
pub mod stream;
mod sync;
#[cfg(feature = "tower")]
pub mod tower;
mod update;
mod visit;
mod waiter;
mod wake_ahead;
mod wake_list;
mod wake_timer;

pub use builder::RateLimiterBuilder;
pub use error::{
    AcquireError, BuildError, ChangeError, ConfigError, LimitError, ParseLimitError, PushError,
    PushRefusal, RequestError, TaskError, TryAcquireError, UnknownLimit,
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
