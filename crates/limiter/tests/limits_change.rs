//! Limits and concurrency that change while tasks run and wait, in manual time.

mod support;

use std::time::Duration;

use strict_rate_limiter::{
    AcquireError, ConfigError, HistoryEntry, Limit, Permit, RateLimiter, RateLimiterBuilder,
    RequestError, TaskError,
};
use support::{ByHand, MS, NS, limiter, settle};

fn limits(texts: &[&str]) -> Vec<Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_higher_limit_wakes_its_waiters_at_once() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    limiter.try_acquire().unwrap().complete();
    let mut waiter = ByHand::waiting(limiter.acquire());
    limiter.set_limits(limits(&["2/10ms"])).unwrap();
    waiter.poll_if_woken().unwrap().unwrap().complete();
    assert_eq!(clock.advance_to_next_timer(), None, "no timer is left for the old opening");
    assert_eq!(limiter.limits(), limits(&["2/10ms"]));
    assert_eq!(limiter.name(), "1/10ms");
}

#[test]
fn a_lower_limit_moves_the_opening_that_the_timer_is_set_for() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder.concurrency(2));
    for _ in 0..2 {
        limiter.try_acquire().unwrap().complete();
        clock.advance(MS);
    }
    let mut waiter = ByHand::waiting(limiter.acquire());
    limiter.set_limits(limits(&["1/10ms"])).unwrap();
    // The second of the two that ran, 1 ms ago, still fills the new window when the first has expired.
    assert_eq!(clock.advance_to_next_timer(), Some(9 * MS + NS));
    waiter.poll_if_woken().unwrap().unwrap().complete();
}

#[test]
fn a_waiter_that_is_now_too_heavy_gets_the_limit_in_its_error() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder);
    limiter.request().weight(10).try_acquire().unwrap().complete();
    let [mut light, mut heavy, dropped, mut lost] =
        [2, 8, 9, 7].map(|weight| ByHand::waiting(limiter.request().weight(weight).acquire()));
    limiter.set_limits(limits(&["5w/10ms"])).unwrap();
    let limit = limits(&["5w/10ms"])[0];
    let too_heavy = |weight| AcquireError::Weight(RequestError::TooHeavy { weight, limit });
    assert_eq!(heavy.poll_if_woken().unwrap().unwrap_err(), too_heavy(8));
    assert!(dropped.is_woken());
    drop(dropped);
    // It stays refused, whatever the limits are at its next poll.
    limiter.set_limits(limits(&["10w/10ms"])).unwrap();
    let error = lost.poll_if_woken().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "weight 7 is over the limit 5w/10ms: it could never run");
    assert_eq!(limiter.stats().queued, 1);
    assert!(light.poll().is_none(), "the head is still first");
}

#[tokio::test(start_paused = true)]
async fn a_pushed_task_that_is_now_too_heavy_never_runs_and_its_handle_says_why() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder);
    limiter.request().weight(10).try_acquire().unwrap().complete();
    let pushed = limiter.request().weight(6).try_push(|| async { "it ran" }).unwrap();
    settle().await;
    limiter.set_limits(limits(&["5w/10ms"])).unwrap();
    let error = pushed.await.unwrap_err();
    assert!(
        matches!(error, TaskError::Weight(RequestError::TooHeavy { weight: 6, .. })),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "weight 6 is over the limit 5w/10ms: it could never run");
}

#[test]
fn a_higher_concurrency_wakes_and_a_lower_one_lets_running_tasks_end() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let first = limiter.try_acquire().unwrap();
    let mut waiters = [ByHand::waiting(limiter.acquire()), ByHand::waiting(limiter.acquire())];
    limiter.set_concurrency(3).unwrap();
    let permits = waiters.each_mut().map(|waiter| waiter.poll_if_woken().unwrap().unwrap());
    limiter.set_concurrency(1).unwrap();
    let mut last = ByHand::waiting(limiter.acquire());
    for permit in permits {
        permit.complete();
    }
    assert!(last.poll_if_woken().is_none(), "the first still runs");
    first.complete();
    last.poll_if_woken().unwrap().unwrap().complete();
}

#[test]
fn invalid_settings_change_nothing() {
    let (limiter, _clock) = limiter(&["9/10ms"], RateLimiterBuilder::paced);
    assert_eq!(limiter.set_limits([]), Err(ConfigError::NoLimit.into()));
    let of_weights = limits(&["5w/10ms"]);
    assert_eq!(limiter.set_limits(of_weights), Err(ConfigError::PacedWithoutTaskLimit.into()));
    assert_eq!(limiter.set_concurrency(0), Err(ConfigError::ZeroConcurrency.into()));
    assert_eq!(limiter.limits(), limits(&["9/10ms"]));
}

#[test]
fn a_key_with_limits_of_its_own_is_not_forgotten() {
    let every = RateLimiter::builder().limit("9/1ms".parse().unwrap());
    let keyed = strict_rate_limiter::KeyedRateLimiter::new(every).unwrap();
    keyed.limiter(&"strict").set_limits(limits(&["1/1ms"])).unwrap();
    drop(keyed.limiter(&"idle"));
    keyed.forget_idle();
    assert_eq!(keyed.len(), 1);
    assert_eq!(keyed.limiter(&"strict").limits(), limits(&["1/1ms"]));
}

