//! A deterministic simulator of the library: the real thing, not a copy, in a world in which time,
//! chance and everyone's behaviour follow from a seed.
//!
//! A *life* is one limiter from its making to its end. The seed decides its limits, who asks it for
//! what and when, how long their tasks take and how they end, who gives up waiting, when the clock
//! is set back or the process stalls, how late the timer comes, and how it all ends: drained,
//! closed, aborted, or with its last handle dropped. The same seed is the same life, poll by poll.
//!
//! Three judges look on, none of which shares a line with what it judges:
//!
//! * the referee knows the law and the order of the queue, and remembers everything: it
//!   says after each step who must have been granted by now and who must not;
//! * the exact audit takes what ran, in the *server's* time, at the end of each life;
//! * nobody may be forgotten: everyone who asked has an answer when nothing moves any more.

// Simulated times and chances: far below where a float or a sign would matter.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod clock;
mod executor;
mod life;
mod place;
mod plan;
mod referee;
mod tally;
mod task;
mod world;

use std::fmt;

pub use tally::Tally;

/// What a judge found, and the seed that reproduces it.
#[derive(Debug)]
pub struct Finding {
    /// The seed of the life.
    pub seed: u64,
    /// What went wrong.
    pub what: String,
}

/// Lives one life. One at a time on each thread.
pub fn live(seed: u64, runtime: &tokio::runtime::Runtime) -> Result<Tally, Finding> {
    runtime.block_on(life::live(seed)).map_err(|what| Finding { seed, what })
}

/// A runtime as [`live`] needs it.
///
/// # Panics
///
/// If the operating system refuses one, which has no driver and starts no thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without any driver")
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Finding {}

/// The root README's Rust is compiled here: its path would lead out of a published package.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
