//! The strict sliding window, as a state machine that never touches a clock.
//!
//! This crate only decides. The caller passes the time as a number of nanoseconds, the [`Machine`]
//! returns decisions as values, and the caller carries them out: an async library, a Python
//! extension, a simulator. Nothing here reads a clock, sleeps, wakes or locks. It allocates only the
//! queue and the window logs.
//!
//! # The law
//!
//! A permit granted at `g` for a task that completes at `c` is *held* during the closed interval
//! `[g, c + per]`. At every instant, for every limit, the weights of the held permits add up to at
//! most `rate`. It follows that **no closed interval of length `per` ever contains more than `rate`
//! of what was counted**, wherever between `g` and `c` the protected system counts each task: any
//! task counted in `[x, x + per]` has `g <= x + per` and `c + per >= x + per`, so it is held at the
//! one instant `x + per`, and there the law bounds the sum.
//!
//! # Modules
//!
//! | module | does |
//! |---|---|
//! | [`limit`] | [`Limit`]: `rate` units in any `per`, its text form and its errors |
//! | [`config`] | [`Config`]: the settings of a machine |
//! | [`machine`] | [`Machine`]: requests in, [`Decision`]s out; the queue and all grants |
//! | `windows` | the windows of all limits, the running tasks, the pause; whether there is room |
//! | `window` | one limit's window: the units held and when they are free again |
//! | `queue` | the queue of waiters: order, cancelling, capacity |
//! | `owners` | who holds what and who waits, where several processes share a machine |
//! | `limits_change` | limits and concurrency that change while tasks run and wait |
//! | `history` | [`HeldEntry`]: the held units before a restart, out and back in |
//! | `deadline` | whether a waiter can still be granted in time |
//! | `reentrancy` | whether a waiter that was requested inside running tasks could ever be granted |
//! | `external_usage` | usage without a permit of this machine, as by other clients |
//! | `forecast` | when the last of many tasks could be granted |
//! | `types` | what the machine returns: tickets, grants, decisions, refusals, numbers |
//! | `stats` | how full the machine is, and how long to pause after a refusal |
//! | [`state`] | [`State`]: the whole machine as plain data, out and back in |
//! | `bytes` | a state as bytes, for a place that processes share |
//! | [`raw`] | permits and tickets as plain numbers, for callers that store them elsewhere |
//! | [`audit`] | the fullest window of a log |
//!
//! # Example
//!
//! ```
//! use core::time::Duration;
//! use strict_rate_limiter_core::{Config, Decision, Limit, Machine};
//!
//! let limit = Limit::tasks(1, Duration::from_nanos(100))?;
//! let mut machine = Machine::new(Config::new([limit]))?;
//!
//! // The first task fits and is granted at once.
//! let first = machine.try_grant(1_000, 1)?;
//! // The second has to queue. The caller stores a value with each waiter: here, a name.
//! let second = machine.enqueue(1, "second")?.ticket;
//! assert_eq!(machine.poll(1_010), Decision::WaitForCompletion);
//!
//! // The first ends at 1,040, so its permit is held up to and including 1,140.
//! machine.complete(first, 1_040, 1_040, None);
//! assert_eq!(machine.poll(1_040), Decision::LookAgainAt(1_141));
//! assert_eq!(machine.poll(1_140), Decision::LookAgainAt(1_141));
//! assert_eq!(machine.poll(1_141), Decision::Grant { ticket: second, waiter: "second" });
//! let permit = machine.claim(second).expect("granted, and not claimed before");
//! # machine.complete(permit, 1_141, 1_141, None);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod audit;
mod bytes;
mod coarse;
pub mod config;
mod deadline;
mod external_usage;
mod forecast;
mod history;
pub mod limit;
mod limits_change;
pub mod machine;
mod owners;
mod queue;
pub mod raw;
mod reentrancy;
pub mod state;
mod stats;
mod types;
mod window;
mod windows;

pub use audit::{Audit, AuditError, Fullest, Record};
pub use config::{Config, ConfigError};
pub use history::HeldEntry;
pub use limit::{Limit, LimitError, ParseLimitError, Unit};
pub use machine::Machine;
pub use owners::{Moved, PermitOut};
pub use reentrancy::{InsideWaiter, RunningTask};
pub use state::{
    OwnersState, PermitState, STATE_VERSION, STORED_COMPLETIONS, State, StateError, WindowState,
};
pub use types::{
    Decision, EnqueueError, Enqueued, Grant, Held, Refused, RequestError, SessionId, Snapshot,
    Ticket, TicketStatus, TryGrantError,
};

/// The README's Rust is compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
