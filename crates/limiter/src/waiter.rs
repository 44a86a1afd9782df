//! One waiter, from before it joins the line until it has its permit or leaves.
//!
//! It is what the acquire futures, `run`, `push` and the blocking calls have in common. Dropping it
//! at any point leaves no trace: out of the line, or the grant that it never saw undone.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use strict_rate_limiter_core::Ticket;

use crate::error::AcquireError;
use crate::observe::Waiting;
use crate::permit::Held;
use crate::shared::{Kind, Shared, Standing};
use crate::sync::{Thread, current, park};

/// `S` is a reference to the limiter's shared part, or shares in owning it.
#[derive(Debug)]
pub(crate) struct Waiter<S: Deref<Target = Shared> + Clone> {
    shared: S,
    weight: u64,
    kind: Kind,
    state: State<S>,
    waiting: Waiting,
}

enum State<S: Deref<Target = Shared>> {
    New,
    Queued(Ticket),
    /// Granted, and kept back until the executor lets this task go on.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only tokio keeps tasks back"))]
    Granted(Held<S>),
    Done,
}

/// Where a waiter stands after it was polled.
pub(crate) enum Turn<S: Deref<Target = Shared>> {
    Granted(Held<S>),
    Queued {
        /// Within the queue's capacity; only pushes ask.
        #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "there are no pushes"))]
        accepted: bool,
    },
}

impl<S: Deref<Target = Shared> + Clone> Waiter<S> {
    pub(crate) fn new(shared: S, weight: u64, kind: Kind) -> Self {
        Self { shared, weight, kind, state: State::New, waiting: Waiting::default() }
    }

    /// Joins, or looks again. A panic of foreign code leaves the waiter where it was.
    #[inline]
    pub(crate) fn turn(&mut self, waker: &Waker) -> Result<Turn<S>, AcquireError> {
        let standing = match self.state {
            State::New => self.shared.enter(self.weight, self.kind, waker),
            State::Queued(ticket) => self.shared.look_for(ticket, waker),
            State::Granted(_) => {
                let State::Granted(permit) = std::mem::replace(&mut self.state, State::Done) else {
                    unreachable!("it was granted just now")
                };
                return Ok(Turn::Granted(permit));
            }
            State::Done => panic!("polled after it was ready"),
        };
        self.state = State::Done;
        match standing {
            Ok(Standing::Granted(permit)) => {
                let held = Held::new(self.shared.clone(), permit, &mut self.waiting);
                Ok(Turn::Granted(held.unwrap_or_else(|panic| panic.resume())))
            }
            Ok(Standing::Queued { ticket, accepted }) => {
                self.state = State::Queued(ticket);
                let told = self.waiting.queued(&self.shared, self.weight);
                told.unwrap_or_else(|panic| panic.resume());
                Ok(Turn::Queued { accepted })
            }
            Err(error) => {
                self.waiting.left(&self.shared);
                Err(error)
            }
        }
    }

    /// As [`turn`](Self::turn), for a task of an executor. On tokio a loop of tasks that never wait yields
    /// now and then, as with tokio's own primitives: the permit is then kept back until the next poll.
    #[inline]
    pub(crate) fn turn_in_task(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<Turn<S>, AcquireError> {
        let turn = self.turn(context.waker());
        #[cfg(feature = "tokio")]
        if let Ok(Turn::Granted(permit)) = turn {
            return Ok(match tokio::task::coop::poll_proceed(context) {
                Poll::Ready(budget) => {
                    budget.made_progress();
                    Turn::Granted(permit)
                }
                Poll::Pending => {
                    self.state = State::Granted(permit);
                    Turn::Queued { accepted: false }
                }
            });
        }
        turn
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Held<S>, AcquireError>> {
        match self.turn_in_task(context) {
            Ok(Turn::Granted(permit)) => Poll::Ready(Ok(permit)),
            Ok(Turn::Queued { .. }) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Joins at once and without a waker, to be polled later. `None`: it waits.
    #[cfg(feature = "tower")]
    pub(crate) fn join(&mut self) -> Option<Result<Held<S>, AcquireError>> {
        match self.turn(Waker::noop()) {
            Ok(Turn::Granted(permit)) => Some(Ok(permit)),
            Ok(Turn::Queued { .. }) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits on this thread.
    pub(crate) fn block(mut self) -> Result<Held<S>, AcquireError> {
        let waker = Waker::from(Arc::new(Unpark(current())));
        loop {
            match self.turn(&waker)? {
                Turn::Granted(permit) => return Ok(permit),
                Turn::Queued { .. } => park(),
            }
        }
    }
}

impl<S: Deref<Target = Shared> + Clone> Drop for Waiter<S> {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Queued(ticket) => {
                self.shared.leave(ticket);
                self.waiting.left(&self.shared);
            }
            // Nobody has seen it: no task ran.
            State::Granted(permit) => permit.release_unused(),
            State::New | State::Done => {}
        }
    }
}

impl<S: Deref<Target = Shared>> fmt::Debug for State<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "New",
            Self::Queued(_) => "Queued",
            Self::Granted(_) => "Granted",
            Self::Done => "Done",
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
