//! One run: random steps until nothing is ready and nothing is to come. After each step the library is
//! compared with the model.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_core::audit;

use crate::clock::SimClock;
use crate::environment::{Environment, Event};
use crate::executor::Executor;
use crate::model::Model;
use crate::scenario::{Ending, Scenario};
use crate::stats::Stats;
use crate::task::ask;

/// The head of the queue may have been woken ahead of an opening and not been polled since. The library
/// then looks for itself this long after the opening. A waiter that the timer wakes may be later than that.
const OVERDUE_NS: u64 = 300_000;

/// More steps than any run has: a task keeps waking itself.
const STEPS_MAX: u64 = 20_000_000;

struct Simulation {
    rng: Rng,
    scenario: Scenario,
    env: Arc<Environment>,
    executor: Executor,
    limiter: Option<RateLimiter>,
    asked: u32,
    /// Whether the runtime has been polled since one of our tasks was ready.
    has_yielded: bool,
}

pub(crate) async fn run(seed: u64) -> Result<Stats, String> {
    let mut simulation = Simulation::new(seed)?;
    let mut steps = 0;
    while simulation.step().await {
        simulation.check_step()?;
        steps += 1;
        if steps > STEPS_MAX {
            return Err("it never ends: a task keeps waking itself".into());
        }
    }
    simulation.check_end()
}

impl Simulation {
    fn new(seed: u64) -> Result<Self, String> {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::new(&mut rng);
        let config = &scenario.config;
        let clock = SimClock::new(scenario.fast_ppm, scenario.wakes_late);
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
        let limiter = builder.build().map_err(|error| format!("{scenario:?}: {error}"))?;
        let model = Model::new(config, scenario.is_set_back || scenario.is_huge);
        let env = Arc::new(Environment::new(clock, model));
        env.checker().set_grace(config.abandon_grace_ns, scenario.fast_ppm);
        env.after(0, Event::Arrive);
        if rng.u8(..3) == 0 {
            env.after(scenario.some_time(&mut rng), Event::AwaitDrained);
        }
        let (executor, limiter) = (Executor::default(), Some(limiter));
        Ok(Self { rng, scenario, env, executor, limiter, asked: 0, has_yielded: false })
    }

