//! The law and the order, said once more, slowly: a list of whatever is held, scanned for every
//! question.
//!
//! The referee is told what everyone does and when the library *looks* (after a change that may let
//! somebody move up, when its timer comes, when whoever is first is polled). So it knows who has
//! to be granted at each moment, and says so when the library grants anyone else, grants too
//! early, or leaves somebody waiting for whom there is room.

use std::collections::VecDeque;
use std::time::Duration;

use strict_rate_limiter_core::{Config, Limit};

/// Where somebody stands who asked for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    New,
    Waiting,
    /// Out of the queue, and yet to see it.
    Granted,
    /// Pushed and permitted at once, and yet to be started by the runtime.
    InHand,
    Running,
    Over,
}

/// A permit that is held, or was.
#[derive(Debug)]
struct Held {
    id: u32,
    weight: u64,
    /// When its task completed or will, and what it weighed.
    ended: Option<(u64, u64)>,
}

/// Knows what must be. Times are readings of the limiter's clock, which never go back here.
#[derive(Debug)]
pub(crate) struct Referee {
    limits: Vec<(Limit, u64)>,
    /// How many of them were asked for; what follows is the pace.
    asked_for: usize,
    longest_ns: u64,
    concurrency: usize,
    capacity: usize,
    grace_ns: u64,
    line: VecDeque<(u32, u64)>,
    held: Vec<Held>,
    fates: Vec<Fate>,
    paused_until: u64,
    closed: bool,
    is_blind: bool,
}

type Verdict = Result<(), String>;

impl Referee {
    pub(crate) fn new(config: &Config, is_blind: bool) -> Self {
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
            line: VecDeque::new(),
            held: Vec::new(),
            fates: Vec::new(),
            paused_until: 0,
            closed: false,
            is_blind,
        }
    }

    /// Whether it cannot follow, and only keeps in mind who has asked and who has ended.
    pub(crate) fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Somebody new, who has not asked yet.
    pub(crate) fn newcomer(&mut self) -> u32 {
        self.fates.push(Fate::New);
        self.fates.len() as u32 - 1
    }

    pub(crate) fn fate(&self, id: u32) -> Fate {
        self.fates[id as usize]
    }

    pub(crate) fn end_fate(&mut self, id: u32) {
        self.fates[id as usize] = Fate::Over;
    }

    pub(crate) fn head(&self) -> Option<u32> {
        self.line.front().map(|(id, _)| *id)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_full(&self) -> bool {
        self.line.len() >= self.capacity
    }

    pub(crate) fn runs_one_at_a_time(&self) -> bool {
        self.concurrency == 1
    }

    pub(crate) fn queued(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn running(&self, at: u64) -> usize {
        self.held.iter().filter(|held| held.ended.is_none_or(|(ended, _)| ended > at)).count()
    }

    /// What is held of the limits asked for, at most their rate each.
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

    /// Whether the law allows it.
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
        !self.closed && self.line.is_empty() && self.may_grant(weight, at)
    }

    /// Whether there is room for whoever is first.
    pub(crate) fn may_grant_head(&self, at: u64) -> bool {
        self.line.front().is_some_and(|(_, weight)| self.may_grant(*weight, at))
    }

    /// The library looks: all for whom there is room are granted, in order.
    pub(crate) fn look(&mut self, now: u64) {
        if self.is_blind {
            return;
        }
        let longest_ns = self.longest_ns;
        self.held.retain(|held| held.ended.is_none_or(|(ended, _)| now <= ended + longest_ns));
        while let Some(&(id, weight)) = self.line.front()
            && self.may_grant(weight, now)
        {
            self.line.pop_front();
            self.hold(id, weight, Fate::Granted);
        }
    }

    /// It was not granted at once: it waits.
    pub(crate) fn join(&mut self, id: u32, weight: u64, now: u64) -> Verdict {
        // Whoever comes makes the library look.
        self.look(now);
        if self.may_grant_newcomer(weight, now) {
            return Err(format!("{id} has to wait, and there is room for it"));
        }
        if self.closed || !self.could_ever_run(weight) {
            return Err(format!("{id} waits, and should have been refused"));
        }
        self.fates[id as usize] = Fate::Waiting;
        if !self.is_blind {
            self.line.push_back((id, weight));
        }
        self.look(now);
        Ok(())
    }

    /// It is permitted at once, for the runtime to start.
    pub(crate) fn take_in_hand(&mut self, id: u32, weight: u64) {
        self.hold(id, weight, Fate::InHand);
    }

    /// Its task starts.
    pub(crate) fn start(&mut self, id: u32, weight: u64, now: u64) -> Verdict {
        if matches!(self.fate(id), Fate::New | Fate::Waiting) {
            // Whoever comes, and whoever is first and is polled, makes the library look.
            self.look(now);
        }
        match self.fate(id) {
            Fate::New if !self.may_grant_newcomer(weight, now) => {
                return Err(format!("{id} starts at once, and may not"));
            }
            Fate::New => self.hold(id, weight, Fate::Running),
            Fate::Waiting if self.is_blind => {}
            Fate::Waiting => {
                return Err(format!("{id} starts before its turn, or before there is room"));
            }
            Fate::Granted | Fate::InHand => {}
            Fate::Running | Fate::Over => return Err(format!("{id} starts twice")),
        }
        self.fates[id as usize] = Fate::Running;
        Ok(())
    }

    /// It leaves before its task has started.
    pub(crate) fn leave(&mut self, id: u32, now: u64) {
        match self.fate(id) {
            Fate::Waiting => self.line.retain(|(other, _)| *other != id),
            Fate::Granted => self.held.retain(|held| held.id != id),
            // It had its permit in hand: as if it had run for no time.
            Fate::InHand => self.end(id, None, now + self.grace_ns),
            Fate::New | Fate::Running | Fate::Over => {}
        }
        self.end_fate(id);
        self.look(now);
    }

    pub(crate) fn complete(&mut self, id: u32, actual: Option<u64>, now: u64) {
        self.end(id, actual, now);
        self.look(now);
    }

    /// Dropped while it ran.
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

    /// How long a refusal that says nothing is to pause: the shortest period of the limits that are
    /// used up, else the shortest of all.
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

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// How many were dropped from the queue.
    pub(crate) fn abort(&mut self, now: u64) -> usize {
        self.closed = true;
        let dropped = self.line.len();
        for (id, _) in std::mem::take(&mut self.line) {
            self.end_fate(id);
        }
        self.look(now);
        dropped
    }

    fn hold(&mut self, id: u32, weight: u64, fate: Fate) {
        self.fates[id as usize] = fate;
        if !self.is_blind {
            self.held.push(Held { id, weight, ended: None });
        }
    }

    fn end(&mut self, id: u32, actual: Option<u64>, at: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
            held.ended = Some((at, actual.unwrap_or(held.weight)));
        }
        self.end_fate(id);
    }
}
