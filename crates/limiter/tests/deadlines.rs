//! Requests with a deadline, on a manual clock; the last test has real threads and the real clock.

mod support;

use std::future::{pending, ready};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter::clock::{Clock, ManualClock, Timer};
use strict_rate_limiter::{AcquireError, PushRefusal, Pushed, RateLimiter, TaskError};
use support::{ByHand, MS, NS, Woken, limiter, settle};

const PER: Duration = Duration::from_millis(10);

/// The error of a deadline that was missed while the next opening depended on running tasks.
const MISSED: AcquireError = AcquireError::DeadlineExceeded { not_before: None };

#[test]
fn a_request_that_cannot_be_granted_in_time_is_refused_at_once_with_the_earliest_time() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let opening = clock.now() + PER + NS;
    let too_late = AcquireError::DeadlineExceeded { not_before: Some(opening) };
    let refused = ByHand::new(limiter.request().within(PER).acquire()).poll().unwrap();
    assert_eq!(refused.unwrap_err(), too_late);
    let refused = limiter.request().until(clock.now() + PER).acquire_blocking();
    assert_eq!(refused.unwrap_err(), too_late);
    assert_eq!(limiter.stats().queued, 0);

    let first = ByHand::waiting(limiter.request().within(PER + NS).acquire());
    let behind = ByHand::new(limiter.request().within(PER + NS).acquire()).poll().unwrap();
    let Err(AcquireError::DeadlineExceeded { not_before }) = behind else { panic!("{behind:?}") };
    assert_eq!(not_before, Some(opening + PER + NS), "behind one that has a task");
    drop(first);
    assert!(ByHand::new(limiter.request().within(PER + NS).acquire()).poll().is_none());
}

#[test]
fn a_pause_counts() {
    let (limiter, clock) = limiter(&["5/10ms"], |builder| builder);
    limiter.pause_for(PER);
    let refused = ByHand::new(limiter.request().within(PER.checked_sub(NS).unwrap()).acquire())
        .poll()
        .unwrap();
    let not_before = Some(clock.now() + PER);
    assert_eq!(refused.unwrap_err(), AcquireError::DeadlineExceeded { not_before });
    let mut in_time = ByHand::waiting(limiter.request().within(PER).acquire());
    clock.advance(PER);
    assert!(in_time.poll_if_woken().unwrap().is_ok(), "exactly at the deadline is in time");
}

#[test]
fn a_grant_at_exactly_the_deadline_is_in_time() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let deadline = clock.now() + PER + NS;
    let mut waits = ByHand::waiting(limiter.request().until(deadline).acquire());
    clock.advance(PER + NS);
    waits.poll_if_woken().unwrap().unwrap().complete();
    assert_eq!(clock.advance_to_next_timer(), None, "neither timer is left");
}

#[test]
fn a_deadline_in_the_past_is_missed_and_now_is_not() {
    let (limiter, clock) = limiter(&["5/10ms"], |builder| builder.concurrency(5));
    clock.advance(MS);
    let past = limiter.request().until(clock.now().checked_sub(NS).unwrap());
    assert!(ByHand::new(past.acquire()).poll().unwrap().is_err());
    let now = limiter.request().until(clock.now());
    assert!(ByHand::new(now.acquire()).poll().unwrap().is_ok());
    let at_once = limiter.request().within(Duration::ZERO);
    assert!(ByHand::new(at_once.acquire()).poll().unwrap().is_ok());
}

#[test]
fn at_the_deadline_a_waiter_leaves_without_a_trace_and_the_next_moves_up() {
    let (limiter, clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(3));
    let _running = limiter.request().weight(5).try_acquire().unwrap();
    let mut heavy = ByHand::waiting(limiter.request().weight(8).within(3 * MS).acquire());
    let mut light = ByHand::waiting(limiter.request().weight(5).acquire());
    assert_eq!(clock.advance_to_next_timer(), Some(3 * MS));
    assert!(heavy.is_woken() && !light.is_woken());
    assert_eq!(heavy.poll_if_woken().unwrap().unwrap_err(), MISSED);
    assert!(light.is_woken(), "there was always room for it");
    assert!(light.poll().is_some());
    assert_eq!(limiter.stats().queued, 0);
    assert_eq!(clock.advance_to_next_timer(), None);
}

