//! Deadlines: whether a waiter can still be granted in time.
//!
//! A front that waits no longer than a deadline asks [`Machine::admit_by`] before it joins, and
//! [`Machine::misses`] each time it looks. The machine keeps no deadlines: a waiter that has missed
//! its own leaves by [`Machine::cancel`], as any other does.
//!
//! The first answer is a bound that holds whatever those who run and wait do, except leave without
//! a task: it assumes that everyone ahead in the queue takes its turn, that no permit is handed back
//! unused, that no pause is ended early and that no limit is raised. What a task weighs in the end is not known before it
//! ends, so in a limit on weights only what has completed counts. In a limit on tasks each task is 1,
//! so there those who run and those who wait count as well.

use crate::forecast::Steps;
use crate::limit::Unit;
use crate::machine::Machine;
use crate::types::{EnqueueError, Ticket};
use crate::window::Window;

impl<T> Machine<T> {
    /// Whether a task of `weight` that joined the queue now could be granted at `deadline` or before.
    /// Call it before [`Self::enqueue`]; it changes nothing.
    ///
    /// It errs on the side of waiting: what it refuses would not have been granted in time, as long
    /// as everyone ahead takes its turn. The earliest time is in the error,
    /// [`EnqueueError::TooLate`]. Costs the logarithm of what is held, however long the queue is.
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
    /// queue. Call it when nothing is left to [`poll`](Self::poll) at `now`, so that a grant at exactly
    /// the deadline is made first. `Some`: it is to [leave](Self::cancel), and no grant to the head of
    /// the queue was possible before the time inside, `None` while that depends on running tasks.
    pub fn misses(&mut self, now: u64, ticket: Ticket, deadline: u64) -> Option<Option<u64>> {
        if now < deadline || self.queue.is_accepted(ticket).is_none() {
            return None;
        }
        self.windows.advance(now);
        Some(self.windows.not_before(self.queue.head().map_or(1, |(_, weight)| weight)))
    }

    /// No task of `weight` that joined the queue now could be granted before this.
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
