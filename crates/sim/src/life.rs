//! A life: step by step, whoever's turn it is by chance, until nothing moves any more.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_core::audit;

use crate::clock::SimClock;
use crate::executor::Executor;
use crate::plan::{Ending, Plan};
use crate::referee::Referee;
use crate::tally::Tally;
use crate::task::ask;
use crate::world::{Event, World};

/// How long after an opening the library looks for itself where the first in line was woken ahead
/// of it and has not come. Whoever the timer wakes comes late by more than this at times.
const OVERDUE_NS: u64 = 300_000;

/// More steps than any life has: somebody keeps waking themselves.
const STEPS_MAX: u64 = 20_000_000;

struct Life {
    rng: Rng,
    plan: Plan,
    world: Arc<World>,
    executor: Executor,
    limiter: Option<RateLimiter>,
    asked: u32,
    /// Whether the runtime has had its turn since somebody here was ready.
    has_yielded: bool,
}

pub(crate) async fn live(seed: u64) -> Result<Tally, String> {
    let mut life = Life::new(seed)?;
    let mut steps = 0;
    while life.step().await {
        life.look_on()?;
        steps += 1;
        if steps > STEPS_MAX {
            return Err("it never ends: somebody keeps waking themselves".into());
        }
    }
    life.last_judgement()
}

