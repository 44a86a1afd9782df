//! A limiter for each key, on a manual clock; the last tests have real threads on that clock.

mod support;

use std::sync::Arc;
use std::time::Duration;

use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{
    AcquireError, BuildError, KeyedRateLimiter, RateLimiter, RateLimiterBuilder,
};
use support::{ByHand, MS, NS};

const PER: Duration = Duration::from_millis(10);

fn settings(limit: &str, clock: &ManualClock) -> RateLimiterBuilder {
    RateLimiter::builder().limit(limit.parse().unwrap()).clock(clock.clone())
}

fn keyed(limit: &str) -> (KeyedRateLimiter<u64>, ManualClock) {
    let clock = ManualClock::new();
    (KeyedRateLimiter::new(settings(limit, &clock)).unwrap(), clock)
}

#[test]
fn keys_do_not_limit_each_other() {
    let (keyed, clock) = keyed("1/10ms");
    let permit = keyed.try_acquire(&1).unwrap();
    assert!(keyed.try_acquire(&1).is_err());
    keyed.try_acquire(&2).unwrap().complete();
    let mut waiting = ByHand::waiting(keyed.acquire(&1));
    permit.complete();
    clock.advance(PER);
    assert!(!waiting.is_woken());
    clock.advance(NS);
    assert!(waiting.poll_if_woken().unwrap().is_ok());
}

#[test]
fn a_key_may_have_settings_of_its_own_and_keeps_them_when_it_is_forgotten() {
    let clock = ManualClock::new();
    let keyed = KeyedRateLimiter::builder(settings("1/10ms", &clock));
    let keyed = keyed.key(7, settings("3w/10ms", &clock)).build().unwrap();
    for _ in 0..2 {
        assert_eq!(keyed.limiter(&7).limits(), ["3w/10ms".parse().unwrap()]);
        assert_eq!(keyed.limiter(&8).limits(), ["1/10ms".parse().unwrap()]);
        assert!(keyed.request(&7).weight(3).try_acquire().is_ok());
        clock.advance(PER + NS);
        keyed.forget_idle();
        assert!(keyed.is_empty());
    }
}

#[test]
fn invalid_settings_are_refused_before_their_key_is_used() {
    let clock = ManualClock::new();
    let none = RateLimiter::builder();
    assert!(matches!(KeyedRateLimiter::<u64>::new(none.clone()), Err(BuildError::Config(_))));
    let keyed = KeyedRateLimiter::builder(settings("1/10ms", &clock)).key(7, none);
    assert!(matches!(keyed.build(), Err(BuildError::Config(_))));
}

/// A key is removed once a new limiter would decide the same, and not before.
#[test]
fn a_key_is_forgotten_only_when_a_new_limiter_would_decide_the_same() {
    type Use = fn(&KeyedRateLimiter<u64>) -> Box<dyn Send>;
    let uses: [(&str, Duration, Use); 7] = [
        ("nothing", Duration::ZERO, |keyed| Box::new(keyed.limiter(&1).stats().running)),
        ("a completion", PER + NS, |keyed| {
            keyed.try_acquire(&1).unwrap().complete();
            Box::new(())
        }),
        ("a permit", Duration::MAX, |keyed| Box::new(keyed.try_acquire(&1).unwrap())),
        ("a handle", Duration::MAX, |keyed| Box::new(keyed.limiter(&1))),
        ("a pause", 3 * PER, |keyed| {
            keyed.limiter(&1).pause_for(3 * PER);
            Box::new(())
        }),
        ("a pause that was ended", Duration::ZERO, |keyed| {
            keyed.limiter(&1).pause_for(3 * PER);
            keyed.limiter(&1).resume();
            Box::new(())
        }),
        ("closing it", Duration::MAX, |keyed| {
            keyed.limiter(&1).close();
            Box::new(())
        }),
    ];
    for (what, until, make) in uses {
        let (keyed, clock) = keyed("1/10ms");
        let kept = make(&keyed);
        let mut passed = Duration::ZERO;
        for step in [Duration::ZERO, PER, NS, (2 * PER).saturating_sub(NS), 10 * PER] {
            clock.advance(step);
            passed += step;
            keyed.forget_idle();
            assert_eq!(keyed.is_empty(), passed >= until, "{what}, after {passed:?}");
        }
        drop(kept);
    }
}

