//! Telling others what happens: spans for `tracing`, numbers for `metrics`. It only listens.
//!
//! Each comes with its feature. Without both, everything in here is empty and compiles to nothing.

#[cfg(feature = "metrics")]
pub(crate) mod numbers;
#[cfg(feature = "tracing")]
mod spans;

use std::fmt;
use std::sync::Arc;

use strict_rate_limiter_core::Limit;

use crate::shared::Shared;

/// What the limiter is called, and where its numbers go.
pub(crate) struct Observer {
    pub(crate) name: Name,
    #[cfg(feature = "metrics")]
    numbers: numbers::Numbers,
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
    span: spans::Queued,
    #[cfg(feature = "metrics")]
    since_ns: Option<u64>,
}

/// A task with its permit.
#[derive(Debug)]
pub(crate) struct Running {
    #[cfg(feature = "tracing")]
    pub(crate) span: tracing::Span,
    #[cfg(feature = "metrics")]
    since_ns: u64,
}

/// How a permit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
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
            numbers: numbers::Numbers::new(&name, limits),
            name,
        }
    }

    /// How much is held may have changed.
    #[cfg(feature = "metrics")]
    pub(crate) fn held_changed(&self, shared: &Shared) {
        self.numbers.publish_held(shared);
    }
}

#[cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables, clippy::unused_self, reason = "not everyone listens")
)]
impl Waiting {
    /// It waits; told as often as it looks.
    #[inline]
    pub(crate) fn queued(&mut self, shared: &Shared, weight: u64) {
        #[cfg(feature = "tracing")]
        self.span.begin(&shared.observer.name, weight);
        #[cfg(feature = "metrics")]
        if self.since_ns.is_none() {
            self.since_ns = Some(shared.clock.now());
            shared.observer.numbers.queued();
        }
    }

    /// It has its permit.
    #[inline]
    pub(crate) fn granted(&mut self, shared: &Shared, weight: u64) -> Running {
        #[cfg(feature = "metrics")]
        let now = shared.clock.now();
        // A clock may go backwards: then nothing is taken to have passed.
        #[cfg(feature = "metrics")]
        let waited = self.since_ns.take().map(|since| now.saturating_sub(since));
        #[cfg(feature = "metrics")]
        shared.observer.numbers.granted(shared, waited);
        Running {
            #[cfg(feature = "tracing")]
            span: self.span.granted(&shared.observer.name, weight),
            #[cfg(feature = "metrics")]
            since_ns: now,
        }
    }

    /// It goes without a permit.
    #[inline]
    pub(crate) fn left(&mut self, shared: &Shared) {
        #[cfg(feature = "tracing")]
        self.span.left();
        #[cfg(feature = "metrics")]
        if self.since_ns.take().is_some() {
            shared.observer.numbers.left();
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
    pub(crate) fn ended(&mut self, shared: &Shared, end: End) {
        #[cfg(feature = "tracing")]
        spans::ended(&mut self.span, end);
        #[cfg(feature = "metrics")]
        let took = shared.clock.now().saturating_sub(self.since_ns);
        #[cfg(feature = "metrics")]
        shared.observer.numbers.ended(shared, took, end);
    }

    /// Does some of the task's work inside its span.
    #[inline]
    pub(crate) fn inside<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        work()
    }
}
