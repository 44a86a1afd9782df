//! What a hook is told of, as Python sees it.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller or a pushed task waits.
    Queued,
    /// A waiter leaves without a permit.
    Left,
    /// A task has its permit.
    Granted,
    /// A task has ended: it returned or failed.
    Completed,
    /// A task was cancelled, or its permit was dropped.
    Abandoned,
    /// A permit was given back: its task never started.
    Unused,
    /// The limiter was paused, or its pause became longer.
    Paused,
    /// A pause was ended.
    Resumed,
}

impl Kind {
    /// Whether a wait has ended, and not a task.
    pub(crate) const fn ends_wait(self) -> bool {
        matches!(self, Self::Granted | Self::Left)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Left => "left",
            Self::Granted => "granted",
            Self::Completed => "completed",
            Self::Abandoned => "abandoned",
            Self::Unused => "unused",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
        }
    }
}

/// Something that has happened in a limiter: what `on_event` is called with.
///
/// Each waiter has one "queued" and then one "granted" or "left". Each permit has one "granted" and
/// then one "completed", "abandoned" or "unused". All events of a task have the same `id`.
#[pyclass(frozen, module = "async_rate_limiter")]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// The limiter.
    #[pyo3(get)]
    pub(crate) limiter: Py<PyAny>,
    /// Tells the tasks of a limiter apart; None for "paused" and "resumed".
    #[pyo3(get)]
    pub(crate) id: Option<u64>,
    /// The weight that the task reserves; None for "paused" and "resumed".
    #[pyo3(get)]
    pub(crate) weight: Option<u64>,
    /// How long it waited, in seconds, of "granted" and "left": from asking to the permit. Else None.
    #[pyo3(get)]
    pub(crate) waited: Option<f64>,
    /// How long the permit was held, in seconds, of "completed", "abandoned" and "unused": from the
    /// permit to the completion. Else None.
    #[pyo3(get)]
    pub(crate) took: Option<f64>,
    /// The units used beyond what was reserved, of "completed".
    #[pyo3(get)]
    pub(crate) excess: u64,
    /// How long the pause is from now, in seconds, of "paused". Else None.
    #[pyo3(get)]
    pub(crate) pause: Option<f64>,
    /// The tasks that hold a permit after this.
    #[pyo3(get)]
    pub(crate) running: usize,
    /// The tasks and callers that wait after this.
    #[pyo3(get)]
    pub(crate) queued: usize,
}

#[pymethods]
impl Event {
    /// What has happened: "queued", "left", "granted", "completed", "abandoned", "unused", "paused" or
    /// "resumed".
    #[getter]
    fn kind(&self) -> &'static str {
        self.kind.name()
    }

    fn __repr__(&self) -> String {
        let mut parts = vec![format!("kind='{}'", self.kind.name())];
        if let (Some(id), Some(weight)) = (self.id, self.weight) {
            parts.push(format!("id={id}, weight={weight}"));
        }
        let times = [("waited", self.waited), ("took", self.took), ("pause", self.pause)];
        let times = times.iter().filter_map(|(name, time)| Some((name, (*time)?)));
        parts.extend(times.map(|(name, seconds)| format!("{name}={seconds}")));
        if self.excess > 0 {
            parts.push(format!("excess={}", self.excess));
        }
        parts.push(format!("running={}, queued={}", self.running, self.queued));
        format!("Event({})", parts.join(", "))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.limiter)
    }
}