#[test]
fn the_error_at_the_deadline_has_the_next_opening_as_of_then() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let running = limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(limiter.request().within(PER + NS).acquire());
    clock.advance(2 * MS);
    running.complete();
    let opening = clock.now() + PER + NS;
    clock.advance(8 * MS + NS);
    let refused = waits.poll_if_woken().unwrap().unwrap_err();
    assert_eq!(refused, AcquireError::DeadlineExceeded { not_before: Some(opening) });
}

#[test]
fn within_counts_from_the_first_poll() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let mut waits = ByHand::new(limiter.request().within(2 * PER).acquire());
    clock.advance(5 * PER);
    assert!(waits.poll().is_none());
    clock.advance((2 * PER).checked_sub(NS).unwrap());
    assert!(!waits.is_woken());
    clock.advance(NS);
    assert_eq!(waits.poll_if_woken().unwrap().unwrap_err(), MISSED);
}

#[test]
fn the_last_deadline_counts() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let request = limiter.request().until(clock.now()).within(2 * PER);
    let mut waits = ByHand::waiting(request.acquire());
    clock.advance(2 * PER);
    assert!(waits.poll_if_woken().unwrap().is_err());
}

#[test]
fn a_deadline_at_the_end_of_time_is_none() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let running = limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(limiter.request().within(Duration::MAX).acquire());
    running.complete();
    clock.advance(PER + NS);
    assert!(waits.poll_if_woken().unwrap().is_ok());
}

#[test]
fn a_waiter_that_is_dropped_leaves_no_timer_and_no_waker() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let woken = Arc::<Woken>::default();
    {
        let waker = Waker::from(Arc::clone(&woken));
        let mut waits = Box::pin(limiter.request().within(2 * PER).acquire());
        let mut context = std::task::Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert!(waits.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(Arc::strong_count(&woken), 1);
    assert_eq!(clock.advance_to_next_timer(), None);
    assert_eq!(limiter.stats().queued, 0);
}

#[test]
fn the_deadline_wakes_whichever_waker_polled_last() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let mut acquire = Box::pin(limiter.request().within(2 * PER).acquire());
    let before = ByHand::waiting(acquire.as_mut());
    drop(before);
    let mut after = ByHand::waiting(acquire.as_mut());
    clock.advance(2 * PER);
    assert_eq!(after.poll_if_woken().unwrap().unwrap_err(), MISSED);
}

#[test]
fn a_waiter_that_was_granted_and_is_polled_late_has_its_permit() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let mut waits = ByHand::waiting(limiter.request().within(2 * PER).acquire());
    clock.advance(PER + NS);
    clock.advance(5 * PER);
    assert!(waits.poll().unwrap().is_ok());
}

#[test]
fn an_aborted_or_closed_limiter_says_so_first() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(limiter.request().within(2 * PER).acquire());
    limiter.abort();
    assert_eq!(waits.poll_if_woken().unwrap().unwrap_err(), AcquireError::Aborted);
    let closed = ByHand::new(limiter.request().within(Duration::ZERO).acquire()).poll();
    assert_eq!(closed.unwrap().unwrap_err(), AcquireError::Closed);
}

#[test]
fn a_run_whose_deadline_comes_never_starts_its_task() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let task = async { panic!("it must not run") };
    let mut run = ByHand::waiting(limiter.request().within(2 * PER).run(task));
    clock.advance(2 * PER);
    assert_eq!(run.poll_if_woken().unwrap().unwrap_err(), MISSED);
    assert_eq!(clock.advance_to_next_timer(), None);
}

#[test]
fn a_deadline_does_not_bound_the_task() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let mut run = ByHand::waiting(limiter.request().within(MS).run(pending::<()>()));
    clock.advance(5 * MS);
    assert!(!run.is_woken() && run.poll().is_none());
    assert_eq!(limiter.stats().running, 1);
}