    /// Does one step. `false`: nothing is ready and nothing is to come.
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
                if self.scenario.is_trouble(&mut self.rng) && self.rng.u8(..8) == 0 {
                    // Dropped between its wake-up and its poll.
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
                    // The runtime polls some sixty tasks for each yield.
                    for _ in 0..2 + self.asked / 30 {
                        tokio::task::yield_now().await;
                    }
                }
                return moved || self.executor.ready() > 0 || self.let_time_pass();
            }
        }
        true
    }

    /// Moves time to the next event, or past it, or not quite to it. The timer fires when it is due, or
    /// earlier, or later. `false`: nothing is to come.
    fn let_time_pass(&mut self) -> bool {
        let clock = &self.env.clock;
        let next = [self.env.next_event_at(), clock.timer_due(), clock.deadline_due()];
        let Some(next) = next.into_iter().flatten().min() else { return false };
        let by = next.saturating_sub(clock.true_ns());
        match self.rng.u8(..16) {
            0 => {
                let late = self.scenario.some_time(&mut self.rng);
                self.env.stall(by + late);
            }
            1 | 2 => clock.pass(self.rng.u64(..=by)),
            _ => clock.pass(by),
        }
        while let Some(event) = self.env.take_due() {
            self.happen(event);
        }
        while let Some(waker) = self.env.clock.take_deadline() {
            waker.wake();
        }
        self.timer();
        true
    }

    fn timer(&mut self) {
        let clock = &self.env.clock;
        let is_due = clock.timer_due().is_some_and(|due| due <= clock.true_ns());
        let is_bad = self.scenario.is_trouble(&mut self.rng);
        if is_due == is_bad {
            self.env.checker().stats.bad_timers += u64::from(is_bad);
            if !is_due || is_bad && self.rng.bool() {
                return;
            }
        }
        if let Some(waker) = clock.take_timer() {
            waker.wake();
            let now = clock.reading_ns();
            self.env.checker().model.look(now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Arrive => self.arrive(),
            Event::Kill(slot) => self.executor.kill(slot),
            Event::Pause(ns) => {
                if let Some(limiter) = &self.limiter {
                    let now = self.env.clock.reading_ns();
                    limiter.pause_for(Duration::from_nanos(ns));
                    self.env.checker().model.pause_until(now + ns, now);
                }
            }
            Event::Resume => {
                if let Some(limiter) = &self.limiter {
                    let now = self.env.clock.reading_ns();
                    limiter.resume();
                    self.env.checker().model.resume(now);
                }
            }
            Event::ChangeSettings => self.change_settings(),
            Event::AwaitDrained => self.await_drained(),
            Event::SetBack(ns) => {
                self.env.clock.set_back(ns);
                self.env.checker().stats.set_back += 1;
            }
        }
    }

    fn arrive(&mut self) {
        if self.asked == self.scenario.ending_after {
            self.begin_ending();
        }
        self.asked += 1;
        let task = self.scenario.task(&mut self.rng, true);
        if let Some(limiter) = self.limiter.clone() {
            let patience = task.patience_ns;
            let slot = self.executor.spawn(ask(Arc::clone(&self.env), limiter, task));
            if let Some(ns) = patience {
                self.env.after(ns, Event::Kill(slot));
            }
        }
        if self.asked < self.scenario.callers {
            let gap = self.scenario.gap(&mut self.rng, self.asked);
            self.env.after(gap, Event::Arrive);
        }
        if self.scenario.is_trouble(&mut self.rng) {
            let ns = self.scenario.some_time(&mut self.rng);
            self.env.after(ns, Event::Pause(ns / 2));
            if self.rng.bool() {
                self.env.after(ns + self.rng.u64(..=ns / 2), Event::Resume);
            }
        }
        if self.scenario.change_after.is_some_and(|callers| self.rng.u8(..callers) == 0) {
            self.env.after(self.scenario.some_time(&mut self.rng), Event::ChangeSettings);
        }
        if self.scenario.is_set_back && self.scenario.is_trouble(&mut self.rng) {
            self.env.after(0, Event::SetBack(self.scenario.some_time(&mut self.rng)));
        }
    }

    fn change_settings(&mut self) {
        let (limits, concurrency) = self.scenario.other_settings(&mut self.rng);
        let Some(limiter) = &self.limiter else { return };
        let now = self.env.clock.reading_ns();
        limiter.set_concurrency(concurrency).expect("in range");
        limiter.set_limits(limits.iter().copied()).expect("in range");
        let mut checker = self.env.checker();
        // Each of the two makes the library look.
        checker.model.set_concurrency(concurrency, now);
        checker.model.set_rates(&limits, now);
        checker.stats.changed += 1;
    }

    fn begin_ending(&mut self) {
        let now = self.env.clock.reading_ns();
        match (self.scenario.ending, &self.limiter) {
            (Ending::Closed, Some(limiter)) => {
                limiter.close();
                self.env.checker().model.close();
            }
            (Ending::Aborted, Some(limiter)) => {
                limiter.abort();
                let mut checker = self.env.checker();
                let aborted = checker.model.abort(now);
                checker.stats.aborted += aborted as u64;
            }
            (Ending::LastHandleDropped, _) => self.limiter = None,
            _ => {}
        }
    }

    fn await_drained(&mut self) {
        let Some(limiter) = self.limiter.clone() else { return };
        let env = Arc::clone(&self.env);
        self.executor.spawn(async move {
            let mut drained = std::pin::pin!(limiter.drained());
            std::future::poll_fn(|context| {
                let polled = drained.as_mut().poll(context);
                let now = env.clock.reading_ns();
                let mut checker = env.checker();
                // To ask makes the library look.
                checker.model.look(now);
                let is_drained = checker.model.queued() + checker.model.running(now) == 0;
                if polled.is_ready() != is_drained {
                    checker
                        .report(format!("drained is {is_drained}, and the library says otherwise"));
                }
                polled
            })
            .await;
        });
    }

    /// Compares the library with the model, after every step.
    fn check_step(&mut self) -> Result<(), String> {
        let now = self.env.clock.reading_ns();
        let timer = self.env.clock.timer_reading();
        let mut checker = self.env.checker();
        if let Some(finding) = checker.finding.take() {
            return Err(finding);
        }
        let Some(limiter) = self.limiter.as_ref().filter(|_| !checker.model.is_disabled()) else {
            return Ok(());
        };
        checker.stats.compared += 1;
        let stats = limiter.stats();
        let model = &checker.model;
        if model.may_grant_head(now) {
            let patience = if self.scenario.wakes_late { OVERDUE_NS } else { 0 };
            if timer.is_none_or(|at| at > now + patience) {
                return Err("the head of the queue has room, and no timer is set".into());
            }
        }
        let expected = (model.running(now), model.queued());
        if (stats.running, stats.queued) != expected {
            let found = (stats.running, stats.queued);
            return Err(format!("(running, queued) is {found:?} and should be {expected:?}"));
        }
        let backoff = model.backoff(now);
        if limiter.backoff() != backoff {
            let found = limiter.backoff();
            return Err(format!("the backoff is {found:?} and should be {backoff:?}"));
        }
        for (which, held) in stats.held.iter().enumerate() {
            let expected = model.held(now, which);
            if held.units.min(held.limit.rate()) != expected {
                return Err(format!("{held:?} is held and should be {expected}"));
            }
        }
        Ok(())
    }

    /// At the end: every caller has its answer, and no window has overflowed.
    fn check_end(self) -> Result<Stats, String> {
        let mut checker = self.env.checker();
        if let Some(finding) = checker.finding.take() {
            return Err(finding);
        }
        if self.executor.alive() > 0 {
            return Err(format!("{} callers never got an answer", self.executor.alive()));
        }
        if !checker.model.is_disabled() && checker.model.queued() > 0 {
            return Err(format!("{} were left in the queue", checker.model.queued()));
        }
        if let Some(limiter) = &self.limiter {
            self.env.clock.pass(2 * self.scenario.config.abandon_grace_ns + 1);
            let stats = limiter.stats();
            if !self.scenario.is_set_back && (stats.running, stats.queued) != (0, 0) {
                return Err(format!("at the end the limiter has {stats:?}"));
            }
        }
        let Stats { tasks, .. } = checker.stats;
        if checker.records.len() as u64 != tasks {
            return Err(format!("{tasks} tasks started and {} ended", checker.records.len()));
        }
        for limit in &self.scenario.config.limits {
            let audit = audit::check(limit, &checker.records).map_err(|error| error.to_string())?;
            if !audit.is_clean() {
                return Err(format!("a window overflows: {audit:?}"));
            }
            checker.stats.audits += 1;
            checker.stats.full += u64::from(audit.worst.units == u128::from(limit.rate()));
            let fullest = audit.worst.units as f64 / limit.rate() as f64;
            checker.stats.fullest = checker.stats.fullest.max(fullest);
        }
        checker.stats.simulated_ns = self.env.clock.true_ns() - crate::clock::BEGIN_NS;
        Ok(checker.stats)
    }
}
