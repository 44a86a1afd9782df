//! What a caller reports to the checker: that it leaves, that its task starts, and how the task ends.
//!
//! Dropping reports as well, by the library's own rules: a caller that is dropped before its task starts has
//! left; a task that is dropped while it runs is abandoned; a task that the limiter runs and that panics has
//! completed.

use std::sync::Arc;
use std::thread;

use strict_rate_limiter_core::Record;

use crate::environment::Environment;

/// A request for a permit, until its task starts. Dropping it before that reports that it left.
pub(crate) struct RequestProbe {
    pub(crate) env: Arc<Environment>,
    pub(crate) id: u32,
    weight: u64,
    has_started: bool,
}

/// A running task. Dropping it before its end reports it as abandoned, unless `panics` was called.
pub(crate) struct TaskProbe {
    pub(crate) env: Arc<Environment>,
    pub(crate) id: u32,
    weight: u64,
    start: u64,
    /// When it ended, in the server's time.
    end: Option<u64>,
    is_told: bool,
    has_panicked: bool,
}

impl RequestProbe {
    pub(crate) fn new(env: &Arc<Environment>, weight: u64) -> Self {
        let id = env.checker().model.newcomer();
        Self { env: Arc::clone(env), id, weight, has_started: false }
    }

    pub(crate) fn start(mut self) -> TaskProbe {
        self.has_started = true;
        let (env, id, weight) = (Arc::clone(&self.env), self.id, self.weight);
        let now = env.clock.reading_ns();
        let mut checker = env.checker();
        let started = checker.model.start(id, weight, now);
        checker.check(started);
        checker.stats.tasks += 1;
        checker.stats.note(u64::from(id) << 32 | now & 0xFFFF_FFFF);
        drop(checker);
        let start = env.clock.true_ns();
        TaskProbe { env, id, weight, start, end: None, is_told: false, has_panicked: false }
    }
}

impl Drop for RequestProbe {
    fn drop(&mut self) {
        if !self.has_started {
            let now = self.env.clock.reading_ns();
            self.env.checker().leave(self.id, now);
        }
    }
}

impl TaskProbe {
    /// The server has answered.
    pub(crate) fn has_ended(&mut self) {
        self.end = Some(self.env.clock.true_ns());
    }

    /// It is about to panic inside of the limiter, which can tell that the panic is the task's own.
    pub(crate) fn panics(&mut self) {
        self.has_panicked = true;
    }

    /// The limiter knows of its completion.
    pub(crate) fn complete(mut self, actual: Option<u64>) {
        self.tell(actual, false);
    }

    pub(crate) fn abandon(mut self) {
        self.tell(None, true);
    }

    fn tell(&mut self, actual: Option<u64>, is_abandoned: bool) {
        self.is_told = true;
        let now = self.env.clock.reading_ns();
        let true_now = self.env.clock.true_ns();
        let mut checker = self.env.checker();
        let mut end = self.end.unwrap_or(true_now);
        if is_abandoned {
            checker.stats.abandoned += 1;
            checker.model.abandon(self.id, now);
            // The server may count it until then.
            end = true_now + checker.grace_in_true_time();
        } else {
            checker.model.complete(self.id, actual, now);
        }
        // The limiter could not know of what the task used beyond its reservation.
        let weight = actual.map_or(self.weight, |actual| actual.min(self.weight));
        checker.records.push(Record { start: self.start, end, weight });
    }
}

impl Drop for TaskProbe {
    fn drop(&mut self) {
        if !self.is_told {
            if thread::panicking() {
                self.env.checker().stats.panicked += 1;
            }
            self.tell(None, !self.has_panicked);
        }
    }
}
