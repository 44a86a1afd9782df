//! Waiters that leave, and limiters that are closed, aborted, dropped or drained, on a manual clock.

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use strict_rate_limiter::{AcquireError, PushRefusal, Pushed, TaskError, TryAcquireError};
use support::{ByHand, MS, NS, Woken, limiter, settle};

// --- Waiters that leave

#[test]
fn a_dropped_waiter_leaves_no_trace_and_the_next_moves_up() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let first = ByHand::waiting(limiter.acquire());
    let middle = ByHand::waiting(limiter.acquire());
    let mut last = ByHand::waiting(limiter.acquire());
    assert_eq!(limiter.stats().queued, 3);
    drop(middle);
    drop(first);
    assert_eq!(limiter.stats().queued, 1);
    clock.advance(10 * MS + NS);
    assert!(last.is_woken());
    last.poll().unwrap().unwrap().complete();
    assert_eq!(limiter.stats().completed, 2);
}

#[test]
fn a_grant_that_its_waiter_never_saw_is_undone_in_full() {
    let (limiter, clock) = limiter(&["1/10ms", "7w/10ms"], |builder| builder);
    let running = limiter.try_acquire().unwrap();
    let granted = ByHand::waiting(limiter.request().weight(5).acquire());
    let mut next = ByHand::waiting(limiter.request().weight(7).acquire());
    _ = running.complete_with(0);
    clock.advance(10 * MS + NS);
    assert!(granted.is_woken(), "it has been granted");
    assert_eq!(limiter.stats().running, 1);
    drop(granted);
    assert!(next.is_woken(), "and now the next one has");
    next.poll().unwrap().unwrap().complete();
    assert_eq!(limiter.stats().completed, 2, "the grant that its waiter never saw is no task");
}

#[test]
fn a_dropped_heavy_head_lets_the_light_ones_through_at_once() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(3));
    let _half = limiter.request().weight(5).try_acquire().unwrap();
    let heavy = ByHand::waiting(limiter.request().weight(10).acquire());
    let mut light = ByHand::waiting(limiter.request().weight(5).acquire());
    drop(heavy);
    assert!(light.is_woken());
    assert!(light.poll().is_some());
}

#[test]
fn an_unpolled_head_keeps_its_position_and_never_the_timer() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder.concurrency(2));
    limiter.try_acquire().unwrap().complete();
    clock.advance(MS);
    limiter.try_acquire().unwrap().complete();
    let mut unpolled = ByHand::waiting(limiter.acquire());
    let mut behind = ByHand::waiting(limiter.acquire());

    // No waiter is polled: the timer alone grants the head, and then the next waiter.
    assert_eq!(clock.advance_to_next_timer(), Some(9 * MS + NS));
    assert!(unpolled.is_woken() && !behind.is_woken());
    assert_eq!(clock.advance_to_next_timer(), Some(MS));
    assert!(behind.is_woken());
    behind.poll().unwrap().unwrap().complete();
    assert_eq!(limiter.stats().running, 1, "the head's permit is still its own");
    unpolled.poll().unwrap().unwrap().complete();
    assert_eq!(clock.advance_to_next_timer(), None, "the queue is empty, so no timer is set");
}

#[tokio::test]
async fn a_pushed_task_runs_without_its_handle_being_polled() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let Pushed::Queued(handle) = limiter.push(|| async { 1 }).await.unwrap() else {
        panic!("the window is full")
    };
    drop(handle);
    clock.advance(10 * MS + NS);
    settle().await;
    assert_eq!(limiter.stats().completed, 2);
}

#[test]
fn a_waiter_is_woken_by_the_waker_of_its_last_poll() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let mut acquire = limiter.acquire();
    for _ in 0..2 {
        let mut waiting = ByHand::waiting(&mut acquire);
        assert!(waiting.poll().is_none());
    }
    let waiting = ByHand::waiting(&mut acquire);
    clock.advance(10 * MS + NS);
    assert!(waiting.is_woken());
}

// --- The end

