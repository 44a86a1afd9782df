//! `RateLimiter` and `WeightedRateLimiter`: what a user calls. `push` is in `raw/push.rs`.

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyDelta};
use pyo3::{PyTraverseError, PyVisit, intern};
use strict_rate_limiter_core::{Limit, TryGrantError};

use crate::error;
use crate::line::{self, Ending, Line, Waiter};
use crate::look;
use crate::permit::{self, Nothing, Permit};
use crate::raw;
use crate::settings::{self, Settings};
use crate::stats::Stats;
use crate::turn::{Turn, Wish};

/// A rate limiter that never lets an interval of length `per` contain more than `rate` tasks,
/// counted until their completion; one at a time, first in, first out.
///
/// `per_ns` (or `per`) is an int of nanoseconds or a timedelta. `limits` adds more limits, as in
/// "500/1m" or "90000w/1m"; all of them hold. `concurrency` tasks may run at once. `paced` spreads
/// tasks evenly over the period. `queue_capacity` bounds the queue: a push then waits for room.
/// `abandon_grace` is how long a cancelled task still counts as running. `clock_drift_ppm` is how
/// much faster than the server's this clock may run. `on_error` is called with what a queued task raised.
/// `clock` returns nanoseconds, as `time.monotonic_ns` does, which is the default.
#[pyclass(frozen, subclass, weakref, module = "async_rate_limiter")]
pub struct RateLimiter {
    pub(crate) line: Line,
}

/// A limiter of weight: tasks of a total weight of at most `allowed_weight` in any interval of
/// length `per_ns`.
#[pyclass(frozen, subclass, weakref, extends = RateLimiter, module = "async_rate_limiter")]
pub struct WeightedRateLimiter;

impl RateLimiter {
    /// A weight that could run.
    pub(crate) fn checked_weight(&self, name: &str, weight: &Bound<'_, PyAny>) -> PyResult<u64> {
        let weight = settings::natural(name, weight)?;
        self.line.check(weight).map_err(|error| error::weight(&error))?;
        Ok(weight)
    }

    /// The weight that was asked for, 1 if none was.
    fn weight_or_one(&self, weight: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        weight.map_or(Ok(1), |weight| self.checked_weight("weight", weight))
    }

    /// What it is called, by its limits.
    pub(crate) fn name(&self) -> String {
        let inner = self.line.lock();
        let limits = inner.machine.config().limits.iter().map(Limit::to_string);
        format!("RateLimiter {}", limits.collect::<Vec<_>>().join(" + "))
    }
}

