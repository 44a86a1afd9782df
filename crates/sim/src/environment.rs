//! What all parts of a run share: the clock, the events to come, and the checker.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use strict_rate_limiter_core::Record;

use crate::clock::SimClock;
use crate::model::{Model, Status};
use crate::stats::Stats;

/// Something that happens at a certain time.
#[derive(Debug)]
pub(crate) enum Event {
    Wake(Waker),
    /// The next caller comes.
    Arrive,
    /// A task of the executor is dropped, whatever it is doing.
    Kill(usize),
    /// The server asks for a pause.
    Pause(u64),
    /// The pause is ended before its time.
    Resume,
    /// The limits and the concurrency are changed.
    ChangeSettings,
    /// A caller waits until the limiter is drained.
    AwaitDrained,
    /// The clock is set back.
    SetBack(u64),
}

#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) clock: SimClock,
    /// By true time.
    events: Mutex<Events>,
    checker: Mutex<Checker>,
}

#[derive(Debug, Default)]
struct Events {
    pending: BTreeMap<(u64, u64), Event>,
    next: u64,
}

/// What the checks know.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) model: Model,
    /// What ran, in the server's time, for the audit.
    pub(crate) records: Vec<Record>,
    pub(crate) stats: Stats,
    pub(crate) finding: Option<String>,
    grace_ns: u64,
}

/// A sleep in simulated time.
pub(crate) struct Nap<'a> {
    env: &'a Environment,
    until: Option<u64>,
    ns: u64,
}

impl Environment {
    pub(crate) fn new(clock: SimClock, model: Model) -> Self {
        let (records, stats) = (Vec::new(), Stats { runs: 1, ..Stats::default() });
        let checker = Checker { model, records, stats, finding: None, grace_ns: 0 };
        Self { clock, events: Mutex::default(), checker: Mutex::new(checker) }
    }

    pub(crate) fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn after(&self, ns: u64, event: Event) {
        let at = self.clock.true_ns() + ns;
        let mut events = self.events();
        events.next += 1;
        let key = (at, events.next);
        events.pending.insert(key, event);
    }

    pub(crate) fn next_event_at(&self) -> Option<u64> {
        self.events().pending.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn take_due(&self) -> Option<Event> {
        let now = self.clock.true_ns();
        let mut events = self.events();
        let first = events.pending.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(crate) fn nap(&self, ns: u64) -> Nap<'_> {
        Nap { env: self, until: None, ns }
    }

    /// The process stalls: time passes while nothing else happens.
    pub(crate) fn stall(&self, ns: u64) {
        if ns > 0 {
            self.clock.pass(ns);
            self.checker().stats.stalls += 1;
        }
    }
}

impl Checker {
    /// Sets the grace of abandoned tasks, in the time of a clock that runs fast by `fast_ppm`.
    pub(crate) fn set_grace(&mut self, grace_ns: u64, fast_ppm: u64) {
        let true_ns = u128::from(grace_ns) * 1_000_000 / u128::from(1_000_000 + fast_ppm);
        self.grace_ns = true_ns as u64;
    }

    pub(crate) fn grace_in_true_time(&self) -> u64 {
        self.grace_ns
    }

    /// A check has found something. The first finding counts.
    pub(crate) fn report(&mut self, what: String) {
        if !self.model.is_disabled() && self.finding.is_none() {
            self.finding = Some(what);
        }
    }

    pub(crate) fn check(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.report(what);
        }
    }

    /// A caller leaves before its task has started.
    pub(crate) fn leave(&mut self, id: u32, now: u64) {
        match self.model.status(id) {
            Status::Waiting => self.stats.gave_up += 1,
            Status::Granted => {
                self.stats.gave_up += 1;
                self.stats.undone += 1;
            }
            Status::InHand => self.stats.abandoned += 1,
            Status::New | Status::Running | Status::Over => {
                self.model.set_over(id);
                return;
            }
        }
        self.model.leave(id, now);
    }
}

impl Future for Nap<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.env.clock.true_ns();
        let until = match self.until {
            Some(until) => until,
            None if self.ns == 0 => return Poll::Ready(()),
            None => {
                let until = now + self.ns;
                self.until = Some(until);
                self.env.after(self.ns, Event::Wake(context.waker().clone()));
                until
            }
        };
        if now >= until { Poll::Ready(()) } else { Poll::Pending }
    }
}
