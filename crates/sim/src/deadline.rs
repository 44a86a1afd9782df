//! Deadlines of requests: how they are asked for, and whether one was rightly missed.

use std::time::Duration;

use strict_rate_limiter::{RateLimiter, Request};

use crate::environment::{Checker, Environment};
use crate::model::Status;
use crate::scenario::Task;

/// The request that a task makes.
pub(crate) fn request<'a>(limiter: &'a RateLimiter, task: &Task) -> Request<'a> {
    let request = limiter.request().weight(task.weight);
    match task.within_ns {
        Some(ns) => request.within(Duration::from_nanos(ns)),
        None => request,
    }
}

/// When it stops waiting, as a reading. Call it as the request is first polled.
pub(crate) fn deadline(env: &Environment, task: &Task) -> Option<u64> {
    task.within_ns.map(|ns| env.clock.reading_ns() + ns)
}

/// Whether a request may be told that it has missed its deadline.
pub(crate) fn missed(
    checker: &mut Checker,
    id: u32,
    weight: u64,
    now: u64,
    deadline: u64,
    not_before: Option<u64>,
) -> bool {
    if checker.model.status(id) == Status::Waiting {
        // It was in the queue, and was polled once more.
        checker.model.look(now);
    }
    match checker.model.status(id) {
        Status::Granted => false,
        _ if now >= deadline => {
            checker.stats.missed += 1;
            true
        }
        // At once, as it would be too late: though there may be room earlier where others leave.
        Status::New | Status::Over => {
            checker.stats.refused += 1;
            let model = &checker.model;
            let is_alone = model.queued() == 0;
            not_before.is_some_and(|at| {
                at > deadline && !(is_alone && at > now && model.may_grant(weight, at - 1))
            })
        }
        _ => false,
    }
}
