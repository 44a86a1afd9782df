//! Deadlines: whether a waiter can still be granted in time.
//!
//! The caller checks [`Machine::admit_by`] before a waiter joins, and [`Machine::misses`] at each
//! look. The machine stores no deadlines: a waiter that has missed its deadline leaves by
//! [`Machine::cancel`], like any other.
//!
//! `admit_by` compares the deadline with a lower bound of the grant. The bound assumes that all waiters
//! ahead in the queue run a task, that no permit is given back unused, that no pause is ended early
//! and that no limit is raised. A task's actual weight is unknown before it ends, so for a limit on
//! weights only completions count. For a limit on tasks each task counts 1, so running tasks and
//! waiters count as well.

use crate::forecast::Steps;
use crate::limit::Unit;
use crate::machine::Machine;
use crate::types::{EnqueueError, Ticket};
use crate::window::Window;

impl<T> Machine<T> {
    /// Whether a task of `weight` that joins the queue now could be granted at `deadline` or before.
    /// Call it before [`Self::enqueue`]; it changes nothing but the latest time seen.
    ///
    /// It refuses only if a grant in time is impossible, provided that all waiters ahead run a task.
    /// The error, [`EnqueueError::TooLate`], has the earliest possible time. Costs `O(log n)` in the
    /// number of completions held, whatever the length of the queue.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, EnqueueError, Limit, Machine};
    /// let limit: Limit = "1/100ns".parse()?;
    /// let mut machine = Machine::new(Config::new([limit]))?;
    /// let running = machine.try_grant(1_000, 1)?;
    /// machine.enqueue(1, "first")?;
    /// // The running task is held for 100 ns from now at least, and the first waiter after it.
    /// assert!(machine.admit_by(1_000, 1, 1_202).is_ok());
    /// let late = machine.admit_by(1_000, 1, 1_201);
    /// assert_eq!(late, Err(EnqueueError::TooLate { not_before: 1_202 }));
    /// # machine.complete(running, 1_000, 1_000, None);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn admit_by(&mut self, now: u64, weight: u64, deadline: u64) -> Result<(), EnqueueError> {
        self.check(weight).map_err(EnqueueError::Request)?;
        if self.closed {
            return Err(EnqueueError::Closed);
        }
        self.windows.advance(now);
        let not_before = self.earliest_grant(weight);
        if not_before > deadline { Err(EnqueueError::TooLate { not_before }) } else { Ok(()) }
    }

    /// Whether a waiter has missed its deadline: the deadline has come, and the waiter is still in the
    /// queue. Call it after [polling](Self::poll) to the end at `now`, so that a grant at exactly the
    /// deadline is made first. `Some`: the waiter must [leave](Self::cancel). The value inside is the
    /// next opening, the earliest grant to the head of the queue; `None` while that depends on running
    /// tasks.
    pub fn misses(&mut self, now: u64, ticket: Ticket, deadline: u64) -> Option<Option<u64>> {
        if now < deadline || self.queue.is_accepted(ticket).is_none() {
            return None;
        }
        self.windows.advance(now);
        Some(self.windows.not_before(self.queue.head().map_or(1, |(_, weight)| weight)))
    }

    /// A task of `weight` that joins the queue now cannot be granted before this time.
    fn earliest_grant(&self, weight: u64) -> u64 {
        let head = self.queue.head().map(|(_, weight)| weight);
        let weighs = |window: &&Window| window.limit().unit() == Unit::Weight;
        let by_weight = self.windows.all.iter().filter(weighs).flat_map(|window| {
            [Some(weight), head].into_iter().flatten().map(|weight| window.opens_no_earlier(weight))
        });
        let counts = self.windows.all.iter().filter(|window| !weighs(window));
        let counts = counts.map(|window| Steps::new(window, 1)).collect();
        let turn = self.queue.len() as u64 + 1;
        by_weight.fold(self.last_of(counts, turn), u64::max)
    }
}
