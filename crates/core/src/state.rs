//! The whole machine as plain data: out with [`Machine::state`], back in with
//! [`Machine::restore`].
//!
//! A [`State`] has public fields and no invariants, so any format can carry it. [`Machine::restore`]
//! checks all of it: a state that no machine could have had is an error, never a panic and never a
//! burst.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use crate::config::{CONCURRENCY_MAX, Config, ConfigError};
use crate::limit::Limit;
use crate::machine::Machine;
use crate::queue::Queue;
use crate::types::Ticket;
use crate::window::{HELD_MAX, Window};
use crate::windows::Load;

/// The version of [`State`] that this crate writes and reads. It changes whenever the meaning of a state does.
pub const STATE_VERSION: u32 = 1;

/// Everything in a [`Machine`], except the values stored with its waiters. Times are in the same
/// nanoseconds that the machine was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The version of this form: the writer's [`STATE_VERSION`].
    pub version: u32,
    /// The settings.
    pub config: Config,
    /// One window for each limit of the configuration, then one for the pace if it is paced.
    pub windows: Vec<WindowState>,
    /// The queue, first to last: ticket and weight.
    pub queue: Vec<(u64, u64)>,
    /// Waiters granted and not yet claimed, in the order of their tickets: ticket and weight.
    pub unclaimed: Vec<(u64, u64)>,
    /// Abandoned tasks, in the order in which they will complete: completion time and weight.
    pub abandoned: Vec<(u64, u64)>,
    /// Tasks that hold a grant, including the unclaimed and the abandoned.
    pub running: usize,
    /// The sum of their weights.
    pub running_weight: u128,
    /// Tasks completed so far.
    pub completed: u64,
    /// The next ticket to be handed out.
    pub next_ticket: u64,
    /// The latest time seen.
    pub now: u64,
    /// The latest completion stamped.
    pub last_end: u64,
    /// The end of the pause; 0 if there is none.
    pub paused_until: u64,
    /// Whether new requests are refused.
    pub closed: bool,
}

/// One limit's window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowState {
    /// The completions that are still held, oldest first: completion time and units.
    pub completions: Vec<(u64, u64)>,
    /// The units that have expired so far, as far as 64 bits can count.
    pub expired: u64,
    /// Units that the limit did not bound: used without a grant, beyond a grant, or under earlier limits.
    pub unbounded: u64,
}

/// Why a state was not read back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// This crate cannot read this version of a state.
    Version(u32),
    /// Its settings are refused.
    Config(ConfigError),
    /// It contradicts itself; the text says where.
    Corrupt(&'static str),
}

impl<T> Machine<T> {
    /// The whole machine as plain data.
    pub fn state(&self) -> State {
        let plain = |(ticket, weight): (Ticket, u64)| (ticket.0, weight);
        let windows = &self.windows;
        let window = |window: &Window| WindowState {
            completions: window.completions().collect(),
            expired: window.expired,
            unbounded: window.unbounded,
        };
        State {
            version: STATE_VERSION,
            config: Config::clone(&windows.config),
            windows: windows.all.iter().map(window).collect(),
            queue: self.queue.waiting().map(plain).collect(),
            unclaimed: self.unclaimed.iter().copied().map(plain).collect(),
            abandoned: windows.abandoned.iter().copied().collect(),
            running: windows.running.tasks,
            running_weight: windows.running.weight,
            completed: windows.completed,
            next_ticket: self.queue.next_ticket().0,
            now: windows.now,
            last_end: windows.last_end,
            paused_until: windows.paused_until,
            closed: self.closed,
        }
    }

