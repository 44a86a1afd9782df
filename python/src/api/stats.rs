//! A snapshot of a limiter in numbers.

use pyo3::prelude::*;

/// A limiter in numbers, at one moment.
#[pyclass(frozen, get_all, module = "async_rate_limiter")]
pub struct Stats {
    /// Tasks that hold a permit and have not completed.
    running: usize,
    /// Tasks and callers that wait for their turn.
    queued: usize,
    /// Tasks completed since the limiter was made.
    completed: u64,
    /// What is held of each limit, in the order they were given.
    held: Vec<Py<Held>>,
    /// When the next in line could run, in seconds on the clock of `time.monotonic()`; `None` while
    /// that depends on a running task.
    next_opening: Option<f64>,
}

/// What is held of one limit.
#[pyclass(frozen, get_all, module = "async_rate_limiter")]
pub struct Held {
    /// The limit, as in "10/1s".
    limit: String,
    /// Its rate: the most units that can be held.
    rate: u64,
    /// Its period in nanoseconds.
    per_ns: u64,
    /// The units held, by running tasks and by those that completed within the last period.
    units: u64,
}

impl Stats {
    pub(crate) fn new(
        py: Python<'_>,
        stats: &strict_rate_limiter_core::Snapshot,
        next_opening: Option<f64>,
    ) -> PyResult<Self> {
        let held = stats.held.iter().map(|held| {
            let limit = held.limit;
            let (rate, per_ns) = (limit.rate(), limit.per_ns());
            Py::new(py, Held { limit: limit.to_string(), rate, per_ns, units: held.units })
        });
        Ok(Self {
            running: stats.running,
            queued: stats.queued,
            completed: stats.completed,
            held: held.collect::<PyResult<_>>()?,
            next_opening,
        })
    }
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        let held: Vec<String> = self.held.iter().map(|held| held.get().__repr__()).collect();
        let next_opening = self.next_opening.map_or("None".to_owned(), |at| format!("{at}"));
        format!(
            "Stats(running={}, queued={}, completed={}, held=[{}], next_opening={next_opening})",
            self.running,
            self.queued,
            self.completed,
            held.join(", "),
        )
    }
}

#[pymethods]
impl Held {
    fn __repr__(&self) -> String {
        format!("Held(limit='{}', units={})", self.limit, self.units)
    }
}
