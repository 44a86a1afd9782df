//! Spans for `tracing`: `queued` from joining to the permit, `running` from the permit to the
//! completion. Both belong to whatever span the task was asked for in, both at the debug level.

use tracing::{Span, debug_span, field};

use super::{End, Name};

const TARGET: &str = "strict_rate_limiter";

/// The span of somebody who waits, once there is one.
#[derive(Debug, Default)]
pub(super) struct Queued(Option<Spans>);

#[derive(Debug)]
struct Spans {
    /// Where the task was asked for. Its turn may come on another thread.
    asked_in: Span,
    _queued: Span,
}

impl Queued {
    pub(super) fn begin(&mut self, limiter: &Name, weight: u64) {
        self.0.get_or_insert_with(|| Spans {
            asked_in: Span::current(),
            _queued: debug_span!(target: TARGET, "queued", %limiter, weight),
        });
    }

    pub(super) fn granted(&mut self, limiter: &Name, weight: u64) -> Span {
        let asked_in = self.0.take().map_or_else(Span::current, |spans| spans.asked_in);
        debug_span!(
            target: TARGET,
            parent: asked_in.id(),
            "running",
            %limiter,
            weight,
            end = field::Empty,
            overspent = field::Empty,
        )
    }

    pub(super) fn left(&mut self) {
        self.0 = None;
    }
}

pub(super) fn ended(span: &mut Span, end: End) {
    let said = match end {
        End::Completed { excess } => {
            if excess > 0 {
                span.record("overspent", excess);
            }
            "completed"
        }
        End::Abandoned => "abandoned",
        End::Unused => "unused",
    };
    span.record("end", said);
    *span = Span::none();
}