    /// Makes a machine from a state. `waiter` makes the value to store with each waiter in the queue.
    ///
    /// Earlier tickets and permits stay valid, and the queue keeps its order. The first `capacity`
    /// waiters are accepted.
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
    /// state.next_ticket = 0;
    /// assert!(matches!(Machine::restore(&state, |_| ()), Err(StateError::Corrupt(_))));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn restore(state: &State, mut waiter: impl FnMut(Ticket) -> T) -> Result<Self, StateError> {
        if state.version != STATE_VERSION {
            return Err(StateError::Version(state.version));
        }
        let mut machine = Self::new(state.config.clone()).map_err(StateError::Config)?;
        machine.read_back(state, &mut waiter).map_err(StateError::Corrupt)?;
        // A machine never keeps a pause or a grace that has ended; a made-up state may.
        machine.windows.catch_up();
        Ok(machine)
    }

    fn read_back(
        &mut self,
        state: &State,
        waiter: &mut impl FnMut(Ticket) -> T,
    ) -> Result<(), &'static str> {
        state.check(self.windows.all.len())?;
        let windows = &mut self.windows;
        for (window, saved) in windows.all.iter_mut().zip(&state.windows) {
            saved.check(state)?;
            window.restore(saved.completions.iter().copied());
            window.expired = saved.expired;
            window.unbounded = saved.unbounded;
        }
        let kept = state.unclaimed.iter().chain(&state.abandoned);
        kept.for_each(|(_, weight)| windows.kept.add(*weight));
        windows.running = Load { tasks: state.running, weight: state.running_weight };
        windows.abandoned = VecDeque::from(state.abandoned.clone());
        windows.completed = state.completed;
        windows.now = state.now;
        windows.last_end = state.last_end;
        windows.paused_until = state.paused_until;
        self.closed = state.closed;
        let tickets = state.unclaimed.iter();
        self.unclaimed = tickets.map(|&(ticket, weight)| (Ticket(ticket), weight)).collect();
        self.queue = Queue::new(state.config.queue_capacity, Ticket(state.next_ticket));
        for &(ticket, weight) in &state.queue {
            require(self.check(weight).is_ok(), "a weight in the queue could never run")?;
            self.queue.push_as(Ticket(ticket), weight, waiter(Ticket(ticket)));
        }
        Ok(())
    }
}

impl State {
    /// The units held of each limit, then of the pace if there is one: by running tasks and by completions.
    pub fn held(&self) -> Vec<u64> {
        let running = Load { tasks: self.running, weight: self.running_weight };
        let limits = self.config.checked_limits().unwrap_or_default();
        let held = |(limit, window): (Limit, &WindowState)| {
            let completed = window.completions.iter().map(|(_, units)| *units);
            completed.fold(running.units(limit.unit()), u64::saturating_add)
        };
        limits.into_iter().zip(&self.windows).map(held).collect()
    }

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
        self.check_running()
    }

    /// Limits and concurrency may have changed since a task began, so running tasks may exceed both.
    fn check_running(&self) -> Result<(), &'static str> {
        let kept = || self.unclaimed.iter().chain(&self.abandoned).map(|(_, weight)| *weight);
        let kept_weight = kept().map(u128::from).sum::<u128>();

        require(self.running <= CONCURRENCY_MAX, "more run than ever could")?;
        let out = self.running.checked_sub(kept().count());
        let out = out.ok_or("more are unclaimed or abandoned than run")? as u128;
        require(
            kept().all(|weight| weight > 0),
            "a weight that runs could never have been granted",
        )?;
        let out_weight = self.running_weight.checked_sub(kept_weight);
        let out_weight =
            out_weight.ok_or("the unclaimed and abandoned weigh more than all that run")?;
        require(out_weight >= out, "running tasks weigh less than 1 each")
    }
}

impl WindowState {
    fn check(&self, state: &State) -> Result<(), &'static str> {
        let completed = self.completions.iter().try_fold(0_u64, |sum, (_, units)| {
            require(*units > 0, "a completion of no units")?;
            sum.checked_add(*units).ok_or("the completions add up to more than can be held")
        })?;
        require(completed <= HELD_MAX, "more is held than ever can be")?;
        require(self.completions.is_sorted_by_key(|(at, _)| at), "completions out of order")?;
        require(
            self.completions.last().is_none_or(|(at, _)| *at <= state.last_end),
            "a completion later than the last one",
        )
    }
}

fn require(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "the state has version {version}; this program reads version {STATE_VERSION}"
                )
            }
            Self::Config(error) => error.fmt(f),
            Self::Corrupt(what) => write!(f, "the state contradicts itself: {what}"),
        }
    }
}

impl core::error::Error for StateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Version(_) | Self::Corrupt(_) => None,
        }
    }
}
