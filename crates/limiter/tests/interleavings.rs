//! Every order in which threads can meet at a limiter, tried one after the other by loom: hand-over,
//! cancelling, closing, the timer, the last handle.
//!
//! `RUSTFLAGS="--cfg interleavings" cargo test --release -p strict-rate-limiter --test interleavings`
//!
//! A waiter that is forgotten shows as a deadlock in loom. Time stands still unless a model moves it.

#![cfg(interleavings)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use strict_rate_limiter::clock::{Clock, ManualClock};
use strict_rate_limiter::{AcquireError, RateLimiter};

fn every_order(model: impl Fn() + Sync + Send + 'static) {
    let tried = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tried);
    loom::model(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let tried = tried.load(Ordering::Relaxed);
    assert!(tried > 1, "there was nothing to try");
    println!("{tried} orders");
}

/// The number of running tasks, now and at most.
#[derive(Clone, Default)]
struct Running(Arc<loom::sync::atomic::AtomicUsize>);

impl Running {
    fn task(&self, most: usize) {
        let running = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(running <= most, "{running} at once");
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One at a time, under a limit that does not bind.
fn one_at_a_time() -> (RateLimiter, ManualClock) {
    limited("1000/1s")
}

fn limited(limit: &str) -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit(limit.parse().unwrap()).clock(clock.clone());
    (builder.build().unwrap(), clock)
}

fn acquire_and_run(limiter: &RateLimiter, running: &Running) {
    let permit = block_on(limiter.acquire()).unwrap();
    running.task(1);
    permit.complete();
}

/// Requests a permit once, and leaves if it has to wait.
fn ask_once(limiter: &RateLimiter, running: &Running) -> bool {
    let mut acquire = pin!(limiter.acquire());
    match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => {
            let permit = permit.unwrap();
            running.task(1);
            permit.complete();
            true
        }
        Poll::Pending => false,
    }
}

#[test]
fn a_permit_is_handed_on_to_the_waiter() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let others = [(); 2].map(|()| {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || acquire_and_run(&limiter, &running))
        });
        acquire_and_run(&limiter, &running);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(limiter.stats().completed, 3);
    });
}

#[test]
fn a_thread_that_blocks_is_woken() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let other = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || {
                let permit = limiter.acquire_blocking().unwrap();
                running.task(1);
                permit.complete();
            })
        };
        acquire_and_run(&limiter, &running);
        other.join().unwrap();
    });
}

#[test]
fn a_waiter_that_leaves_as_it_is_granted_loses_no_permit() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let first = limiter.request().owned().try_acquire().unwrap();
        let leaves = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || usize::from(ask_once(&limiter, &running)))
        };
        let stays = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || acquire_and_run(&limiter, &running))
        };
        first.complete();
        let ran = leaves.join().unwrap();
        stays.join().unwrap();
        let stats = limiter.stats();
        assert_eq!((stats.running, stats.queued), (0, 0));
        assert_eq!(stats.completed, 2 + ran as u64, "a grant that its waiter never saw is undone");
    });
}

#[test]
fn a_limiter_that_is_closed_during_a_request_grants_or_refuses() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let asks = {
            let limiter = limiter.clone();
            thread::spawn(move || match block_on(limiter.acquire()) {
                Ok(permit) => {
                    running.task(1);
                    permit.complete();
                    1
                }
                Err(error) => {
                    assert_eq!(error, AcquireError::Closed);
                    0
                }
            })
        };
        limiter.close();
        block_on(limiter.drained());
        // It may be drained before a waiter is accepted; but once closed, it accepts no more.
        let ran = asks.join().unwrap();
        assert_eq!(limiter.stats().completed, ran);
        assert_eq!(limiter.try_acquire().err().unwrap().to_string(), "the limiter is closed");
    });
}

#[test]
fn an_abort_answers_all_waiters() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let first = limiter.request().owned().try_acquire().unwrap();
        let waits = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || match block_on(limiter.acquire()) {
                Ok(permit) => {
                    running.task(1);
                    permit.complete();
                    1
                }
                Err(AcquireError::Aborted | AcquireError::Closed) => 0,
                Err(error) => panic!("{error}"),
            })
        };
        let aborts = {
            let limiter = limiter.clone();
            thread::spawn(move || limiter.abort())
        };
        first.complete();
        aborts.join().unwrap();
        let ran = waits.join().unwrap();
        block_on(limiter.drained());
        assert_eq!(limiter.stats().completed, 1 + ran);
    });
}

#[test]
fn a_waiter_outlives_the_last_handle() {
    every_order(|| {
        let ((limiter, _), running) = (one_at_a_time(), Running::default());
        let first = limiter.request().owned().try_acquire().unwrap();
        let waits = {
            let acquire = limiter.request().owned().acquire();
            thread::spawn(move || {
                let permit = block_on(acquire).unwrap();
                running.task(1);
                permit.complete();
            })
        };
        drop(limiter);
        first.complete();
        waits.join().unwrap();
    });
}