#[tokio::test]
async fn after_close_new_requests_are_refused_and_accepted_tasks_still_run() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let running = limiter.acquire().await.unwrap();
    let queued = limiter.push(|| async { "still runs" }).await.unwrap();
    let mut waiting = ByHand::waiting(limiter.acquire());
    assert!(!limiter.is_closed());
    limiter.close();
    assert!(limiter.is_closed());
    assert_eq!(limiter.acquire().await.unwrap_err(), AcquireError::Closed);
    assert_eq!(limiter.try_acquire().unwrap_err(), TryAcquireError::Closed);
    assert_eq!(limiter.run(async {}).await.unwrap_err(), AcquireError::Closed);
    assert_eq!(limiter.push(|| async {}).await.unwrap_err().reason, PushRefusal::Closed);

    let mut drained = ByHand::waiting(limiter.drained());
    running.complete();
    clock.advance(10 * MS + NS);
    assert_eq!(queued.answer().await.unwrap(), "still runs");
    clock.advance(10 * MS + NS);
    assert!(!drained.is_woken());
    waiting.poll().unwrap().unwrap().complete();
    assert!(drained.is_woken());
    assert!(drained.poll().is_some());
}

#[tokio::test]
async fn after_abort_queued_tasks_are_dropped_and_running_ones_end_by_themselves() {
    let (limiter, clock) = limiter(&["5/10ms"], |builder| builder.queue_capacity(2));
    let running = limiter.acquire().await.unwrap();
    let kept = Arc::new(());
    let in_task = Arc::clone(&kept);
    let Pushed::Queued(handle) = limiter.push(|| async move { drop(in_task) }).await.unwrap()
    else {
        panic!("one at a time")
    };
    let mut waiting = ByHand::waiting(limiter.acquire());
    let mut waits_for_room = ByHand::waiting(limiter.push(|| async {}));
    limiter.abort();

    assert!(matches!(handle.await, Err(TaskError::Aborted)));
    assert_eq!(Arc::strong_count(&kept), 1, "the task was dropped");
    assert!(waiting.is_woken() && waits_for_room.is_woken());
    assert_eq!(waiting.poll().unwrap().unwrap_err(), AcquireError::Aborted);
    assert_eq!(waits_for_room.poll().unwrap().unwrap_err().reason, PushRefusal::Closed);
    assert_eq!(limiter.acquire().await.unwrap_err(), AcquireError::Closed);
    assert_eq!(limiter.stats().running, 1);
    let mut drained = ByHand::waiting(limiter.drained());
    running.complete();
    assert!(drained.poll().is_some());
    clock.advance(MS);
}

#[tokio::test]
async fn after_the_last_handle_is_dropped_accepted_tasks_still_run() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let mut queued = vec![];
    for task in 0..3 {
        queued.push(limiter.push(move || async move { task }).await.unwrap());
    }
    let mut owned = ByHand::waiting(limiter.request().owned().acquire());
    drop(limiter);
    for (task, pushed) in queued.into_iter().enumerate() {
        assert_eq!(pushed.answer().await.unwrap(), task);
        clock.advance(10 * MS + NS);
    }
    owned.poll().unwrap().unwrap().complete();
}

#[tokio::test]
async fn a_cancelled_handle_takes_its_task_out_of_the_queue() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let Pushed::Queued(handle) = limiter.push(|| async {}).await.unwrap() else { panic!() };
    handle.cancel();
    assert!(matches!(handle.await, Err(TaskError::Cancelled)));
    assert_eq!(limiter.stats().queued, 0);
    clock.advance(10 * MS + NS);
    assert!(limiter.try_acquire().is_ok());
}

#[test]
fn drained_waits_for_the_grace_of_abandoned_tasks() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.abandon_grace(5 * MS));
    drop(limiter.try_acquire().unwrap());
    let mut drained = ByHand::waiting(limiter.drained());
    let forgotten = ByHand::waiting(limiter.drained());
    drop(forgotten);
    assert_eq!(clock.advance_to_next_timer(), Some(5 * MS));
    assert!(drained.is_woken());
    assert!(drained.poll().is_some());
    assert!(ByHand::new(limiter.drained()).poll().is_some(), "it is drained at once now");
}

#[test]
fn a_dropped_drained_future_leaves_no_trace() {
    let (limiter, _) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let woken = Arc::<Woken>::default();
    {
        let waker = Waker::from(Arc::clone(&woken));
        let mut drained = pin!(limiter.drained());
        assert!(drained.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(Arc::strong_count(&woken), 3, "the limiter has one");
    }
    assert_eq!(Arc::strong_count(&woken), 1);
}
