//! One waiter, from before it joins the queue until it has its permit or leaves.
//!
//! The acquire futures, `run`, `push` and the blocking calls all use it. Dropping it leaves no trace: it leaves
//! the queue, and a grant that it never saw is undone.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use strict_rate_limiter_core::Ticket;

use crate::deadline::{Deadline, NoDeadline};
use crate::error::AcquireError;
use crate::inner::{Inner, Kind, Standing};
use crate::observe::Waiting;
use crate::permit::PermitGuard;
use crate::sync::{Thread, current, park};

/// `S` is a reference to the limiter's [`Inner`], or an `Arc` of it.
#[derive(Debug)]
pub(crate) struct Waiter<S: Deref<Target = Inner> + Clone, D: Deadline = NoDeadline> {
    inner: S,
    weight: u64,
    kind: Kind,
    state: WaiterState<S>,
    waiting: Waiting,
    deadline: D,
}

enum WaiterState<S: Deref<Target = Inner>> {
    New,
    Queued(Ticket),
    /// Granted, and kept until the next poll because the task must yield to its executor.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only tokio makes tasks yield"))]
    Granted(PermitGuard<S>),
    Done,
}

impl<S: Deref<Target = Inner> + Clone> Waiter<S> {
    #[inline]
    pub(crate) fn new(inner: S, weight: u64, kind: Kind) -> Self {
        Self::with_deadline(inner, weight, kind, NoDeadline)
    }
}

impl<S: Deref<Target = Inner> + Clone, D: Deadline> Waiter<S, D> {
    #[inline]
    pub(crate) fn with_deadline(inner: S, weight: u64, kind: Kind, deadline: D) -> Self {
        Self { inner, weight, kind, state: WaiterState::New, waiting: Waiting::default(), deadline }
    }

    /// Joins the queue, or looks again. A panic of foreign code leaves the waiter where it was.
    #[inline]
    pub(crate) fn poll_once(
        &mut self,
        waker: &Waker,
    ) -> Result<Standing<PermitGuard<S>>, AcquireError> {
        let standing = match self.state {
            WaiterState::New => self.deadline.enter(&self.inner, self.weight, self.kind, waker),
            WaiterState::Queued(ticket) => self.deadline.look(&self.inner, ticket, waker),
            WaiterState::Granted(_) => {
                let WaiterState::Granted(permit) =
                    std::mem::replace(&mut self.state, WaiterState::Done)
                else {
                    unreachable!("it was granted just now")
                };
                return Ok(Standing::Granted(permit));
            }
            WaiterState::Done => panic!("polled after it was ready"),
        };
        self.state = WaiterState::Done;
        match standing {
            Ok(Standing::Granted(permit)) => {
                self.deadline.over();
                let held = PermitGuard::new(self.inner.clone(), permit, &mut self.waiting);
                Ok(Standing::Granted(held.unwrap_or_else(|panic| panic.resume())))
            }
            Ok(Standing::Queued { ticket, accepted }) => {
                self.state = WaiterState::Queued(ticket);
                let told = self.waiting.queued(&*self.inner, self.weight);
                told.unwrap_or_else(|panic| panic.resume());
                let timed = self.deadline.waits(&self.inner, waker);
                timed.unwrap_or_else(|panic| panic.resume());
                Ok(Standing::Queued { ticket, accepted })
            }
            Err(error) => {
                self.deadline.over();
                self.waiting.left(&*self.inner);
                Err(error)
            }
        }
    }

    /// As [`poll_once`](Self::poll_once), for a task of an executor. On tokio it takes part in cooperative
    /// scheduling: if the task's budget is used up, the permit is kept until the next poll, so that a loop that never
    /// waits yields.
    #[inline]
    pub(crate) fn poll_in_task(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Standing<PermitGuard<S>>, AcquireError>> {
        let standing = self.poll_once(context.waker());
        #[cfg(feature = "tokio")]
        if let Ok(Standing::Granted(permit)) = standing {
            return match tokio::task::coop::poll_proceed(context) {
                Poll::Ready(budget) => {
                    budget.made_progress();
                    Poll::Ready(Ok(Standing::Granted(permit)))
                }
                Poll::Pending => {
                    self.state = WaiterState::Granted(permit);
                    Poll::Pending
                }
            };
        }
        Poll::Ready(standing)
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<PermitGuard<S>, AcquireError>> {
        match ready!(self.poll_in_task(context)) {
            Ok(Standing::Granted(permit)) => Poll::Ready(Ok(permit)),
            Ok(Standing::Queued { .. }) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
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

impl<S: Deref<Target = Inner> + Clone, D: Deadline> Drop for Waiter<S, D> {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, WaiterState::Done) {
            WaiterState::Queued(ticket) => {
                self.inner.leave(ticket);
                self.waiting.left(&*self.inner);
            }
            // The task never saw the grant, so it has not run.
            WaiterState::Granted(permit) => permit.release_unused(),
            WaiterState::New | WaiterState::Done => {}
        }
    }
}

impl<S: Deref<Target = Inner>> fmt::Debug for WaiterState<S> {
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
