//! Metrics for the `metrics` facade. See the [crate's documentation](crate#metrics) for their names.
//!
//! Counters and the gauges of queued and running tasks change by one at each event, so the numbers of limiters
//! with the same name add up. The gauges of held units are set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};
use strict_rate_limiter_core::{Held, Limit};

use super::{Name, Observed, PermitEnd};
use crate::foreign::{self, FirstPanic, Panic};

const METADATA: Metadata<'static> =
    Metadata::new("strict_rate_limiter", Level::INFO, Some(module_path!()));

/// Where each number goes. The recorder is looked up at each event, so it may be installed late, or
/// for one thread alone.
pub(crate) struct Metrics {
    queued: Key,
    running: Key,
    wait_seconds: Key,
    task_seconds: Key,
    completed: Key,
    abandoned: Key,
    overspent: Key,
    /// `None` for limiters that share a name. Locked while a thread sets the gauges, so that the latest
    /// values are set last.
    held: Option<Mutex<Vec<HeldGauges>>>,
    limiter: Label,
    /// Whether the held units have changed since the gauges were set.
    stale: AtomicBool,
}

/// The gauges of one limit: the units held of it, and that as a share of its rate.
struct HeldGauges {
    limit: Limit,
    units: Key,
    utilisation: Key,
}

/// How often one thread publishes for others before it goes on with its own work.
const PUBLISHED_IN_A_ROW_MAX: usize = 64;

const QUEUED: &str = "rate_limiter_queued";
const RUNNING: &str = "rate_limiter_running";
const WAIT_SECONDS: &str = "rate_limiter_wait_seconds";
const TASK_SECONDS: &str = "rate_limiter_task_seconds";
const COMPLETED: &str = "rate_limiter_completed_total";
const ABANDONED: &str = "rate_limiter_abandoned_total";
const OVERSPENT: &str = "rate_limiter_overspent_units_total";
const HELD: &str = "rate_limiter_held_units";
const UTILISATION: &str = "rate_limiter_utilisation_ratio";

impl Metrics {
    pub(super) fn new(name: &Name, limits: &[Limit]) -> Self {
        with_recorder(describe);
        let limiter = Label::new("limiter", name.to_string());
        let key = |name: &'static str| Key::from_parts(name, vec![limiter.clone()]);
        let held = (!name.is_shared).then(|| Mutex::new(gauges(&limiter, limits)));
        Self {
            queued: key(QUEUED),
            running: key(RUNNING),
            wait_seconds: key(WAIT_SECONDS),
            task_seconds: key(TASK_SECONDS),
            completed: key(COMPLETED),
            abandoned: key(ABANDONED),
            overspent: key(OVERSPENT),
            held,
            stale: AtomicBool::new(false),
            limiter,
        }
    }

    pub(super) fn queued(&self, panics: &mut FirstPanic) {
        panics.note(tell(|to| to.register_gauge(&self.queued, &METADATA).increment(1.0)));
    }

    pub(super) fn left(&self) {
        foreign::discard(tell(|to| to.register_gauge(&self.queued, &METADATA).decrement(1.0)));
    }

    /// `waited_ns` is `None` if it did not wait.
    pub(super) fn granted(
        &self,
        limiter: &impl Observed,
        waited_ns: Option<u64>,
        panics: &mut FirstPanic,
    ) {
        if waited_ns.is_some() {
            panics.note(tell(|to| to.register_gauge(&self.queued, &METADATA).decrement(1.0)));
        }
        panics.note(tell(|to| to.register_gauge(&self.running, &METADATA).increment(1.0)));
        let waited = seconds(waited_ns.unwrap_or(0));
        panics.note(tell(|to| to.register_histogram(&self.wait_seconds, &METADATA).record(waited)));
        panics.note(foreign::call(|| self.publish_held(limiter)));
    }

    /// The task has ended, so a panic is not passed on.
    pub(super) fn ended(&self, limiter: &impl Observed, since_ns: u64, end: PermitEnd) {
        let mut panics = FirstPanic::default();
        panics.note(tell(|to| to.register_gauge(&self.running, &METADATA).decrement(1.0)));
        let ended = match end {
            PermitEnd::Completed { .. } => Some(&self.completed),
            PermitEnd::Abandoned => Some(&self.abandoned),
            PermitEnd::Unused => None,
        };
        if let Some(ended) = ended {
            panics.note(tell(|to| to.register_counter(ended, &METADATA).increment(1)));
            if let Some(now) = panics.note(limiter.now_ns()) {
                let took = seconds(now.saturating_sub(since_ns));
                panics.note(tell(|to| {
                    to.register_histogram(&self.task_seconds, &METADATA).record(took);
                }));
            }
        }
        if let PermitEnd::Completed { excess: excess @ 1.. } = end {
            panics
                .note(tell(|to| to.register_counter(&self.overspent, &METADATA).increment(excess)));
        }
        panics.note(foreign::call(|| self.publish_held(limiter)));
        panics.discard();
    }

