//! One waiter, from before it joins the queue until it has its permit or leaves.
//!
//! The acquire futures, `run`, `push` and the blocking calls all use it. Dropping it leaves no trace: it leaves
//! the queue, and a grant that it never saw is undone.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::Ticket;

use crate::deadline::{Deadline, Entered, NoDeadline};
use crate::error::AcquireError;
use crate::inner::{Inner, Kind, Standing};
use crate::observe::Waiting;
use crate::permit::PermitGuard;
use crate::sync::{Thread, current, park};

/// `S` is a reference to the limiter's [`Inner`], or an `Arc` of it.
#[derive(Debug)]
pub(crate) struct Waiter<S: Deref<Target = Inner>, D: Deadline = NoDeadline> {
    /// `None` once it has its permit, which takes over the handle.
    inner: Option<S>,
    weight: u64,
    kind: Kind,
    state: WaiterState,
    waiting: Waiting,
    deadline: D,
}

enum WaiterState {
    New,
    Queued(Ticket),
    /// Granted, and kept until the next poll because the task must yield to its executor.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only tokio makes tasks yield"))]
    Granted(core::Grant),
    Done,
}

impl<S: Deref<Target = Inner>> Waiter<S> {
    #[inline]
    pub(crate) fn new(inner: S, weight: u64, kind: Kind) -> Self {
        Self::with_deadline(inner, weight, kind, NoDeadline)
    }
}

impl<S: Deref<Target = Inner>, D: Deadline> Waiter<S, D> {
    #[inline]
    pub(crate) fn with_deadline(inner: S, weight: u64, kind: Kind, deadline: D) -> Self {
        let (inner, state, waiting) = (Some(inner), WaiterState::New, Waiting::default());
        Self { inner, weight, kind, state, waiting, deadline }
    }

    /// Joins the queue, or looks again. A panic of foreign code leaves the waiter where it was.
    pub(crate) fn poll_once(
        &mut self,
        waker: &Waker,
    ) -> Result<Standing<PermitGuard<S>>, AcquireError> {
        Ok(match self.look(waker)? {
            Standing::Granted(permit) => Standing::Granted(self.hold(permit)),
            Standing::Queued { ticket, accepted } => Standing::Queued { ticket, accepted },
        })
    }

    /// As [`poll_once`](Self::poll_once), for a task of an executor. On tokio it takes part in cooperative
    /// scheduling: if the task's budget is used up, the permit is kept until the next poll, so that a loop that never
    /// waits yields.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_in_task(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Standing<PermitGuard<S>>, AcquireError>> {
        Poll::Ready(match self.look(context.waker()) {
            Ok(Standing::Granted(permit)) => {
                Ok(Standing::Granted(std::task::ready!(self.hold_in_task(permit, context))))
            }
            Ok(Standing::Queued { ticket, accepted }) => Ok(Standing::Queued { ticket, accepted }),
            Err(error) => Err(error),
        })
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<PermitGuard<S>, AcquireError>> {
        if !D::IS_ENDLESS || !matches!(self.state, WaiterState::New) {
            return self.poll_slowly(context, None);
        }
        // In the usual case nothing larger than a word is moved.
        let inner = inner_of(self.inner.as_ref());
        match inner.grant_or_join(self.weight, self.kind, context.waker()) {
            Ok(permit) => {
                self.state = WaiterState::Done;
                self.hold_in_task(permit, context).map(Ok)
            }
            Err(standing) => self.poll_slowly(context, Some(standing)),
        }
    }

