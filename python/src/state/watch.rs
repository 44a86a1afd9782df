//! What a hook is to be told. Events are recorded under the lock, where they happen, and told when it is free
//! (`scheduler/events.rs`). A limiter without a hook records nothing.

use std::collections::{HashMap, VecDeque};
use std::mem;

use pyo3::prelude::*;
use strict_rate_limiter_core::{Ticket, TicketStatus};

use super::inner::Inner;
use super::permits::{Ending, PermitId};
use super::waiters::Waiter;
use crate::event::Kind;
use crate::thread_mark::ThreadMark;

/// A hook, and what it is to be told.
pub(crate) struct Watch {
    pub(crate) hook: Py<PyAny>,
    events: VecDeque<Recorded>,
    /// Who waits.
    waiting: HashMap<Ticket, Begun>,
    /// Who has a permit and has not seen it.
    unclaimed: HashMap<Ticket, PermitId>,
    /// The permits that are out.
    running: HashMap<PermitId, Begun>,
    /// The permits that the limiter keeps for callers, and for whom (`async with limiter`).
    entered: Vec<(Caller, PermitId)>,
    next_id: u64,
    /// The thread in which the hook is called right now.
    telling: Option<ThreadMark>,
}

/// A caller of `async with limiter`, so that its permit's end is told from others'.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The address of a task of a loop.
    Task(usize),
    Thread(ThreadMark),
}

#[derive(Clone, Copy)]
struct Begun {
    id: u64,
    weight: u64,
    since: u64,
}

/// An event that was not told yet.
pub(crate) struct Recorded {
    pub(crate) kind: Kind,
    /// The task and its weight.
    pub(crate) task: Option<(u64, u64)>,
    /// When what ends now has begun.
    pub(crate) since: Option<u64>,
    /// When it happened. `None` if no clock could be read: then it counts as of when it is told.
    pub(crate) at: Option<u64>,
    pub(crate) excess: u64,
    /// Until when the limiter is paused.
    pub(crate) paused_until: Option<u64>,
    pub(crate) running: usize,
    pub(crate) queued: usize,
}

