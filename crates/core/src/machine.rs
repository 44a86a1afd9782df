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
use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::limit::{Limit, Unit};
use crate::queue::Queue;
use crate::types::{
    Decision, EnqueueError, Grant, Place, RequestError, Ticket, TicketStatus, TryGrantError,
};
use crate::window::{Opening, Window};

/// The strict sliding window for any number of limits, with its line of waiters.
///
/// `T` is what the owner keeps with each waiter: a waker, a task, nothing.
#[derive(Debug)]
pub struct Machine<T> {
    pub(crate) config: Config,
    /// One for each limit asked for, and one for the pace if there is one.
    pub(crate) windows: Vec<Window>,
    /// Which of them is the first that counts weights; past the end where none does.
    weighing: usize,
    pub(crate) queue: Queue<T>,
    /// Granted, and not yet claimed by their waiters, in the order of their tickets.
    pub(crate) unclaimed: VecDeque<(Ticket, u64)>,
    /// Dropped while they ran; each completes when its grace is over. In the order of that time.
    pub(crate) abandoned: VecDeque<(u64, u64)>,
    /// Tasks that hold a permit and have not completed, the unclaimed and abandoned among them. The
    /// permits of the others are *out*.
    pub(crate) running: usize,
    /// What the unclaimed and the abandoned weigh together; wraps around. (It does not wherever a
    /// limit counts weights.)
    pub(crate) kept_weight: u64,
    pub(crate) completed: u64,
    pub(crate) now: u64,
    /// The latest completion stamped so far.
    pub(crate) last_end: u64,
    /// 0 when not paused.
    pub(crate) paused_until: u64,
    pub(crate) closed: bool,
}

