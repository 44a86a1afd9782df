//! What a limiter is told when it is made: Python's numbers and periods, as core's.
//!
//! Whether the numbers make sense is for core to say. Here they only have to be numbers.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyDeltaAccess, PyInt, PyString};
use std::time::Duration;

use strict_rate_limiter_core::{Config, Limit, LimitError};

/// What the keyword arguments of the constructors say.
pub(crate) struct Settings<'py> {
    /// The first limit, from rate and period.
    pub(crate) limit: Option<Limit>,
    /// More of them, as texts.
    pub(crate) limits: Option<Bound<'py, PyAny>>,
    pub(crate) paced: bool,
    pub(crate) concurrency: Option<Bound<'py, PyAny>>,
    pub(crate) queue_capacity: Option<Bound<'py, PyAny>>,
    pub(crate) abandon_grace: Option<Bound<'py, PyAny>>,
    pub(crate) clock_drift_ppm: Option<Bound<'py, PyAny>>,
}

impl Settings<'_> {
    pub(crate) fn into_config(self) -> PyResult<Config> {
        let mut limits = Vec::from_iter(self.limit);
        if let Some(texts) = self.limits {
            if texts.is_instance_of::<PyString>() {
                return Err(PyTypeError::new_err(
                    "limits has to be a list of strings, not a string",
                ));
            }
            for text in texts.try_iter()? {
                let text: String = text?.extract().map_err(|_| {
                    PyTypeError::new_err("limits have to be strings, such as \"500/1m\"")
                })?;
                limits.push(text.parse::<Limit>().map_err(value_error)?);
            }
        }
        let defaults = Config::new(limits);
        let given = |name, value: Option<Bound<'_, PyAny>>, default| {
            value.map_or(Ok(default), |value| narrow(name, &value))
        };
        let grace = self.abandon_grace.map(|grace| period_ns("abandon_grace", &grace));
        let drift = self.clock_drift_ppm.map(|drift| narrow("clock_drift_ppm", &drift));
        Ok(Config {
            paced: self.paced,
            concurrency: given("concurrency", self.concurrency, defaults.concurrency)?,
            queue_capacity: given("queue_capacity", self.queue_capacity, defaults.queue_capacity)?,
            abandon_grace_ns: grace.unwrap_or(Ok(defaults.abandon_grace_ns))?,
            clock_drift_ppm: drift.unwrap_or(Ok(defaults.clock_drift_ppm))?,
            ..defaults
        })
    }
}

/// `rate` per `per_ns`, or per `per`: one of the two, which mean the same.
pub(crate) fn limit(
    make: fn(u64, Duration) -> Result<Limit, LimitError>,
    name: &str,
    rate: Option<Bound<'_, PyAny>>,
    per_ns: Option<Bound<'_, PyAny>>,
    per: Option<Bound<'_, PyAny>>,
) -> PyResult<Option<Limit>> {
    if per_ns.is_some() && per.is_some() {
        return Err(PyTypeError::new_err("per_ns and per are two names of one period; give one"));
    }
    match (rate, per_ns.or(per)) {
        (None, None) => Ok(None),
        (Some(rate), Some(per)) => {
            let per = Duration::from_nanos(period_ns("per_ns", &per)?);
            make(natural(name, &rate)?, per).map(Some).map_err(value_error)
        }
        (Some(_), None) => Err(PyTypeError::new_err(format!(
            "{name} needs its period: per_ns, an int of nanoseconds or a timedelta"
        ))),
        (None, Some(_)) => Err(PyTypeError::new_err(format!("per_ns needs {name} beside it"))),
    }
}

/// An int from 0 up.
pub(crate) fn natural(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let whole = value.cast::<PyInt>().map_err(|_| {
        let kind = value.get_type();
        PyTypeError::new_err(format!("{name} has to be an int, not {kind}"))
    })?;
    whole.extract().map_err(|_| {
        PyValueError::new_err(format!(
            "{name} {value} is out of range: it has to be from 0 to 2^64"
        ))
    })
}

/// An int of nanoseconds, or a timedelta.
pub(crate) fn period_ns(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let Ok(delta) = value.cast::<PyDelta>() else {
        if value.is_instance_of::<PyInt>() {
            return natural(name, value);
        }
        let kind = value.get_type();
        return Err(PyTypeError::new_err(format!(
            "{name} has to be an int of nanoseconds or a timedelta, not {kind}"
        )));
    };
    let seconds = i128::from(delta.get_days()) * 86_400 + i128::from(delta.get_seconds());
    let ns = seconds * 1_000_000_000 + i128::from(delta.get_microseconds()) * 1_000;
    u64::try_from(ns).map_err(|_| {
        PyValueError::new_err(format!("{name} {value} is out of range: it is negative or too long"))
    })
}

fn narrow<T: TryFrom<u64>>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    let number = natural(name, value)?;
    T::try_from(number)
        .map_err(|_| PyValueError::new_err(format!("{name} {number} is out of range")))
}

pub(crate) fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