impl Watch {
    pub(super) fn new(hook: Py<PyAny>) -> Self {
        Self {
            hook,
            events: VecDeque::new(),
            waiting: HashMap::new(),
            unclaimed: HashMap::new(),
            running: HashMap::new(),
            entered: Vec::new(),
            next_id: 0,
            telling: None,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn hand_out(&mut self, begun: Begun) -> PermitId {
        let id = PermitId::new(begun.id);
        self.running.insert(id, begun);
        id
    }

    /// What was recorded of the parent's tasks is the parent's.
    fn begin_in_child(&mut self) {
        self.events.clear();
        self.waiting.clear();
        self.unclaimed.clear();
        self.running.clear();
        self.entered.clear();
        self.telling = None;
    }
}

impl Inner {
    fn note(&mut self, mut recorded: Recorded) {
        (recorded.running, recorded.queued) = self.machine.load();
        if let Some(watch) = &mut self.watch {
            watch.events.push_back(recorded);
        }
    }

    fn note_task(&mut self, kind: Kind, begun: Begun, at: Option<u64>) {
        let since = (kind != Kind::Queued).then_some(begun.since);
        self.note(Recorded { task: Some((begun.id, begun.weight)), since, at, ..kind.into() });
    }

    /// Somebody waits.
    pub(crate) fn note_queued(&mut self, ticket: Ticket, weight: u64, now: u64) {
        let Some(watch) = &mut self.watch else { return };
        let begun = Begun { id: watch.next_id(), weight, since: now };
        watch.waiting.insert(ticket, begun);
        self.note_task(Kind::Queued, begun, Some(now));
    }

    /// A task has its permit and has not waited.
    pub(super) fn note_granted_at_once(&mut self, weight: u64, now: u64) -> PermitId {
        let Some(watch) = &mut self.watch else { return PermitId::default() };
        let begun = Begun { id: watch.next_id(), weight, since: now };
        let id = watch.hand_out(begun);
        self.note_task(Kind::Granted, begun, Some(now));
        id
    }

    /// A waiter has its permit.
    pub(super) fn note_granted(&mut self, ticket: Ticket, now: u64) {
        let Some(watch) = &mut self.watch else { return };
        let Some(begun) = watch.waiting.remove(&ticket) else { return };
        let id = watch.hand_out(Begun { since: now, ..begun });
        watch.unclaimed.insert(ticket, id);
        self.note_task(Kind::Granted, begun, Some(now));
    }

    /// The permit of a waiter that has seen it.
    pub(super) fn claim_watched(&mut self, ticket: Ticket) -> PermitId {
        let id = self.watch.as_mut().and_then(|watch| watch.unclaimed.remove(&ticket));
        id.unwrap_or_default()
    }

    /// A waiter has left.
    pub(super) fn note_left(&mut self, ticket: Ticket) {
        let Some(watch) = &mut self.watch else { return };
        if let Some(id) = watch.unclaimed.remove(&ticket) {
            return self.note_unused(id);
        }
        if let Some(begun) = watch.waiting.remove(&ticket) {
            self.note_task(Kind::Left, begun, None);
        }
    }

    /// Some waiters have left: whoever the machine no longer knows.
    pub(crate) fn note_all_left(&mut self) {
        let Some(watch) = &self.watch else { return };
        let mut gone: Vec<Ticket> = watch.waiting.keys().copied().collect();
        gone.retain(|ticket| self.machine.status(*ticket) == TicketStatus::Gone);
        gone.sort_unstable();
        for ticket in gone {
            self.note_left(ticket);
        }
    }

    /// A permit was given back.
    pub(super) fn note_unused(&mut self, id: PermitId) {
        let begun = self.watch.as_mut().and_then(|watch| watch.running.remove(&id));
        if let Some(begun) = begun {
            self.note_task(Kind::Unused, begun, None);
        }
    }

    /// A task has ended.
    #[inline]
    pub(super) fn note_ended(&mut self, id: PermitId, ending: Ending, excess: u64, now: u64) {
        let Some(watch) = &mut self.watch else { return };
        let Some(begun) = watch.running.remove(&id) else { return };
        let kind = match ending {
            Ending::Completed { .. } => Kind::Completed,
            Ending::Cancelled => Kind::Abandoned,
        };
        let (task, since) = (Some((begun.id, begun.weight)), Some(begun.since));
        self.note(Recorded { task, since, at: Some(now), excess, ..kind.into() });
    }

    /// The limiter keeps a permit for a caller.
    pub(super) fn note_entered(&mut self, caller: Option<Caller>, id: PermitId) {
        if let (Some(watch), Some(caller)) = (&mut self.watch, caller) {
            watch.entered.push((caller, id));
        }
    }

    /// A caller gives such a permit back: its own, or the oldest.
    pub(super) fn take_entered(&mut self, caller: Option<Caller>) -> PermitId {
        let Some(watch) = self.watch.as_mut().filter(|watch| !watch.entered.is_empty()) else {
            return PermitId::default();
        };
        let own = watch.entered.iter().rposition(|(entered, _)| Some(*entered) == caller);
        watch.entered.remove(own.unwrap_or(0)).1
    }

    /// No grant before then.
    pub(crate) fn pause_until(&mut self, now: u64, until: u64) {
        let before = self.machine.paused_until();
        self.machine.pause_until(until);
        let paused_until = self.machine.paused_until();
        if paused_until > before.max(now) {
            self.note(Recorded {
                at: Some(now),
                paused_until: Some(paused_until),
                ..Kind::Paused.into()
            });
        }
    }

    /// Ends a pause.
    pub(crate) fn resume(&mut self) {
        let was_paused = self.machine.paused_until() > self.machine.now();
        self.machine.resume();
        if was_paused {
            self.note(Kind::Resumed.into());
        }
    }

    /// A waiter leaves: the queue, or the grant that it never saw.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.machine.cancel(ticket);
        self.note_left(ticket);
        waiter
    }

    /// The waiters that `leaves` names leave the queue.
    pub(crate) fn cancel_where(&mut self, leaves: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        let waiters = self.machine.cancel_where(leaves);
        self.note_all_left();
        waiters
    }

    pub(super) fn forget_watched(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.begin_in_child();
        }
    }

    // --- Telling

    /// Begins to tell, unless there is nothing, or a hook is called already: then that goes on with it.
    pub(crate) fn begin_telling(&mut self) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        if watch.telling.is_some() || watch.events.is_empty() {
            return false;
        }
        watch.telling = Some(ThreadMark::here());
        true
    }

    /// The next event to tell.
    pub(crate) fn next_event(&mut self) -> Option<Recorded> {
        self.watch.as_mut()?.events.pop_front()
    }

    pub(crate) fn end_telling(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.telling = None;
        }
    }

    /// Whether this thread is inside a hook.
    pub(crate) fn is_telling_here(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.telling == Some(ThreadMark::here()))
    }

    pub(crate) fn hook(&self) -> Option<&Py<PyAny>> {
        self.watch.as_ref().map(|watch| &watch.hook)
    }

    /// For the collector.
    pub(super) fn take_hook(&mut self) -> Option<Py<PyAny>> {
        mem::take(&mut self.watch).map(|watch| watch.hook)
    }
}

impl From<Kind> for Recorded {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            task: None,
            since: None,
            at: None,
            excess: 0,
            paused_until: None,
            running: 0,
            queued: 0,
        }
    }
}