    /// `standing` if the waiter has joined or looked already.
    #[inline(never)]
    fn poll_slowly(
        &mut self,
        context: &mut Context<'_>,
        standing: Option<Entered>,
    ) -> Poll<Result<PermitGuard<S>, AcquireError>> {
        let standing = match standing {
            Some(standing) => self.note(standing, context.waker()),
            None => self.look(context.waker()),
        };
        match standing {
            Ok(Standing::Granted(permit)) => self.hold_in_task(permit, context).map(Ok),
            Ok(Standing::Queued { .. }) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn look(&mut self, waker: &Waker) -> Entered {
        let inner = inner_of(self.inner.as_ref());
        let standing = match self.state {
            WaiterState::New => self.deadline.enter(inner, self.weight, self.kind, waker),
            WaiterState::Queued(ticket) => self.deadline.look(inner, ticket, waker),
            WaiterState::Granted(_) | WaiterState::Done => {
                match std::mem::replace(&mut self.state, WaiterState::Done) {
                    WaiterState::Granted(permit) => return Ok(Standing::Granted(permit)),
                    _ => panic!("polled after it was ready"),
                }
            }
        };
        self.note(standing, waker)
    }

    /// The waiter's state after it has joined or looked.
    fn note(&mut self, standing: Entered, waker: &Waker) -> Entered {
        let inner = inner_of(self.inner.as_ref());
        self.state = WaiterState::Done;
        match standing {
            Ok(Standing::Granted(permit)) => {
                self.deadline.over();
                Ok(Standing::Granted(permit))
            }
            Ok(Standing::Queued { ticket, accepted }) => {
                self.state = WaiterState::Queued(ticket);
                let told = self.waiting.queued(inner, self.weight);
                told.unwrap_or_else(|panic| panic.resume());
                let timed = self.deadline.waits(inner, waker);
                timed.unwrap_or_else(|panic| panic.resume());
                Ok(Standing::Queued { ticket, accepted })
            }
            Err(error) => {
                self.deadline.over();
                self.waiting.left(inner);
                Err(error)
            }
        }
    }

    /// Guards the permit that it was granted.
    #[inline]
    fn hold(&mut self, permit: core::Grant) -> PermitGuard<S> {
        let inner = self.inner.take().expect("it has no permit yet");
        let held = PermitGuard::new(inner, permit, &mut self.waiting);
        held.unwrap_or_else(|panic| panic.resume())
    }

    /// As [`hold`](Self::hold), if the task may go on.
    #[inline]
    fn hold_in_task(
        &mut self,
        permit: core::Grant,
        context: &mut Context<'_>,
    ) -> Poll<PermitGuard<S>> {
        #[cfg(feature = "tokio")]
        match tokio::task::coop::poll_proceed(context) {
            Poll::Ready(budget) => budget.made_progress(),
            Poll::Pending => {
                self.state = WaiterState::Granted(permit);
                return Poll::Pending;
            }
        }
        #[cfg(not(feature = "tokio"))]
        let _ = context;
        Poll::Ready(self.hold(permit))
    }

    /// Joins at once without a waker; the first poll stores one. `None` if it waits.
    #[cfg(feature = "tower")]
    pub(crate) fn join(&mut self) -> Option<Result<PermitGuard<S>, AcquireError>> {
        match self.poll_once(Waker::noop()) {
            Ok(Standing::Granted(permit)) => Some(Ok(permit)),
            Ok(Standing::Queued { .. }) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits on this thread.
    pub(crate) fn block(mut self) -> Result<PermitGuard<S>, AcquireError> {
        let waker = Waker::from(Arc::new(Unpark(current())));
        loop {
            match self.poll_once(&waker)? {
                Standing::Granted(permit) => return Ok(permit),
                Standing::Queued { .. } => park(),
            }
        }
    }
}

impl<S: Deref<Target = Inner>, D: Deadline> Drop for Waiter<S, D> {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, WaiterState::Done) {
            WaiterState::Queued(ticket) => {
                let inner = inner_of(self.inner.as_ref());
                inner.leave(ticket);
                self.waiting.left(inner);
            }
            // The task never saw the grant, so it has not run.
            WaiterState::Granted(permit) => {
                let inner = inner_of(self.inner.as_ref());
                inner.undo(permit);
                self.waiting.left(inner);
            }
            WaiterState::New | WaiterState::Done => {}
        }
    }
}

impl fmt::Debug for WaiterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "New",
            Self::Queued(_) => "Queued",
            Self::Granted(_) => "Granted",
            Self::Done => "Done",
        })
    }
}

/// The limiter of a waiter that has no permit yet.
fn inner_of<S: Deref<Target = Inner>>(inner: Option<&S>) -> &Inner {
    inner.expect("kept until it has its permit")
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