#[test]
fn the_timer_grants_the_first_waiter() {
    every_order(|| {
        let ((limiter, clock), running) = (limited("1/1s"), Running::default());
        limiter.try_acquire().unwrap().complete();
        let leaves = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || usize::from(ask_once(&limiter, &running)))
        };
        let time = {
            let clock = clock.clone();
            thread::spawn(move || clock.advance(Duration::from_nanos(1_000_000_001)))
        };
        time.join().unwrap();
        let left = leaves.join().unwrap() == 0;
        if left {
            acquire_and_run(&limiter, &running);
        }
        assert_eq!(limiter.stats().completed, 2);
    });
}

#[test]
fn a_waiter_behind_one_that_leaves_is_granted_by_the_timer() {
    every_order(|| {
        let ((limiter, clock), running) = (limited("1/1s"), Running::default());
        limiter.try_acquire().unwrap().complete();
        // First in the queue, and about to leave.
        let mut leaves = Box::pin(limiter.request().owned().acquire());
        let polled = leaves.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let stays = {
            let limiter = limiter.clone();
            thread::spawn(move || acquire_and_run(&limiter, &running))
        };
        let time = {
            let clock = clock.clone();
            thread::spawn(move || clock.advance(Duration::from_nanos(1_000_000_001)))
        };
        drop(leaves);
        time.join().unwrap();
        // The time may have come before a waiter set the timer.
        stays.join().unwrap();
        assert_eq!(limiter.stats().completed, 2);
    });
}

#[test]
fn drained_is_told_when_the_last_task_completes() {
    every_order(|| {
        let (limiter, _) = one_at_a_time();
        let permit = limiter.request().owned().try_acquire().unwrap();
        let completes = thread::spawn(move || permit.complete());
        block_on(limiter.drained());
        assert_eq!(limiter.stats().completed, 1);
        completes.join().unwrap();
    });
}

#[test]
fn only_one_task_takes_the_last_unit_of_a_window() {
    every_order(|| {
        let (limiter, _) = limited("2/1s");
        let other = {
            let limiter = limiter.clone();
            thread::spawn(move || (0..2).filter(|_| try_to_run(&limiter)).count())
        };
        let here = (0..2).filter(|_| try_to_run(&limiter)).count();
        let there = other.join().unwrap();
        assert!(here + there <= 2);
        assert_eq!(limiter.stats().completed, (here + there) as u64);
    });
}

fn try_to_run(limiter: &RateLimiter) -> bool {
    limiter.try_acquire().map(strict_rate_limiter::Permit::complete).is_ok()
}

#[test]
fn a_deadline_that_comes_as_the_waiter_is_granted_gives_a_permit_or_an_error_and_no_trace() {
    every_order(|| {
        let ((limiter, clock), running) = (one_at_a_time(), Running::default());
        let first = limiter.request().owned().try_acquire().unwrap();
        let deadline = clock.now() + Duration::from_millis(1);
        let waits = {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || match block_on(limiter.request().until(deadline).acquire()) {
                Ok(permit) => {
                    running.task(1);
                    permit.complete();
                    1
                }
                Err(AcquireError::DeadlineExceeded { .. }) => 0,
                Err(error) => panic!("{error}"),
            })
        };
        let time = thread::spawn(move || clock.advance(Duration::from_millis(1)));
        first.complete();
        time.join().unwrap();
        let ran = waits.join().unwrap();
        let stats = limiter.stats();
        assert_eq!((stats.running, stats.queued, stats.completed), (0, 0, 1 + ran));
        acquire_and_run(&limiter, &running);
    });
}

#[test]
fn a_waiter_whose_deadline_comes_is_woken_and_lets_the_next_one_through() {
    every_order(|| {
        let clock = ManualClock::new();
        let builder = RateLimiter::builder().limit("2w/1s".parse().unwrap()).concurrency(2);
        let limiter = builder.clock(clock.clone()).build().unwrap();
        let first = limiter.request().owned().try_acquire().unwrap();
        let deadline = clock.now() + Duration::from_millis(1);
        let heavy = {
            let limiter = limiter.clone();
            thread::spawn(move || {
                // It never fits: the first runs until both are over.
                let permit = block_on(limiter.request().weight(2).until(deadline).acquire());
                assert!(matches!(permit, Err(AcquireError::DeadlineExceeded { .. })));
            })
        };
        let light = {
            let limiter = limiter.clone();
            thread::spawn(move || block_on(limiter.acquire()).unwrap().complete())
        };
        clock.advance(Duration::from_millis(1));
        heavy.join().unwrap();
        light.join().unwrap();
        first.complete();
        assert_eq!(limiter.stats().completed, 2);
    });
}
