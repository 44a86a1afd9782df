//! `WeightedRateLimiter`, as Python sees it: a `RateLimiter` whose first limit is one of weight.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use strict_rate_limiter_core::Limit;

use crate::config::{self, Settings};
use crate::state::RateLimiter;

/// A limiter of weight: tasks of a total weight of at most `allowed_weight` in any interval of
/// length `per`. All else is as for `RateLimiter`.
#[pyclass(frozen, subclass, weakref, extends = RateLimiter, module = "async_rate_limiter")]
pub struct WeightedRateLimiter;

#[pymethods]
impl WeightedRateLimiter {
    #[new]
    #[pyo3(signature = (*args, **kwargs), text_signature = "(allowed_weight, per_ns=None, *, \
        per=None, limits=(), concurrency=1, paced=False, queue_capacity=None, \
        refuse_when_full=False, abandon_grace=None, clock_drift_ppm=0, max_pause=None, on_error=None, on_event=None, \
        clock=None, name=None, history=None)")]
    fn new(
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        let _ = (args, kwargs);
        PyClassInitializer::from(RateLimiter::empty()).add_subclass(Self)
    }

    #[pyo3(signature = (allowed_weight, per_ns=None, *, per=None, **settings))]
    fn __init__(
        slf: &Bound<'_, Self>,
        allowed_weight: Bound<'_, PyAny>,
        per_ns: Option<Bound<'_, PyAny>>,
        per: Option<Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let settings = Settings::read("WeightedRateLimiter", settings)?;
        let (name, weight) = ("allowed_weight", Some(allowed_weight));
        let limit = config::limit(Limit::weight, name, weight, per_ns, per)?;
        slf.as_super().get().begin(limit, settings)
    }

    /// The rate of its first limit.
    #[getter]
    fn allowed_weight(slf: &Bound<'_, Self>) -> PyResult<u64> {
        slf.as_super().get().rate()
    }
}
