//! `RateLimiter`, as Python sees it. `push` is in `push.rs`, `WeightedRateLimiter` in `weighted.rs`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use strict_rate_limiter_core::Limit;

use crate::api::control;
use crate::api::permit::{self, Nothing};
use crate::api::stats::Stats;
use crate::blocking;
use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::errors;
use crate::ffi::{self, Finalize};
use crate::operation::{Call, Request, spawn};
use crate::permit::{Permit, is_cancellation};
use crate::scheduler;
use crate::state::{Ending, RateLimiter, State};

impl RateLimiter {
    /// A weight that could run.
    pub(crate) fn checked_weight(&self, name: &str, weight: &Bound<'_, PyAny>) -> PyResult<u64> {
        let weight = config::natural(name, weight)?;
        let checked = self.initialised()?.lock().machine.check(weight);
        checked.map_err(|error| errors::weight(&error))?;
        Ok(weight)
    }

    /// The weight that was asked for, 1 if none was.
    fn weight_or_one(&self, weight: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        self.initialised()?;
        weight.map_or(Ok(1), |weight| self.checked_weight("weight", weight))
    }

    /// What `__init__` does.
    pub(super) fn begin(&self, limit: Option<Limit>, settings: Settings<'_>) -> PyResult<()> {
        let (config, max_pause_ns) = (settings.config(limit)?, settings.max_pause_ns()?);
        let Settings { on_error, on_event, clock, name, history, .. } = settings;
        let clock = clock.map_or_else(Clock::system, |clock| Clock::Given(clock.unbind()));
        let (on_error, on_event) = (on_error.map(Bound::unbind), on_event.map(Bound::unbind));
        let state = State::new(config, name, max_pause_ns, on_error, on_event, clock, spawn)?;
        if let Some(history) = history {
            control::remember(&state, &history)?;
        }
        if !self.initialise(state) {
            return Err(PyRuntimeError::new_err("the limiter is made already"));
        }
        Ok(())
    }
}

