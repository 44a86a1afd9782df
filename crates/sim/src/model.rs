//! A slow model of the limiter: a list of all permits that count, scanned for every question.
//!
//! The model is told what every caller does and when the library *looks*, that is, decides whom to grant: after
//! a change that may let the queue move, when its timer fires, when the head of the queue is polled. So it knows
//! who has to be granted at each moment. It reports when the library grants anyone else, grants too early, or
//! lets a caller wait although the limits allow it.

use std::collections::VecDeque;
use std::time::Duration;

use strict_rate_limiter_core::{Config, Limit};

/// How far a caller's request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    New,
    Waiting,
    /// Out of the queue; not polled since.
    Granted,
    /// A push that got its permit at once; the runtime has not started it yet.
    InHand,
    Running,
    Over,
}

/// A permit, running or ended.
#[derive(Debug)]
struct Held {
    id: u32,
    weight: u64,
    /// When its task completed or will complete, and its actual weight.
    ended: Option<(u64, u64)>,
}

/// The model. Times are readings of the limiter's clock, which never goes back while the model is enabled.
#[derive(Debug)]
pub(crate) struct Model {
    limits: Vec<(Limit, u64)>,
    /// How many of the limits the user gave; those after them are for pacing.
    asked_for: usize,
    longest_ns: u64,
    concurrency: usize,
    capacity: usize,
    grace_ns: u64,
    queue: VecDeque<(u32, u64)>,
    held: Vec<Held>,
    statuses: Vec<Status>,
    /// Those that a change of the limits took out of the queue.
    too_heavy: Vec<u32>,
    paused_until: u64,
    closed: bool,
    is_disabled: bool,
}

type Verdict = Result<(), String>;

impl Model {
    pub(crate) fn new(config: &Config, is_disabled: bool) -> Self {
        let stretched = |limit: Limit| {
            let drift = u128::from(limit.per_ns()) * u128::from(config.clock_drift_ppm);
            (limit, limit.per_ns() + drift.div_ceil(1_000_000) as u64)
        };
        let mut limits: Vec<_> = config.limits.iter().copied().map(stretched).collect();
        if config.paced {
            let of_tasks = config.limits.iter().filter(|limit| limit.units(2) == 1);
            let paces = of_tasks.map(|limit| limit.per_ns().div_ceil(limit.rate()));
            limits.extend(paces.map(|ns| {
                let per = Duration::from_nanos(ns);
                stretched(Limit::tasks(1, per).expect("a pace is a limit"))
            }));
        }
        Self {
            longest_ns: limits.iter().map(|(_, per_ns)| *per_ns).max().unwrap_or(0),
            limits,
            asked_for: config.limits.len(),
            concurrency: config.concurrency,
            capacity: config.queue_capacity,
            grace_ns: config.abandon_grace_ns,
            queue: VecDeque::new(),
            held: Vec::new(),
            statuses: Vec::new(),
            too_heavy: Vec::new(),
            paused_until: 0,
            closed: false,
            is_disabled,
        }
    }

    /// Whether it only tracks which requests there are, and checks no grant.
    pub(crate) fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    /// A new caller, which has not asked yet.
    pub(crate) fn newcomer(&mut self) -> u32 {
        self.statuses.push(Status::New);
        self.statuses.len() as u32 - 1
    }

    pub(crate) fn status(&self, id: u32) -> Status {
        self.statuses[id as usize]
    }

    pub(crate) fn set_over(&mut self, id: u32) {
        self.statuses[id as usize] = Status::Over;
    }

    pub(crate) fn head(&self) -> Option<u32> {
        self.queue.front().map(|(id, _)| *id)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.capacity
    }

