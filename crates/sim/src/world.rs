//! What everyone in a life shares: the time, what is to come, and the judges' book.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use strict_rate_limiter_core::Record;

use crate::clock::SimClock;
use crate::referee::{Fate, Referee};
use crate::tally::Tally;

/// What is to come at a certain time.
#[derive(Debug)]
pub(crate) enum Event {
    Wake(Waker),
    /// The next one comes.
    Arrive,
    /// An actor is dropped, wherever it is.
    Kill(usize),
    /// The server asks for a pause.
    Pause(u64),
    /// Somebody ends it before its time.
    Resume,
    /// Somebody waits until the limiter is drained.
    AwaitDrained,
    /// The clock is set back.
    SetBack(u64),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: SimClock,
    /// By true time.
    events: Mutex<Events>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Events {
    pending: BTreeMap<(u64, u64), Event>,
    next: u64,
}

/// What the judges know.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) referee: Referee,
    /// What ran, in the server's time, for the audit.
    pub(crate) records: Vec<Record>,
    pub(crate) tally: Tally,
    pub(crate) finding: Option<String>,
    grace_ns: u64,
}

/// Sleeps in simulated time.
pub(crate) struct Nap<'a> {
    world: &'a World,
    until: Option<u64>,
    ns: u64,
}

impl World {
    pub(crate) fn new(clock: SimClock, referee: Referee) -> Self {
        let (records, tally) = (Vec::new(), Tally { lives: 1, ..Tally::default() });
        let book = Book { referee, records, tally, finding: None, grace_ns: 0 };
        Self { clock, events: Mutex::default(), book: Mutex::new(book) }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
        Nap { world: self, until: None, ns }
    }

    /// The process stands still for a while, in the middle of whatever it was doing.
    pub(crate) fn stall(&self, ns: u64) {
        if ns > 0 {
            self.clock.pass(ns);
            self.book().tally.stalls += 1;
        }
    }
}

impl Book {
    /// The grace of abandoned tasks, by a clock that runs fast by `fast_ppm`.
    pub(crate) fn set_grace(&mut self, grace_ns: u64, fast_ppm: u64) {
        let true_ns = u128::from(grace_ns) * 1_000_000 / u128::from(1_000_000 + fast_ppm);
        self.grace_ns = true_ns as u64;
    }

    pub(crate) fn grace_in_true_time(&self) -> u64 {
        self.grace_ns
    }

    /// A judge has found something.
    pub(crate) fn find(&mut self, what: String) {
        if !self.referee.is_blind() && self.finding.is_none() {
            self.finding = Some(what);
        }
    }

    pub(crate) fn hold_to(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.find(what);
        }
    }

    /// Somebody leaves before its task has started.
    pub(crate) fn leave(&mut self, id: u32, now: u64) {
        match self.referee.fate(id) {
            Fate::Waiting => self.tally.gave_up += 1,
            Fate::Granted => {
                self.tally.gave_up += 1;
                self.tally.undone += 1;
            }
            Fate::InHand => self.tally.abandoned += 1,
            Fate::New | Fate::Running | Fate::Over => {
                self.referee.end_fate(id);
                return;
            }
        }
        self.referee.leave(id, now);
    }
}

impl Future for Nap<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.world.clock.true_ns();
        let until = match self.until {
            Some(until) => until,
            None if self.ns == 0 => return Poll::Ready(()),
            None => {
                let until = now + self.ns;
                self.until = Some(until);
                self.world.after(self.ns, Event::Wake(context.waker().clone()));
                until
            }
        };
        if now >= until { Poll::Ready(()) } else { Poll::Pending }
    }
}