impl Life {
    fn new(seed: u64) -> Result<Self, String> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(&mut rng);
        let config = &plan.config;
        let clock = SimClock::new(plan.fast_ppm, plan.wakes_late);
        let mut builder = RateLimiter::builder()
            .limits(config.limits.iter().copied())
            .concurrency(config.concurrency)
            .queue_capacity(config.queue_capacity)
            .abandon_grace(Duration::from_nanos(config.abandon_grace_ns))
            .clock_drift(config.clock_drift_ppm)
            .clock(clock.clone());
        if config.paced {
            builder = builder.paced();
        }
        let limiter = builder.build().map_err(|error| format!("{plan:?}: {error}"))?;
        let referee = Referee::new(config, plan.is_set_back || plan.is_huge);
        let world = Arc::new(World::new(clock, referee));
        world.book().set_grace(config.abandon_grace_ns, plan.fast_ppm);
        world.after(0, Event::Arrive);
        if rng.u8(..3) == 0 {
            world.after(plan.some_time(&mut rng), Event::AwaitDrained);
        }
        let (executor, limiter) = (Executor::default(), Some(limiter));
        Ok(Self { rng, plan, world, executor, limiter, asked: 0, has_yielded: false })
    }

    /// Does one thing. `false`: nothing moves any more.
    async fn step(&mut self) -> bool {
        let ready = self.executor.ready();
        match self.rng.u8(..32) {
            0 => {
                self.let_time_pass();
            }
            1..4 => tokio::task::yield_now().await,
            _ if ready > 0 => {
                self.has_yielded = false;
                let which = self.rng.usize(..ready);
                if self.plan.is_trouble(&mut self.rng) && self.rng.u8(..8) == 0 {
                    // Dropped when it was about to see what it was woken for.
                    self.executor.kill_ready(which);
                } else {
                    self.executor.poll(which);
                }
            }
            _ if !self.has_yielded => {
                self.has_yielded = true;
                tokio::task::yield_now().await;
            }
            _ => {
                self.has_yielded = false;
                let moved = self.let_time_pass();
                if !moved {
                    // The runtime runs some sixty tasks in a turn.
                    for _ in 0..2 + self.asked / 30 {
                        tokio::task::yield_now().await;
                    }
                }
                return moved || self.executor.ready() > 0 || self.let_time_pass();
            }
        }
        true
    }

    /// To the next event, or past it, or not quite; the timer comes when it is due, or before,
    /// or later. `false`: there is nothing to come.
    fn let_time_pass(&mut self) -> bool {
        let clock = &self.world.clock;
        let next = [self.world.next_event_at(), clock.timer_due()].into_iter().flatten().min();
        let Some(next) = next else { return false };
        let by = next.saturating_sub(clock.true_ns());
        match self.rng.u8(..16) {
            0 => {
                let late = self.plan.some_time(&mut self.rng);
                self.world.stall(by + late);
            }
            1 | 2 => clock.pass(self.rng.u64(..=by)),
            _ => clock.pass(by),
        }
        while let Some(event) = self.world.take_due() {
            self.happen(event);
        }
        self.timer();
        true
    }

    fn timer(&mut self) {
        let clock = &self.world.clock;
        let is_due = clock.timer_due().is_some_and(|due| due <= clock.true_ns());
        let is_bad = self.plan.is_trouble(&mut self.rng);
        if is_due == is_bad {
            self.world.book().tally.bad_timers += u64::from(is_bad);
            if !is_due || is_bad && self.rng.bool() {
                return;
            }
        }
        if let Some(waker) = clock.take_timer() {
            waker.wake();
            let now = clock.reading_ns();
            self.world.book().referee.look(now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Arrive => self.arrive(),
            Event::Kill(slot) => self.executor.kill(slot),
            Event::Pause(ns) => {
                if let Some(limiter) = &self.limiter {
                    let now = self.world.clock.reading_ns();
                    limiter.pause_for(Duration::from_nanos(ns));
                    self.world.book().referee.pause_until(now + ns, now);
                }
            }
            Event::Resume => {
                if let Some(limiter) = &self.limiter {
                    let now = self.world.clock.reading_ns();
                    limiter.resume();
                    self.world.book().referee.resume(now);
                }
            }
            Event::AwaitDrained => self.await_drained(),
            Event::SetBack(ns) => {
                self.world.clock.set_back(ns);
                self.world.book().tally.set_back += 1;
            }
        }
    }

    fn arrive(&mut self) {
        if self.asked == self.plan.ending_after {
            self.begin_to_end();
        }
        self.asked += 1;
        let task = self.plan.task(&mut self.rng, true);
        if let Some(limiter) = self.limiter.clone() {
            let patience = task.patience_ns;
            let slot = self.executor.spawn(ask(Arc::clone(&self.world), limiter, task));
            if let Some(ns) = patience {
                self.world.after(ns, Event::Kill(slot));
            }
        }
        if self.asked < self.plan.asking {
            let gap = self.plan.gap(&mut self.rng, self.asked);
            self.world.after(gap, Event::Arrive);
        }
        if self.plan.is_trouble(&mut self.rng) {
            let ns = self.plan.some_time(&mut self.rng);
            self.world.after(ns, Event::Pause(ns / 2));
            if self.rng.bool() {
                self.world.after(ns + self.rng.u64(..=ns / 2), Event::Resume);
            }
        }
        if self.plan.is_set_back && self.plan.is_trouble(&mut self.rng) {
            self.world.after(0, Event::SetBack(self.plan.some_time(&mut self.rng)));
        }
    }

    fn begin_to_end(&mut self) {
        let now = self.world.clock.reading_ns();
        match (self.plan.ending, &self.limiter) {
            (Ending::Closed, Some(limiter)) => {
                limiter.close();
                self.world.book().referee.close();
            }
            (Ending::Aborted, Some(limiter)) => {
                limiter.abort();
                let mut book = self.world.book();
                let aborted = book.referee.abort(now);
                book.tally.aborted += aborted as u64;
            }
            (Ending::LastHandleDropped, _) => self.limiter = None,
            _ => {}
        }
    }

    fn await_drained(&mut self) {
        let Some(limiter) = self.limiter.clone() else { return };
        let world = Arc::clone(&self.world);
        self.executor.spawn(async move {
            let mut drained = std::pin::pin!(limiter.drained());
            std::future::poll_fn(|context| {
                let polled = drained.as_mut().poll(context);
                let now = world.clock.reading_ns();
                let mut book = world.book();
                // Asking is a look as well.
                book.referee.look(now);
                let is_drained = book.referee.queued() + book.referee.running(now) == 0;
                if polled.is_ready() != is_drained {
                    book.find(format!("drained is {is_drained}, and the library says not so"));
                }
                polled
            })
            .await;
        });
    }

    /// Holds the library to the referee, after every step.
    fn look_on(&mut self) -> Result<(), String> {
        let now = self.world.clock.reading_ns();
        let timer = self.world.clock.timer_reading();
        let mut book = self.world.book();
        if let Some(finding) = book.finding.take() {
            return Err(finding);
        }
        let Some(limiter) = self.limiter.as_ref().filter(|_| !book.referee.is_blind()) else {
            return Ok(());
        };
        book.tally.compared += 1;
        let stats = limiter.stats();
        let referee = &book.referee;
        if referee.may_grant_head(now) {
            let patience = if self.plan.wakes_late { OVERDUE_NS } else { 0 };
            if timer.is_none_or(|at| at > now + patience) {
                return Err("there is room for the first in line, and nobody will look".into());
            }
        }
        let expected = (referee.running(now), referee.queued());
        if (stats.running, stats.queued) != expected {
            let found = (stats.running, stats.queued);
            return Err(format!("(running, queued) is {found:?}, and should be {expected:?}"));
        }
        let backoff = referee.backoff(now);
        if limiter.backoff() != backoff {
            let found = limiter.backoff();
            return Err(format!("the backoff is {found:?}, and should be {backoff:?}"));
        }
        for (which, held) in stats.held.iter().enumerate() {
            let expected = referee.held(now, which);
            if held.units.min(held.limit.rate()) != expected {
                return Err(format!("{held:?} is held, and should be {expected}"));
            }
        }
        Ok(())
    }

    /// Everyone has their answer, and no window has overflowed.
    fn last_judgement(self) -> Result<Tally, String> {
        let mut book = self.world.book();
        if let Some(finding) = book.finding.take() {
            return Err(finding);
        }
        if self.executor.alive() > 0 {
            return Err(format!("{} actors are forgotten", self.executor.alive()));
        }
        if !book.referee.is_blind() && book.referee.queued() > 0 {
            return Err(format!("{} are forgotten in the queue", book.referee.queued()));
        }
        if let Some(limiter) = &self.limiter {
            self.world.clock.pass(2 * self.plan.config.abandon_grace_ns + 1);
            let stats = limiter.stats();
            if !self.plan.is_set_back && (stats.running, stats.queued) != (0, 0) {
                return Err(format!("in the end there is {stats:?}"));
            }
        }
        let Tally { tasks, .. } = book.tally;
        if book.records.len() as u64 != tasks {
            return Err(format!("{tasks} tasks started and {} ended", book.records.len()));
        }
        for limit in &self.plan.config.limits {
            let audit = audit(limit, &book.records).map_err(|error| error.to_string())?;
            if !audit.is_clean() {
                return Err(format!("a window overflows: {audit:?}"));
            }
            book.tally.audits += 1;
            book.tally.full += u64::from(audit.worst.units == u128::from(limit.rate()));
            let fullest = audit.worst.units as f64 / limit.rate() as f64;
            book.tally.fullest = book.tally.fullest.max(fullest);
        }
        book.tally.simulated_ns = self.world.clock.true_ns() - crate::clock::BEGIN_NS;
        Ok(book.tally)
    }
}
