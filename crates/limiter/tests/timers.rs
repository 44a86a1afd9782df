//! User clocks whose timers misbehave: this costs looks, and no waiter waits for ever.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strict_rate_limiter::RateLimiter;
use strict_rate_limiter::clock::{Clock, ManualClock, Timer};

const EARLY_NS: u64 = 100_000;

/// A clock whose timers fire early.
#[derive(Debug)]
struct Hasty(ManualClock);

struct HastyTimer {
    clock: ManualClock,
    timer: Box<dyn Timer>,
}

impl Clock for Hasty {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(HastyTimer { clock: self.0.clone(), timer: self.0.timer() })
    }
}

impl Timer for HastyTimer {
    fn set(&mut self, at: u64, waker: &Waker) -> Poll<()> {
        let now = self.clock.now_ns();
        if at <= now {
            return Poll::Ready(());
        }
        let half_way = now + (at - now) / 2;
        let hasty = half_way.max(at.saturating_sub(EARLY_NS));
        // The last nanosecond cannot be halved.
        let set = self.timer.set(if hasty > now { hasty } else { at }, waker);
        assert!(set.is_pending());
        set
    }

    fn clear(&mut self) {
        self.timer.clear();
    }
}

#[test]
fn a_timer_that_fires_early_is_set_again_until_the_time_has_come() {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap());
    let limiter = builder.clock(Hasty(clock.clone())).build().unwrap();
    limiter.try_acquire().unwrap().complete();
    let mut waiting = pin!(limiter.acquire());
    let mut poll = || waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    let mut waited = Duration::ZERO;
    let mut looks = 0;
    while limiter.stats().running == 0 {
        waited += clock.advance_to_next_timer().expect("a task waits, and no timer is set");
        looks += 1;
    }
    assert!(poll().is_ready());
    assert_eq!(waited, Duration::from_nanos(10_000_001), "not a nanosecond early");
    assert!(looks > 5, "{looks} looks");
}
