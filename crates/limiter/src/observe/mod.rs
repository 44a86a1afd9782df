//! Observers: spans for `tracing`, numbers for `metrics`. They change nothing.
//!
//! Recorders and subscribers are foreign code (`foreign.rs`). A panic of one keeps nothing from the others.
//! The beginning of a wait or of a task passes a panic on to the caller; its end does not.
//!
//! Each has its feature. Without both, this module is empty and compiles to nothing.

#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "metrics")]
use strict_rate_limiter_core::Held;
use strict_rate_limiter_core::Limit;

use crate::foreign::{FirstPanic, Panic};

/// The parts of a limiter that observers read. Called outside its lock.
pub(crate) trait Observed {
    #[cfg_attr(
        not(any(feature = "tracing", feature = "metrics")),
        expect(dead_code, reason = "there is no observer")
    )]
    fn observer(&self) -> &Observer;

    /// The time. Passes on a panic of the clock as an error.
    #[cfg(feature = "metrics")]
    fn now_ns(&self) -> Result<u64, Panic>;

    /// The units held of each limit now. Panics if the clock does.
    #[cfg(feature = "metrics")]
    fn held(&self) -> Vec<Held>;
}

/// The name of a limiter, and where its numbers go.
pub(crate) struct Observer {
    pub(crate) name: Name,
    #[cfg(feature = "metrics")]
    metrics: metrics::Metrics,
}

/// The name of a limiter in spans, in metrics and in `Debug`: the name that it was given, else its limits.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    text: Arc<str>,
    /// Whether other limiters share the name. Then there are no gauges of held units.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only numbers are shared"))]
    is_shared: bool,
}

/// A waiter, from the first `Pending` until it has its permit or leaves.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    #[cfg(feature = "tracing")]
    span: tracing::Queued,
    #[cfg(feature = "metrics")]
    since_ns: Option<u64>,
}

/// A task that holds a permit. By default it is not observed.
#[derive(Debug, Default)]
pub(crate) struct Running {
    #[cfg(feature = "tracing")]
    pub(crate) span: tracing::Running,
    #[cfg(feature = "metrics")]
    since_ns: Option<u64>,
}

/// How a permit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermitEnd {
    Completed { excess: u64 },
    Abandoned,
    Unused,
}

impl Name {
    pub(crate) fn new(given: Option<Arc<str>>, limits: &[Limit], is_shared: bool) -> Self {
        let by_limits = || limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(" ").into();
        Self { text: given.unwrap_or_else(by_limits), is_shared }
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn into_text(self) -> Arc<str> {
        self.text
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Observer {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "numbers have labels"))]
    pub(crate) fn new(name: Name, limits: &[Limit]) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            metrics: metrics::Metrics::new(&name, limits),
            name,
        }
    }

    /// The held units may have changed.
    #[cfg(feature = "metrics")]
    pub(crate) fn held_changed(&self, limiter: &impl Observed) {
        self.metrics.publish_held(limiter);
    }
}

#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_mut, unused_variables, clippy::unused_self, reason = "some observers are off")
)]
impl Waiting {
    /// It waits. Called at each poll; the first call counts.
    #[inline]
    pub(crate) fn queued(&mut self, limiter: &impl Observed, weight: u64) -> Result<(), Panic> {
        let mut panics = FirstPanic::default();
        #[cfg(feature = "tracing")]
        panics.note(self.span.begin(&limiter.observer().name, weight));
        #[cfg(feature = "metrics")]
        if self.since_ns.is_none()
            && let Some(now) = panics.note(limiter.now_ns())
        {
            self.since_ns = Some(now);
            limiter.observer().metrics.queued(&mut panics);
        }
        panics.into_result()
    }

    /// It has its permit.
    #[inline]
    pub(crate) fn granted(
        &mut self,
        limiter: &impl Observed,
        weight: u64,
        running: &mut Running,
    ) -> Result<(), Panic> {
        let mut panics = FirstPanic::default();
        #[cfg(feature = "metrics")]
        {
            let now = panics.note(limiter.now_ns());
            // A clock may go backwards: then the wait is taken to be 0.
            let since = self.since_ns.take();
            let waited = since.map(|since| now.map_or(0, |now| now.saturating_sub(since)));
            running.since_ns = Some(now.or(since).unwrap_or(0));
            limiter.observer().metrics.granted(limiter, waited, &mut panics);
        }
        #[cfg(feature = "tracing")]
        panics.note(self.span.granted(&limiter.observer().name, weight, &mut running.span));
        panics.into_result()
    }

    /// It leaves without a permit.
    #[inline]
    pub(crate) fn left(&mut self, limiter: &impl Observed) {
        #[cfg(feature = "tracing")]
        self.span.left();
        #[cfg(feature = "metrics")]
        if self.since_ns.take().is_some() {
            limiter.observer().metrics.left();
        }
    }
}

#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables, clippy::unused_self, reason = "some observers are off")
)]
impl Running {
    /// Its permit has ended. Once.
    #[inline]
    pub(crate) fn ended(&mut self, limiter: &impl Observed, end: PermitEnd) {
        #[cfg(feature = "tracing")]
        self.span.ended(end);
        #[cfg(feature = "metrics")]
        if let Some(since) = self.since_ns.take() {
            limiter.observer().metrics.ended(limiter, since, end);
        }
    }

    /// Does some of the task's work inside its span.
    #[inline]
    pub(crate) fn inside<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        work()
    }
}
