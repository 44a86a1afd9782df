//! The errors. Their messages name the values.

use std::any::Any;
use std::fmt;
use std::time::Instant;

pub use strict_rate_limiter_core::{ConfigError, LimitError, ParseLimitError, RequestError};
use strict_rate_limiter_core::{EnqueueError, Limit};

use crate::store::StoreError;

/// Why a limiter was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The numbers do not make a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The text is not a limit.
    #[error(transparent)]
    Parse(#[from] ParseLimitError),
    /// The settings contradict each other, or are out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why a limiter's settings were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The settings contradict each other, or are out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The limiter is shared, and the place where its state is kept failed.
    #[error(transparent)]
    Store(StoreError),
}

/// Why a permit was not acquired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The limiter is shared, and the place where its state is kept failed.
    #[error(transparent)]
    Store(StoreError),
    /// No permit of this weight can ever be granted.
    #[error(transparent)]
    Weight(#[from] RequestError),
    /// The limiter was closed before the request.
    #[error("the limiter is closed")]
    Closed,
    /// The limiter was aborted while the request waited.
    #[error("the limiter was aborted while this waited in the queue")]
    Aborted,
    /// The request was made inside a task of the same limiter, and would wait for that task: the task holds
    /// what the request needs.
    #[error(
        "this would wait for ever: the task that asks for a permit holds what it needs; push to \
         the limiter instead, or raise its concurrency"
    )]
    WouldDeadlock,
    /// The queue is full, and the limiter [refuses when
    /// full](crate::RateLimiterBuilder::refuse_when_full).
    #[error("the queue is full")]
    Full,
    /// No permit can be granted by the request's deadline, or the deadline has come.
    #[error("no permit by the deadline")]
    DeadlineExceeded {
        /// No permit can be granted before this, as far as is known; `None` while that depends on
        /// running tasks.
        not_before: Option<Instant>,
    },
}

/// Why a permit was not granted at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// The limiter is shared, and the place where its state is kept failed.
    #[error(transparent)]
    Store(StoreError),
    /// No permit of this weight can ever be granted.
    #[error(transparent)]
    Weight(#[from] RequestError),
    /// The limiter is closed.
    #[error("the limiter is closed")]
    Closed,
    /// There is no room now, or the queue is not empty.
    #[error("no permit now: the window is full, too many tasks run, or others are waiting")]
    Busy {
        /// No permit can be granted before this; `None` while that depends on running tasks.
        not_before: Option<Instant>,
    },
}

/// Why a task was not accepted, with the task.
#[derive(Clone, PartialEq, Eq)]
pub struct PushError<F> {
    /// Why.
    pub reason: PushRefusal,
    /// The task, not run.
    pub task: F,
}

/// Why a task was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushRefusal {
    /// The limiter is shared, and the place where its state is kept failed.
    #[error(transparent)]
    Store(StoreError),
    /// A task of this weight can never run.
    #[error(transparent)]
    Weight(#[from] RequestError),
    /// The limiter is closed.
    #[error("the limiter is closed")]
    Closed,
    /// The queue is full. `push` waits for room instead, except inside a task of the same limiter, and if
    /// the limiter [refuses when full](crate::RateLimiterBuilder::refuse_when_full).
    #[error("the queue is full")]
    Full,
    /// The task must be queued, and there is no tokio runtime here to run it later.
    #[error("the task must be queued, and there is no tokio runtime here to run it later")]
    NoRuntime,
    /// The task cannot be granted by the request's deadline, or the deadline came while it waited for
    /// room.
    #[error("no permit by the deadline")]
    DeadlineExceeded {
        /// No permit can be granted before this, as far as is known; `None` while that depends on
        /// running tasks.
        not_before: Option<Instant>,
    },
}

/// A limit that the limiter does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} is no limit of this limiter, which has {}",
    .limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(", "))]
#[non_exhaustive]
pub struct UnknownLimit {
    /// The limit that was named.
    pub limit: Limit,
    /// The limiter's limits.
    pub limits: Vec<Limit>,
}

/// Why a queued task gave no answer.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The limiter is shared, and the place where its state is kept failed: the task never ran.
    #[error(transparent)]
    Store(StoreError),
    /// The limiter was aborted while the task was queued: it never ran.
    #[error("the limiter was aborted while the task was queued")]
    Aborted,
    /// The limits were changed, and the task's weight is over one of them: it never ran.
    #[error(transparent)]
    Weight(RequestError),
    /// The task was cancelled, by its handle or because its runtime shut down.
    #[error("the task was cancelled")]
    Cancelled,
    /// The request's deadline came while the task was queued: it never ran.
    #[error("no permit by the deadline")]
    DeadlineExceeded {
        /// No permit can be granted before this, as far as is known; `None` while that depends on
        /// running tasks.
        not_before: Option<Instant>,
    },
    /// The task panicked, with this payload. The limiter went on.
    #[error("the task panicked")]
    Panicked(Box<dyn Any + Send>),
}

impl From<EnqueueError> for AcquireError {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Request(error) => Self::Weight(error),
            EnqueueError::Full => Self::Full,
            _ => Self::Closed,
        }
    }
}

impl From<AcquireError> for PushRefusal {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Weight(error) => Self::Weight(error),
            AcquireError::Full => Self::Full,
            AcquireError::DeadlineExceeded { not_before } => Self::DeadlineExceeded { not_before },
            AcquireError::Store(error) => Self::Store(error),
            // A push that is aborted while it waits for room was never accepted. A push cannot deadlock.
            AcquireError::Closed | AcquireError::Aborted | AcquireError::WouldDeadlock => {
                Self::Closed
            }
        }
    }
}

impl<F> PushError<F> {
    #[cfg(feature = "tokio")]
    pub(crate) fn map<G>(self, unwrap: impl FnOnce(F) -> G) -> PushError<G> {
        PushError { reason: self.reason, task: unwrap(self.task) }
    }
}

impl<F> fmt::Debug for PushError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for PushError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task was not accepted: {}", self.reason)
    }
}

impl<F> std::error::Error for PushError<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => f.debug_tuple("Store").field(error).finish(),
            Self::Aborted => f.write_str("Aborted"),
            Self::Weight(error) => f.debug_tuple("Weight").field(error).finish(),
            Self::Cancelled => f.write_str("Cancelled"),
            Self::DeadlineExceeded { not_before } => {
                f.debug_struct("DeadlineExceeded").field("not_before", not_before).finish()
            }
            Self::Panicked(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                f.debug_tuple("Panicked").field(&text.unwrap_or("..")).finish()
            }
        }
    }
}
