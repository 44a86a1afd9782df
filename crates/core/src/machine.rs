//! The machine: requests and completions go in with the time, decisions come out.
//!
//! # Calling order
//!
//! * **Ask**: [`Machine::grant_at_once`] and [`Machine::try_grant`] answer on the spot and never
//!   overtake a waiter; [`Machine::enqueue`] joins the line and [`Machine::cancel`] leaves it.
//! * **Drive**: after anything that may have made room (and when a time that it named has come),
//!   call [`Machine::poll`] until it no longer answers [`Decision::Grant`] or [`Decision::Accept`].
//!   Calling it too early, too late or too often is harmless: a timer decides when to look, never
//!   whether to grant.
//! * **Carry out**: whoever was granted calls [`Machine::claim`] for its [`Grant`], reads the
//!   clock no later than its task starts, and hands the permit back through [`Machine::complete`]
//!   or [`Machine::abandon`].
//!
//! # Invariants
//!
//! * The law: for every limit, what is held never exceeds the rate, unless a task reported more
//!   than it had reserved; then nothing is granted until the excess has expired.
//! * The line is served strictly first in, first out: only its head is ever looked at.
//! * Time never goes backwards in here: an earlier `now` counts as the latest one seen.
//! * It fails closed: one answer says whether there is room (`has_room`), and everything that
//!   grants asks it. A permit made up from a number frees no more than a permit that is out can
//!   hold, and nothing where none is out.

use alloc::collections::VecDeque;

use crate::config::{Config, ConfigError};
use crate::queue::Queue;
use crate::types::{
    Decision, EnqueueError, Grant, Place, RequestError, Ticket, TicketStatus, TryGrantError,
};
use crate::window::Opening;
use crate::windows::Windows;

/// The strict sliding window for any number of limits, with its queue of waiters.
///
/// `T` is what the owner keeps with each waiter: a waker, a task, nothing.
#[derive(Debug)]
pub struct Machine<T> {
    pub(crate) windows: Windows,
    pub(crate) queue: Queue<T>,
    /// Granted, and not yet claimed by their waiters, in the order of their tickets.
    pub(crate) unclaimed: VecDeque<(Ticket, u64)>,
    pub(crate) closed: bool,
}

