//! What a permit costs, against the peers, all in one run: `cargo bench -p strict-rate-limiter`.
//!
//! Quote ratios, not nanoseconds: these are small numbers and machines differ.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Barrier};
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
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..times {
                    task().await;
                }
                start.elapsed()
            })
        });
    });
}

/// Two threads, each with a runtime of its own, taking turns as fast as they can.
fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads");
    group.throughput(Throughput::Elements(2));

    let limiter = unbound();
    on_two_threads(&mut group, "ours: acquire + complete", async move || {
        limiter.acquire().await.unwrap().complete();
    });
    let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
    on_two_threads(&mut group, "tokio Semaphore(1)", async move || {
        drop(semaphore.acquire().await.unwrap());
    });
    group.finish();
}

fn on_two_threads(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    task: impl AsyncFn() + Clone + Send,
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let start_line = Barrier::new(2);
            let run = |task: Box<dyn FnOnce() -> Duration + Send + '_>| task();
            std::thread::scope(|threads| {
                let started: Vec<_> = (0..2)
                    .map(|_| {
                        let (task, start_line) = (task.clone(), &start_line);
                        threads.spawn(move || {
                            run(Box::new(move || {
                                on_this_thread().block_on(async {
                                    start_line.wait();
                                    let start = Instant::now();
                                    for _ in 0..times {
                                        task().await;
                                    }
                                    start.elapsed()
                                })
                            }))
                        })
                    })
                    .collect();
                started.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
            })
        });
    });
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
