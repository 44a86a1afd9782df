//! The machine: takes requests and completions with the time, returns decisions.
//!
//! # Calling order
//!
//! * **Request**: [`Machine::grant_at_once`] and [`Machine::try_grant`] answer at once and never
//!   overtake a waiter; [`Machine::enqueue`] joins the queue and [`Machine::cancel`] leaves it.
//! * **Drive**: after any change that may have made room, and at the time of the last
//!   [`Decision::LookAgainAt`], call [`Machine::poll`] until it returns neither [`Decision::Grant`]
//!   nor [`Decision::Accept`]. Calling it too early, too late or too often is harmless: a timer decides
//!   when to look, never whether to grant.
//! * **Carry out**: a granted waiter calls [`Machine::claim`] for its [`Grant`], reads the clock no
//!   later than its task starts, and returns the permit through [`Machine::complete`] or
//!   [`Machine::abandon`].
//!
//! # Invariants
//!
//! * The law: for every limit, the held units never exceed the rate, unless a task reported more
//!   than it had reserved; then nothing is granted until the excess has expired.
//! * The queue is strictly first in, first out: only its head is ever looked at.
//! * Time never goes backwards: an earlier `now` counts as the latest one seen.
//! * It fails closed: one function (`has_room`) says whether there is room, and everything that
//!   grants calls it. A permit made up from a number frees no more than a permit that is out can
//!   hold, and nothing if none is out.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::owners::Owners;
use crate::queue::Queue;
use crate::types::{
    Decision, EnqueueError, Enqueued, Grant, RequestError, Ticket, TicketStatus, TryGrantError,
};
use crate::window::Opening;
use crate::windows::Windows;

/// The strict sliding window for any number of limits, with its queue of waiters.
///
/// `T` is a value that the caller stores with each waiter: a waker, a task, nothing.
#[derive(Debug)]
pub struct Machine<T> {
    pub(crate) windows: Windows,
    pub(crate) queue: Queue<T>,
    /// Waiters that were granted and have not claimed their grants, in the order of their tickets.
    pub(crate) unclaimed: VecDeque<(Ticket, u64)>,
    pub(crate) closed: bool,
    /// Who waits and who holds what, if several processes share the machine.
    pub(crate) owners: Option<Box<Owners>>,
}

impl<T> Machine<T> {
    /// A machine that holds nothing yet. Machines that are made from one `Arc` share the settings.
    pub fn new(config: impl Into<Arc<Config>>) -> Result<Self, ConfigError> {
        let config = config.into();
        let queue = Queue::new(config.queue_capacity, Ticket(0));
        let windows = Windows::new(config)?;
        Ok(Self { windows, queue, unclaimed: VecDeque::new(), closed: false, owners: None })
    }

    /// The present settings, with all changes since the machine was made.
    pub fn config(&self) -> &Config {
        &self.windows.config
    }

    /// Whether a task of `weight` could ever run.
    pub fn check(&self, weight: u64) -> Result<(), RequestError> {
        self.windows.check(weight)
    }

    /// Grants if there is room beside everything that was held at the latest `now`. It needs no
    /// `now` itself: held units only become fewer as time passes. `None` does not mean that there is
    /// no room; call [`Self::try_grant`].
    #[inline]
    pub fn grant_at_once(&mut self, weight: u64) -> Option<Grant> {
        let asks_in_turn = weight != 0 && !self.closed && self.queue.is_empty();
        (asks_in_turn && self.windows.has_room(weight)).then(|| {
            let grant = self.windows.take(weight);
            if self.owners.is_some() { self.own(grant) } else { grant }
        })
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

    /// When a task of `weight` that asks now could be granted, if nothing else happens: [`Self::now`] if that is at once.
    /// `None` while it depends on waiters or on running tasks. It changes nothing but the latest time seen.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limit: Limit = "1/20ns".parse()?;
    /// let mut machine = Machine::<()>::new(Config::new([limit]))?;
    /// assert_eq!(machine.opening(5, 1)?, Some(5));
    /// let grant = machine.try_grant(5, 1)?;
    /// assert_eq!(machine.opening(5, 1)?, None);
    /// machine.complete(grant, 5, 5, None);
    /// assert_eq!(machine.opening(5, 1)?, Some(26));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn opening(&mut self, now: u64, weight: u64) -> Result<Option<u64>, RequestError> {
        self.check(weight)?;
        self.windows.advance(now);
        Ok(if self.queue.is_empty() { self.windows.not_before(weight) } else { None })
    }

