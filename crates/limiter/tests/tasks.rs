//! Tasks that fail, panic, are dropped, take long, or use their own limiter, on a manual clock.

mod support;

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use strict_rate_limiter::{AcquireError, PushRefusal, Pushed, TaskError};
use support::{ByHand, MS, NS, Trace, limiter, settle};

// --- Tasks that fail

#[tokio::test]
async fn a_failed_task_counts_as_a_completion_and_its_caller_gets_the_error() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let answer = limiter.run(async { Err::<(), _>("refused") }).await.unwrap();
    assert_eq!(answer, Err("refused"));
    assert!(limiter.try_acquire().is_err(), "the call may have gone out");
    clock.advance(10 * MS + NS);
    assert!(limiter.try_acquire().is_ok());
}

#[tokio::test]
async fn a_panic_goes_to_the_caller_and_neither_poisons_nor_stops_the_queue() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let pusher = limiter.clone();
    let ran_at_once = tokio::spawn(async move {
        let _never = pusher.push(|| async { panic!("at once") }).await;
    });
    assert!(ran_at_once.await.unwrap_err().is_panic());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));

    let Pushed::Queued(panics) =
        limiter.push(|| async { assert_eq!(1, 2, "in its turn") }).await.unwrap()
    else {
        panic!("the window is full")
    };
    let Pushed::Queued(behind) = limiter.push(|| async { "behind it" }).await.unwrap() else {
        panic!("the window is full")
    };
    clock.advance(10 * MS + NS);
    settle().await;
    let Err(TaskError::Panicked(payload)) = panics.await else { panic!("it panics") };
    assert!(payload.downcast_ref::<String>().unwrap().contains("in its turn"));
    clock.advance(10 * MS + NS);
    assert_eq!(behind.await.unwrap(), "behind it");
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_task_that_panics_has_completed_and_needs_no_grace() {
    let (limiter, _clock) = limiter(&["5/10ms"], |builder| builder.abandon_grace(MINUTE));
    let mut run = ByHand::new(limiter.run(async { panic!("itself") }));
    assert!(catch_unwind(AssertUnwindSafe(|| run.poll())).is_err());
    drop(run);
    assert_eq!(limiter.stats().running, 0);
}

#[test]
fn a_call_that_is_dropped_because_another_task_panics_has_its_grace() {
    let (limiter, clock) =
        limiter(&["5/10ms"], |builder| builder.concurrency(5).abandon_grace(MINUTE));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut call = ByHand::new(limiter.run(pending::<()>()));
        assert!(call.poll().is_none());
        let _in_hand = limiter.try_acquire().unwrap();
        let mut panics = ByHand::new(limiter.run(async { panic!("beside them") }));
        panics.poll();
    }));
    assert!(panicked.is_err());
    assert_eq!(limiter.stats().running, 2, "the call and the permit in hand");
    clock.advance(MINUTE);
    assert_eq!(limiter.stats().running, 0);
}

// --- Tasks that are dropped, and long ones

#[test]
fn a_running_task_that_is_dropped_completes_when_its_grace_is_over() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.abandon_grace(5 * MS));
    let mut run = ByHand::waiting(limiter.run(pending::<()>()));
    assert!(run.poll().is_none());
    drop(run);
    assert_eq!(limiter.stats().running, 1, "the bytes may still be on the wire");
    let mut waiter = ByHand::waiting(limiter.acquire());
    clock.advance(5 * MS);
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
    clock.advance(10 * MS);
    assert!(waiter.poll().is_none());
    clock.advance(NS);
    assert!(waiter.poll().is_some());
}

#[test]
fn a_permit_that_is_completed_needs_no_grace() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.abandon_grace(5 * MS));
    limiter.try_acquire().unwrap().complete();
    assert_eq!(limiter.stats().running, 0);
    drop(limiter.try_acquire().unwrap());
    assert_eq!(limiter.stats().running, 1);
    limiter.request().owned().try_acquire().unwrap_err();
}

#[test]
fn no_burst_follows_a_task_that_ran_longer_than_the_period() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder);
    let long = limiter.try_acquire().unwrap();
    clock.advance(100 * MS);
    long.complete();
    limiter.try_acquire().unwrap().complete();
    assert!(limiter.try_acquire().is_err(), "two within 10 ms, whatever came before");
}

// --- A task and its own limiter

#[tokio::test]
async fn a_push_from_inside_a_task_is_queued_and_never_run_inside() {
    for concurrency in [1, 2] {
        let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.concurrency(concurrency));
        let trace = Trace::default();
        let (inner_limiter, inner_trace) = (limiter.clone(), trace.clone());
        let outer = async move {
            inner_trace.add("outer begins");
            let traced = inner_trace.clone();
            let inner = inner_limiter.push(|| async move { traced.add("inner") }).await.unwrap();
            assert!(!inner.has_run());
            inner_trace.add("outer ends");
        };
        limiter.run(outer).await.unwrap();
        limiter.drained().await;
        assert_eq!(trace.take(), ["outer begins", "outer ends", "inner"]);
    }
}

#[tokio::test]
async fn an_acquire_that_waits_for_its_own_task_is_an_error() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let inner = limiter.run(async { limiter.acquire().await.map(drop) }).await.unwrap();
    assert_eq!(inner.unwrap_err(), AcquireError::WouldDeadlock);
    let inner = limiter.run(async { limiter.acquire_blocking().map(drop) }).await.unwrap();
    assert_eq!(inner.unwrap_err(), AcquireError::WouldDeadlock);
    assert!(limiter.acquire().await.is_ok(), "outside of it all is well");
}

#[tokio::test]
async fn a_closed_limiter_says_so_inside_its_tasks_too() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let asks_once_closed = async {
        limiter.close();
        limiter.acquire().await.map(drop)
    };
    assert_eq!(limiter.run(asks_once_closed).await.unwrap(), Err(AcquireError::Closed));
}

#[tokio::test]
async fn after_a_panic_no_request_is_inside_the_task() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let mut panics = ByHand::new(limiter.run(async { panic!("itself") }));
    assert!(catch_unwind(AssertUnwindSafe(|| panics.poll())).is_err());
    assert!(limiter.push(|| async {}).await.unwrap().has_run(), "it is not asked for inside");
}

#[tokio::test]
async fn an_acquire_inside_a_task_that_leaves_room_is_granted() {
    let (limiter, _clock) = limiter(&["9w/10ms"], |builder| builder.concurrency(2));
    let outer = async {
        limiter.request().weight(5).acquire().await.unwrap().complete();
        limiter.request().weight(6).acquire().await.map(drop)
    };
    let too_heavy = limiter.request().weight(4).run(outer).await.unwrap();
    assert_eq!(too_heavy.unwrap_err(), AcquireError::WouldDeadlock);
}

#[tokio::test]
async fn a_push_from_inside_a_task_to_a_full_queue_is_an_error_and_not_a_deadlock() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.queue_capacity(0));
    let inner = limiter.clone();
    let refused =
        limiter.run(async move { inner.push(|| async {}).await.map(drop) }).await.unwrap();
    assert_eq!(refused.unwrap_err().reason, PushRefusal::Full);
}
