//! Telling others what happens: spans for `tracing`, numbers for `metrics`. It only listens.
//!
//! Recorders and subscribers are foreign code (`foreign.rs`). Everyone is told everything whatever the
//! others do. Only the beginning of a wait or of a task passes a panic on; its end does not.
//!
//! Each comes with its feature. Without both, everything in here is empty and compiles to nothing.

#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

use std::fmt;
use std::sync::Arc;

use strict_rate_limiter_core::Limit;

use crate::foreign::{FirstPanic, Panic};
use crate::inner::Inner;

/// What the limiter is called, and where its numbers go.
pub(crate) struct Observer {
    pub(crate) name: Name,
    #[cfg(feature = "metrics")]
    numbers: metrics::Metrics,
}

/// Names a limiter wherever it is spoken of: as it was given, else by its limits.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    text: Arc<str>,
    /// One of a number of limiters that share the name: what is held of one of them says nothing.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only numbers are shared"))]
    is_shared: bool,
}

/// Somebody who waits, from the first `Pending` to the permit or to leaving.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    #[cfg(feature = "tracing")]
    span: tracing::Queued,
    #[cfg(feature = "metrics")]
    since_ns: Option<u64>,
}

/// A task with its permit; by default one that nobody was told of.
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
            numbers: metrics::Metrics::new(&name, limits),
            name,
        }
    }

    /// How much is held may have changed.
    #[cfg(feature = "metrics")]
    pub(crate) fn held_changed(&self, inner: &Inner) {
        self.numbers.publish_held(inner);
    }
}

#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_mut, unused_variables, clippy::unused_self, reason = "not everyone listens")
)]
impl Waiting {
    /// It waits; told as often as it looks.
    #[inline]
    pub(crate) fn queued(&mut self, inner: &Inner, weight: u64) -> Result<(), Panic> {
        let mut panics = FirstPanic::default();
        #[cfg(feature = "tracing")]
        panics.note(self.span.begin(&inner.observer.name, weight));
        #[cfg(feature = "metrics")]
        if self.since_ns.is_none()
            && let Some(now) = panics.note(inner.clock.now())
        {
            self.since_ns = Some(now);
            inner.observer.numbers.queued(&mut panics);
        }
        panics.into_result()
    }

    /// It has its permit.
    #[inline]
    pub(crate) fn granted(
        &mut self,
        inner: &Inner,
        weight: u64,
        running: &mut Running,
    ) -> Result<(), Panic> {
        let mut panics = FirstPanic::default();
        #[cfg(feature = "metrics")]
        {
            let now = panics.note(inner.clock.now());
            // A clock may go backwards: then nothing is taken to have passed.
            let since = self.since_ns.take();
            let waited = since.map(|since| now.map_or(0, |now| now.saturating_sub(since)));
            running.since_ns = Some(now.or(since).unwrap_or(0));
            inner.observer.numbers.granted(inner, waited, &mut panics);
        }
        #[cfg(feature = "tracing")]
        panics.note(self.span.granted(&inner.observer.name, weight, &mut running.span));
        panics.into_result()
    }

    /// It goes without a permit.
    #[inline]
    pub(crate) fn left(&mut self, inner: &Inner) {
        #[cfg(feature = "tracing")]
        self.span.left();
        #[cfg(feature = "metrics")]
        if self.since_ns.take().is_some() {
            inner.observer.numbers.left();
        }
    }
}

#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables, clippy::unused_self, reason = "not everyone listens")
)]
impl Running {
    /// Its permit has ended. Once.
    #[inline]
    pub(crate) fn ended(&mut self, inner: &Inner, end: PermitEnd) {
        #[cfg(feature = "tracing")]
        self.span.ended(end);
        #[cfg(feature = "metrics")]
        if let Some(since) = self.since_ns.take() {
            inner.observer.numbers.ended(inner, since, end);
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
