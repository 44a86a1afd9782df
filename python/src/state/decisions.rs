//! What core decides, as what is to be done once the lock is released.

use pyo3::prelude::*;
use strict_rate_limiter_core::{Decision, Ticket};

use super::inner::Inner;
use super::loops::LoopId;
use super::waiters::Waiter;
use crate::future::Future;
use crate::pushed::Pushed;

/// How often a loop looks whether another one was closed, where it waits for tasks of that.
const WATCH_NS: u64 = 500_000_000;

/// What to do for a waiter after the lock is released.
pub(crate) enum Action {
    /// A coroutine has its permit, or a task its room: wake it. `_task` ends after the lock.
    Wake { ticket: Ticket, event_loop: LoopId, future: Py<Future>, _task: Option<Pushed> },
    /// A loop has a task to start.
    Start(LoopId),
    /// The first waiter is this loop's: have it look at the opening.
    LookAt(LoopId, u64),
    /// Nothing, before something else happens.
    Rest,
}

impl Inner {
    /// Asks the machine for its next decision at `now`.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        loop {
            match self.machine.poll(now) {
                Decision::Grant { waiter, ticket } => {
                    self.note_granted(ticket, now);
                    match self.granted(waiter, ticket) {
                        Action::Rest => {}
                        action => return action,
                    }
                }
                Decision::Accept { ticket } => {
                    if let Some(Waiter::Pushed { event_loop, room, .. }) =
                        self.machine.waiter_mut(ticket)
                        && let Some(future) = room.take()
                    {
                        let event_loop = *event_loop;
                        return Action::Wake { ticket, event_loop, future, _task: None };
                    }
                }
                Decision::LookAgainAt(at) => return self.look_at(at),
                Decision::WaitForCompletion => return self.watch_others(now),
                // `Idle`.
                _ => return Action::Rest,
            }
        }
    }

    /// What to do for a waiter that was granted.
    fn granted(&mut self, waiter: Waiter, ticket: Ticket) -> Action {
        match waiter {
            Waiter::Coroutine { event_loop, future } => {
                Action::Wake { ticket, event_loop, future, _task: None }
            }
            Waiter::Pushed { event_loop, task, room: Some(future) } => {
                Action::Wake { ticket, event_loop, future, _task: Some(task) }
            }
            Waiter::Pushed { event_loop, task, room: None } => {
                let hold = self.claim(ticket).expect("it was granted just now");
                let state = self.loop_mut(event_loop).expect("its waiters keep it");
                state.ready.push_back((task, hold));
                Action::Start(event_loop)
            }
            Waiter::Thread(waiter) => {
                waiter.signal.give();
                Action::Rest
            }
        }
    }

    /// The first waiter waits for tasks to complete. Those of another loop never do if that loop is closed, and nobody
    /// says so: the first waiter's loop looks now and then.
    fn watch_others(&mut self, now: u64) -> Action {
        if self.loops.len() < 2 {
            return Action::Rest;
        }
        let head = self.machine.head().and_then(|head| self.machine.waiter_mut(head));
        match head.and_then(|waiter| waiter.event_loop()) {
            Some(own) if self.started.values().any(|task| task.event_loop != own) => {
                Action::LookAt(own, now.saturating_add(WATCH_NS))
            }
            _ => Action::Rest,
        }
    }

    /// Who has to look at the next opening: the first waiter, or whoever waits for the end.
    pub(crate) fn look_at(&mut self, opening: u64) -> Action {
        let Some(head) = self.machine.head() else {
            let drained = self.drained.first();
            return drained.map_or(Action::Rest, |(id, _)| Action::LookAt(*id, opening));
        };
        match self.machine.waiter_mut(head) {
            Some(Waiter::Coroutine { event_loop, .. } | Waiter::Pushed { event_loop, .. }) => {
                Action::LookAt(*event_loop, opening)
            }
            Some(Waiter::Thread(waiter)) => {
                if waiter.opening.replace(opening) != Some(opening) {
                    waiter.signal.give();
                }
                Action::Rest
            }
            None => Action::Rest,
        }
    }
}
