//! The oracle: a slow limiter that remembers every task and scans them all for each question. Written from the
//! law alone; it shares no code with the machine.
//!
//! Used by the tests, and by the fuzzing targets.

pub(crate) mod pair;

use strict_rate_limiter_core::limit::RATE_MAX;
use strict_rate_limiter_core::{Config, Limit};

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) weight: u64,
    pub(crate) granted: u64,
    /// When it completed, or will complete (if abandoned, after the grace), and its usage.
    pub(crate) ended: Option<(u64, u64)>,
    /// It ended before the limits last changed, and is counted in [`Oracle::elsewhere`].
    pub(crate) is_settled: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) limits: Vec<(Limit, u64)>,
    pub(crate) config: Config,
    pub(crate) tasks: Vec<Task>,
    pub(crate) queue: Vec<(u64, u64)>,
    /// Usage that is in none of the tasks above: the limit, the completion time, the units. By other clients, or
    /// from before the latest change of limits.
    pub(crate) elsewhere: Vec<(usize, u64, u64)>,
    /// For each limit: the units expired before the latest change of limits, and the units that it did not bound,
    /// which are all units before the change and other clients' usage since.
    dropped: Vec<u64>,
    unbounded: Vec<u64>,
    pub(crate) paused_until: u64,
    pub(crate) now: u64,
}

