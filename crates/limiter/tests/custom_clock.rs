//! A user's own clock, whose nanoseconds do not depend on this process, shared by several limiters in an `Arc`.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter::clock::{Clock, Timer, TimerQueue, TimerSlot};
use strict_rate_limiter::{RateLimiter, TryAcquireError};

const MS: u64 = 1_000_000;

/// The nanoseconds since the boot of some machine, suspends included. It has no `Instant`s.
#[derive(Debug, Clone)]
struct BootClock(Arc<Mutex<Boot>>);

#[derive(Debug)]
struct Boot {
    now_ns: u64,
    timers: TimerQueue,
}

struct BootTimer {
    clock: BootClock,
    slot: TimerSlot,
}

impl BootClock {
    fn at(now_ns: u64) -> Self {
        Self(Arc::new(Mutex::new(Boot { now_ns, timers: TimerQueue::new() })))
    }

    fn pass(&self, ns: u64) {
        self.0.lock().unwrap().now_ns += ns;
        while let Some(waker) = self.next_due() {
            waker.wake();
        }
    }

    fn next_due(&self) -> Option<Waker> {
        let boot = &mut *self.0.lock().unwrap();
        boot.timers.pop_due(boot.now_ns)
    }

    fn has_timer(&self) -> bool {
        self.0.lock().unwrap().timers.next_ns().is_some()
    }
}

impl Clock for BootClock {
    fn now_ns(&self) -> u64 {
        self.0.lock().unwrap().now_ns
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(BootTimer { clock: self.clone(), slot: TimerSlot::default() })
    }
}

impl Timer for BootTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let boot = &mut *self.clock.0.lock().unwrap();
        boot.timers.set(&mut self.slot, at_ns, boot.now_ns, waker)
    }

    fn clear(&mut self) {
        self.clock.0.lock().unwrap().timers.clear(&mut self.slot);
    }
}

impl Drop for BootTimer {
    fn drop(&mut self) {
        self.clear();
    }
}

fn limiter(clock: impl Clock) -> RateLimiter {
    RateLimiter::builder().limit("1/10ms".parse().unwrap()).clock(clock).build().unwrap()
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_limiter_keeps_its_limit_by_a_clock_of_any_origin() {
    // Just booted; an hour after; as late as a clock may be.
    for origin in [0, 3_600_000 * MS, 1 << 62] {
        let clock = BootClock::at(origin);
        let limiter = limiter(clock.clone());
        limiter.try_acquire().unwrap().complete();
        let mut waiting = pin!(limiter.acquire());
        assert!(poll_once(waiting.as_mut()).is_pending());
        clock.pass(10 * MS);
        assert_eq!(limiter.stats().running, 0, "the window is closed: its end still counts");
        clock.pass(1);
        assert_eq!(limiter.stats().running, 1, "the timer has granted");
        assert!(poll_once(waiting.as_mut()).is_ready());
    }
}

#[test]
fn history_reaches_before_the_first_nanosecond_of_the_clock() {
    let clock = BootClock::at(0);
    let builder = RateLimiter::builder().limit("2/1h".parse().unwrap()).clock(clock.clone());
    let hour = Duration::from_secs(3_600);
    let limiter = builder.history([(hour / 2, 1), (2 * hour, 1), (hour / 4, 1)]).build().unwrap();
    assert_eq!(limiter.stats().held[0].units, 2, "what is two hours old has expired");
    clock.pass(30 * 60 * 1_000 * MS + 1);
    assert_eq!(limiter.stats().held[0].units, 1);
}

#[test]
fn several_limiters_share_a_clock_and_each_has_a_timer_of_its_own() {
    let clock = Arc::new(BootClock::at(7));
    let shared: Arc<dyn Clock> = clock.clone();
    let (one, other) = (limiter(Arc::clone(&shared)), limiter(shared));
    one.try_acquire().unwrap().complete();
    clock.pass(4 * MS);
    other.try_acquire().unwrap().complete();
    let (mut first, mut second) = (Box::pin(one.acquire()), Box::pin(other.acquire()));
    assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
    clock.pass(6 * MS + 1);
    assert_eq!((one.stats().running, other.stats().running), (1, 0));
    drop(first);
    assert!(clock.has_timer());
    drop(second);
    assert!(!clock.has_timer(), "a waiter that leaves takes its limiter's timer with it");
}

#[test]
fn without_its_own_pair_a_clock_converts_instants_by_their_distance_from_now() {
    let (hour, nearly) = (Duration::from_secs(3_600), Duration::from_secs(3_540));
    let clock = BootClock::at(5_000_000 * MS);
    let limiter = limiter(clock);
    let before = Instant::now();
    limiter.pause_until(before + hour);
    // The conversion read both clocks, one after the other: a pause is never shortened by that.
    let paused_for = limiter.paused_for();
    assert!(paused_for <= hour && paused_for > nearly, "{paused_for:?}");
    let opening = limiter.stats().next_opening.unwrap();
    assert!(opening <= Instant::now() + hour && opening > before + nearly);
    match limiter.try_acquire() {
        Err(TryAcquireError::Busy { not_before: Some(at) }) => {
            assert!(at > before + nearly);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pause_after_the_clock_was_set_back_counts_from_the_latest_time_seen() {
    let clock = BootClock::at(5_000 * MS);
    let builder = RateLimiter::builder().limit("100/1s".parse().unwrap());
    let limiter = builder.clock(clock.clone()).build().unwrap();
    limiter.try_acquire().unwrap().complete();
    clock.0.lock().unwrap().now_ns = 3_000 * MS;
    limiter.pause_for(Duration::from_secs(1));
    assert_eq!(limiter.paused_for(), Duration::from_secs(1));
    assert!(limiter.try_acquire().is_err());
    limiter.resume();
    let permit = limiter.request().within(Duration::from_secs(1)).acquire_blocking();
    permit.expect("there is room, and a second to wait").complete();
}

/// A clock whose instants are asked of the limiter itself.
#[derive(Debug)]
struct Asks(BootClock, Arc<Mutex<Option<RateLimiter>>>);

impl Clock for Asks {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        self.0.timer()
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        if let Some(limiter) = &*self.1.lock().unwrap() {
            let _ = limiter.is_closed();
        }
        Some((Instant::now(), self.0.now_ns()))
    }
}

#[test]
fn a_deadline_is_converted_outside_of_the_lock() {
    let asked = Arc::new(Mutex::new(None));
    let clock = Asks(BootClock::at(0), Arc::clone(&asked));
    let builder = RateLimiter::builder().limit("100/1s".parse().unwrap()).clock(clock);
    let limiter = builder.build().unwrap();
    *asked.lock().unwrap() = Some(limiter.clone());
    let until = Instant::now() + Duration::from_secs(3_600);
    limiter.request().until(until).acquire_blocking().unwrap().complete();
    limiter.pause_until(until);
    *asked.lock().unwrap() = None;
}
