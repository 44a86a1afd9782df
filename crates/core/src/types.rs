//! What the machine answers: permits, decisions, refusals, numbers.
//!
//! Plain values, made by the machine alone. Nothing here decides anything.

use alloc::vec::Vec;
use core::fmt;

use crate::limit::Limit;

/// A place in the line. Later tickets are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// The right to run one task. Handed back exactly once, so it can be neither copied nor forged
/// except by [`raw::grant`](crate::raw::grant), for a front that keeps it elsewhere.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not handed back is held for ever"]
pub struct Grant {
    weight: u64,
}

/// What [`Machine::poll`](crate::Machine::poll) decided.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision<T> {
    /// This waiter may run its task: it is out of the line and its permit is held from now on.
    Grant {
        /// The ticket to [`claim`](crate::Machine::claim) the permit with.
        ticket: Ticket,
        /// What it left when it joined.
        waiter: T,
    },
    /// This waiter has moved up into the queue's capacity. It stays in the line;
    /// [`Machine::waiter_mut`](crate::Machine::waiter_mut) reaches what it left.
    Accept {
        /// The waiter's ticket.
        ticket: Ticket,
    },
    /// Nothing before this time, unless a task completes or a waiter leaves: look again then.
    LookAgainAt(u64),
    /// Nothing until a running task completes.
    WaitForCompletion,
    /// The line is empty.
    Idle,
}

/// A waiter's place, as it joins the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Its ticket from now on.
    pub ticket: Ticket,
    /// Whether it is within the queue's capacity.
    pub accepted: bool,
}

/// Where a waiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TicketStatus {
    /// In the line.
    Queued {
        /// Whether it is within the queue's capacity.
        accepted: bool,
    },
    /// Granted and not yet claimed.
    Granted,
    /// Neither: it was claimed, cancelled or aborted, or never was.
    Gone,
}

/// Why a weight can never be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// A task of no weight takes nothing and cannot be limited.
    ZeroWeight,
    /// The weight alone is over a limit.
    TooHeavy {
        /// The weight asked for.
        weight: u64,
        /// The limit that it is over.
        limit: Limit,
    },
}

/// Why a waiter could not join the line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnqueueError {
    /// It could never be granted.
    Request(RequestError),
    /// The machine was closed.
    Closed,
    /// It would not be granted by its deadline.
    TooLate {
        /// No grant is possible before this time.
        not_before: u64,
    },
    /// The queue is full, and the [configuration](crate::Config::refuse_when_full) has such a
    /// waiter refused.
    Full,
}

/// Why a permit was not granted on the spot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryGrantError {
    /// It could never be granted.
    Request(RequestError),
    /// The machine was closed.
    Closed,
    /// The law forbids it now, or others are waiting.
    Busy {
        /// No grant is possible before this time; `None` while that depends on running tasks.
        not_before: Option<u64>,
    },
}

/// A waiter that left the queue because it is now over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the waiter is out of the queue: tell it"]
pub struct Refused<T> {
    /// Its ticket.
    pub ticket: Ticket,
    /// What it left when it joined.
    pub waiter: T,
    /// The limit that it is over.
    pub error: RequestError,
}

/// A snapshot of the machine in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Tasks that hold a permit and have not completed.
    pub running: usize,
    /// Waiters in the line.
    pub queued: usize,
    /// Tasks completed since the machine was made.
    pub completed: u64,
    /// What is held of each limit, in the order they were given.
    pub held: Vec<Held>,
    /// When the head of the line could be granted (a task of weight 1 where nobody waits): a time
    /// that has passed means at once, `None` that it depends on running tasks.
    pub next_opening: Option<u64>,
}

/// What is held of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The limit.
    pub limit: Limit,
    /// The units held, by running tasks and by those that completed within the last `per`.
    pub units: u64,
}

impl Grant {
    /// The weight that the permit reserves.
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) const fn of_weight(weight: u64) -> Self {
        Self { weight }
    }

    /// Spends the permit.
    pub(crate) fn into_weight(self) -> u64 {
        let Self { weight } = self;
        weight
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroWeight => write!(f, "weight 0 takes nothing from any limit; the least is 1"),
            Self::TooHeavy { weight, limit } => {
                write!(f, "weight {weight} is over the limit {limit}: it could never run")
            }
        }
    }
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Closed => write!(f, "the limiter is closed"),
            Self::TooLate { not_before } => write!(f, "no grant before {not_before} ns"),
            Self::Full => write!(f, "the queue is full"),
        }
    }
}

impl fmt::Display for TryGrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Closed => write!(f, "the limiter is closed"),
            Self::Busy { not_before: Some(at) } => write!(f, "no grant before {at} ns"),
            Self::Busy { not_before: None } => write!(f, "no grant until a task completes"),
        }
    }
}

impl core::error::Error for RequestError {}
impl core::error::Error for EnqueueError {}
impl core::error::Error for TryGrantError {}
