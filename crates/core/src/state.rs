//! The whole machine as plain data: out with [`Machine::state`], back in with
//! [`Machine::restore`].
//!
//! A [`State`] has public fields and no invariants, so that any store can hold it and any format
//! can carry it. Whatever comes back in is checked: a state that no machine could have been in is
//! an error, never a panic and never a burst.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use crate::config::{Config, ConfigError};
use crate::limit::Unit;
use crate::machine::Machine;
use crate::queue::Queue;
use crate::types::Ticket;
use crate::window::{HELD_MAX, Window};

/// Everything a [`Machine`] knows, except what its owner left with each waiter. Times are in the
/// same nanoseconds that the machine was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the machine was made from.
    pub config: Config,
    /// One window for each limit of the configuration, then one for the pace if it is paced.
    pub windows: Vec<WindowState>,
    /// The line, first to last: ticket and weight.
    pub queue: Vec<(u64, u64)>,
    /// Granted and not yet claimed, in the order of their tickets: ticket and weight.
    pub unclaimed: Vec<(u64, u64)>,
    /// Abandoned tasks, in the order in which they will complete: that time, and weight.
    pub abandoned: Vec<(u64, u64)>,
    /// Tasks that hold a permit, the unclaimed and the abandoned among them.
    pub running: usize,
    /// Tasks completed so far.
    pub completed: u64,
    /// The next ticket to be handed out.
    pub next_ticket: u64,
    /// The latest time seen.
    pub now: u64,
    /// The latest completion stamped.
    pub last_end: u64,
    /// No grant before this time; 0 when not paused.
    pub paused_until: u64,
    /// Whether new work is refused.
    pub closed: bool,
}

/// One limit's window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowState {
    /// The units held: by running tasks, and by the completions below.
    pub held: u64,
    /// What completed and is still held, oldest first: completion time and units.
    pub completions: Vec<(u64, u64)>,
}

/// Why a state was not read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// The configuration in it does not work.
    Config(ConfigError),
    /// It contradicts itself; the text says where.
    Corrupt(&'static str),
}

impl<T> Machine<T> {
    /// Writes the machine down.
    pub fn state(&self) -> State {
        let plain = |(ticket, weight): (Ticket, u64)| (ticket.to_u64(), weight);
        State {
            config: self.config.clone(),
            windows: self
                .windows
                .iter()
                .map(|window| WindowState {
                    held: window.held(),
                    completions: window.completions().collect(),
                })
                .collect(),
            queue: self.queue.iter().map(plain).collect(),
            unclaimed: self.unclaimed.iter().copied().map(plain).collect(),
            abandoned: self.abandoned.iter().copied().collect(),
            running: self.running,
            completed: self.completed,
            next_ticket: self.queue.next_ticket().to_u64(),
            now: self.now,
            last_end: self.last_end,
            paused_until: self.paused_until,
            closed: self.closed,
        }
    }

    /// Reads a machine back. `waiter` makes what the owner leaves with each waiter in the line.
    ///
    /// Tickets and permits from before stay good, as does the order of the line. The first of the
    /// line, as many as the capacity, are accepted.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use strict_rate_limiter_core::{Config, Limit, Machine, StateError, TicketStatus};
    /// let mut machine = Machine::new(Config::new(["1/1s".parse::<Limit>()?]))?;
    /// let permit = machine.try_grant(5, 1)?;
    /// let waiting = machine.enqueue(1, ())?.ticket;
    ///
    /// let mut state = machine.state();
    /// let mut again: Machine<()> = Machine::restore(&state, |_ticket| ())?;
    /// again.complete(permit, 6, 6, None);
    /// assert_eq!(again.status(waiting), TicketStatus::Queued { accepted: true });
    ///
    /// state.running = 0;
    /// assert!(matches!(Machine::restore(&state, |_| ()), Err(StateError::Corrupt(_))));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn restore(state: &State, mut waiter: impl FnMut(Ticket) -> T) -> Result<Self, StateError> {
        let limits = state.config.checked_limits().map_err(StateError::Config)?;
        state.check(limits.len()).map_err(StateError::Corrupt)?;

