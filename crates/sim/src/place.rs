//! What the judges are told of one who asks: when it leaves, when its task starts, and how that ends.
//!
//! Told by dropping as well, as the library is: who is dropped before its task starts has left, a task
//! that is dropped while it runs was abandoned. Only a task that the limiter runs, and that panics itself,
//! has completed.

use std::sync::Arc;
use std::thread;

use strict_rate_limiter_core::Record;

use crate::world::World;

/// Who has asked, until its task starts. Dropped before that, it has left.
pub(crate) struct Place {
    pub(crate) world: Arc<World>,
    pub(crate) id: u32,
    weight: u64,
    has_started: bool,
}

/// A task that runs. Dropped before its end, it is abandoned, unless it says that it panics.
pub(crate) struct Running {
    pub(crate) world: Arc<World>,
    pub(crate) id: u32,
    weight: u64,
    start: u64,
    /// When it ended, in the server's time.
    end: Option<u64>,
    is_told: bool,
    has_panicked: bool,
}

impl Place {
    pub(crate) fn new(world: &Arc<World>, weight: u64) -> Self {
        let id = world.book().referee.newcomer();
        Self { world: Arc::clone(world), id, weight, has_started: false }
    }

    pub(crate) fn start(mut self) -> Running {
        self.has_started = true;
        let (world, id, weight) = (Arc::clone(&self.world), self.id, self.weight);
        let now = world.clock.reading_ns();
        let mut book = world.book();
        let started = book.referee.start(id, weight, now);
        book.hold_to(started);
        book.tally.tasks += 1;
        book.tally.note(u64::from(id) << 32 | now & 0xFFFF_FFFF);
        drop(book);
        let start = world.clock.true_ns();
        Running { world, id, weight, start, end: None, is_told: false, has_panicked: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.has_started {
            let now = self.world.clock.reading_ns();
            self.world.book().leave(self.id, now);
        }
    }
}

impl Running {
    /// The server has answered.
    pub(crate) fn has_ended(&mut self) {
        self.end = Some(self.world.clock.true_ns());
    }

    /// It is about to panic, inside the limiter, which sees whose panic it is.
    pub(crate) fn panics(&mut self) {
        self.has_panicked = true;
    }

    /// The limiter has been told so.
    pub(crate) fn complete(mut self, actual: Option<u64>) {
        self.tell(actual, false);
    }

    pub(crate) fn abandon(mut self) {
        self.tell(None, true);
    }

    fn tell(&mut self, actual: Option<u64>, is_abandoned: bool) {
        self.is_told = true;
        let now = self.world.clock.reading_ns();
        let true_now = self.world.clock.true_ns();
        let mut book = self.world.book();
        let mut end = self.end.unwrap_or(true_now);
        if is_abandoned {
            book.tally.abandoned += 1;
            book.referee.abandon(self.id, now);
            // Until then the server may still count it.
            end = true_now + book.grace_in_true_time();
        } else {
            book.referee.complete(self.id, actual, now);
        }
        // Nobody could have known of what a task used beyond its reservation.
        let weight = actual.map_or(self.weight, |actual| actual.min(self.weight));
        book.records.push(Record { start: self.start, end, weight });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_told {
            if thread::panicking() {
                self.world.book().tally.panicked += 1;
            }
            self.tell(None, !self.has_panicked);
        }
    }
}