    /// Sets the gauges of the units held of each limit. Never blocks, as the recorder may do anything: if
    /// another thread is publishing, marks the gauges stale, and that thread publishes again. It does so at
    /// most [`PUBLISHED_IN_A_ROW_MAX`] times; after that the next grant or completion publishes.
    #[expect(clippy::cast_precision_loss, reason = "what is held within a rate is exact")]
    pub(super) fn publish_held(&self, limiter: &impl Observed) {
        let Some(held) = &self.held else { return };
        self.stale.store(true, Ordering::SeqCst);
        for _ in 0..PUBLISHED_IN_A_ROW_MAX {
            if !self.stale.load(Ordering::SeqCst) {
                return;
            }
            let mut gauges = match held.try_lock() {
                Ok(gauges) => gauges,
                Err(TryLockError::Poisoned(gauges)) => gauges.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.stale.store(false, Ordering::SeqCst);
            let all_held = limiter.held();
            self.follow_limits(&mut gauges, &all_held);
            with_recorder(|to| {
                for (held, gauges) in all_held.iter().zip(gauges.iter()) {
                    let rate = held.limit.rate() as f64;
                    to.register_gauge(&gauges.units, &METADATA).set(held.units as f64);
                    to.register_gauge(&gauges.utilisation, &METADATA).set(held.units as f64 / rate);
                }
            });
        }
    }

    /// After a change of limits: sets the gauges of the old limits to 0, and makes gauges for the new ones.
    fn follow_limits(&self, gauges: &mut Vec<HeldGauges>, all_held: &[Held]) {
        if all_held.iter().map(|held| held.limit).eq(gauges.iter().map(|gauges| gauges.limit)) {
            return;
        }
        let limits: Vec<Limit> = all_held.iter().map(|held| held.limit).collect();
        let old = std::mem::replace(gauges, self::gauges(&self.limiter, &limits));
        with_recorder(|to| {
            for gone in old.iter().filter(|old| !limits.contains(&old.limit)) {
                to.register_gauge(&gone.units, &METADATA).set(0.0);
                to.register_gauge(&gone.utilisation, &METADATA).set(0.0);
            }
        });
    }
}

fn gauges(limiter: &Label, limits: &[Limit]) -> Vec<HeldGauges> {
    let key = |name: &'static str, limit: &Limit| {
        Key::from_parts(name, vec![limiter.clone(), Label::new("limit", limit.to_string())])
    };
    let gauges = |limit: &Limit| HeldGauges {
        limit: *limit,
        units: key(HELD, limit),
        utilisation: key(UTILISATION, limit),
    };
    limits.iter().map(gauges).collect()
}

/// Makes one call to the recorder, whether or not earlier calls panicked.
fn tell(what: impl FnOnce(&dyn Recorder)) -> Result<(), Panic> {
    foreign::call(|| with_recorder(what))
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn describe(to: &dyn Recorder) {
    let name = KeyName::from_const_str;
    let text = SharedString::const_str;
    to.describe_gauge(name(QUEUED), Some(Unit::Count), text("tasks waiting for a permit"));
    to.describe_gauge(name(RUNNING), Some(Unit::Count), text("tasks holding a permit"));
    to.describe_histogram(
        name(WAIT_SECONDS),
        Some(Unit::Seconds),
        text("from asking to the permit"),
    );
    to.describe_histogram(
        name(TASK_SECONDS),
        Some(Unit::Seconds),
        text("from the permit to the completion"),
    );
    to.describe_counter(name(COMPLETED), Some(Unit::Count), text("tasks completed"));
    to.describe_counter(
        name(ABANDONED),
        Some(Unit::Count),
        text("tasks whose permit was dropped, cancelled calls among them"),
    );
    to.describe_counter(
        name(OVERSPENT),
        Some(Unit::Count),
        text("units used beyond what was reserved"),
    );
    to.describe_gauge(name(HELD), Some(Unit::Count), text("units held of a limit"));
    to.describe_gauge(name(UTILISATION), None, text("units held of a limit, over its rate"));
}
