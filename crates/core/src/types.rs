//! What the machine returns: tickets, grants, decisions, refusals, numbers.
//!
//! Plain values that only the machine makes. Nothing here decides anything.

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

use crate::limit::Limit;

/// Identifies a waiter. Later tickets are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// A permit: the right to run one task. It is returned exactly once, so it cannot be copied. Only
/// [`raw::grant`](crate::raw::grant) makes one from a number.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not returned to the machine is held for ever"]
pub struct Grant {
    weight: u64,
    /// The ticket's number and 1, in a machine that has sessions; [`NO_TICKET`] in others.
    ticket: NonZeroU64,
}

/// Greater than the number of any ticket.
const NO_TICKET: NonZeroU64 = NonZeroU64::MAX;

/// One holder or waiter among those that share a machine, such as a process. Later sessions are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

/// What [`Machine::poll`](crate::Machine::poll) decided.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision<T> {
    /// This waiter may run its task. It has left the queue, and its permit is held from now on.
    Grant {
        /// The ticket to [`claim`](crate::Machine::claim) the permit with.
        ticket: Ticket,
        /// The value stored with it.
        waiter: T,
    },
    /// This waiter has moved up into the queue's capacity. It stays in the queue;
    /// [`Machine::waiter_mut`](crate::Machine::waiter_mut) gives access to its value.
    Accept {
        /// The waiter's ticket.
        ticket: Ticket,
    },
    /// No grant before this time, unless a task completes or a waiter leaves: poll again then.
    LookAgainAt(u64),
    /// No grant until a running task completes.
    WaitForCompletion,
    /// The queue is empty.
    Idle,
}

/// A waiter that has joined the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enqueued {
    /// Its ticket from now on.
    pub ticket: Ticket,
    /// Whether it is within the queue's capacity.
    pub accepted: bool,
}

/// The state of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TicketStatus {
    /// In the queue.
    Queued {
        /// Whether it is within the queue's capacity.
        accepted: bool,
    },
    /// Granted and not yet claimed.
    Granted,
    /// Neither: it has claimed its grant, was cancelled or aborted, or never joined.
    Gone,
}

/// Why a weight can never be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The weight is 0: it would take nothing from any limit.
    ZeroWeight,
    /// The weight alone is over a limit.
    TooHeavy {
        /// The requested weight.
        weight: u64,
        /// The limit that it is over.
        limit: Limit,
    },
}

/// Why a waiter could not join the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnqueueError {
    /// It could never be granted.
    Request(RequestError),
    /// The machine was closed.
    Closed,
    /// No grant is possible by its deadline.
    TooLate {
        /// No grant is possible before this time.
        not_before: u64,
    },
    /// The queue is full, and [`Config::refuse_when_full`](crate::Config::refuse_when_full) is set.
    Full,
}

/// Why a permit was not granted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryGrantError {
    /// It could never be granted.
    Request(RequestError),
    /// The machine was closed.
    Closed,
    /// There is no room now, or the queue is not empty.
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
    /// The value stored with it.
    pub waiter: T,
    /// The limit that it is over.
    pub error: RequestError,
    /// Its session, if the machine has [sessions](crate::Machine::open_session).
    pub owner: Option<SessionId>,
}

/// A snapshot of the machine in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Tasks that hold a permit and have not completed.
    pub running: usize,
    /// Waiters in the queue.
    pub queued: usize,
    /// Tasks completed since the machine was made.
    pub completed: u64,
    /// The units held of each limit, in the order of the settings.
    pub held: Vec<Held>,
    /// The next opening: the earliest time at which the head of the queue (a task of weight 1 if the
    /// queue is empty) can be granted. A time that has passed means now; `None` means that it depends on
    /// running tasks.
    pub next_opening: Option<u64>,
}

/// The units held of one limit.
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
        Self { weight, ticket: NO_TICKET }
    }

    /// The same permit, under this ticket.
    pub(crate) fn with_ticket(self, ticket: Ticket) -> Self {
        Self {
            ticket: ticket.0.checked_add(1).and_then(NonZeroU64::new).unwrap_or(NO_TICKET),
            ..self
        }
    }

    /// The permit's ticket, if the machine that granted it has [sessions](crate::Machine::open_session).
    pub fn ticket(&self) -> Option<Ticket> {
        (self.ticket != NO_TICKET).then(|| Ticket(self.ticket.get() - 1))
    }

    /// Spends the permit.
    pub(crate) fn into_weight(self) -> u64 {
        let Self { weight, .. } = self;
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