    /// Whether nothing can be granted before a running task completes, whatever the time.
    pub fn awaits_completion(&self) -> bool {
        self.windows.awaits_completion()
    }

    /// Adds a waiter to the end of the queue.
    #[inline]
    pub fn enqueue(&mut self, weight: u64, waiter: T) -> Result<Enqueued, EnqueueError> {
        self.admit(weight)?;
        let enqueued = self.queue.push(weight, waiter);
        if let Some(owners) = &mut self.owners {
            owners.waits(enqueued.ticket);
        }
        Ok(enqueued)
    }

    /// Whether a waiter of `weight` may join now. If the queue is full, [poll](Self::poll) first, which
    /// may make room.
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

    /// The state of a waiter.
    pub fn status(&self, ticket: Ticket) -> TicketStatus {
        match self.queue.is_accepted(ticket) {
            Some(accepted) => TicketStatus::Queued { accepted },
            None if self.find_unclaimed(ticket).is_some() => TicketStatus::Granted,
            None => TicketStatus::Gone,
        }
    }

    /// The value stored with a waiter in the queue.
    pub fn waiter_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.queue.waiter_mut(ticket)
    }

    /// The values stored with all waiters in the queue, first to last: for a garbage collector that
    /// must visit them.
    pub fn waiters(&self) -> impl Iterator<Item = &T> {
        self.queue.waiters()
    }

    /// The first waiter in the queue.
    pub fn head(&self) -> Option<Ticket> {
        self.queue.head().map(|(ticket, _)| ticket)
    }

    /// The permit of a waiter that was granted. Returns it once.
    #[inline]
    pub fn claim(&mut self, ticket: Ticket) -> Option<Grant> {
        if self.owners.is_some() {
            return self.claim_own(ticket);
        }
        self.take_unclaimed(ticket)
    }

    #[inline]
    pub(crate) fn take_unclaimed(&mut self, ticket: Ticket) -> Option<Grant> {
        let (_, weight) = match self.unclaimed.front() {
            Some((first, _)) if *first == ticket => self.unclaimed.pop_front(),
            _ => self.find_unclaimed(ticket).and_then(|index| self.unclaimed.remove(index)),
        }?;
        Some(self.windows.hand_out(weight))
    }

    /// A waiter leaves. If it is in the queue, it leaves no trace, and its value is returned. If it
    /// was granted and has not claimed its grant, the grant is undone in full. Poll afterwards: others
    /// may move up.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        if let Some(owners) = &mut self.owners
            && !owners.leaves(ticket)
        {
            return None;
        }
        if let Some(permit) = self.take_unclaimed(ticket) {
            self.windows.undo(permit);
            return None;
        }
        self.queue.cancel(ticket)
    }

    /// The waiters that `leaves` names leave the queue, first to last. Poll afterwards: others may move up.
    pub fn cancel_where(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        let waiters = self.queue.waiting().zip(self.queue.waiters());
        let leaving = waiters.filter(|(_, waiter)| leaves(waiter)).map(|((ticket, _), _)| ticket);
        let leaving: Vec<Ticket> = leaving.collect();
        leaving.into_iter().filter_map(|ticket| self.cancel(ticket)).collect()
    }

    /// Undoes a grant whose task never started, as if it had not been made. Poll afterwards. If no
    /// permit is out, this one was made up, and nothing changes.
    pub fn undo(&mut self, permit: Grant) {
        if self.is_out(&permit) {
            self.windows.undo(permit);
        }
    }

    /// A task has ended, however it ended. Poll afterwards.
    ///
    /// A clock with an error bound passes both ends of it. By `now`, no later than the true time,
    /// held units expire. `ended_at`, no earlier than the true time, is when the task counts as
    /// completed. An exact clock passes the same number twice.
    ///
    /// `actual` is the weight that the task turned out to have, if known. Less than reserved: the
    /// rest is free at once. More: it is recorded, and later grants wait for it. Returns the units
    /// used beyond the reservation. (At most the rate is recorded: that already keeps out every other
    /// task until it expires.)
    ///
    /// If no permit is out, this one was [made up](crate::raw::grant) and frees nothing. Its call may
    /// have gone out all the same, so its usage is held like that of any other task.
    #[inline]
    pub fn complete(&mut self, permit: Grant, now: u64, ended_at: u64, actual: Option<u64>) -> u64 {
        if !self.is_out(&permit) {
            return self.windows.complete_stranger(permit, now, ended_at, actual);
        }
        self.windows.complete(permit, now, ended_at, actual)
    }

    /// A task was dropped while it ran. Its call may still be on the wire, so it counts as running for
    /// the configured grace, and then completes. Times as in [`Self::complete`]. Poll afterwards.
    #[inline]
    pub fn abandon(&mut self, permit: Grant, now: u64, ended_at: u64) {
        if !self.is_out(&permit) {
            let grace_ns = self.config().abandon_grace_ns;
            let ended_at = ended_at.max(now).saturating_add(grace_ns);
            self.windows.complete_stranger(permit, now, ended_at, None);
            return;
        }
        self.windows.abandon(permit, now, ended_at);
    }

    /// Decides one thing. See the module's calling order. A time in the decision is always later than
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
            // The queue is empty, but abandoned tasks still end by the clock.
            let next_end = self.windows.abandoned.front();
            return next_end.map_or(Decision::Idle, |(ends, _)| Decision::LookAgainAt(*ends));
        };
        match self.windows.opening(weight) {
            Opening::Now => self.grant_head(),
            Opening::At(at) => Decision::LookAgainAt(at),
            Opening::AfterCompletion => Decision::WaitForCompletion,
        }
    }

    /// Pauses grants until `until`. A later time extends the pause; an earlier one changes nothing;
    /// [`Self::resume`] ends it.
    pub fn pause_until(&mut self, until: u64) {
        self.windows.pause_until(until);
    }

    /// No grant for `pause_ns` from `now`, or from the latest time seen if that is later. As [`Self::pause_until`].
    pub fn pause_for(&mut self, now: u64, pause_ns: u64) {
        self.windows.advance(now);
        self.windows.pause_until(self.windows.now.saturating_add(pause_ns));
    }

    /// The latest time seen.
    pub fn now(&self) -> u64 {
        self.windows.now
    }

    /// Ends a pause now. The limits hold as before. Poll afterwards.
    pub fn resume(&mut self) {
        self.windows.paused_until = 0;
    }

    /// The end of the pause, 0 if there is none, as of the latest `now`.
    pub fn paused_until(&self) -> u64 {
        self.windows.paused_until
    }

    /// Refuses new requests from now on. Waiters in the queue still run.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Closes, empties the queue and returns the waiters' values. Granted tasks still run. If the machine has
    /// sessions, only the acting session's waiters leave, and only it is refused from now on.
    pub fn abort(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.closed = true;
        let left: Vec<T> = match &self.owners {
            None => self.queue.take_all().collect(),
            Some(owners) => {
                let mut queued = owners.own_waiters();
                queued.retain(|ticket| self.queue.is_accepted(*ticket).is_some());
                queued.into_iter().filter_map(|ticket| self.cancel(ticket)).collect()
            }
        };
        left.into_iter()
    }

    /// Whether new requests are refused.
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

    pub(crate) fn find_unclaimed(&self, ticket: Ticket) -> Option<usize> {
        self.unclaimed.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }
}
