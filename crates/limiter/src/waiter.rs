//! One waiter, from before it joins the line until it has its permit or leaves.
//!
//! It is what the acquire futures, `run`, `push` and the blocking calls have in common. Dropping it
//! at any point leaves no trace: out of the line, or the grant that it never saw undone.

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
    state: State,
    waiting: Waiting,
}

#[derive(Debug)]
enum State {
    New,
    Queued(Ticket),
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

    /// Joins, or looks again.
    #[inline]
    pub(crate) fn turn(&mut self, waker: &Waker) -> Result<Turn<S>, AcquireError> {
        let standing = match self.state {
            State::New => self.shared.enter(self.weight, self.kind, waker),
            State::Queued(ticket) => self.shared.look_for(ticket, waker),
            State::Done => panic!("polled after it was ready"),
        };
        self.state = State::Done;
        match standing {
            Ok(Standing::Granted(permit)) => {
                let running = self.waiting.granted(&self.shared, self.weight);
                Ok(Turn::Granted(Held::new(self.shared.clone(), permit, running)))
            }
            Ok(Standing::Queued { ticket, accepted }) => {
                self.state = State::Queued(ticket);
                self.waiting.queued(&self.shared, self.weight);
                Ok(Turn::Queued { accepted })
            }
            Err(error) => {
                self.waiting.left(&self.shared);
                Err(error)
            }
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Held<S>, AcquireError>> {
        match self.turn(context.waker()) {
            Ok(Turn::Granted(permit)) => Poll::Ready(Ok(permit)),
            Ok(Turn::Queued { .. }) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Waits on this thread.
    pub(crate) fn block(mut self) -> Result<Held<S>, AcquireError> {
        let waker = Waker::from(Arc::new(Unpark(current())));
        let context = Context::from_waker(&waker);
        loop {
            match self.poll(&context) {
                Poll::Ready(permit) => return permit,
                Poll::Pending => park(),
            }
        }
    }
}

impl<S: Deref<Target = Shared> + Clone> Drop for Waiter<S> {
    #[inline]
    fn drop(&mut self) {
        if let State::Queued(ticket) = self.state {
            self.shared.leave(ticket);
            self.waiting.left(&self.shared);
        }
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
