//! A deterministic simulator of the library. It runs the real library, not a copy; time, chance and
//! the behaviour of all callers follow from a seed.
//!
//! A *run* is one limiter from its construction to its end. The seed decides its limits, when callers
//! come and what they ask for, how long tasks take and how they end, which callers give up, when the
//! clock is set back or the process stalls, how late the timer fires, and how the run ends: drained,
//! closed, aborted, or with its last handle dropped. The same seed gives the same run, poll by poll.
//!
//! Three checks, none of which shares code with the library:
//!
//! * the model (`model.rs`) knows the limits and the order of the queue, and remembers everything. After
//!   each step it says which callers must have been granted and which must not;
//! * at the end, the exact audit checks what ran, in the *server's* time;
//! * at the end, every caller must have had an answer.

// Simulated times and chances: far below where a float or a sign would matter.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod clock;
mod deadline;
mod environment;
mod executor;
mod model;
mod probe;
mod scenario;
mod simulation;
mod stats;
mod task;

use std::fmt;

pub use stats::Stats;

/// What a check found, and the seed that reproduces it.
#[derive(Debug)]
pub struct Finding {
    /// The seed of the run.
    pub seed: u64,
    /// What went wrong.
    pub what: String,
}

/// Does one run. At most one at a time on each thread.
pub fn simulate(seed: u64, runtime: &tokio::runtime::Runtime) -> Result<Stats, Finding> {
    runtime.block_on(simulation::run(seed)).map_err(|what| Finding { seed, what })
}

/// A runtime for [`simulate`].
///
/// # Panics
///
/// If the operating system refuses. The runtime has no driver and starts no thread.
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

/// So is that of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

/// So is that of the page for users of other libraries.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/coming-from.md")]
struct ComingFrom;