#[test]
fn a_waiter_and_an_abandoned_task_keep_their_key() {
    let clock = ManualClock::new();
    let keyed = KeyedRateLimiter::new(settings("1/10ms", &clock).abandon_grace(5 * MS)).unwrap();
    let permit = keyed.try_acquire(&1).unwrap();
    let waiting = ByHand::waiting(keyed.acquire(&1));
    std::mem::forget(permit);
    clock.advance(10 * PER);
    keyed.forget_idle();
    assert_eq!(keyed.len(), 1);
    drop(waiting);

    drop(keyed.try_acquire(&2).unwrap());
    for (step, known) in [((5 * MS).saturating_sub(NS), true), (NS, true), (PER, true), (NS, false)]
    {
        clock.advance(step);
        keyed.forget_idle();
        assert_eq!(keyed.len(), 1 + usize::from(known));
    }
}

#[tokio::test]
async fn closing_applies_to_new_keys_as_well() {
    let (keyed, clock) = keyed("1/10ms");
    let running = keyed.try_acquire(&1).unwrap();
    let mut accepted = ByHand::waiting(keyed.acquire(&1));
    keyed.close();
    assert_eq!(keyed.acquire(&1).await.unwrap_err(), AcquireError::Closed);
    assert_eq!(keyed.run(&2, async {}).await.unwrap_err(), AcquireError::Closed);
    assert_eq!(keyed.len(), 1, "keys that come when all is closed are not kept");
    let mut drained = ByHand::waiting(keyed.drained());
    running.complete();
    clock.advance(PER + NS);
    accepted.poll_if_woken().unwrap().unwrap().complete();
    assert!(drained.poll_if_woken().is_some());
    keyed.abort();
}

#[test]
fn ten_million_keys_pass_through_a_bounded_memory() {
    let (keyed, clock) = keyed("1/10ms");
    // A thousand keys a period, each used once.
    let keys: u64 = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
    let mut most = 0;
    for key in 0..keys {
        keyed.try_acquire(&key).unwrap().complete();
        clock.advance(PER / 1_000);
        most = most.max(keyed.len());
    }
    assert!((1_000..=2_100).contains(&most), "{most} at once, where 1000 have something in hand");
    clock.advance(PER);
    keyed.forget_idle();
    assert!(keyed.is_empty());
}

/// Many threads use few keys, while many other keys come and go: no key's window may be lost.
#[test]
fn no_window_is_lost_to_forgetting_under_threads() {
    let (keyed, clock) = keyed("3/10ms");
    for _ in 0..50 {
        let granted: usize = std::thread::scope(|threads| {
            let all: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let keyed = &keyed;
                    threads.spawn(move || {
                        let mut granted = 0;
                        for round in 0..400 {
                            if let Ok(permit) = keyed.try_acquire(&u64::MAX) {
                                permit.complete();
                                granted += 1;
                            }
                            keyed.limiter(&(thread * 1_000 + round));
                        }
                        granted
                    })
                })
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 3, "time stands still: one full window for all threads");
        clock.advance(PER + NS);
    }
}

/// Asks for many keys when it is woken, as a task does that is polled by its waker.
struct AsksForKeys(KeyedRateLimiter<u32>);

impl std::task::Wake for AsksForKeys {
    fn wake(self: Arc<Self>) {
        (0..500).for_each(|key| drop(self.0.limiter(&key)));
    }
}

#[test]
fn an_abort_wakes_nobody_under_the_locks_of_the_map() {
    let every = RateLimiter::builder().limit("1/1h".parse().unwrap());
    let keyed = KeyedRateLimiter::new(every).unwrap();
    keyed.try_acquire(&0).unwrap().complete();
    let mut waits = Box::pin(keyed.acquire(&0));
    let waker = std::task::Waker::from(Arc::new(AsksForKeys(keyed.clone())));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(waits.as_mut().poll(&mut context).is_pending());
    keyed.abort();
    assert!(waits.as_mut().poll(&mut context).is_ready());
}
