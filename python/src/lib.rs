//! The native half of the Python package: core's machine, driven from threads and asyncio loops.
//!
//! It decides nothing. Core says who may run; this crate calls tasks, awaits them, reads the clock, and wakes. There is no
//! other runtime and no other thread.
//!
//! Each module uses only modules above it in this list. Python code runs only while a limiter's lock is free.

mod errors;
mod fork;
mod imports;
mod signals;
mod thread_mark;

mod clock;
mod config;
mod ffi;

mod future;

mod event_loop;

mod event;
mod pushed;
mod reentrancy;
mod state;

mod deadlock;
mod scheduler;

mod blocking;
mod permit;
mod task;

mod operation;

mod api;

use pyo3::prelude::*;

/// The native half of `async_rate_limiter`, which re-exports what is public.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    ffi::refuse_subinterpreter(py)?;
    imports::import(wrap_pyfunction!(event_loop::wake, module)?)?;
    fork::watch(py)?;
    ffi::install::<operation::Call>(py)?;
    ffi::add_method::<api::push::Push>(py)?;
    ffi::add_method::<future::AddDoneCallback>(py)?;
    ffi::add_finalizer::<state::RateLimiter>(py)?;
    ffi::add_finalizer::<permit::Permit>(py)?;
    ffi::add_finalizer::<scheduler::Callback>(py)?;
    module.add_class::<state::RateLimiter>()?;
    module.add_class::<api::weighted::WeightedRateLimiter>()?;
    module.add_class::<permit::Permit>()?;
    module.add_class::<event::Event>()?;
    module.add_class::<api::stats::Stats>()?;
    module.add_class::<api::stats::Held>()?;
    errors::add(module)?;
    api::hints::add(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