#[tokio::test]
async fn a_queued_push_whose_deadline_comes_is_dropped_and_its_handle_returns_the_error() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let _running = limiter.try_acquire().unwrap();
    let kept = Arc::new(());
    let in_task = Arc::clone(&kept);
    let request = limiter.request().within(3 * PER);
    let pushed = request.push_fn(move || drop(in_task)).await.unwrap();
    let tried = limiter.request().within(3 * PER).try_push(|| ready(())).unwrap();
    settle().await;
    clock.advance(3 * PER);
    settle().await;
    let Pushed::Queued(handle) = pushed else { panic!("one at a time") };
    let missed = handle.await.unwrap_err();
    assert!(matches!(missed, TaskError::DeadlineExceeded { not_before: None }), "{missed:?}");
    assert!(matches!(tried.await, Err(TaskError::DeadlineExceeded { .. })));
    assert_eq!(Arc::strong_count(&kept), 1, "the task was dropped");
    assert_eq!(limiter.stats().queued, 0);
}

#[tokio::test]
async fn a_push_that_waits_for_room_at_its_deadline_returns_its_task() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.queue_capacity(1));
    let _running = limiter.try_acquire().unwrap();
    let _queued = limiter.push(|| ready(())).await.unwrap();
    let mut waits = ByHand::waiting(limiter.request().within(3 * PER).push(|| ready(7)));
    clock.advance(3 * PER);
    let refused = waits.poll_if_woken().unwrap().unwrap_err();
    assert_eq!(refused.reason, PushRefusal::DeadlineExceeded { not_before: None });
    assert_eq!((refused.task)().await, 7);
    assert_eq!(limiter.stats().queued, 1);
}

/// A clock whose timers fire early, once, at half of the time that is left.
#[derive(Debug)]
struct Early(ManualClock);

struct EarlyTimer(ManualClock, Box<dyn Timer>);

impl Clock for Early {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        self.0.instant_pair()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(EarlyTimer(self.0.clone(), self.0.timer()))
    }
}

impl Timer for EarlyTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let now_ns = self.0.now_ns();
        self.1.set(now_ns + at_ns.saturating_sub(now_ns) / 2, waker)
    }

    fn clear(&mut self) {
        self.1.clear();
    }
}

#[test]
fn a_timer_that_comes_early_is_set_again() {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap());
    let limiter = builder.clock(Early(clock.clone())).build().unwrap();
    let _running = limiter.try_acquire().unwrap();
    let mut waits = ByHand::waiting(limiter.request().within(4 * PER).acquire());
    for left in [2 * PER, PER, PER / 2] {
        assert_eq!(clock.advance_to_next_timer(), Some(left));
        assert!(waits.is_woken() && waits.poll_if_woken().is_none());
    }
    clock.advance(PER / 2);
    assert_eq!(waits.poll().unwrap().unwrap_err(), MISSED);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_by_tokios_clock_if_the_limiter_uses_it() {
    let clock = strict_rate_limiter::clock::TokioClock::current();
    let builder = RateLimiter::builder().limit("1/1h".parse().unwrap()).clock(clock);
    let limiter = builder.build().unwrap();
    let _running = limiter.acquire().await.unwrap();
    let begin = tokio::time::Instant::now();
    let wait = Duration::from_secs(7_200);
    let refused = limiter.request().within(wait).acquire().await.unwrap_err();
    assert_eq!(refused, MISSED);
    assert!(begin.elapsed() >= wait);
}

/// Real threads and the real clock. Nothing depends on durations: the running task ends only when all threads
/// have given up.
#[test]
fn threads_that_block_give_up_at_their_deadlines() {
    let limiter = RateLimiter::builder().limit("1w/1d".parse().unwrap()).build().unwrap();
    let running = limiter.try_acquire().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let limiter = &limiter;
            threads.spawn(move || {
                let request = limiter.request().within(MS * (5 + thread));
                assert_eq!(request.acquire_blocking().unwrap_err(), MISSED);
            });
        }
    });
    assert_eq!(limiter.stats().queued, 0);
    running.release_unused();
    assert!(limiter.request().within(MS).acquire_blocking().is_ok());
}
