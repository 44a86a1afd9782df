//! What a permit costs, against the peers, all in one run: `cargo bench -p strict-rate-limiter`.
//!
//! Quote ratios, not nanoseconds: these are small numbers and machines differ.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use strict_rate_limiter::future::Acquire;
use strict_rate_limiter::{Permit, RateLimiter};
use strict_rate_limiter_core::{Config, Limit, Machine};
use tokio::runtime::Runtime;

/// A limit that never binds.
const UNBOUND: &str = "1_000_000_000_000/1s";

fn unbound() -> RateLimiter {
    RateLimiter::builder().limit(UNBOUND.parse().unwrap()).build().unwrap()
}

fn governor_unbound() -> governor::DefaultDirectRateLimiter {
    governor::RateLimiter::direct(governor::Quota::per_second(NonZeroU32::MAX))
}

fn on_this_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// One task after another on one thread, with nobody else about.
fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uncontended");
    let runtime = on_this_thread();

    let limiter = unbound();
    in_a_loop(&mut group, &runtime, "ours: acquire + complete", async || {
        limiter.acquire().await.unwrap().complete();
    });
    // What a user of governor writes for both order and limit.
    let (governor, mutex) = (governor_unbound(), tokio::sync::Mutex::new(()));
    in_a_loop(&mut group, &runtime, "governor until_ready + tokio Mutex", async || {
        let _one_at_a_time = mutex.lock().await;
        governor.until_ready().await;
    });
    in_a_loop(&mut group, &runtime, "governor until_ready", async || governor.until_ready().await);
    let semaphore = tokio::sync::Semaphore::new(1);
    in_a_loop(&mut group, &runtime, "tokio Semaphore(1)", async || {
        drop(semaphore.acquire().await.unwrap());
    });
    in_a_loop(&mut group, &runtime, "Instant::now", async || {
        black_box(Instant::now());
    });
    group.finish();
}

fn in_a_loop(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    task: impl AsyncFn(),
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            runtime.block_on(repeat(times, &task));
            start.elapsed()
        });
    });
}

async fn repeat(times: u64, task: impl AsyncFn()) {
    for _ in 0..times {
        task().await;
    }
}

/// Two tasks that take turns as fast as they can, on the two threads of one runtime.
fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads");
    group.throughput(Throughput::Elements(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();

    let limiter = unbound();
    group.bench_function("ours: acquire + complete", |bencher| {
        bencher.iter_custom(|times| {
            twice(&runtime, || {
                let limiter = limiter.clone();
                async move {
                    for _ in 0..times {
                        limiter.acquire().await.unwrap().complete();
                    }
                }
            })
        });
    });
    let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
    group.bench_function("tokio Semaphore(1)", |bencher| {
        bencher.iter_custom(|times| {
            twice(&runtime, || {
                let semaphore = Arc::clone(&semaphore);
                async move {
                    for _ in 0..times {
                        drop(semaphore.acquire().await.unwrap());
                    }
                }
            })
        });
    });
    group.finish();
}

fn twice<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    task: impl Fn() -> F,
) -> Duration {
    let start = Instant::now();
    let tasks = [runtime.spawn(task()), runtime.spawn(task())];
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    start.elapsed()
}

/// A full window that moves on by one task each time, at rates from 10 to 10,000,000.
fn growth_with_rate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("full window");
    for rate in [10, 1_000, 100_000, 10_000_000] {
        let step_ns = 100;
        let limit = Limit::tasks(rate, Duration::from_nanos(rate * step_ns)).unwrap();
        let mut machine = Machine::<()>::new(Config::new([limit])).unwrap();
        let mut now = 0;
        let mut task = |machine: &mut Machine<()>| {
            now += step_ns + 1;
            let permit = machine.try_grant(now, 1).unwrap();
            machine.complete(permit, now, now, None);
        };
        for _ in 0..2 * rate {
            task(&mut machine);
        }
        group.bench_function(BenchmarkId::new("rate", rate), |bencher| {
            bencher.iter(|| task(&mut machine));
        });
    }
    group.finish();
}

/// One waiter served and one joining, with up to a million in the queue.
fn growth_with_waiters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for waiters in [1, 1_000, 1_000_000] {
        let limiter = unbound();
        let mut served = Vec::new();
        let mut permit = Some(limiter.try_acquire().unwrap());
        served.resize_with(waiters, || {
            let mut acquire = limiter.acquire();
            assert!(poll(&mut acquire).is_none());
            acquire
        });
        let mut next = 0;
        group.bench_function(BenchmarkId::new("waiters", waiters), |bencher| {
            bencher.iter(|| {
                permit.take().unwrap().complete();
                permit = poll(&mut served[next]);
                served[next] = limiter.acquire();
                assert!(poll(&mut served[next]).is_none());
                next = (next + 1) % waiters;
            });
        });
    }
    group.finish();
}

fn poll<'a>(acquire: &mut Acquire<'a>) -> Option<Permit<'a>> {
    match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit.unwrap()),
        Poll::Pending => None,
    }
}

criterion_group!(benches, uncontended, contended, growth_with_rate, growth_with_waiters);
criterion_main!(benches);
