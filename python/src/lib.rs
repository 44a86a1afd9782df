//! The native half of the Python package: core's machine, driven from the asyncio loop.
//!
//! It decides nothing. Core says who may run; this crate calls tasks, awaits them, reads the clock
//! and asks the loop to be called again. There is no other runtime and no other thread.
//!
//! `limiter.rs` is what a user calls, `turn.rs` what is awaited, `line.rs` what everything goes
//! through. Python code runs only while the line's lock is free.

mod api_hints;
mod clock;
mod error;
mod home;
mod inside;
mod limiter;
mod line;
mod look;
mod names;
mod permit;
mod queued;
mod raw;
mod running;
mod settings;
mod stats;
mod turn;

use pyo3::prelude::*;

/// The native half of `async_rate_limiter`, which re-exports what is public.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    names::import(py)?;
    raw::install(py)?;
    module.add_class::<limiter::RateLimiter>()?;
    module.add_class::<limiter::WeightedRateLimiter>()?;
    module.add_class::<permit::Permit>()?;
    module.add_class::<stats::Stats>()?;
    module.add_class::<stats::Held>()?;
    error::add(module)?;
    api_hints::add(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
