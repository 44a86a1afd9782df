//! `read_answer`: what an HTTP answer asks of a limiter, for the HTTP clients of the package.
//!
//! The rules are those of `strict-rate-limiter-hints`, which the Rust middleware uses as well. This file only
//! converts: seconds are floats, and `inf` is for ever.

use std::time::{Duration, SystemTime};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use strict_rate_limiter_core::Limit;
use strict_rate_limiter_hints::{self as hints, Count, Heed, Wait};

/// What an HTTP answer asks of a limiter.
///
/// `wait` is the time in seconds to wait before the next request, from the answer's arrival (`inf`: for ever), and
/// `header` names the header that states it. `is_unstated` is whether the answer refuses the request and states no
/// time that is understood. `usages` are the server's windows, by the well-known headers.
#[pyclass(frozen, module = "async_rate_limiter")]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    now: SystemTime,
    heed: Heed,
    #[pyo3(get)]
    usages: Vec<Py<Usage>>,
}

/// The state of one of the server's windows; what the server did not give is None.
///
/// `used` is rounded up and `remaining` down. `window` (its length) and `reset` (from now) are in seconds.
#[pyclass(frozen, get_all, module = "async_rate_limiter")]
pub(crate) struct Usage {
    name: Option<String>,
    window: Option<f64>,
    limit: Option<u64>,
    used: Option<u64>,
    remaining: Option<u64>,
    reset: Option<f64>,
}

/// Read the head of an HTTP answer: its status, and its headers as pairs of strings.
///
/// `now` is the wall clock's time of its arrival, in seconds since 1970, as `time.time()` gives it. `statuses` are
/// those on which `Retry-After` is read, instead of all from 400 up. `used_up` is whether a window without units left
/// asks to wait until its reset, on any status. Values that are not visible ASCII are skipped.
#[pyfunction]
#[pyo3(signature = (status, headers, now, statuses=None, used_up=true),
    text_signature = "(status, headers, now, statuses=None, used_up=True)")]
pub(crate) fn read_answer(
    py: Python<'_>,
    status: u16,
    headers: &Bound<'_, PyAny>,
    now: f64,
    statuses: Option<Vec<u16>>,
    used_up: bool,
) -> PyResult<Answer> {
    let since_1970 = Duration::try_from_secs_f64(now).ok();
    let now = since_1970.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).ok_or_else(
        || PyValueError::new_err(format!("now {now} is out of range: it is in seconds since 1970")),
    )?;
    let mut readable = Vec::new();
    for header in headers.try_iter()? {
        let (name, value) = header?.extract::<(Bound<'_, PyString>, Bound<'_, PyString>)>()?;
        if let (Some(name), Some(value)) = (visible(&name), visible(&value)) {
            readable.push((name, value));
        }
    }
    let heed = Heed::default().used_up(used_up);
    let heed = match statuses {
        Some(statuses) => heed.statuses(statuses),
        None => heed,
    };
    let mut answer = Answer { status, headers: readable, now, heed, usages: Vec::new() };
    let usages = answer.read().usages();
    let usages = usages.into_iter().map(|usage| Py::new(py, Usage::from(usage)));
    answer.usages = usages.collect::<PyResult<_>>()?;
    Ok(answer)
}

/// The text, if a header may hold it: as `HeaderValue::to_str` of Rust's HTTP clients decides.
fn visible(text: &Bound<'_, PyString>) -> Option<String> {
    let text = text.to_cow().ok()?;
    let is_visible = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    is_visible.then(|| text.into_owned())
}

/// The nearest number of seconds that `pause_for` does not read as less; for ever is `inf`.
fn seconds(time: Duration) -> f64 {
    if time == Duration::MAX {
        return f64::INFINITY;
    }
    let nearest = time.as_secs_f64();
    #[expect(clippy::cast_sign_loss, reason = "a Duration is not negative")]
    let read = (nearest * 1e9).ceil() as u128;
    if read < time.as_nanos() { nearest.next_up() } else { nearest }
}

