//! The only place that reads a clock.
//!
//! Not the loop's: a loop may answer with the time at which its turn began (uvloop does), and a
//! completion stamped before its task has ended would let a window overflow.

use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use strict_rate_limiter_core::limit::saturating_ns;

use crate::imports::imports;

/// A limiter's timeline, in nanoseconds.
pub(crate) enum Clock {
    /// The system's monotonic clock, from when the limiter was made.
    System(Instant),
    /// A function that returns nanoseconds, as `time.monotonic_ns` does.
    Given(Py<PyAny>),
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self::System(Instant::now())
    }

    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<u64> {
        match self {
            Self::System(start) => Ok(nanoseconds_since(*start)),
            Self::Given(clock) => {
                let reading = clock.bind(py).call0()?;
                reading.extract().map_err(|_| {
                    PyValueError::new_err(format!(
                        "the clock has to return nanoseconds as an int of at least 0, not {reading}"
                    ))
                })
            }
        }
    }

    /// A time of the limiter in seconds on the clock that its user reads.
    pub(crate) fn to_seconds(&self, py: Python<'_>, at: u64) -> PyResult<f64> {
        let origin = self.origin(py)?;
        #[expect(clippy::cast_precision_loss, reason = "a float is what users of asyncio expect")]
        Ok((i128::from(at) + origin) as f64 / 1e9)
    }

    /// A time that its user read, rounded up. One before the limiter's time began is its beginning.
    pub(crate) fn at_seconds(&self, py: Python<'_>, seconds: f64) -> PyResult<u64> {
        if seconds.is_nan() {
            return Err(PyValueError::new_err("a time cannot be nan"));
        }
        let at = (seconds * 1e9).ceil() as i128 - self.origin(py)?;
        Ok(u64::try_from(at.max(0)).unwrap_or(u64::MAX))
    }

    /// The limiter's time 0 on its user's clock.
    fn origin(&self, py: Python<'_>) -> PyResult<i128> {
        match self {
            Self::System(start) => {
                // Theirs first: what passes between the two readings may make a pause longer than
                // asked for, never shorter.
                let theirs: i128 = imports(py).monotonic_ns.bind(py).call0()?.extract()?;
                let ours = nanoseconds_since(*start);
                Ok(theirs - i128::from(ours))
            }
            Self::Given(_) => Ok(0),
        }
    }
}

fn nanoseconds_since(start: Instant) -> u64 {
    saturating_ns(start.elapsed())
}
