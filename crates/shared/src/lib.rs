//! One strict rate limit for all processes of a machine. A folder holds the state; no server is needed.
//!
//! ```
//! use strict_rate_limiter_shared::SharedRateLimiter;
//!
//! # let folder = std::env::temp_dir().join(format!("srl-lib-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&folder);
//! // Every process that opens this folder runs under the one limit.
//! let limiter = SharedRateLimiter::builder(&folder).limit("10/20ms".parse()?).open()?;
//! let permit = limiter.acquire_blocking()?;
//! // Make the call here, while the permit is held.
//! permit.complete();
//! # drop(limiter);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`SharedRateLimiter`] is used as the library's [`RateLimiter`](strict_rate_limiter::RateLimiter), and says what differs.
//! [`folder`] is what it stands on: the files, the lock, the sessions, the clock.
//!
//! # Features
//!
//! * `limiter` (default): [`SharedRateLimiter`]. Without it there is [`folder`] alone, for those who drive core's machine
//!   themselves.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod folder;
#[cfg(feature = "limiter")]
mod limiter;

pub use folder::FolderError;
#[cfg(feature = "limiter")]
pub use limiter::{SharedRateLimiter, SharedRateLimiterBuilder};

/// The README's Rust is compiled with the doc tests.
#[cfg(all(doctest, feature = "limiter"))]
#[doc = include_str!("../README.md")]
struct Readme;
