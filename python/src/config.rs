//! What a limiter is told when it is made: Python's numbers and times, as core's.
//!
//! Whether the numbers make sense is for core to say. Here they only have to be numbers. A plain number of a time is
//! seconds, as everywhere in Python; only what is called `_ns` is in nanoseconds.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt, PyString};
use std::time::Duration;

use strict_rate_limiter_core::{Config, HeldEntry, Limit, LimitError};

use crate::errors;

/// The shortest period that `per_ns` takes: whoever writes less means seconds.
const LEAST_PER_NS: u64 = 1_000;

/// What the keyword arguments of the constructors say, but for the first limit.
#[derive(Default)]
pub(crate) struct Settings<'py> {
    /// More limits, as texts.
    limits: Option<Bound<'py, PyAny>>,
    paced: bool,
    concurrency: Option<Bound<'py, PyAny>>,
    queue_capacity: Option<Bound<'py, PyAny>>,
    refuse_when_full: bool,
    abandon_grace: Option<Bound<'py, PyAny>>,
    clock_drift_ppm: Option<Bound<'py, PyAny>>,
    max_pause: Option<Bound<'py, PyAny>>,
    pub(crate) on_error: Option<Bound<'py, PyAny>>,
    pub(crate) on_event: Option<Bound<'py, PyAny>>,
    pub(crate) clock: Option<Bound<'py, PyAny>>,
    pub(crate) name: Option<String>,
    pub(crate) history: Option<Bound<'py, PyAny>>,
}

impl<'py> Settings<'py> {
    /// From the keyword arguments of a constructor.
    pub(crate) fn read(class: &str, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        let mut settings = Self::default();
        for (name, value) in keywords.into_iter().flatten() {
            let name = name.cast::<PyString>()?.to_cow()?;
            let given = Some(value.clone()).filter(|value| !value.is_none());
            match name.as_ref() {
                "limits" => settings.limits = given,
                "paced" => settings.paced = flag("paced", &value)?,
                "concurrency" => settings.concurrency = given,
                "queue_capacity" => settings.queue_capacity = given,
                "refuse_when_full" => settings.refuse_when_full = flag("refuse_when_full", &value)?,
                "abandon_grace" => settings.abandon_grace = given,
                "clock_drift_ppm" => settings.clock_drift_ppm = given,
                "max_pause" => settings.max_pause = given,
                "on_error" => settings.on_error = callable("on_error", given)?,
                "on_event" => settings.on_event = callable("on_event", given)?,
                "clock" => settings.clock = callable("clock", given)?,
                "name" => settings.name = given.map(|name| text("name", &name)).transpose()?,
                "history" => settings.history = given,
                name => {
                    return Err(PyTypeError::new_err(format!(
                        "{class}() got an unexpected keyword argument '{name}'"
                    )));
                }
            }
        }
        Ok(settings)
    }

    /// The longest pause that is waited for, in nanoseconds.
    pub(crate) fn max_pause_ns(&self) -> PyResult<u64> {
        let max_pause = self.max_pause.as_ref();
        max_pause.map_or(Ok(u64::MAX), |max_pause| time_ns("max_pause", max_pause))
    }

    /// As core takes them, behind this limit.
    pub(crate) fn config(&self, limit: Option<Limit>) -> PyResult<Config> {
        let mut limits = Vec::from_iter(limit);
        if let Some(texts) = &self.limits {
            limits.extend(limit_texts(texts)?);
        }
        let defaults = Config::new(limits);
        let given = |name, value: &Option<Bound<'_, PyAny>>, default| {
            value.as_ref().map_or(Ok(default), |value| narrow(name, value))
        };
        let grace = self.abandon_grace.as_ref().map(|grace| time_ns("abandon_grace", grace));
        let drift = self.clock_drift_ppm.as_ref().map(|drift| narrow("clock_drift_ppm", drift));
        Ok(Config {
            paced: self.paced,
            concurrency: given("concurrency", &self.concurrency, defaults.concurrency)?,
            queue_capacity: given("queue_capacity", &self.queue_capacity, defaults.queue_capacity)?,
            refuse_when_full: self.refuse_when_full,
            abandon_grace_ns: grace.unwrap_or(Ok(defaults.abandon_grace_ns))?,
            clock_drift_ppm: drift.unwrap_or(Ok(defaults.clock_drift_ppm))?,
            ..defaults
        })
    }
}

fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let kind = value.get_type();
    value
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("{name} has to be a bool, not {kind}")))
}

fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let kind = value.get_type();
    value
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("{name} has to be a string, not {kind}")))
}

fn callable<'py>(
    name: &str,
    value: Option<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match value {
        Some(value) if !value.is_callable() => Err(errors::not_callable(name, &value)),
        value => Ok(value),
    }
}

/// Limits as texts.
pub(crate) fn limit_texts(texts: &Bound<'_, PyAny>) -> PyResult<Vec<Limit>> {
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("limits has to be a list of strings, not a string"));
    }
    let limits = texts.try_iter()?.map(|text| limit_text(&text?));
    limits.collect()
}

/// A limit as a text, as in "500/1m".
pub(crate) fn limit_text(text: &Bound<'_, PyAny>) -> PyResult<Limit> {
    let text: String = text
        .extract()
        .map_err(|_| PyTypeError::new_err("limits have to be strings, such as \"500/1m\""))?;
    text.parse::<Limit>().map_err(value_error)
}

