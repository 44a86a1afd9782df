//! How early to wake whoever is first.
//!
//! A thread that sleeps until an instant runs some 50 to 200 µs after it, which is much of a short
//! period. So the head of the line is woken a little ahead of the opening and spends what is left
//! yielding to its executor. How little is learned: a head that comes late asks for more lead, one
//! that comes early gives some back, so that about one in five comes late.
//!
//! This is about *when to look*. Whether to grant is the machine's to say, by the clock.

use std::time::Duration;

const LEAD_MAX_NS: u64 = 300_000;
const LATE_STEP_NS: u64 = 8_000;
const EARLY_STEP_NS: u64 = 2_000;

#[derive(Debug)]
pub(crate) struct Lead {
    ns: u64,
    max_ns: u64,
}

impl Lead {
    /// A lead for real clocks: an eighth of the shortest period at most.
    pub(crate) fn new(shortest_per: Duration) -> Self {
        let eighth = u64::try_from(shortest_per.as_nanos() / 8).unwrap_or(u64::MAX);
        let max_ns = eighth.min(LEAD_MAX_NS);
        Self { ns: max_ns / 2, max_ns }
    }

    /// No lead: for clocks on which nobody comes late.
    pub(crate) fn none() -> Self {
        Self { ns: 0, max_ns: 0 }
    }

    pub(crate) fn ns(&self) -> u64 {
        self.ns
    }

    /// The head of the line, woken ahead of an opening, has come: before it, or after.
    pub(crate) fn learn(&mut self, came_late: bool) {
        self.ns = if came_late {
            self.ns.saturating_add(LATE_STEP_NS).min(self.max_ns)
        } else {
            self.ns.saturating_sub(EARLY_STEP_NS)
        };
    }
}