#[pymethods]
impl RateLimiter {
    #[new]
    #[pyo3(signature = (
        rate=None, per_ns=None, *, per=None, limits=None, concurrency=None, paced=false,
        queue_capacity=None, abandon_grace=None, clock_drift_ppm=None, on_error=None, clock=None,
    ), text_signature = "(rate=None, per_ns=None, *, per=None, limits=(), concurrency=1, \
        paced=False, queue_capacity=None, abandon_grace=None, clock_drift_ppm=0, on_error=None, \
        clock=None)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords, each with a default")]
    fn new(
        rate: Option<Bound<'_, PyAny>>,
        per_ns: Option<Bound<'_, PyAny>>,
        per: Option<Bound<'_, PyAny>>,
        limits: Option<Bound<'_, PyAny>>,
        concurrency: Option<Bound<'_, PyAny>>,
        paced: bool,
        queue_capacity: Option<Bound<'_, PyAny>>,
        abandon_grace: Option<Bound<'_, PyAny>>,
        clock_drift_ppm: Option<Bound<'_, PyAny>>,
        on_error: Option<Bound<'_, PyAny>>,
        clock: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let limit = settings::limit(Limit::tasks, "rate", rate, per_ns, per)?;
        let settings = Settings {
            limit,
            limits,
            paced,
            concurrency,
            queue_capacity,
            abandon_grace,
            clock_drift_ppm,
        };
        Ok(Self { line: Line::new(settings.into_config()?, on_error, clock)? })
    }

    /// Run a task in its turn and give its answer, or raise what it raises.
    ///
    /// `task` takes no arguments; it is a function, or anything that returns an awaitable. Raises
    /// Closed, Aborted, ValueError for a weight that could never run, and WouldDeadlock from inside
    /// a task of this limiter that would have to end first. Cancelled while it waits, it leaves no
    /// trace; cancelled while its task runs, it cancels the task, which counts as its completion.
    #[pyo3(signature = (task, weight=None), text_signature = "($self, task, weight=1)")]
    fn run<'py>(
        slf: &Bound<'py, Self>,
        task: Bound<'py, PyAny>,
        weight: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !task.is_callable() {
            return Err(error::not_callable("task", &task));
        }
        let weight = slf.get().weight_or_one(weight)?;
        let wish = Wish::Run(task.unbind());
        raw::new(slf.py(), Turn::New { limiter: slf.clone().unbind(), weight, wish })
    }

    /// Wait for the right to run one task, and give it as a Permit, which is held until its
    /// `complete()` or the end of a `with` block. Raises and cancels as `run()` does.
    #[pyo3(signature = (weight=None), text_signature = "($self, weight=1)")]
    fn acquire<'py>(
        slf: &Bound<'py, Self>,
        weight: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let weight = slf.get().weight_or_one(weight)?;
        Permit::ask(&Bound::new(slf.py(), Permit::new(slf, weight))?)
    }

    /// A permit if one can be had right now, else None. It never overtakes whoever waits.
    ///
    /// Raises Closed, and ValueError for a weight that could never run.
    #[pyo3(signature = (weight=None), text_signature = "($self, weight=1)")]
    fn try_acquire<'py>(
        slf: &Bound<'py, Self>,
        weight: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, Permit>>> {
        line::near_home(slf)?;
        let weight = slf.get().weight_or_one(weight)?;
        let permit = Bound::new(slf.py(), Permit::new(slf, weight))?;
        match slf.get().line.try_grant(slf.py(), weight)? {
            Ok(granted) => {
                permit.get().hold(granted);
                Ok(Some(permit))
            }
            Err(TryGrantError::Busy { .. }) => Ok(None),
            Err(TryGrantError::Request(error)) => Err(error::weight(&error)),
            Err(_) => Err(error::closed()),
        }
    }

    /// A permit of this weight, to be acquired by `async with limiter.weight(5) as permit:`. In the
    /// block, `permit.actual` may be set to what the task really weighed.
    #[pyo3(signature = (weight, /))]
    fn weight<'py>(
        slf: &Bound<'py, Self>,
        weight: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Permit>> {
        let weight = slf.get().checked_weight("weight", weight)?;
        Bound::new(slf.py(), Permit::new(slf, weight))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let limiter = slf.clone().unbind();
        raw::new(slf.py(), Turn::New { limiter, weight: 1, wish: Wish::Enter })
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        kind: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (value, traceback);
        let cancelled = permit::is_cancellation(kind)?;
        if !slf.get().line.lock().leave() {
            return Err(PyRuntimeError::new_err("the limiter was left without being entered"));
        }
        let ending = if cancelled { Ending::Cancelled } else { Ending::COMPLETED };
        line::end(slf, strict_rate_limiter_core::raw::grant(1), ending);
        Nothing::get(slf.py())
    }

    /// Limit an async function: each call waits for its turn, as `run()` does. Used as `@limiter`, or
    /// as `@limiter(weight=5)`.
    #[pyo3(signature = (function=None, /, *, weight=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: Option<&Bound<'py, PyAny>>,
        weight: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let weight = slf.get().weight_or_one(weight)?;
        let decorate = slf.py().import("async_rate_limiter._decorate")?;
        match function {
            Some(function) => decorate.call_method1("limited", (slf, weight, function)),
            None => decorate.call_method1("limit", (slf, weight)),
        }
    }

    /// Grant nothing before a time, as when a server answers Retry-After: a float of seconds on the
    /// clock of `time.monotonic()` (which is `loop.time()`), or an aware datetime. What runs goes on.
    /// A pause that ends earlier than the present one changes nothing.
    fn pause_until(&self, when: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = when.py();
        if let Ok(when) = when.cast::<PyDateTime>() {
            let zone = when.getattr(intern!(py, "tzinfo"))?;
            if zone.is_none() {
                return Err(PyValueError::new_err(
                    "pause_until needs a datetime with a time zone: a naive one is ambiguous",
                ));
            }
            let now = py.get_type::<PyDateTime>().call_method1(intern!(py, "now"), (zone,))?;
            let pause = when.call_method1(intern!(py, "__sub__"), (now,))?;
            let seconds: f64 = pause.call_method0(intern!(py, "total_seconds"))?.extract()?;
            return self.pause_seconds(py, seconds);
        }
        let seconds: f64 = when.extract().map_err(|_| {
            PyTypeError::new_err("pause_until takes seconds of time.monotonic() or a datetime")
        })?;
        let until = self.line.clock.at_seconds(py, seconds)?;
        self.line.lock().machine.pause_until(until);
        Ok(())
    }

    /// Grant nothing for so long from now: a timedelta, or seconds.
    fn pause_for(&self, pause: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = pause.py();
        let seconds = if pause.is_instance_of::<PyDelta>() {
            pause.call_method0(intern!(py, "total_seconds"))?.extract()
        } else {
            pause.extract()
        };
        let seconds: f64 = seconds
            .map_err(|_: PyErr| PyTypeError::new_err("pause_for takes a timedelta or seconds"))?;
        self.pause_seconds(py, seconds)
    }

    /// Take no new work. What was accepted still runs.
    fn close(&self) {
        self.line.lock().machine.close();
    }

    /// Wait until nothing runs and nobody waits.
    fn drained<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let limiter = slf.clone().unbind();
        raw::new(slf.py(), Turn::New { limiter, weight: 1, wish: Wish::Drained })
    }

    /// Close, and wait until all that was accepted has run: for `contextlib.aclosing(limiter)`.
    fn aclose<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().close();
        Self::drained(slf)
    }

    /// Close, and drop what is still queued. Whoever waits gets Aborted; queued tasks, which nobody
    /// waits for, are returned. What runs ends by itself.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<PyAny>>> {
        line::near_home(slf)?;
        let py = slf.py();
        let mut inner = slf.get().line.lock();
        let waiters: Vec<Waiter> = inner.machine.abort().collect();
        let look = inner.wants_look();
        drop(inner);
        let mut tasks = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Task(task, None) => tasks.push(task.into_task()),
                Waiter::Caller(future) | Waiter::Task(_, Some(future)) => {
                    look::refuse(future.bind(py), &error::aborted())?;
                }
            }
        }
        if look {
            look::soon(slf);
        }
        Ok(tasks)
    }

    /// The limiter in numbers.
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        let now = self.line.clock.now(py)?;
        let stats = self.line.lock().machine.stats(now);
        let opening = stats.next_opening.map(|at| self.line.clock.to_seconds(py, at));
        Stats::new(py, &stats, opening.transpose()?)
    }

    /// Whether it takes no new work.
    #[getter]
    fn closed(&self) -> bool {
        self.line.lock().machine.is_closed()
    }

    /// Its limits, as in "10/1s", in the order they were given.
    #[getter]
    fn limits(&self) -> Vec<String> {
        self.line.lock().machine.config().limits.iter().map(Limit::to_string).collect()
    }

    /// How many tasks may run at once.
    #[getter]
    fn concurrency(&self) -> usize {
        self.line.lock().machine.config().concurrency
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let limiter = slf.get();
        let limits = limiter.limits().join(" + ");
        let inner = limiter.line.lock();
        let (running, queued) = inner.machine.load();
        let closed = if inner.machine.is_closed() { ", closed" } else { "" };
        drop(inner);
        let class = slf.get_type().name()?;
        Ok(format!("<{class} {limits}: {running} running, {queued} queued{closed}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.line.traverse(&visit)
    }

    fn __clear__(&self) {
        let name = self.name();
        Python::attach(|py| self.line.clear(py, &name));
    }
}

impl RateLimiter {
    fn pause_seconds(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        if seconds.is_nan() {
            return Err(PyValueError::new_err("a pause cannot be nan"));
        }
        let now = self.line.clock.now(py)?;
        #[expect(clippy::cast_sign_loss, reason = "none is left")]
        // Beyond all time, it is for ever.
        let pause = (seconds.max(0.0) * 1e9).ceil() as u64;
        self.line.lock().machine.pause_until(now.saturating_add(pause));
        Ok(())
    }
}

#[pymethods]
impl WeightedRateLimiter {
    #[new]
    #[pyo3(signature = (
        allowed_weight, per_ns=None, *, per=None, limits=None, concurrency=None,
        paced=false, queue_capacity=None, abandon_grace=None, clock_drift_ppm=None, on_error=None,
        clock=None,
    ), text_signature = "(allowed_weight, per_ns=None, *, per=None, limits=(), concurrency=1, \
        paced=False, queue_capacity=None, abandon_grace=None, clock_drift_ppm=0, on_error=None, \
        clock=None)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords, each with a default")]
    fn new(
        allowed_weight: Bound<'_, PyAny>,
        per_ns: Option<Bound<'_, PyAny>>,
        per: Option<Bound<'_, PyAny>>,
        limits: Option<Bound<'_, PyAny>>,
        concurrency: Option<Bound<'_, PyAny>>,
        paced: bool,
        queue_capacity: Option<Bound<'_, PyAny>>,
        abandon_grace: Option<Bound<'_, PyAny>>,
        clock_drift_ppm: Option<Bound<'_, PyAny>>,
        on_error: Option<Bound<'_, PyAny>>,
        clock: Option<Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let rate = Some(allowed_weight);
        let limit = settings::limit(Limit::weight, "allowed_weight", rate, per_ns, per)?;
        let settings = Settings {
            limit,
            limits,
            paced,
            concurrency,
            queue_capacity,
            abandon_grace,
            clock_drift_ppm,
        };
        let line = Line::new(settings.into_config()?, on_error, clock)?;
        Ok(PyClassInitializer::from(RateLimiter { line }).add_subclass(Self))
    }
}
