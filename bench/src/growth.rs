//! Measures how the cost and memory of our limiter grow with the rate and with the number of waiters.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde::Serialize;
use strict_rate_limiter::future::Acquire;
use strict_rate_limiter::{Permit, RateLimiter};
use strict_rate_limiter_core::{Config, Limit, Machine};

use crate::spread::Spread;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Growth {
    /// The number of tasks in a full window, or of waiters.
    pub(crate) size: u64,
    pub(crate) ns: Spread,
    /// Bytes of the window's log.
    pub(crate) bytes: Option<usize>,
}

/// Moves a full window on by one task each time.
pub(crate) fn with_rate(rounds: usize) -> Vec<Growth> {
    const STEP_NS: u64 = 100;
    let growth = [10, 1_000, 100_000, 10_000_000].map(|rate| {
        let limit = Limit::tasks(rate, Duration::from_nanos(rate * STEP_NS)).expect("in range");
        let mut machine = Machine::<()>::new(Config::new([limit])).expect("in range");
        let mut now = 0;
        let mut task = |machine: &mut Machine<()>| {
            now += STEP_NS + 1;
            let permit = machine.try_grant(now, 1).expect("there is room for one");
            machine.complete(permit, now, now, None);
        };
        for _ in 0..2 * rate {
            task(&mut machine);
        }
        let ns = timed(rounds, 200_000, || task(&mut machine));
        Growth { size: rate, ns, bytes: Some(machine.log_bytes()) }
    });
    growth.to_vec()
}

/// Serves one waiter and adds one, with up to a million in the queue.
pub(crate) fn with_waiters(rounds: usize) -> Vec<Growth> {
    let growth = [1, 1_000, 1_000_000].map(|waiters: usize| {
        let limit = "1_000_000_000_000/1s".parse().expect("a limit");
        let limiter = RateLimiter::builder().limit(limit).build().expect("in range");
        let mut permit = Some(limiter.try_acquire().expect("nobody runs"));
        let mut waiting = Vec::new();
        waiting.resize_with(waiters, || join(&limiter));
        let mut next = 0;
        let ns = timed(rounds, 100_000, || {
            permit.take().expect("granted").complete();
            permit = poll(&mut waiting[next]);
            waiting[next] = join(&limiter);
            next = (next + 1) % waiters;
        });
        Growth { size: waiters as u64, ns, bytes: None }
    });
    growth.to_vec()
}

fn timed(rounds: usize, times: u32, mut task: impl FnMut()) -> Spread {
    let rounds = (0..rounds).map(|_| {
        let start = Instant::now();
        for _ in 0..times {
            task();
        }
        start.elapsed().as_nanos() as f64 / f64::from(times)
    });
    Spread::of(rounds.collect())
}

pub(crate) fn join(limiter: &RateLimiter) -> Acquire<'_> {
    let mut acquire = limiter.acquire();
    assert!(poll(&mut acquire).is_none(), "one runs already");
    acquire
}

pub(crate) fn poll<'a>(acquire: &mut Acquire<'a>) -> Option<Permit<'a>> {
    match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit.expect("open")),
        Poll::Pending => None,
    }
}