impl<T> Machine<T> {
    /// A machine that holds nothing yet.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let limits = config.checked_limits()?;
        let weighs = |limit: &Limit| limit.unit() == Unit::Weight;
        let weighing = limits.iter().position(weighs).unwrap_or(limits.len());
        let windows = limits.into_iter().map(|limit| Window::new(limit, config.clock_drift_ppm));
        Ok(Self {
            windows: windows.collect(),
            weighing,
            queue: Queue::new(config.queue_capacity, Ticket(0)),
            config,
            unclaimed: VecDeque::new(),
            abandoned: VecDeque::new(),
            running: 0,
            kept_weight: 0,
            completed: 0,
            now: 0,
            last_end: 0,
            paused_until: 0,
            closed: false,
        })
    }

    /// What the machine was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a task of `weight` could ever run.
    pub fn check(&self, weight: u64) -> Result<(), RequestError> {
        if weight == 0 {
            return Err(RequestError::ZeroWeight);
        }
        let mut limits = self.windows.iter().map(Window::limit);
        match limits.find(|limit| limit.units(weight) > limit.rate()) {
            Some(limit) => Err(RequestError::TooHeavy { weight, limit }),
            None => Ok(()),
        }
    }

    /// Grants where there is room even for everything that was held when the machine last looked
    /// at the time. It needs no `now`: what is held only shrinks as time passes. `None` says
    /// nothing; ask [`Self::try_grant`].
    #[inline]
    pub fn grant_at_once(&mut self, weight: u64) -> Option<Grant> {
        let asks_in_turn = weight != 0 && !self.closed && self.queue.is_empty();
        (asks_in_turn && self.has_room(weight)).then(|| self.take(weight))
    }

    /// Grants now or not at all. Never overtakes a waiter.
    pub fn try_grant(&mut self, now: u64, weight: u64) -> Result<Grant, TryGrantError> {
        self.check(weight).map_err(TryGrantError::Request)?;
        if self.closed {
            return Err(TryGrantError::Closed);
        }
        self.advance(now);
        self.grant_at_once(weight).ok_or_else(|| TryGrantError::Busy {
            not_before: self.not_before(self.queue.head().map_or(weight, |(_, weight)| weight)),
        })
    }

    /// Whether nothing can be granted before a running task completes, whatever the time.
    pub fn awaits_completion(&self) -> bool {
        self.running >= self.config.concurrency && self.abandoned.is_empty()
    }

    /// Joins the end of the line.
    #[inline]
    pub fn enqueue(&mut self, weight: u64, waiter: T) -> Result<Place, EnqueueError> {
        self.check(weight).map_err(EnqueueError::Request)?;
        if self.closed {
            return Err(EnqueueError::Closed);
        }
        Ok(self.queue.push(weight, waiter))
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
        self.kept_weight = self.kept_weight.wrapping_sub(weight);
        Some(Grant::from_weight(weight))
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
        let Some(weight) = self.reserved(permit.into_weight()) else { return };
        self.running -= 1;
        for window in &mut self.windows {
            window.give_back(weight);
        }
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
    /// Where no permit is out, this one was [made up](Grant::from_weight): nothing is freed. A call
    /// may have gone out all the same, so what it used is held like any other task's.
    #[inline]
    pub fn complete(&mut self, permit: Grant, now: u64, ended_at: u64, actual: Option<u64>) -> u64 {
        self.advance(now);
        let ended_at = ended_at.max(self.now);
        let weight = permit.into_weight();
        let Some(reserved) = self.reserved(weight) else {
            return self.record_unknown(actual.unwrap_or(weight), ended_at);
        };
        let actual = actual.unwrap_or(weight.max(reserved));
        self.record(reserved, actual, ended_at);
        actual.saturating_sub(reserved)
    }

    /// A task was dropped while it ran. Its call may still be on the wire: it counts as running for
    /// the configured grace, and completes then. Times as in [`Self::complete`]. Poll afterwards.
    pub fn abandon(&mut self, permit: Grant, now: u64, ended_at: u64) {
        if self.config.abandon_grace_ns == 0 {
            self.complete(permit, now, ended_at, None);
            return;
        }
        self.advance(now);
        let ends = ended_at.max(self.now).saturating_add(self.config.abandon_grace_ns);
        let weight = permit.into_weight();
        let Some(reserved) = self.reserved(weight) else {
            self.record_unknown(weight, ends);
            return;
        };
        if ends <= self.now {
            // The end of time: its grace would never be over.
            self.record(reserved, reserved, ends);
            return;
        }
        let ends = self.abandoned.back().map_or(ends, |(last, _)| ends.max(*last));
        self.abandoned.push_back((ends, reserved));
        self.kept_weight = self.kept_weight.wrapping_add(reserved);
    }

    /// Decides one thing. See the module's calling order. Where it names a time, that is later than
    /// `now`.
    #[inline]
    pub fn poll(&mut self, now: u64) -> Decision<T> {
        self.advance(now);
        if let Some((ticket, _)) = self.queue.accept_next() {
            return Decision::Accept { ticket };
        }
        if self.awaits_completion() && !self.queue.is_empty() {
            return Decision::WaitForCompletion;
        }
        let Some((_, weight)) = self.queue.head() else {
            // Nobody waits; but abandoned tasks still end by the clock.
            let next_end = self.abandoned.front();
            return next_end.map_or(Decision::Idle, |(ends, _)| Decision::LookAgainAt(*ends));
        };
        match self.opening(weight) {
            Opening::Now => self.grant_head(),
            Opening::At(at) => Decision::LookAgainAt(at),
            Opening::AfterCompletion => Decision::WaitForCompletion,
        }
    }

    /// No grant before `until`. A later pause than the present one extends it; an earlier one
    /// changes nothing; [`Self::resume`] ends it.
    pub fn pause_until(&mut self, until: u64) {
        if until > self.now {
            self.paused_until = self.paused_until.max(until);
        }
    }

    /// Ends a pause, whenever it was to end. The limits hold as ever: this makes room only where
    /// nothing but the pause was in the way. Poll afterwards.
    pub fn resume(&mut self) {
        self.paused_until = 0;
    }

    /// Until when it is paused, 0 where it is not: as of the last look at the time.
    pub fn paused_until(&self) -> u64 {
        self.paused_until
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

    /// Moves time on: abandoned tasks whose grace is over complete, what is no longer held expires.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64) {
        // At the same instant nothing can have changed: whatever is stamped ends no earlier.
        if now <= self.now {
            return;
        }
        self.now = now;
        self.catch_up();
    }

    /// Ends and drops whatever is over by now.
    #[inline]
    pub(crate) fn catch_up(&mut self) {
        if self.paused_until <= self.now {
            self.paused_until = 0;
        }
        while let Some((ends, weight)) = self.abandoned.front().copied()
            && ends <= self.now
        {
            self.abandoned.pop_front();
            self.kept_weight = self.kept_weight.wrapping_sub(weight);
            self.record(weight, weight, ends);
        }
        for window in &mut self.windows {
            window.expire(self.now);
        }
    }

    #[inline]
    fn grant_head(&mut self) -> Decision<T> {
        let Some((ticket, weight, waiter)) = self.queue.pop() else { return Decision::Idle };
        let weight = self.take(weight).into_weight();
        self.unclaimed.push_back((ticket, weight));
        self.kept_weight = self.kept_weight.wrapping_add(weight);
        Decision::Grant { ticket, waiter }
    }

    /// The one way to a permit. Needs [`Self::has_room`].
    #[inline]
    fn take(&mut self, weight: u64) -> Grant {
        debug_assert!(self.has_room(weight), "granted without room");
        self.running += 1;
        for window in &mut self.windows {
            window.take(weight);
        }
        Grant::from_weight(weight)
    }

    #[inline]
    fn record(&mut self, reserved: u64, actual: u64, ended_at: u64) {
        self.last_end = self.last_end.max(ended_at);
        self.running -= 1;
        self.completed = self.completed.saturating_add(1);
        for window in &mut self.windows {
            window.complete(reserved, actual, self.last_end);
        }
    }

    /// What a permit that comes back has reserved, `None` where none is out. The caller says its
    /// weight, which core cannot know; but no more can come free than what is held less what every
    /// other running task is known to hold: those kept in here their weights, those out 1 each.
    #[inline]
    fn reserved(&self, weight: u64) -> Option<u64> {
        let others_out =
            (self.running - self.unclaimed.len() - self.abandoned.len()).checked_sub(1)?;
        let others = self.kept_weight.saturating_add(others_out as u64);
        let at_most = |window: &Window| window.running().saturating_sub(others);
        // Where no limit counts weights, the machine knows of none.
        let at_most = self.windows.get(self.weighing).map_or(u64::MAX, at_most);
        Some(weight.min(at_most).max(1))
    }

    /// Whether the law allows a task of `weight`, as of the last look at the time. The one answer:
    /// all that grants asks it.
    #[inline]
    fn has_room(&self, weight: u64) -> bool {
        self.paused_until == 0
            && self.running < self.config.concurrency
            && self.windows.iter().all(|window| window.has_room(weight))
    }

    /// When a task of `weight` could be granted, if it is first and nothing else happens: `Now` where
    /// [`Self::has_room`] says so and nowhere else, or later than now.
    fn opening(&self, weight: u64) -> Opening {
        if self.has_room(weight) {
            return Opening::Now;
        }
        // Where only a completion can make room, the next one that is known to come is the end of
        // an abandoned task's grace.
        let next_known_end = self.abandoned.front().map(|(ends, _)| *ends);
        let mut opens_at = (self.paused_until != 0).then_some(self.paused_until);
        if self.running >= self.config.concurrency {
            let Some(ends) = next_known_end else { return Opening::AfterCompletion };
            opens_at = opens_at.max(Some(ends));
        }
        for window in &self.windows {
            let at = match window.opening(weight) {
                Opening::Now => continue,
                Opening::At(at) => at,
                Opening::AfterCompletion => match next_known_end {
                    Some(ends) => ends,
                    None => return Opening::AfterCompletion,
                },
            };
            opens_at = opens_at.max(Some(at));
        }
        Opening::later(opens_at, self.now, self.windows[0].per_ns())
    }

    pub(crate) fn not_before(&self, weight: u64) -> Option<u64> {
        match self.opening(weight) {
            Opening::Now => Some(self.now),
            Opening::At(at) => Some(at),
            Opening::AfterCompletion => None,
        }
    }

    fn find_unclaimed(&self, ticket: Ticket) -> Option<usize> {
        self.unclaimed.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }
}
