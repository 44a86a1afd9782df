//! The slow, obvious limiter: it remembers every task there ever was and scans them all for every
//! question. Written from the law alone; it shares no code with the machine.
//!
//! Used by the tests, and by the fuzzing targets.

pub(crate) mod pair;

use strict_rate_limiter_core::{Config, Limit};

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) weight: u64,
    pub(crate) granted: u64,
    /// When it completed, or will (abandoned, with a grace), and what it used.
    pub(crate) ended: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) limits: Vec<(Limit, u64)>,
    pub(crate) config: Config,
    pub(crate) tasks: Vec<Task>,
    pub(crate) line: Vec<(u64, u64)>,
    /// What others used, as the protected system said: of which limit, when, and how much.
    pub(crate) elsewhere: Vec<(usize, u64, u64)>,
    pub(crate) paused_until: u64,
    pub(crate) now: u64,
}

impl Oracle {
    pub(crate) fn new(config: &Config) -> Self {
        let stretched = |per_ns: u64| {
            let ppm = u128::from(config.clock_drift_ppm);
            per_ns + u64::try_from((u128::from(per_ns) * ppm).div_ceil(1_000_000)).unwrap()
        };
        let mut limits: Vec<(Limit, u64)> =
            config.limits.iter().map(|limit| (*limit, stretched(limit.per_ns()))).collect();
        if config.paced {
            for limit in config.limits.iter().filter(|limit| limit.units(2) == 1) {
                let pace_ns = limit.per_ns().div_ceil(limit.rate());
                let pace = Limit::tasks(1, std::time::Duration::from_nanos(pace_ns)).unwrap();
                limits.push((pace, stretched(pace_ns)));
            }
        }
        let config = config.clone();
        Self {
            limits,
            config,
            tasks: vec![],
            line: vec![],
            elsewhere: vec![],
            paused_until: 0,
            now: 0,
        }
    }

    pub(crate) fn running(&self, at: u64) -> usize {
        self.tasks.iter().filter(|task| task.ended.is_none_or(|(ended, _)| ended > at)).count()
    }

    /// What is held of a limit at an instant, if nothing else happens until then.
    pub(crate) fn held(&self, which: usize, at: u64) -> u64 {
        let (limit, _) = self.limits[which];
        let running =
            self.tasks.iter().filter(|task| task.ended.is_none_or(|(ended, _)| ended > at));
        self.completed(which, at) + running.map(|task| limit.units(task.weight)).sum::<u64>()
    }

    /// What of it is held for what has completed, here or elsewhere.
    pub(crate) fn completed(&self, which: usize, at: u64) -> u64 {
        let (limit, per_ns) = self.limits[which];
        let here = self.tasks.iter().filter_map(|task| task.ended);
        let here = here.map(|(ended, actual)| (ended, limit.units(actual)));
        let elsewhere = self.elsewhere.iter().filter(|(of, ..)| *of == which);
        let all = here.chain(elsewhere.map(|(_, ended, units)| (*ended, *units)));
        all.filter(|(ended, _)| (*ended..=ended + per_ns).contains(&at))
            .map(|(_, units)| units)
            .sum()
    }

    pub(crate) fn may_grant(&self, weight: u64, at: u64) -> bool {
        at >= self.paused_until
            && self.running(at) < self.config.concurrency
            && self.limits.iter().enumerate().all(|(which, (limit, _))| {
                self.held(which, at) + limit.units(weight) <= limit.rate()
            })
    }

    /// The shortest period of the limits that are used up, else the shortest of all; no pace.
    pub(crate) fn backoff_ns(&self) -> u64 {
        let asked_for = 0..self.config.limits.len();
        let is_used_up =
            |which: &usize| self.held(*which, self.now) >= self.limits[*which].0.rate();
        let used_up: Vec<usize> = asked_for.clone().filter(is_used_up).collect();
        let those = if used_up.is_empty() { asked_for.collect() } else { used_up };
        those.iter().map(|which| self.limits[*which].1).min().unwrap()
    }

    pub(crate) fn could_ever_run(&self, weight: u64) -> bool {
        weight > 0 && self.limits.iter().all(|(limit, _)| limit.units(weight) <= limit.rate())
    }

    pub(crate) fn grant(&mut self, weight: u64) -> usize {
        self.tasks.push(Task { weight, granted: self.now, ended: None });
        self.tasks.len() - 1
    }

    /// When the next abandoned task completes.
    pub(crate) fn next_known_end(&self) -> Option<u64> {
        let ends = self.tasks.iter().filter_map(|task| task.ended);
        ends.map(|(ended, _)| ended).filter(|ended| *ended > self.now).min()
    }

    /// The latest completion so far.
    pub(crate) fn last_end(&self) -> u64 {
        let ends = self.tasks.iter().filter_map(|task| task.ended);
        let ends = ends.map(|(ended, _)| ended).filter(|ended| *ended <= self.now);
        ends.chain(self.elsewhere.iter().map(|(_, ended, _)| *ended)).max().unwrap_or(0)
    }
}