#[test]
fn a_history_carries_running_tasks_over_a_restart() {
    let settings = |builder: strict_rate_limiter::RateLimiterBuilder| {
        builder.concurrency(3).abandon_grace(5 * MS)
    };
    let (before, clock) = limiter(&["4/20ms", "30w/20ms"], settings);
    before.request().weight(7).try_acquire().unwrap().complete();
    clock.advance(2 * MS);
    drop(before.request().weight(5).try_acquire().unwrap());
    clock.advance(MS);
    let running = before.request().weight(3).try_acquire().unwrap();
    let history = before.history();
    assert_eq!(
        history,
        [
            HistoryEntry::completed(3 * MS, 7),
            HistoryEntry::in_flight(4 * MS, 5),
            HistoryEntry::in_flight(5 * MS, 3),
        ]
    );
    drop(running);

    let down = Duration::from_micros(4_500);
    let history: Vec<_> = history.into_iter().map(|entry| entry.aged_by(down)).collect();
    assert_eq!(history[1].ago(), Some(Duration::from_micros(500)));
    assert_eq!(history[2].remaining(), Some(Duration::from_micros(500)));
    let (after, clock) =
        limiter(&["4/20ms", "30w/20ms"], |builder| settings(builder).history(history));
    let stats = after.stats();
    assert_eq!((stats.running, stats.held[0].units, stats.held[1].units), (1, 3, 15));
    after.try_acquire().unwrap().complete();
    assert!(after.try_acquire().is_err());
    clock.advance(Duration::from_micros(12_500) + NS);
    after.try_acquire().unwrap().complete();
    assert!(after.try_acquire().is_err());
}

/// Grants until there is no room. The number of grants.
fn burst(limiter: &RateLimiter) -> usize {
    let granted = || limiter.try_acquire().map(Permit::complete).ok();
    std::iter::from_fn(granted).count()
}

#[test]
fn a_longer_period_of_a_key_that_was_forgotten_counts_what_ran_before() {
    let clock = strict_rate_limiter::clock::ManualClock::new();
    let every = RateLimiter::builder().limit("10/10ms".parse().unwrap()).clock(clock.clone());
    let keyed = strict_rate_limiter::KeyedRateLimiter::new(every).unwrap();
    for _ in 0..20 {
        assert_eq!(burst(&keyed.limiter(&"key")), 10);
        clock.advance(10 * MS + NS);
    }
    keyed.forget_idle();
    assert!(keyed.is_empty());
    let limiter = keyed.limiter(&"key");
    limiter.set_limits(limits(&["20/1s"])).unwrap();
    assert_eq!(burst(&limiter), 0, "200 ran within the second");
    clock.advance(1_000 * MS + NS);
    assert_eq!(burst(&limiter), 20);
}

#[test]
fn a_longer_period_after_a_restart_counts_what_the_old_process_ran() {
    type Entries = Vec<HistoryEntry>;
    let histories: [(&str, Entries); 4] = [
        ("nothing is held any more", vec![]),
        ("on the wire", vec![HistoryEntry::in_flight(MS, 1)]),
        ("completed", vec![HistoryEntry::completed(MS, 1)]),
        ("expired", vec![HistoryEntry::completed(50 * MS, 1)]),
    ];
    for (name, history) in histories {
        let (limiter, clock) = limiter(&["10/10ms"], |builder| builder.history(history));
        limiter.set_limits(limits(&["20/1s"])).unwrap();
        clock.advance(2 * MS);
        assert_eq!(burst(&limiter), 0, "{name}");
    }
}

#[test]
fn a_nested_waiter_that_a_change_would_strand_is_told_of_the_deadlock() {
    for change_limits in [true, false] {
        let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(2));
        let inner = limiter.clone();
        let first = limiter
            .request()
            .weight(5)
            .run(async move { inner.request().weight(5).acquire().await.map(Permit::complete) });
        // Only a task beside it keeps the nested request waiting.
        let beside = limiter.request().weight(1).try_acquire().unwrap();
        let mut first = ByHand::waiting(first);
        if change_limits {
            limiter.set_limits(limits(&["9w/10ms"])).unwrap();
        } else {
            limiter.set_concurrency(1).unwrap();
        }
        let told = first.poll_if_woken().unwrap().unwrap();
        assert_eq!(told.unwrap_err(), AcquireError::WouldDeadlock);
        beside.complete();
        assert_eq!(limiter.stats().queued, 0);
    }
}

#[test]
fn thousands_of_waiters_are_refused_and_told_in_any_order() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder);
    limiter.request().weight(10).try_acquire().unwrap().complete();
    let mut waiters: Vec<_> =
        (0..20_000).map(|_| ByHand::waiting(limiter.request().weight(8).acquire())).collect();
    limiter.set_limits(limits(&["5w/10ms"])).unwrap();
    // Some leave without a look at their answer.
    waiters.truncate(10_000);
    for waiter in waiters.iter_mut().rev() {
        assert!(matches!(waiter.poll().unwrap(), Err(AcquireError::Weight(_))));
    }
    assert_eq!(limiter.stats().queued, 0);
}
