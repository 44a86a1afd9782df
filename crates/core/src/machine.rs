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
//! * **Carry out**: whoever was granted calls [`Machine::claim`] for its [`Permit`], reads the
//!   clock no later than its task starts, and hands the permit back through [`Machine::complete`]
//!   or [`Machine::abandon`].
//!
//! # Invariants
//!
//! * The law: for every limit, what is held never exceeds the rate, unless a task reported more
//!   than it had reserved; then nothing is granted until the excess has expired.
//! * The line is served strictly first in, first out: only its head is ever looked at.
//! * Time never goes backwards in here: an earlier `now` counts as the latest one seen.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::answer::{
    Decision, EnqueueError, Held, Permit, Place, RequestError, Stats, TicketStatus, TryGrantError,
};
use crate::config::{Config, ConfigError};
use crate::queue::{Queue, Ticket};
use crate::window::{Opening, Window};

/// The strict sliding window for any number of limits, with its line of waiters.
///
/// `T` is what the owner keeps with each waiter: a waker, a task, nothing.
#[derive(Debug)]
pub struct Machine<T> {
    pub(crate) config: Config,
    /// One for each limit asked for, and one for the pace if there is one.
    pub(crate) windows: Vec<Window>,
    pub(crate) queue: Queue<T>,
    /// Granted, and not yet claimed by their waiters, in the order of their tickets.
    pub(crate) unclaimed: VecDeque<(Ticket, u64)>,
    /// Dropped while they ran; each completes when its grace is over. In the order of that time.
    pub(crate) abandoned: VecDeque<(u64, u64)>,
    /// Tasks that hold a permit and have not completed, the unclaimed and abandoned among them.
    pub(crate) running: usize,
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
        let windows = limits.into_iter().map(|limit| Window::new(limit, config.clock_drift_ppm));
        Ok(Self {
            windows: windows.collect(),
            queue: Queue::new(config.queue_capacity, Ticket(0)),
            config,
            unclaimed: VecDeque::new(),
            abandoned: VecDeque::new(),
            running: 0,
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
    pub fn grant_at_once(&mut self, weight: u64) -> Option<Permit> {
        let asks_in_turn = weight != 0 && !self.closed && self.queue.is_empty();
        (asks_in_turn && self.has_room(weight)).then(|| self.take(weight))
    }

    /// Grants now or not at all. Never overtakes a waiter.
    pub fn try_grant(&mut self, now: u64, weight: u64) -> Result<Permit, TryGrantError> {
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
    pub fn claim(&mut self, ticket: Ticket) -> Option<Permit> {
        let (_, weight) = match self.unclaimed.front() {
            Some((first, _)) if *first == ticket => self.unclaimed.pop_front(),
            _ => self.find_unclaimed(ticket).and_then(|index| self.unclaimed.remove(index)),
        }?;
        Some(Permit::from_weight(weight))
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
    pub fn undo(&mut self, permit: Permit) {
        let weight = permit.into_weight();
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
    #[inline]
    pub fn complete(
        &mut self,
        permit: Permit,
        now: u64,
        ended_at: u64,
        actual: Option<u64>,
    ) -> u64 {
        self.advance(now);
        let reserved = permit.into_weight();
        let actual = actual.unwrap_or(reserved);
        self.record(reserved, actual, ended_at.max(self.now));
        actual.saturating_sub(reserved)
    }

    /// A task was dropped while it ran. Its call may still be on the wire: it counts as running for
    /// the configured grace, and completes then. Times as in [`Self::complete`]. Poll afterwards.
    pub fn abandon(&mut self, permit: Permit, now: u64, ended_at: u64) {
        if self.config.abandon_grace_ns == 0 {
            self.complete(permit, now, ended_at, None);
            return;
        }
        self.advance(now);
        let ends = ended_at.max(self.now).saturating_add(self.config.abandon_grace_ns);
        let ends = self.abandoned.back().map_or(ends, |(last, _)| ends.max(*last));
        self.abandoned.push_back((ends, permit.into_weight()));
    }

    /// Decides one thing. See the module's calling order.
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
        if !self.has_room(weight) {
            match self.opening(weight) {
                Opening::At(at) => return Decision::LookAgainAt(at),
                Opening::AfterCompletion => return Decision::WaitForCompletion,
                Opening::Now => {}
            }
        }
        self.grant_head()
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

    /// How long to pause where the protected system refuses a task and does not say for how long,
    /// in nanoseconds: the shortest period, stretched by the clock drift, among the limits that have
    /// no unit left, running tasks included. Where each has a unit left, the shortest of all
    /// periods. The pace is no limit of the protected system's, and is not among them.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limits: [Limit; 2] = ["10/1s".parse()?, "2/1h".parse()?];
    /// let mut machine = Machine::<()>::new(Config { concurrency: 2, ..Config::new(limits) })?;
    /// let _running = machine.try_grant(0, 1)?;
    /// assert_eq!(machine.backoff_ns(0), 1_000_000_000);
    /// let _running = machine.try_grant(0, 1)?;
    /// assert_eq!(machine.backoff_ns(0), 3_600_000_000_000);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn backoff_ns(&mut self, now: u64) -> u64 {
        self.advance(now);
        let asked_for = &self.windows[..self.config.limits.len()];
        let used_up = asked_for.iter().filter(|window| !window.has_room(1));
        let shortest = used_up.map(Window::per_ns).min();
        let shortest = shortest.or_else(|| asked_for.iter().map(Window::per_ns).min());
        shortest.expect("a machine has at least one limit")
    }

    /// The protected system says that `used` units of a limit (by its place in the configuration)
    /// are in use. What has not completed here it may not have counted yet; so what it has counted
    /// beyond the completions in this window was used by somebody else, and counts as having
    /// completed at `ended_at`. Never more than the rate is counted, and nothing is ever taken back:
    /// this only tightens. Returns the units that were added. Times as in [`Self::complete`].
    ///
    /// # Panics
    ///
    /// If there is no such limit.
    pub fn reconcile(&mut self, now: u64, ended_at: u64, limit: usize, used: u64) -> u64 {
        assert!(limit < self.config.limits.len(), "there is no limit {limit}");
        self.advance(now);
        let window = &mut self.windows[limit];
        let elsewhere = used.min(window.limit().rate()).saturating_sub(window.completed());
        if elsewhere > 0 {
            self.last_end = self.last_end.max(ended_at.max(self.now));
            window.count(elsewhere, self.last_end);
        }
        elsewhere
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

    /// How many tasks run and how many wait. As [`Self::stats`] says it, without a look at the time.
    pub fn load(&self) -> (usize, usize) {
        (self.running, self.queue.len())
    }

    /// Whether nothing runs and nobody waits.
    pub fn is_drained(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }

    /// Whether a machine made just now would decide the same from here on: nothing is held, runs or
    /// waits, and it is neither paused nor closed. Whoever drops it then loosens nothing.
    pub fn is_blank(&mut self, now: u64) -> bool {
        self.advance(now);
        let holds_nothing = self.windows.iter().all(|window| window.held() == 0);
        holds_nothing && self.is_drained() && self.paused_until == 0 && !self.closed
    }

    /// Reads a completion from before this machine began back into its windows, so that a restart
    /// never bursts. Call it before anything is granted, oldest first: a completion earlier than
    /// the one before it is held as long as that one.
    pub fn remember(&mut self, ended_at: u64, weight: u64) {
        self.last_end = self.last_end.max(ended_at);
        for window in &mut self.windows {
            window.remember(weight, self.last_end);
        }
    }

    /// The machine in numbers.
    pub fn stats(&mut self, now: u64) -> Stats {
        self.advance(now);
        let asked_for = &self.windows[..self.config.limits.len()];
        Stats {
            running: self.running,
            queued: self.queue.len(),
            completed: self.completed,
            held: asked_for
                .iter()
                .map(|window| Held { limit: window.limit(), units: window.held() })
                .collect(),
            next_opening: self.not_before(self.queue.head().map_or(1, |(_, weight)| weight)),
        }
    }

    /// Bytes allocated for the window logs.
    pub fn log_bytes(&self) -> usize {
        self.windows.iter().map(Window::log_bytes).sum()
    }

    /// Moves time on: abandoned tasks whose grace is over complete, what is no longer held expires.
    #[inline]
    fn advance(&mut self, now: u64) {
        // At the same instant nothing can have changed: whatever is stamped ends no earlier.
        if now <= self.now {
            return;
        }
        self.now = now;
        if self.paused_until <= self.now {
            self.paused_until = 0;
        }
        while let Some((ends, weight)) = self.abandoned.front().copied()
            && ends <= self.now
        {
            self.abandoned.pop_front();
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
        Decision::Grant { ticket, waiter }
    }

    #[inline]
    fn take(&mut self, weight: u64) -> Permit {
        self.running += 1;
        for window in &mut self.windows {
            window.take(weight);
        }
        Permit::from_weight(weight)
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

    /// Whether the law allows a task of `weight`, as of the last look at the time.
    #[inline]
    fn has_room(&self, weight: u64) -> bool {
        self.paused_until == 0
            && self.running < self.config.concurrency
            && self.windows.iter().all(|window| window.has_room(weight))
    }

    /// When a task of `weight` could be granted, if it is first and nothing else happens.
    fn opening(&self, weight: u64) -> Opening {
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
        opens_at.map_or(Opening::Now, Opening::At)
    }

    fn not_before(&self, weight: u64) -> Option<u64> {
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