/// `rate` per `per_ns`, or per `per`: one of the two.
pub(crate) fn limit(
    make: fn(u64, Duration) -> Result<Limit, LimitError>,
    name: &str,
    rate: Option<Bound<'_, PyAny>>,
    per_ns: Option<Bound<'_, PyAny>>,
    per: Option<Bound<'_, PyAny>>,
) -> PyResult<Option<Limit>> {
    let period = match (per_ns, per) {
        (Some(_), Some(_)) => {
            return Err(PyTypeError::new_err(
                "per_ns and per are two names of one period; give one",
            ));
        }
        (Some(per_ns), None) => Some(period_ns(&per_ns)?),
        (None, Some(per)) => Some(time_ns("per", &per)?),
        (None, None) => None,
    };
    match (rate, period) {
        (None, None) => Ok(None),
        (Some(rate), Some(ns)) => {
            make(natural(name, &rate)?, Duration::from_nanos(ns)).map(Some).map_err(value_error)
        }
        (Some(_), None) => Err(PyTypeError::new_err(format!(
            "{name} needs its period: per, a timedelta or seconds; or per_ns, nanoseconds"
        ))),
        (None, Some(_)) => Err(PyTypeError::new_err(format!("a period needs {name} beside it"))),
    }
}

/// An int from 0 up.
pub(crate) fn natural(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let whole = value.cast::<PyInt>().ok().filter(|value| !value.is_instance_of::<PyBool>());
    let Some(whole) = whole else {
        let kind = value.get_type();
        return Err(PyTypeError::new_err(format!("{name} has to be an int, not {kind}")));
    };
    whole.extract().map_err(|_| {
        PyValueError::new_err(format!(
            "{name} {value} is out of range: it has to be from 0 to 2^64"
        ))
    })
}

/// The original's `per_ns`: an int of nanoseconds, or a timedelta. Other libraries take seconds in its place, and so
/// many nanoseconds would be no limit at all.
fn period_ns(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(delta) = value.cast::<PyDelta>() {
        return delta_ns("per_ns", delta);
    }
    let is_int = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
    if !is_int {
        let kind = value.get_type();
        return Err(PyTypeError::new_err(format!(
            "per_ns has to be an int of nanoseconds or a timedelta, not {kind}; per takes seconds"
        )));
    }
    let ns = natural("per_ns", value)?;
    if (1..LEAST_PER_NS).contains(&ns) {
        return Err(PyValueError::new_err(format!(
            "per_ns={ns} is {ns} ns. For seconds, write per={ns}; for nanoseconds, per=\"{ns}ns\""
        )));
    }
    Ok(ns)
}

/// A time: a timedelta, a number of seconds (also as a text), or a text such as "1m". Rounded up to a nanosecond.
pub(crate) fn time_ns(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(delta) = value.cast::<PyDelta>() {
        return delta_ns(name, delta);
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_cow()?;
        if let Ok(seconds) = text.parse::<f64>() {
            // As in a header of HTTP.
            return seconds_ns(name, value, seconds);
        }
        let limit: Limit = format!("1/{text}").parse().map_err(|_| {
            PyValueError::new_err(format!("{name} {text:?} is no time: write \"1m\" or \"250ms\""))
        })?;
        return Ok(limit.per_ns());
    }
    let is_number = value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
    if !is_number || value.is_instance_of::<PyBool>() {
        let kind = value.get_type();
        return Err(PyTypeError::new_err(format!(
            "{name} has to be a timedelta, a number of seconds or a text such as \"1m\", not {kind}"
        )));
    }
    let out_of_range = || PyValueError::new_err(format!("{name} {value} is out of range"));
    if value.is_instance_of::<PyInt>() {
        let seconds: u64 = value.extract().map_err(|_| out_of_range())?;
        return seconds.checked_mul(1_000_000_000).ok_or_else(out_of_range);
    }
    seconds_ns(name, value, value.extract()?)
}

fn seconds_ns(name: &str, value: &Bound<'_, PyAny>, seconds: f64) -> PyResult<u64> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!("{name} {value} is out of range")));
    }
    #[expect(clippy::cast_sign_loss, reason = "none is negative")]
    // Beyond all time, it is for ever.
    Ok((seconds * 1e9).ceil() as u64)
}

/// A timeout: `None` for none.
pub(crate) fn timeout_ns(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    timeout.map(|timeout| time_ns("timeout", timeout)).transpose()
}

fn delta_ns(name: &str, delta: &Bound<'_, PyDelta>) -> PyResult<u64> {
    let seconds = i128::from(delta.get_days()) * 86_400 + i128::from(delta.get_seconds());
    let ns = seconds * 1_000_000_000 + i128::from(delta.get_microseconds()) * 1_000;
    u64::try_from(ns).map_err(|_| {
        PyValueError::new_err(format!("{name} {delta} is out of range: it is negative or too long"))
    })
}

/// What `history()` returned, as of `now`: tuples of the age in nanoseconds, the number of tasks and their weight.
pub(crate) fn history(entries: &Bound<'_, PyAny>, now: u64) -> PyResult<Vec<HeldEntry>> {
    let entry = |entry: PyResult<Bound<'_, PyAny>>| {
        let (age_ns, tasks, weight): (i64, u64, u64) = entry?.extract().map_err(|_| {
            PyTypeError::new_err("history has to be tuples of ints: (age_ns, tasks, weight)")
        })?;
        let ends_at = now.saturating_add_signed(age_ns.saturating_neg());
        PyResult::Ok(HeldEntry::new(ends_at, weight).with_tasks(tasks))
    };
    entries.try_iter()?.map(entry).collect()
}

pub(crate) fn narrow<T: TryFrom<u64>>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    let number = natural(name, value)?;
    T::try_from(number)
        .map_err(|_| PyValueError::new_err(format!("{name} {number} is out of range")))
}

pub(crate) fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
