//! Spans for `tracing`: `queued` from joining to the permit, `running` from the permit to the
//! completion. Their parent is the span in which the task was requested. Both have the debug level.

use tracing::span::Entered;
use tracing::{Span, debug_span, field};

use super::{Name, PermitEnd};
use crate::foreign::{self, Panic};

const TARGET: &str = "strict_rate_limiter";

/// The span of a waiter; `None` before it has waited.
#[derive(Debug, Default)]
pub(super) struct Queued(Option<Spans>);

#[derive(Debug)]
struct Spans {
    /// The span in which the task was requested. It may be granted on another thread.
    asked_in: Span,
    _queued: Span,
}

/// The span of a task that runs; none before and after.
#[derive(Debug)]
pub(crate) struct Running(Span);

/// Keeps this thread inside a span until it is dropped, which may be during a panic.
pub(super) struct Inside<'a>(Option<Entered<'a>>);

impl Queued {
    pub(super) fn begin(&mut self, limiter: &Name, weight: u64) -> Result<(), Panic> {
        if self.0.is_none() {
            self.0 = Some(foreign::call(|| Spans {
                asked_in: Span::current(),
                _queued: debug_span!(target: TARGET, "queued", %limiter, weight),
            })?);
        }
        Ok(())
    }

    pub(super) fn granted(
        &mut self,
        limiter: &Name,
        weight: u64,
        running: &mut Running,
    ) -> Result<(), Panic> {
        foreign::call(|| {
            let asked_in = self.0.take().map_or_else(Span::current, |spans| spans.asked_in);
            running.0 = debug_span!(
                target: TARGET,
                parent: asked_in.id(),
                "running",
                %limiter,
                weight,
                end = field::Empty,
                overspent = field::Empty,
            );
        })
    }

    pub(super) fn left(&mut self) {
        foreign::discard(self.0.take());
    }
}

impl Running {
    pub(crate) fn as_span(&self) -> &Span {
        &self.0
    }

    pub(super) fn enter(&self) -> Inside<'_> {
        Inside(Some(self.0.enter()))
    }

    pub(super) fn ended(&mut self, end: PermitEnd) {
        let said = match end {
            PermitEnd::Completed { .. } => "completed",
            PermitEnd::Abandoned => "abandoned",
            PermitEnd::Unused => "unused",
        };
        foreign::discard_panic(|| {
            if let PermitEnd::Completed { excess: excess @ 1.. } = end {
                self.0.record("overspent", excess);
            }
        });
        foreign::discard_panic(|| _ = self.0.record("end", said));
        self.close();
    }

    fn close(&mut self) {
        foreign::discard(std::mem::replace(&mut self.0, Span::none()));
    }
}

impl Default for Running {
    fn default() -> Self {
        Self(Span::none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.left();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        foreign::discard(self.0.take());
    }
}