fn count(text: &str) -> PyResult<Count> {
    match text {
        "used" => Ok(Count::Used),
        "remaining" => Ok(Count::Remaining),
        _ => Err(PyValueError::new_err(format!(
            "a count is \"used\" or \"remaining\", not {text:?}"
        ))),
    }
}

impl Answer {
    fn read(&self) -> hints::Answer<'_> {
        let headers = self.headers.iter().map(|(name, value)| (&**name, &**value));
        hints::Answer::new(self.status, headers, self.now)
    }
}

#[pymethods]
impl Answer {
    #[getter]
    fn wait(&self) -> Option<f64> {
        match self.read().wait(&self.heed) {
            Wait::Asked(asked) => Some(seconds(asked.wait)),
            _ => None,
        }
    }

    #[getter]
    fn header(&self) -> Option<&'static str> {
        match self.read().wait(&self.heed) {
            Wait::Asked(asked) => Some(asked.header),
            _ => None,
        }
    }

    #[getter]
    fn is_unstated(&self) -> bool {
        self.read().wait(&self.heed) == Wait::Unstated
    }

    /// The pause to apply, in seconds, and the header that asks for it; None if there is none.
    ///
    /// A refusal that states no time asks for `backoff()` seconds, by the header "refusal".
    fn pause(&self, backoff: &Bound<'_, PyAny>) -> PyResult<Option<(f64, &'static str)>> {
        let mut failed = None;
        let asked = self.read().wait(&self.heed).or_backoff(|| {
            match backoff.call0().and_then(|wait| wait.extract::<f64>()) {
                Ok(wait) => Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX),
                Err(error) => {
                    failed = Some(error);
                    Duration::ZERO
                }
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(asked.map(|asked| (seconds(asked.wait), asked.header))),
        }
    }

    /// The units of a limit, as in "60/1m", that the server counted before this request, by one header; None if the
    /// header says nothing about the limit. `counts` is the meaning of numbers without a name: "used" or "remaining".
    /// `weight` is that of the request, whose own units are not part of the result.
    fn used_before(
        &self,
        header: &str,
        counts: &str,
        limit: &str,
        weight: u64,
    ) -> PyResult<Option<u64>> {
        let count = count(counts)?;
        let limit: Limit =
            limit.parse().map_err(|error| PyValueError::new_err(format!("{error}")))?;
        let own = limit.units(weight);
        Ok(self.read().used_before(header, count, limit.rate(), limit.per(), own))
    }

    fn __repr__(&self) -> String {
        let wait = self.wait().map_or("None".to_owned(), |wait| format!("{wait}"));
        let is_unstated = if self.is_unstated() { "True" } else { "False" };
        format!("Answer(status={}, wait={wait}, is_unstated={is_unstated})", self.status)
    }
}

/// The units of a limit that the server counted before a request of this weight, if it counted `used` with it.
#[pyfunction]
pub(crate) fn used_before(limit: &str, used: u64, weight: u64) -> PyResult<u64> {
    let limit: Limit = limit.parse().map_err(|error| PyValueError::new_err(format!("{error}")))?;
    Ok(hints::used_before(used, limit.rate(), limit.units(weight)))
}

impl From<hints::Usage> for Usage {
    fn from(usage: hints::Usage) -> Self {
        Self {
            name: usage.name,
            window: usage.window.map(seconds),
            limit: usage.limit,
            used: usage.used,
            remaining: usage.remaining,
            reset: usage.reset.map(seconds),
        }
    }
}

#[pymethods]
impl Usage {
    fn __repr__(&self) -> String {
        format!(
            "Usage(name={}, window={}, limit={}, used={}, remaining={}, reset={})",
            shown(self.name.as_ref().map(|name| format!("{name:?}"))),
            shown(self.window),
            shown(self.limit),
            shown(self.used),
            shown(self.remaining),
            shown(self.reset),
        )
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or("None".to_owned(), |value| value.to_string())
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Answer>()?;
    module.add_class::<Usage>()?;
    module.add_function(wrap_pyfunction!(used_before, module)?)?;
    module.add_function(wrap_pyfunction!(read_answer, module)?)
}
