//! The whole machine as plain data: out with [`Machine::state`], back in with
//! [`Machine::restore`].
//!
//! A [`State`] has public fields and no invariants, so any format can carry it. [`Machine::restore`]
//! checks all of it: a state that no machine could have had is an error, never a panic and never a
//! burst.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use crate::config::{CONCURRENCY_MAX, Config, ConfigError};
use crate::limit::Limit;
use crate::machine::Machine;
use crate::owners::{Moved, Owners, PermitOut};
use crate::queue::Queue;
use crate::types::{SessionId, Ticket};
use crate::window::{HELD_MAX, Window};
use crate::windows::Load;

/// The version of [`State`] that this crate writes and reads. It changes whenever the meaning of a state does.
pub const STATE_VERSION: u32 = 2;

/// The most completions that [`Machine::coarsen`] leaves in each window, but for 1/16 of slack.
pub const STORED_COMPLETIONS: usize = 4_096;

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
    /// Whether new requests are refused. `false` if there are sessions: each closes for itself.
    pub closed: bool,
    /// Who waits and who holds what, if the machine has sessions.
    pub owners: Option<OwnersState>,
}

/// The owners of all permits and waiters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnersState {
    /// The next session to be opened.
    pub next_session: u64,
    /// The waiters in the queue and the unclaimed, in the order of their tickets: ticket and session.
    pub waiters: Vec<(u64, u64)>,
    /// The permits that are out, in the order of their tickets.
    pub permits: Vec<PermitState>,
    /// The head of the queue that was last told of its opening: its ticket and the opening.
    pub told: Option<(u64, u64)>,
}

/// A permit that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitState {
    /// Its ticket.
    pub ticket: u64,
    /// The session that runs the task.
    pub session: u64,
    /// The weight that it reserves.
    pub weight: u64,
    /// When the session took it.
    pub granted_at: u64,
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
            closed: self.closed && self.owners.is_none(),
            owners: self.owners.as_deref().map(Owners::state),
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

    /// Bounds the size of the state, whatever the rate: in each window, completions that are close to each other count
    /// as the latest of them, until at most [`STORED_COMPLETIONS`] are left (and 1/16 of slack, so that merging is
    /// rare). What is held stays held, up to 1/4,096 of a period longer.
    pub fn coarsen(&mut self) {
        self.windows.all.iter_mut().for_each(|window| window.coarsen(STORED_COMPLETIONS));
    }

    /// Moves to a state that another session has left. The acting session stays the same, closed or not, and its
    /// waiters keep their values; `waiter` makes the value of every other waiter. Returns the acting session's waiters
    /// that are no longer in the queue: granted, or [too heavy](Self::check) for new limits.
    ///
    /// # Errors
    ///
    /// As [`Self::restore`]. Then nothing changes.
    pub fn follow(
        &mut self,
        state: &State,
        waiter: impl FnMut(Ticket) -> T,
    ) -> Result<Vec<Moved<T>>, StateError> {
        let after = Self::restore(state, waiter)?;
        Ok(self.move_to(after))
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
        self.owners = state.owners.as_ref().map(|owners| Box::new(owners.read_back()));
        Ok(())
    }
}

impl Owners {
    fn state(&self) -> OwnersState {
        let plain = |permit: &PermitOut| PermitState {
            ticket: permit.ticket.0,
            session: permit.session.0,
            weight: permit.weight,
            granted_at: permit.granted_at,
        };
        OwnersState {
            next_session: self.next_session,
            waiters: self.waiters.iter().map(|(ticket, session)| (ticket.0, session.0)).collect(),
            permits: self.out.iter().map(plain).collect(),
            told: self.told.map(|(ticket, opening)| (ticket.0, opening)),
        }
    }
}

impl OwnersState {
    fn read_back(&self) -> Owners {
        let permit = |permit: &PermitState| PermitOut {
            ticket: Ticket(permit.ticket),
            session: SessionId(permit.session),
            weight: permit.weight,
            granted_at: permit.granted_at,
        };
        let waiter = |&(ticket, session): &(u64, u64)| (Ticket(ticket), SessionId(session));
        Owners {
            acting: SessionId(u64::MAX),
            next_session: self.next_session,
            waiters: self.waiters.iter().map(waiter).collect(),
            out: self.permits.iter().map(permit).collect(),
            told: self.told.map(|(ticket, opening)| (Ticket(ticket), opening)),
        }
    }

    fn check(&self, state: &State) -> Result<(), &'static str> {
        let tickets = state.unclaimed.iter().chain(&state.queue).map(|(ticket, _)| *ticket);
        require(
            tickets.eq(self.waiters.iter().map(|(ticket, _)| *ticket)),
            "the owners are not those of the waiters",
        )?;
        let permits = &self.permits;
        require(
            permits.is_sorted_by(|a, b| a.ticket < b.ticket),
            "the permits are not in the order of their tickets",
        )?;
        let waits = |ticket| self.waiters.binary_search_by_key(&ticket, |(own, _)| *own).is_ok();
        require(
            permits.iter().all(|permit| permit.ticket < state.next_ticket && !waits(permit.ticket)),
            "a permit has a ticket that it cannot have",
        )?;
        let owners = permits.iter().map(|permit| permit.session);
        let mut owners = owners.chain(self.waiters.iter().map(|(_, session)| *session));
        require(
            owners.all(|session| session < self.next_session),
            "an owner that no session ever was",
        )?;
        require(self.next_session <= u64::MAX / 2, "more sessions opened than ever could be")?;
        let kept = state.unclaimed.len() + state.abandoned.len();
        let kept_weight: u128 = state.kept_weight();
        let weight: u128 = permits.iter().map(|permit| u128::from(permit.weight)).sum();
        require(
            permits.iter().all(|permit| permit.weight > 0)
                && permits.len() == state.running - kept
                && weight == state.running_weight - kept_weight,
            "the permits are not those that are out",
        )?;
        require(!state.closed, "closed for all sessions")
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
        self.check_running()?;
        self.owners.as_ref().map_or(Ok(()), |owners| owners.check(self))
    }

    /// The weight of the running tasks whose grants the machine keeps.
    fn kept_weight(&self) -> u128 {
        self.unclaimed.iter().chain(&self.abandoned).map(|(_, weight)| u128::from(*weight)).sum()
    }

    /// Limits and concurrency may have changed since a task began, so running tasks may exceed both.
    fn check_running(&self) -> Result<(), &'static str> {
        let kept = || self.unclaimed.iter().chain(&self.abandoned).map(|(_, weight)| *weight);
        let kept_weight = self.kept_weight();

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