        let mut machine = Self::new(state.config.clone()).map_err(StateError::Config)?;
        for (window, saved) in machine.windows.iter_mut().zip(&state.windows) {
            saved.check(window, state).map_err(StateError::Corrupt)?;
            window.restore(saved.held, saved.completions.iter().copied());
        }
        let weighs = |window: &&Window| window.limit().unit() == Unit::Weight;
        let mut weighed = machine.windows.iter().filter(weighs);
        let first = weighed.next().map(Window::running);
        require(
            weighed.all(|window| Some(window.running()) == first),
            "running tasks weigh more for one limit than for another",
        )
        .map_err(StateError::Corrupt)?;
        machine.queue = Queue::new(state.config.queue_capacity, Ticket(state.next_ticket));
        for &(ticket, weight) in &state.queue {
            let weight_is_possible = machine.check(weight).is_ok();
            require(weight_is_possible, "a weight in the queue could never run")
                .map_err(StateError::Corrupt)?;
            machine.queue.push_as(Ticket(ticket), weight, waiter(Ticket(ticket)));
        }
        let tickets = state.unclaimed.iter();
        machine.unclaimed = tickets.map(|&(ticket, weight)| (Ticket(ticket), weight)).collect();
        machine.abandoned = VecDeque::from(state.abandoned.clone());
        let kept = state.unclaimed.iter().chain(&state.abandoned);
        for &(_, weight) in kept {
            require(
                machine.check(weight).is_ok(),
                "a weight that runs could never have been granted",
            )
            .map_err(StateError::Corrupt)?;
            machine.kept_weight = machine.kept_weight.wrapping_add(weight);
        }
        machine.running = state.running;
        machine.completed = state.completed;
        machine.now = state.now;
        machine.last_end = state.last_end;
        machine.paused_until = state.paused_until;
        machine.closed = state.closed;
        // No machine leaves anything that is over by its own time; what was made up may.
        machine.catch_up();
        Ok(machine)
    }
}

impl State {
    fn check(&self, windows: usize) -> Result<(), &'static str> {
        let rising = |pairs: &[(u64, u64)]| pairs.is_sorted_by(|a, b| a.0 < b.0);
        let last_unclaimed = self.unclaimed.last().map(|(ticket, _)| *ticket);
        let first_queued = self.queue.first().map(|(ticket, _)| *ticket);
        let last = self.queue.last().or(self.unclaimed.last()).map(|(ticket, _)| *ticket);

        require(self.windows.len() == windows, "not one window for each limit")?;
        require(rising(&self.queue), "the queue is not in the order of its tickets")?;
        require(rising(&self.unclaimed), "the unclaimed are not in the order of their tickets")?;
        require(
            first_queued.is_none_or(|first| last_unclaimed < Some(first)),
            "an unclaimed ticket is later than one that still waits",
        )?;
        require(
            last.is_none_or(|last| last < self.next_ticket),
            "the next ticket has been handed out already",
        )?;
        require(self.next_ticket <= u64::MAX / 2, "more tickets handed out than ever could be")?;
        require(
            self.abandoned.is_sorted_by_key(|(ends, _)| ends),
            "the abandoned are not in the order of their ends",
        )?;
        require(
            self.unclaimed.len() + self.abandoned.len() <= self.running,
            "more are unclaimed or abandoned than run",
        )?;
        require(self.running <= self.config.concurrency, "more run than may run at once")
    }
}

impl WindowState {
    fn check(&self, window: &Window, state: &State) -> Result<(), &'static str> {
        let limit = window.limit();
        let completed = self.completions.iter().try_fold(0_u64, |sum, (_, units)| {
            require(*units > 0, "a completion of no units")?;
            sum.checked_add(*units).ok_or("the completions add up to more than can be held")
        })?;
        let running = self.held.checked_sub(completed).ok_or("more has completed than is held")?;
        let kept = state.unclaimed.iter().chain(&state.abandoned);
        let known = kept.fold(0_u64, |sum, (_, weight)| sum.saturating_add(limit.units(*weight)));
        let out = state.running - state.unclaimed.len() - state.abandoned.len();

        require(self.held <= HELD_MAX, "more is held than ever can be")?;
        require(self.completions.is_sorted_by_key(|(at, _)| at), "completions out of order")?;
        require(
            self.completions.last().is_none_or(|(at, _)| *at <= state.last_end),
            "a completion later than the last one",
        )?;
        // Each running task took at least 1, and all together took no more than the rate.
        let least = known.saturating_add(out as u64);
        require(running >= known, "less is held than the unclaimed and abandoned took")?;
        require(running >= least, "running tasks hold less than 1 each")?;
        require(running <= limit.rate(), "running tasks hold more than the rate")?;
        require(
            limit.unit() == Unit::Weight || running == least,
            "not one unit held for each running task",
        )
    }
}

fn require(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Corrupt(what) => write!(f, "the state contradicts itself: {what}"),
        }
    }
}

impl core::error::Error for StateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Corrupt(_) => None,
        }
    }
}