#[pymethods]
impl RateLimiter {
    /// Settings come with `__init__`, so that a subclass may choose them.
    #[new]
    #[pyo3(signature = (*args, **kwargs), text_signature = "(rate=None, per_ns=None, *, per=None, \
        limits=(), concurrency=1, paced=False, queue_capacity=None, refuse_when_full=False, \
        abandon_grace=None, clock_drift_ppm=0, max_pause=None, on_error=None, on_event=None, clock=None, name=None, \
        history=None)")]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let _ = (args, kwargs);
        Self::empty()
    }

    #[pyo3(signature = (rate=None, per_ns=None, *, per=None, **settings))]
    fn __init__(
        &self,
        rate: Option<Bound<'_, PyAny>>,
        per_ns: Option<Bound<'_, PyAny>>,
        per: Option<Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let settings = Settings::read("RateLimiter", settings)?;
        self.begin(config::limit(Limit::tasks, "rate", rate, per_ns, per)?, settings)
    }

    /// Run a task in its turn and give its answer, or raise what it raises.
    ///
    /// `task` is called with the arguments behind it; it is a function, or anything that returns an
    /// awaitable. Raises Closed, Aborted, ValueError for a weight that could never run,
    /// `DeadlineExceeded` where no permit comes within `timeout` (at once where that is known), and
    /// WouldDeadlock from inside a task of this limiter that would have to end first. Cancelled while
    /// it waits, it leaves no trace; cancelled while its task runs, it cancels the task, which counts
    /// as its completion.
    #[pyo3(
        signature = (task, /, *args, weight=None, timeout=None, **kwargs),
        text_signature = "($self, task, /, *args, weight=1, timeout=None, **kwargs)",
    )]
    fn run<'py>(
        slf: &Bound<'py, Self>,
        task: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        weight: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !task.is_callable() {
            return Err(errors::not_callable("task", &task));
        }
        let weight = slf.get().weight_or_one(weight)?;
        let timeout_ns = config::timeout_ns(timeout)?;
        let task = with_arguments(task, args, kwargs)?;
        let (limiter, request) = (slf.clone().unbind(), Request::Run(task.unbind()));
        ffi::new(slf.py(), Call::New { limiter, weight, timeout_ns, request })
    }

    /// Wait for the right to run one task, and give it as a Permit, which is held until its
    /// `complete()` or the end of a `with` block. Raises and cancels as `run()` does.
    #[pyo3(
        signature = (weight=None, *, timeout=None),
        text_signature = "($self, weight=1, *, timeout=None)",
    )]
    fn acquire<'py>(
        slf: &Bound<'py, Self>,
        weight: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let weight = slf.get().weight_or_one(weight)?;
        let permit = Permit::new(slf, weight, config::timeout_ns(timeout)?);
        permit::acquire(&Bound::new(slf.py(), permit)?)
    }

    /// The same in a thread that waits, without an event loop. Threads and coroutines wait in one
    /// queue. In a thread whose event loop runs it waits for time alone: where it would wait for other
    /// tasks, which may need that loop, it raises WouldDeadlock.
    #[pyo3(
        signature = (weight=None, *, timeout=None),
        text_signature = "($self, weight=1, *, timeout=None)",
    )]
    fn acquire_blocking<'py>(
        slf: &Bound<'py, Self>,
        weight: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Permit>> {
        let weight = slf.get().weight_or_one(weight)?;
        let permit = Permit::new(slf, weight, config::timeout_ns(timeout)?);
        let permit = Bound::new(slf.py(), permit)?;
        permit::acquire_blocking(&permit)?;
        Ok(permit)
    }

    /// A permit if one can be had right now, else None. It never overtakes a waiter.
    ///
    /// Raises Closed, and ValueError for a weight that could never run.
    #[pyo3(signature = (weight=None), text_signature = "($self, weight=1)")]
    fn try_acquire<'py>(
        slf: &Bound<'py, Self>,
        weight: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, Permit>>> {
        let weight = slf.get().weight_or_one(weight)?;
        let permit = Bound::new(slf.py(), Permit::new(slf, weight, None))?;
        permit.get().request()?;
        Ok(scheduler::try_grant(slf, weight)?.map(|hold| {
            permit.get().hold(hold);
            permit
        }))
    }

    /// A permit of this weight, to be acquired by `async with limiter.weight(5) as permit:`, or by
    /// `with` in a thread. In the block, `permit.actual` may be set to what the task really weighed.
    #[pyo3(
        signature = (weight, /, *, timeout=None),
        text_signature = "($self, weight, /, *, timeout=None)",
    )]
    fn weight<'py>(
        slf: &Bound<'py, Self>,
        weight: &Bound<'py, PyAny>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Permit>> {
        let weight = slf.get().checked_weight("weight", weight)?;
        Bound::new(slf.py(), Permit::new(slf, weight, config::timeout_ns(timeout)?))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().initialised()?;
        let (limiter, request) = (slf.clone().unbind(), Request::Enter);
        ffi::new(slf.py(), Call::New { limiter, weight: 1, timeout_ns: None, request })
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        kind: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (value, traceback);
        leave_block(slf, kind)?;
        Nothing::get(slf.py())
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().initialised()?;
        let hold = blocking::acquire(slf, 1, None)?;
        let caller = slf.get().state().caller(slf.py());
        slf.get().state().lock().enter_blocking(hold, caller);
        Ok(())
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __exit__(
        slf: &Bound<'_, Self>,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (value, traceback);
        slf.get().initialised()?.lock().leave_blocking();
        leave_block(slf, kind)
    }

    /// Limit a function: each call waits for its turn. An async function waits as `run()` does, any
    /// other one blocks its thread. Used as `@limiter`, or as `@limiter(weight=5)`.
    #[pyo3(signature = (function=None, /, *, weight=None, timeout=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: Option<&Bound<'py, PyAny>>,
        weight: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let weight = slf.get().weight_or_one(weight)?;
        config::timeout_ns(timeout)?;
        let decorate = slf.py().import("async_rate_limiter._decorate")?;
        match function {
            Some(function) => decorate.call_method1("limited", (slf, weight, timeout, function)),
            None => decorate.call_method1("limit", (slf, weight, timeout)),
        }
    }

    /// Call a function for each of many inputs under the limiter: `async for answer in limiter.map(fn,
    /// inputs)`. See `async_rate_limiter.map_inputs`, which has the keywords.
    #[pyo3(signature = (function, inputs, **keywords))]
    fn map<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        over_inputs(slf, "map_inputs", (function, inputs), keywords)
    }

    /// The same, with all answers in a list: `answers = await limiter.gather(fn, inputs)`. See
    /// `async_rate_limiter.gather_inputs`.
    #[pyo3(signature = (function, inputs, **keywords))]
    fn gather<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        over_inputs(slf, "gather_inputs", (function, inputs), keywords)
    }

    /// Grant nothing before a time, as when a server answers Retry-After: a float of seconds on the
    /// clock of `time.monotonic()` (which is `loop.time()`), or an aware datetime. Running tasks go on.
    /// A pause that ends earlier than the present one changes nothing; `resume()` ends it.
    fn pause_until(slf: &Bound<'_, Self>, when: &Bound<'_, PyAny>) -> PyResult<()> {
        control::pause_until(slf, when)
    }

    /// Grant nothing for so long from now: a timedelta, seconds, or a text such as "1m". Negative
    /// times count as none.
    fn pause_for(slf: &Bound<'_, Self>, pause: &Bound<'_, PyAny>) -> PyResult<()> {
        control::pause_for(slf, pause)
    }

    /// End the pause now, if there is one. The limits hold as before.
    fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().initialised()?.lock().resume();
        control::drive(slf)
    }

    /// How long the pause lasts from now, in seconds; 0 if there is none.
    fn paused_for(slf: &Bound<'_, Self>) -> PyResult<f64> {
        control::paused_for(slf)
    }

    /// How long to pause, in seconds, after the server refused a call without saying for how long (a
    /// 429 without Retry-After): the shortest period among the limits that have no unit left, or else
    /// the shortest of all.
    fn backoff(slf: &Bound<'_, Self>) -> PyResult<f64> {
        control::backoff(slf)
    }

    /// Enter the server's own count: `used` units of one of the `limits` are in use. What is beyond
    /// our own tasks counts as completed now. It only ever tightens. Returns the units that were
    /// added. Raises ValueError if the limiter has no such limit.
    fn reconcile(
        slf: &Bound<'_, Self>,
        limit: &Bound<'_, PyAny>,
        used: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        control::reconcile(slf, limit, used)
    }

    /// Replace all limits, as in `set_limits(["20/1s", "1000/1h"])`. Running tasks go on, and waiters
    /// keep their order. The new limits hold in windows that began before the change, too: what a
    /// longer period can no longer know counts as completed now. A waiter that is now too heavy gets
    /// a ValueError that names the limit.
    fn set_limits(slf: &Bound<'_, Self>, limits: &Bound<'_, PyAny>) -> PyResult<()> {
        control::set_limits(slf, limits)
    }

    /// Change how many tasks may run at once. If more run already, they go on.
    fn set_concurrency(slf: &Bound<'_, Self>, concurrency: &Bound<'_, PyAny>) -> PyResult<()> {
        control::set_concurrency(slf, concurrency)
    }

    /// What the window holds, for the `history` of a limiter after a restart: tuples of ints, (age in
    /// nanoseconds, number of tasks, their weight). A negative age is how long a task may still run.
    /// Add the time that passes until the restart to each age.
    fn history(slf: &Bound<'_, Self>) -> PyResult<Vec<(i64, u64, u64)>> {
        control::history(slf)
    }

    /// Whether a new limiter would decide the same from now on: nothing runs, waits or is held.
    fn is_like_new(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let state = slf.get().initialised()?;
        let now = state.now(slf.py())?;
        Ok(state.lock().machine.is_like_new(now))
    }

    /// Whether a task of this weight could run right now, before any other.
    #[pyo3(signature = (weight=None), text_signature = "($self, weight=1)")]
    fn bandwidth_available(
        slf: &Bound<'_, Self>,
        weight: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let weight = slf.get().weight_or_one(weight)?;
        control::is_free(slf, weight)
    }

    /// Take no new work. What was accepted still runs.
    fn close(&self) -> PyResult<()> {
        self.initialised()?.lock().machine.close();
        Ok(())
    }

    /// Wait until nothing runs and nobody waits. Raises `DeadlineExceeded` after `timeout`.
    #[pyo3(signature = (*, timeout=None), text_signature = "($self, *, timeout=None)")]
    fn drained<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get().initialised()?;
        let timeout_ns = config::timeout_ns(timeout)?;
        let (limiter, request) = (slf.clone().unbind(), Request::Drained);
        ffi::new(slf.py(), Call::New { limiter, weight: 1, timeout_ns, request })
    }

    /// Close, and wait until all that was accepted has run: for `contextlib.aclosing(limiter)`.
    fn aclose<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().close()?;
        Self::drained(slf, None)
    }

    /// Close, and drop what is still queued. Callers that wait get Aborted; queued tasks, which nobody
    /// waits for, are returned. Running tasks end by themselves.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<PyAny>>> {
        control::abort(slf)
    }

    /// The limiter in numbers.
    fn stats(slf: &Bound<'_, Self>) -> PyResult<Stats> {
        let state = slf.get().initialised()?;
        let now = state.now(slf.py())?;
        let stats = state.lock().machine.stats(now);
        let opening = stats.next_opening.map(|at| state.clock.to_seconds(slf.py(), at));
        Stats::new(slf.py(), &stats, opening.transpose()?)
    }

    /// Whether it takes no new work.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.initialised()?.lock().machine.is_closed())
    }

    /// Its limits, as in "10/1s", in the order they were given.
    #[getter]
    fn limits(&self) -> PyResult<Vec<String>> {
        Ok(self.initialised()?.limits())
    }

    /// The rate of its first limit.
    #[getter]
    pub(super) fn rate(&self) -> PyResult<u64> {
        Ok(self.initialised()?.lock().machine.config().limits[0].rate())
    }

    /// The period of its first limit, in nanoseconds.
    #[getter]
    fn per_ns(&self) -> PyResult<u64> {
        Ok(self.initialised()?.lock().machine.config().limits[0].per_ns())
    }

    /// How many tasks may run at once.
    #[getter]
    fn concurrency(&self) -> PyResult<usize> {
        Ok(self.initialised()?.lock().machine.config().concurrency)
    }

    /// What it is called, if it has a name.
    #[getter]
    fn name(&self) -> PyResult<Option<&str>> {
        Ok(self.initialised()?.name.as_deref())
    }

    fn __reduce_ex__(slf: &Bound<'_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy(&slf.get_type().name()?.to_string()))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().name()?;
        let Ok(state) = slf.get().initialised() else {
            return Ok(format!("<{class}, not made yet>"));
        };
        let name = state.name.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
        let limits = state.limits().join(" + ");
        let inner = state.lock();
        let (running, queued) = inner.machine.load();
        let closed = if inner.machine.is_closed() { ", closed" } else { "" };
        Ok(format!("<{class}{name} {limits}: {running} running, {queued} queued{closed}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }

    fn __clear__(&self) {
        if let Ok(state) = self.initialised() {
            let objects = state.lock().take_objects();
            drop(objects);
        }
    }
}

impl Finalize for RateLimiter {
    fn finalize(this: &Bound<'_, Self>) {
        errors::undisturbed(this.py(), || scheduler::tell_unreachable(this));
    }

    fn finalizer() -> &'static PyOnceLock<Py<PyAny>> {
        static FINALIZER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        &FINALIZER
    }
}

/// Calls what does not need to be native.
fn over_inputs<'py>(
    limiter: &Bound<'py, RateLimiter>,
    name: &str,
    (function, inputs): (&Bound<'py, PyAny>, &Bound<'py, PyAny>),
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    limiter.get().initialised()?;
    let module = limiter.py().import("async_rate_limiter._map")?;
    module.getattr(name)?.call((limiter, function, inputs), keywords)
}

/// Its task with its arguments.
fn with_arguments<'py>(
    task: Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    if args.is_empty() && kwargs.is_none_or(PyDictMethods::is_empty) {
        return Ok(task);
    }
    let py = task.py();
    let mut all = vec![task];
    all.extend(args.iter());
    py.import("functools")?.getattr("partial")?.call(PyTuple::new(py, all)?, kwargs)
}

fn leave_block(limiter: &Bound<'_, RateLimiter>, kind: &Bound<'_, PyAny>) -> PyResult<()> {
    let cancelled = is_cancellation(kind)?;
    let caller = limiter.get().initialised()?.caller(kind.py());
    let hold = limiter.get().state().lock().leave(caller);
    let Some(hold) = hold else {
        return Err(PyRuntimeError::new_err("the limiter was left without being entered"));
    };
    let ending = if cancelled { Ending::Cancelled } else { Ending::COMPLETED };
    scheduler::end(limiter, hold, ending).map(drop)
}