impl<T> Machine<T> {
    /// A machine that holds nothing yet.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let queue = Queue::new(config.queue_capacity, Ticket(0));
        let windows = Windows::new(config)?;
        Ok(Self { windows, queue, unclaimed: VecDeque::new(), closed: false })
    }

    /// The settings: those that the machine was made with, but for what was changed since.
    pub fn config(&self) -> &Config {
        &self.windows.config
    }

    /// Whether a task of `weight` could ever run.
    pub fn check(&self, weight: u64) -> Result<(), RequestError> {
        self.windows.check(weight)
    }

    /// Grants where there is room even for everything that was held when the machine last looked
    /// at the time. It needs no `now`: what is held only shrinks as time passes. `None` says
    /// nothing; ask [`Self::try_grant`].
    #[inline]
    pub fn grant_at_once(&mut self, weight: u64) -> Option<Grant> {
        let asks_in_turn = weight != 0 && !self.closed && self.queue.is_empty();
        (asks_in_turn && self.windows.has_room(weight)).then(|| self.windows.take(weight))
    }

    /// Grants now or not at all. Never overtakes a waiter.
    pub fn try_grant(&mut self, now: u64, weight: u64) -> Result<Grant, TryGrantError> {
        self.check(weight).map_err(TryGrantError::Request)?;
        if self.closed {
            return Err(TryGrantError::Closed);
        }
        self.windows.advance(now);
        self.grant_at_once(weight).ok_or_else(|| TryGrantError::Busy {
            not_before: self
                .windows
                .not_before(self.queue.head().map_or(weight, |(_, weight)| weight)),
        })
    }

    /// Whether nothing can be granted before a running task completes, whatever the time.
    pub fn awaits_completion(&self) -> bool {
        self.windows.awaits_completion()
    }

    /// Joins the end of the line.
    #[inline]
    pub fn enqueue(&mut self, weight: u64, waiter: T) -> Result<Place, EnqueueError> {
        self.admit(weight)?;
        Ok(self.queue.push(weight, waiter))
    }

    /// Whether a waiter of `weight` may join now. Where the queue is full, [poll](Self::poll) first:
    /// that may make room.
    #[inline]
    pub fn admit(&self, weight: u64) -> Result<(), EnqueueError> {
        self.check(weight).map_err(EnqueueError::Request)?;
        if self.closed {
            return Err(EnqueueError::Closed);
        }
        let config = self.config();
        if config.refuse_when_full && self.queue.len() >= config.queue_capacity {
            return Err(EnqueueError::Full);
        }
        Ok(())
    }

    /// Where a waiter stands.
    pub fn status(&self, ticket: Ticket) -> TicketStatus {
        match self.queue.is_accepted(ticket) {
            Some(accepted) => TicketStatus::Queued { accepted },
            None if self.find_unclaimed(ticket).is_some() => TicketStatus::Granted,
            None => TicketStatus::Gone,
        }
    }

    /// What a waiter in the line left when it joined.
    pub fn waiter_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.queue.waiter_mut(ticket)
    }

    /// What everyone in the line left, first to last: for an owner that has to trace what it owns.
    pub fn waiters(&self) -> impl Iterator<Item = &T> {
        self.queue.waiters()
    }

    /// Whoever is first in the line.
    pub fn head(&self) -> Option<Ticket> {
        self.queue.head().map(|(ticket, _)| ticket)
    }

    /// The permit of a waiter that was granted. Once.
    #[inline]
    pub fn claim(&mut self, ticket: Ticket) -> Option<Grant> {
        let (_, weight) = match self.unclaimed.front() {
            Some((first, _)) if *first == ticket => self.unclaimed.pop_front(),
            _ => self.find_unclaimed(ticket).and_then(|index| self.unclaimed.remove(index)),
        }?;
        Some(self.windows.hand_out(weight))
    }

    /// A waiter leaves. In the line, it leaves no trace and what it left is handed back; granted
    /// and not yet claimed, the grant is undone in full. Poll afterwards: others may move up.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        if let Some(permit) = self.claim(ticket) {
            self.undo(permit);
            return None;
        }
        self.queue.cancel(ticket)
    }

    /// Takes a grant back whose task never started, as if it had never been. Poll afterwards.
    /// Where no permit is out, this one was made up, and nothing changes.
    pub fn undo(&mut self, permit: Grant) {
        self.windows.undo(permit);
    }

    /// A task has ended, however it ended. Poll afterwards.
    ///
    /// A clock that cannot tell the time exactly passes both ends of its doubt: `now`, no later
    /// than the true time, lets expire what was held; `ended_at`, no earlier than it, is when the
    /// task counts as completed.
    ///
    /// `actual` is the weight that it turned out to have, where that is known. Less than reserved
    /// frees the rest at once; more is recorded, and later grants wait for it. Returns what it
    /// used beyond its reservation. (Beyond the rate the record stops: one rate's worth already
    /// bars every other task until it expires.)
    ///
    /// Where no permit is out, this one was [made up](crate::raw::grant): nothing is freed. A call
    /// may have gone out all the same, so what it used is held like any other task's.
    #[inline]
    pub fn complete(&mut self, permit: Grant, now: u64, ended_at: u64, actual: Option<u64>) -> u64 {
        self.windows.complete(permit, now, ended_at, actual)
    }

    /// A task was dropped while it ran. Its call may still be on the wire: it counts as running for
    /// the configured grace, and completes then. Times as in [`Self::complete`]. Poll afterwards.
    pub fn abandon(&mut self, permit: Grant, now: u64, ended_at: u64) {
        self.windows.abandon(permit, now, ended_at);
    }

    /// Decides one thing. See the module's calling order. Where it names a time, that is later than
    /// `now`.
    #[inline]
    pub fn poll(&mut self, now: u64) -> Decision<T> {
        self.windows.advance(now);
        if let Some((ticket, _)) = self.queue.accept_next() {
            return Decision::Accept { ticket };
        }
        if self.awaits_completion() && !self.queue.is_empty() {
            return Decision::WaitForCompletion;
        }
        let Some((_, weight)) = self.queue.head() else {
            // Nobody waits; but abandoned tasks still end by the clock.
            let next_end = self.windows.abandoned.front();
            return next_end.map_or(Decision::Idle, |(ends, _)| Decision::LookAgainAt(*ends));
        };
        match self.windows.opening(weight) {
            Opening::Now => self.grant_head(),
            Opening::At(at) => Decision::LookAgainAt(at),
            Opening::AfterCompletion => Decision::WaitForCompletion,
        }
    }

    /// No grant before `until`. A later pause than the present one extends it; an earlier one
    /// changes nothing; [`Self::resume`] ends it.
    pub fn pause_until(&mut self, until: u64) {
        self.windows.pause_until(until);
    }

    /// Ends a pause, whenever it was to end. The limits hold as ever: this makes room only where
    /// nothing but the pause was in the way. Poll afterwards.
    pub fn resume(&mut self) {
        self.windows.paused_until = 0;
    }

    /// Until when it is paused, 0 where it is not: as of the last look at the time.
    pub fn paused_until(&self) -> u64 {
        self.windows.paused_until
    }

    /// Refuses new work from now on. What is in the line still runs.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Closes, and hands back everyone in the line. What was granted still runs.
    pub fn abort(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.closed = true;
        self.queue.take_all()
    }

    /// Whether new work is refused.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    #[inline]
    fn grant_head(&mut self) -> Decision<T> {
        let Some((ticket, weight, waiter)) = self.queue.pop() else { return Decision::Idle };
        let weight = self.windows.take(weight).into_weight();
        self.windows.kept.add(weight);
        self.unclaimed.push_back((ticket, weight));
        Decision::Grant { ticket, waiter }
    }

    fn find_unclaimed(&self, ticket: Ticket) -> Option<usize> {
        self.unclaimed.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }
}
