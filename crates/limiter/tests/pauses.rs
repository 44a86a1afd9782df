//! Pauses and clocks: drift, history, backoff, tokio's clock, the next opening.

mod support;

use std::time::{Duration, Instant};

use strict_rate_limiter::clock::TokioClock;
use strict_rate_limiter::{RateLimiter, TryAcquireError};
use support::{ByHand, MS, NS, limiter};

#[test]
fn a_pause_lasts_as_long_as_it_is_told_to() {
    const DAY: Duration = Duration::from_secs(86_400);

    let (limiter, clock) = limiter(&["9/10ms"], |builder| builder);
    for pause in [MS, DAY, 400 * DAY] {
        limiter.pause_for(pause);
        assert_eq!(limiter.stats().next_opening, Some(clock.now() + pause));
        clock.advance(pause.saturating_sub(NS));
        assert!(limiter.try_acquire().is_err());
        clock.advance(NS);
        limiter.try_acquire().unwrap().complete();
    }
}

#[test]
fn nothing_is_granted_during_a_pause() {
    let (limiter, clock) = limiter(&["9/10ms"], |builder| builder);
    let mut waiting = {
        let _running = limiter.try_acquire().unwrap();
        let waiting = ByHand::waiting(limiter.acquire());
        limiter.pause_for(50 * MS);
        limiter.pause_for(20 * MS);
        waiting
    };
    let Err(TryAcquireError::Busy { not_before }) = limiter.try_acquire() else { panic!() };
    assert_eq!(not_before, Some(clock.now() + 50 * MS));
    clock.advance(Duration::from_nanos(49_999_999));
    assert!(!waiting.is_woken());
    assert_eq!(clock.advance_to_next_timer(), Some(NS));
    let _running = waiting.poll().expect("the pause is over").unwrap();
    limiter.pause_until(clock.now() + MS);
    assert_eq!(limiter.stats().next_opening, None, "a task runs, one at a time");
}

#[test]
fn a_pause_that_ends_in_the_past_is_none() {
    let (limiter, clock) = limiter(&["9/10ms"], |builder| builder);
    limiter.pause_until(clock.now());
    assert!(limiter.try_acquire().is_ok());
}

#[test]
fn resuming_wakes_the_head_of_the_queue_at_once() {
    let (limiter, clock) = limiter(&["9/10ms"], |builder| builder);
    limiter.pause_for(Duration::MAX);
    let (mut head, mut next) =
        (ByHand::waiting(limiter.acquire()), ByHand::waiting(limiter.acquire()));
    clock.advance(MS);
    assert!(!head.is_woken());
    limiter.resume();
    assert!(head.is_woken() && !next.is_woken());
    let running = head.poll().expect("the pause is over").unwrap();
    assert!(next.poll().is_none(), "one at a time");
    running.complete();
    next.poll().expect("the pause is over").unwrap().complete();
    assert_eq!(clock.advance_to_next_timer(), None, "the timer of the pause is gone");
}

#[test]
fn resuming_keeps_the_limits() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.resume();
    limiter.try_acquire().unwrap().complete();
    let completed = clock.now();
    limiter.pause_for(Duration::from_secs(3600));
    let mut waiting = ByHand::waiting(limiter.acquire());
    clock.advance(9 * MS);
    limiter.resume();
    assert!(!waiting.is_woken() && waiting.poll().is_none(), "its window is still full");
    assert_eq!(limiter.stats().next_opening, Some(completed + 10 * MS + NS));
    assert_eq!(clock.advance_to_next_timer(), Some(MS + NS));
    assert!(waiting.poll().is_some());
}

#[test]
fn a_pause_after_resuming_may_end_earlier_than_the_one_before() {
    let (limiter, clock) = limiter(&["9/10ms"], |builder| builder);
    limiter.pause_for(50 * MS);
    limiter.resume();
    limiter.pause_for(20 * MS);
    clock.advance(Duration::from_nanos(19_999_999));
    assert!(limiter.try_acquire().is_err());
    clock.advance(NS);
    assert!(limiter.try_acquire().is_ok());
}

#[test]
fn the_backoff_is_the_shortest_used_up_period_else_the_shortest() {
    let limits = ["1000/1d", "5w/10ms", "2/1s"];
    let (limiter, clock) = limiter(&limits, |builder| builder.concurrency(3).paced());
    let (day, second) = (Duration::from_secs(86_400), Duration::from_secs(1));
    assert_eq!(
        limiter.backoff(),
        10 * MS,
        "nothing is used up, and the pace is no limit of theirs"
    );
    let first = limiter.request().weight(1).try_acquire().unwrap();
    assert_eq!(limiter.backoff(), 10 * MS);
    _ = first.complete_with(4);
    clock.advance(day / 1_000 + NS);
    let second_one = limiter.request().weight(5).try_acquire().unwrap();
    assert_eq!(limiter.backoff(), 10 * MS, "the weight is used up by what runs");
    _ = second_one.complete_with(1);
    limiter.reconcile("2/1s".parse().unwrap(), 2).unwrap();
    assert_eq!(limiter.backoff(), second, "of the weight there is some left");
    limiter.reconcile("1000/1d".parse().unwrap(), 1_000).unwrap();
    assert_eq!(limiter.backoff(), second);
    clock.advance(second + NS);
    assert_eq!(limiter.backoff(), day);
    clock.advance(day);
    assert_eq!(limiter.backoff(), 10 * MS);
}

#[test]
fn the_backoff_is_stretched_by_the_clock_drift() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder.clock_drift(1_000));
    assert_eq!(limiter.backoff(), 10 * MS + 10_000 * NS);
}

#[test]
fn a_clock_that_may_run_fast_stretches_the_period() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.clock_drift(1_000));
    limiter.try_acquire().unwrap().complete();
    clock.advance(10 * MS + 10_000 * NS);
    assert!(limiter.try_acquire().is_err());
    clock.advance(NS);
    assert!(limiter.try_acquire().is_ok());
}

#[test]
fn the_history_is_held_as_if_its_tasks_had_run_here() {
    let history = [(8 * MS, 2), (9 * MS, 3), (11 * MS, 5)];
    let (limiter, clock) = limiter(&["10w/10ms"], |builder| builder.history(history));
    assert_eq!(limiter.stats().held[0].units, 5);
    clock.advance(MS + NS);
    assert_eq!(limiter.stats().held[0].units, 2);
}

#[tokio::test(start_paused = true)]
async fn tokios_clock_is_paused_and_moved_with_its_own() {
    let limiter = RateLimiter::builder()
        .limit("2/1h".parse().unwrap())
        .clock(TokioClock::current())
        .build()
        .unwrap();
    let start = tokio::time::Instant::now();
    for _ in 0..5 {
        limiter.acquire().await.unwrap().complete();
    }
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(2 * 3_600), "{waited:?}");
    assert!(waited < Duration::from_secs(2 * 3_600 + 1), "{waited:?}");
}

#[test]
fn the_next_opening_is_in_the_stats() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    assert!(limiter.stats().next_opening.unwrap() <= clock.now());
    limiter.try_acquire().unwrap().complete();
    let opening: Instant = clock.now() + 10 * MS + NS;
    assert_eq!(limiter.stats().next_opening, Some(opening));
    assert!(format!("{limiter:?}").contains(r#"limits: "1/10ms", running: 0, queued: 0"#));
}