impl Oracle {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = all_limits(config);
        let config = config.clone();
        let mut oracle = Self {
            limits,
            config,
            tasks: vec![],
            queue: vec![],
            elsewhere: vec![],
            dropped: vec![],
            unbounded: vec![],
            paused_until: 0,
            now: 0,
        };
        oracle.dropped = vec![0; oracle.limits.len()];
        oracle.unbounded = vec![0; oracle.limits.len()];
        oracle
    }

    pub(crate) fn running(&self, at: u64) -> usize {
        self.tasks.iter().filter(|task| task.ended.is_none_or(|(ended, _)| ended > at)).count()
    }

    /// The units of a limit held at an instant, if nothing else happens until then.
    pub(crate) fn held(&self, which: usize, at: u64) -> u64 {
        let (limit, _) = self.limits[which];
        let running =
            self.tasks.iter().filter(|task| task.ended.is_none_or(|(ended, _)| ended > at));
        self.completed(which, at) + running.map(|task| limit.units(task.weight)).sum::<u64>()
    }

    /// Those of them held by completions, here or elsewhere.
    pub(crate) fn completed(&self, which: usize, at: u64) -> u64 {
        let (limit, per_ns) = self.limits[which];
        let here = self.tasks.iter().filter(|task| !task.is_settled).filter_map(|task| task.ended);
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
        self.tasks.push(Task { weight, granted: self.now, ended: None, is_settled: false });
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

    /// Other clients used a limit, as the protected system said.
    pub(crate) fn use_elsewhere(&mut self, which: usize, at: u64, units: u64) {
        self.elsewhere.push((which, at, units));
        self.unbounded[which] += units;
    }

    /// Whether the whole history, with everything that has been forgotten, keeps the limits at this instant.
    pub(crate) fn keeps_the_law(&self, at: u64) -> bool {
        self.limits.iter().all(|(limit, per_ns)| {
            let held = self.tasks.iter().filter_map(|task| match task.ended {
                Some((ended, actual)) if ended <= at => {
                    (at <= ended + per_ns).then(|| limit.units(actual))
                }
                _ => Some(limit.units(task.weight)),
            });
            held.sum::<u64>() <= limit.rate()
        })
    }

    /// Changes the limits at `now`, with completions stamped `at`. Returns the tickets of the waiters that are now
    /// too heavy, which leave.
    pub(crate) fn set_limits(&mut self, limits: Vec<Limit>, now: u64, at: u64) -> Vec<u64> {
        let asked_for = self.config.limits.len();
        self.config.limits = limits;
        let mut old = std::mem::replace(&mut self.limits, all_limits(&self.config));
        // The paces' histories have nothing that the limits' do not have.
        old.truncate(asked_for);
        let has_ended =
            |task: &&Task| !task.is_settled && task.ended.is_some_and(|(ended, _)| ended <= now);
        // All completions that an old limit has counted.
        let counted = |which: usize| -> Vec<(u64, u64)> {
            let here = self.tasks.iter().filter(has_ended).filter_map(|task| task.ended);
            let here = here.map(|(ended, actual)| (ended, old[which].0.units(actual)));
            let elsewhere = self.elsewhere.iter().filter(|(of, ..)| *of == which);
            here.chain(elsewhere.map(|(_, ended, units)| (*ended, *units))).collect()
        };
        let sum = |entries: &[(u64, u64)]| entries.iter().map(|(_, units)| units).sum::<u64>();
        let (mut elsewhere, mut dropped, mut unbounded) = (vec![], vec![], vec![]);
        for (which, (limit, per_ns)) in self.limits.iter().enumerate() {
            let same_unit = |other: &usize| old[*other].0.unit() == limit.unit();
            let sources: Vec<usize> = (0..old.len()).filter(same_unit).collect();
            let Some(longest) = sources.iter().copied().max_by_key(|other| old[*other].1) else {
                elsewhere.push((which, at, RATE_MAX));
                dropped.push(0);
                unbounded.push(RATE_MAX);
                continue;
            };
            // From each instant on, the new limit holds as much as the old limit that holds most.
            let known: Vec<Vec<(u64, u64)>> = sources
                .iter()
                .map(|source| {
                    let is_held = |(ended, _): &(u64, u64)| now <= ended + old[*source].1;
                    counted(*source).into_iter().filter(is_held).collect()
                })
                .collect();
            let since = |instant: u64| {
                let of_one = |entries: &Vec<(u64, u64)>| {
                    sum(&entries
                        .iter()
                        .copied()
                        .filter(|(ended, _)| *ended >= instant)
                        .collect::<Vec<_>>())
                };
                known.iter().map(of_one).max().unwrap_or(0)
            };
            let instants: std::collections::BTreeSet<u64> =
                known.iter().flatten().map(|(ended, _)| *ended).collect();
            let held =
                instants.iter().map(|instant| (*instant, since(*instant) - since(instant + 1)));
            elsewhere.extend(
                held.filter(|(_, units)| *units > 0).map(|(ended, units)| (which, ended, units)),
            );
            let gone = |source: &usize| {
                let is_gone = |(ended, _): &(u64, u64)| now > ended + old[*source].1;
                self.dropped[*source]
                    + sum(&counted(*source).into_iter().filter(is_gone).collect::<Vec<_>>())
            };
            let gone = sources.iter().map(gone).max().unwrap_or(0);
            let not_bounded = |source: &usize| {
                let overspent = self.tasks.iter().filter(has_ended).map(|task| {
                    let (_, actual) = task.ended.expect("it has ended");
                    let units = |weight| old[*source].0.units(weight);
                    if actual > task.weight { units(actual) - units(task.weight) } else { 0 }
                });
                self.unbounded[*source] + overspent.sum::<u64>()
            };
            let not_bounded = sources.iter().map(not_bounded).max().unwrap_or(0);
            let (old_limit, old_per_ns) = old[longest];
            if *per_ns > old_per_ns {
                let at_old_rate = old_limit.rate() * (per_ns.div_ceil(old_per_ns) - 1);
                elsewhere.push((which, at, gone.min(at_old_rate + not_bounded).min(RATE_MAX)));
            }
            dropped.push(gone);
            unbounded.push(gone + since(0));
        }
        (self.elsewhere, self.dropped, self.unbounded) = (elsewhere, dropped, unbounded);
        // The tests refer to tasks by position, so the tasks stay in the list.
        for task in
            self.tasks.iter_mut().filter(|task| task.ended.is_some_and(|(ended, _)| ended <= now))
        {
            task.is_settled = true;
        }
        let (stay, leave): (Vec<_>, Vec<_>) =
            self.queue.iter().partition(|(_, weight)| self.could_ever_run(*weight));
        self.queue = stay;
        leave.into_iter().map(|(ticket, _)| ticket).collect()
    }
}

/// The limits of the settings, then the paces, each with its period stretched by the clock drift.
fn all_limits(config: &Config) -> Vec<(Limit, u64)> {
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
    limits
}
