//! Threads, real time, random cancels: no waiter is forgotten, and the audit of every run is clean.
//!
//! Real time decides only how the threads interleave. No assertion depends on how fast they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strict_rate_limiter::{Limit, RateLimiter};
use strict_rate_limiter_core::{Record, audit};

/// The tasks that ran, each from a time read after the grant to one read before the completion.
#[derive(Clone)]
struct Log {
    begin: Instant,
    records: Arc<Mutex<Vec<Record>>>,
    running: Arc<AtomicUsize>,
    concurrency: usize,
}

impl Log {
    fn new(concurrency: usize) -> Self {
        let (records, running) = (Arc::default(), Arc::default());
        Self { begin: Instant::now(), records, running, concurrency }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap()
    }

    fn start(&self) -> u64 {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(running <= self.concurrency, "{running} at once");
        self.now()
    }

    fn end(&self, start: u64, weight: u64) {
        let end = self.now();
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.records.lock().unwrap().push(Record { start, end, weight });
    }

    fn assert_clean(&self, limits: &[Limit]) -> usize {
        let records = self.records.lock().unwrap();
        for limit in limits {
            let audit = audit::check(limit, &records).unwrap();
            assert!(audit.is_clean(), "{audit:?}");
        }
        records.len()
    }
}

/// A small generator, so that a run's choices follow from its number.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn limits(texts: &[&str]) -> Vec<Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_waiter_is_forgotten_when_others_give_up_at_random() {
    for (concurrency, texts) in [(1, &["40/5ms"][..]), (3, &["25/4ms", "60w/4ms"])] {
        let limits = limits(texts);
        let builder = RateLimiter::builder().limits(limits.clone()).concurrency(concurrency);
        let limiter = builder.build().unwrap();
        let log = Log::new(concurrency);
        let callers = (1..=16_u64).map(|seed| {
            let (limiter, log) = (limiter.clone(), log.clone());
            tokio::spawn(async move {
                let mut random = Random(seed * 0x9E37_79B9);
                let mut ran = 0;
                while ran < 60 {
                    let weight = 1 + random.below(4);
                    let patience = Duration::from_micros(random.below(3_000));
                    let acquire = limiter.request().weight(weight).acquire();
                    let Ok(permit) = tokio::time::timeout(patience, acquire).await else {
                        continue;
                    };
                    let permit = permit.unwrap();
                    let start = log.start();
                    if random.below(4) == 0 {
                        tokio::task::yield_now().await;
                    }
                    log.end(start, weight);
                    permit.complete();
                    ran += 1;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        assert_eq!(log.assert_clean(&limits), 16 * 60);
        limiter.drained().await;
        assert_eq!(limiter.stats().completed, 16 * 60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_tasks_and_pushes_share_a_limiter() {
    let limits = limits(&["50/5ms"]);
    let limiter = RateLimiter::builder().limits(limits.clone()).queue_capacity(20).build().unwrap();
    let log = Log::new(1);
    let threads = (0..3).map(|_| {
        let (limiter, log) = (limiter.clone(), log.clone());
        tokio::task::spawn_blocking(move || {
            for _ in 0..100 {
                let permit = limiter.acquire_blocking().unwrap();
                let start = log.start();
                log.end(start, 1);
                permit.complete();
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    let pushers = (0..3).map(|_| {
        let (limiter, log) = (limiter.clone(), log.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                let log = log.clone();
                let task = move || {
                    let start = log.start();
                    log.end(start, 1);
                };
                drop(limiter.push_fn(task).await.unwrap());
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    for thread in threads {
        thread.await.unwrap();
    }
    limiter.close();
    limiter.drained().await;
    assert_eq!(log.assert_clean(&limits), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_abort_during_a_run_answers_all_waiters() {
    for round in 0..50 {
        let limiter = RateLimiter::builder().limit("20/1ms".parse().unwrap()).build().unwrap();
        let callers = (0..8).map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let mut ran = 0;
                while let Ok(permit) = limiter.acquire().await {
                    permit.complete();
                    ran += 1;
                }
                ran
            })
        });
        let callers: Vec<_> = callers.collect();
        tokio::time::sleep(Duration::from_micros(100 * round)).await;
        limiter.abort();
        let mut ran = 0;
        for caller in callers {
            ran += caller.await.unwrap();
        }
        assert_eq!(limiter.stats().completed, ran);
        assert_eq!((limiter.stats().running, limiter.stats().queued), (0, 0));
    }
}

#[test]
fn one_limiter_serves_independent_runtimes() {
    let limits = limits(&["30/3ms"]);
    let limiter = RateLimiter::builder().limits(limits.clone()).build().unwrap();
    let log = Log::new(1);
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..150 {
                        let ran = limiter.run(async {
                            let start = log.start();
                            tokio::task::yield_now().await;
                            log.end(start, 1);
                        });
                        ran.await.unwrap();
                    }
                });
            });
        }
    });
    assert_eq!(log.assert_clean(&limits), 450);
}