    pub(crate) fn runs_one_at_a_time(&self) -> bool {
        self.concurrency == 1
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn running(&self, at: u64) -> usize {
        self.held.iter().filter(|held| held.ended.is_none_or(|(ended, _)| ended > at)).count()
    }

    /// What is held of a limit, capped at its rate.
    pub(crate) fn held(&self, at: u64, which: usize) -> u64 {
        let (limit, per_ns) = &self.limits[which];
        let units = self.held.iter().map(|held| match held.ended {
            Some((ended, _)) if at > ended + per_ns => 0,
            Some((ended, actual)) if at >= ended => limit.units(actual),
            _ => limit.units(held.weight),
        });
        units.fold(0, u64::saturating_add).min(limit.rate())
    }

    pub(crate) fn could_ever_run(&self, weight: u64) -> bool {
        weight > 0 && self.limits.iter().all(|(limit, _)| limit.units(weight) <= limit.rate())
    }

    /// Whether every limit, the concurrency and the pause allow it.
    pub(crate) fn may_grant(&self, weight: u64, at: u64) -> bool {
        at >= self.paused_until
            && self.running(at) < self.concurrency
            && (0..self.limits.len()).all(|which| {
                let limit = &self.limits[which].0;
                self.held(at, which) + limit.units(weight) <= limit.rate()
            })
    }

    /// Whether a task that has not waited may be granted.
    pub(crate) fn may_grant_newcomer(&self, weight: u64, at: u64) -> bool {
        !self.closed && self.queue.is_empty() && self.may_grant(weight, at)
    }

    /// Whether the limits allow the head of the queue to start.
    pub(crate) fn may_grant_head(&self, at: u64) -> bool {
        self.queue.front().is_some_and(|(_, weight)| self.may_grant(*weight, at))
    }

    /// The library looks: it grants waiters in order while the limits allow the head.
    pub(crate) fn look(&mut self, now: u64) {
        if self.is_disabled {
            return;
        }
        let longest_ns = self.longest_ns;
        self.held.retain(|held| held.ended.is_none_or(|(ended, _)| now <= ended + longest_ns));
        while let Some(&(id, weight)) = self.queue.front()
            && self.may_grant(weight, now)
        {
            self.queue.pop_front();
            self.hold(id, weight, Status::Granted);
        }
    }

    /// A caller that was not granted at once joins the queue.
    pub(crate) fn join(&mut self, id: u32, weight: u64, now: u64) -> Verdict {
        // A new caller makes the library look.
        self.look(now);
        if self.may_grant_newcomer(weight, now) {
            return Err(format!("{id} has to wait although there is room for it"));
        }
        if self.closed || !self.could_ever_run(weight) {
            return Err(format!("{id} waits and should have been refused"));
        }
        self.statuses[id as usize] = Status::Waiting;
        if !self.is_disabled {
            self.queue.push_back((id, weight));
        }
        self.look(now);
        Ok(())
    }

    /// It gets its permit at once; the runtime will start it.
    pub(crate) fn take_in_hand(&mut self, id: u32, weight: u64) {
        self.hold(id, weight, Status::InHand);
    }

    /// Its task starts.
    pub(crate) fn start(&mut self, id: u32, weight: u64, now: u64) -> Verdict {
        if matches!(self.status(id), Status::New | Status::Waiting) {
            // A new caller makes the library look, and so does a poll of the head of the queue.
            self.look(now);
        }
        match self.status(id) {
            Status::New if !self.may_grant_newcomer(weight, now) => {
                return Err(format!("{id} starts at once and may not"));
            }
            Status::New => self.hold(id, weight, Status::Running),
            Status::Waiting if self.is_disabled => {}
            Status::Waiting => {
                return Err(format!("{id} starts before its turn, or before there is room"));
            }
            Status::Granted | Status::InHand => {}
            Status::Running | Status::Over => return Err(format!("{id} starts twice")),
        }
        self.statuses[id as usize] = Status::Running;
        Ok(())
    }

    /// It leaves before its task has started.
    pub(crate) fn leave(&mut self, id: u32, now: u64) {
        match self.status(id) {
            Status::Waiting => self.queue.retain(|(other, _)| *other != id),
            Status::Granted => self.held.retain(|held| held.id != id),
            // It had its permit: as if it had been abandoned right after its start.
            Status::InHand => self.end(id, None, now + self.grace_ns),
            Status::New | Status::Running | Status::Over => {}
        }
        self.set_over(id);
        self.look(now);
    }

    pub(crate) fn complete(&mut self, id: u32, actual: Option<u64>, now: u64) {
        self.end(id, actual, now);
        self.look(now);
    }

    /// Its task was dropped while it ran.
    pub(crate) fn abandon(&mut self, id: u32, now: u64) {
        self.end(id, None, now + self.grace_ns);
        self.look(now);
    }

    pub(crate) fn pause_until(&mut self, until: u64, now: u64) {
        self.paused_until = self.paused_until.max(until);
        self.look(now);
    }

    pub(crate) fn resume(&mut self, now: u64) {
        self.paused_until = 0;
        self.look(now);
    }

    /// The pause after a refusal that names no time: the shortest period of the limits that are used up, or
    /// else the shortest of all.
    pub(crate) fn backoff(&self, at: u64) -> Duration {
        let shortest = |wants_used_up: bool| {
            let limits = self.limits.iter().take(self.asked_for).enumerate();
            let pers = limits.filter_map(|(which, (limit, per_ns))| {
                let is_used_up = self.held(at, which) == limit.rate();
                (is_used_up || !wants_used_up).then_some(*per_ns)
            });
            pers.min()
        };
        Duration::from_nanos(shortest(true).or_else(|| shortest(false)).unwrap_or(0))
    }

    pub(crate) fn set_concurrency(&mut self, tasks: usize, now: u64) {
        self.concurrency = tasks;
        self.look(now);
    }

    /// Other rates of the same periods. Waiters that are now too heavy leave.
    pub(crate) fn set_rates(&mut self, limits: &[Limit], now: u64) {
        for ((limit, _), other) in self.limits.iter_mut().zip(limits) {
            *limit = *other;
        }
        let (stay, leave): (Vec<_>, Vec<_>) =
            self.queue.iter().partition(|(_, weight)| self.could_ever_run(*weight));
        self.queue = stay.into();
        for (id, _) in leave {
            self.set_over(id);
            self.too_heavy.push(id);
        }
        self.look(now);
    }

    /// Whether a change of the limits took it out of the queue.
    pub(crate) fn became_too_heavy(&self, id: u32) -> bool {
        self.is_disabled || self.too_heavy.contains(&id)
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Closes it and empties the queue. How many were in the queue.
    pub(crate) fn abort(&mut self, now: u64) -> usize {
        self.closed = true;
        let dropped = self.queue.len();
        for (id, _) in std::mem::take(&mut self.queue) {
            self.set_over(id);
        }
        self.look(now);
        dropped
    }

    fn hold(&mut self, id: u32, weight: u64, status: Status) {
        self.statuses[id as usize] = status;
        if !self.is_disabled {
            self.held.push(Held { id, weight, ended: None });
        }
    }

    fn end(&mut self, id: u32, actual: Option<u64>, at: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
            held.ended = Some((at, actual.unwrap_or(held.weight)));
        }
        self.set_over(id);
    }
}
