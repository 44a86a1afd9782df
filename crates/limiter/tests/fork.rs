//! The child of a `fork` has none of its parent's threads, and uses its own timer thread.
//!
//! Time is real here. An alarm of the system ends a child that hangs, after a minute.

#![cfg(unix)]

mod support;

use std::time::Duration;

use strict_rate_limiter::RateLimiter;
use support::ByHand;

const PER: Duration = Duration::from_millis(300);

fn limiter() -> RateLimiter {
    RateLimiter::new(1, PER).unwrap()
}

/// Waits for a permit that is not granted at once.
fn wait(limiter: &RateLimiter) {
    limiter.acquire_blocking().unwrap().complete();
}

/// Does `work` in a child, which must exit with success.
fn in_child(work: impl FnOnce()) {
    // SAFETY: the child allocates, which the C library allows after a fork, and uses nothing that another
    // thread of the parent may have locked: the limiters are at rest, their timers far from due.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: it takes a number.
            unsafe { libc::alarm(60) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: it ends the process and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        child => {
            assert!(child > 0, "no child");
            let mut status = 0;
            // SAFETY: it waits for the child above and writes to the local.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child hung or panicked");
        }
    }
}

#[test]
fn a_child_uses_its_own_timer_thread() {
    let limiter = limiter();
    wait(&limiter);
    wait(&limiter);
    let full = RateLimiter::new(1, Duration::from_secs(3_600)).unwrap();
    full.try_acquire().unwrap().complete();
    in_child(|| {
        let own = self::limiter();
        wait(&own);
        wait(&own);
        wait(&limiter);
        assert!(full.try_acquire().is_err(), "the window is as full here as it was");
        // A child of the child does so too.
        in_child(|| {
            wait(&own);
            wait(&limiter);
        });
        wait(&own);
    });
    wait(&limiter);
}

#[test]
fn a_waiter_from_before_the_fork_is_granted_in_both_processes() {
    let limiter = limiter();
    wait(&limiter);
    let mut waits = ByHand::waiting(limiter.acquire());
    let mut finish = |is_polled_first: bool| {
        // Its timer is the parent's; a look sets one here.
        assert!(!is_polled_first || waits.poll().is_none());
        while !waits.is_woken() {
            std::thread::yield_now();
        }
        while waits.poll().is_none() {}
    };
    in_child(|| finish(true));
    finish(false);
}

#[test]
fn a_new_waiter_in_the_child_sets_the_timer_that_the_fork_lost() {
    let limiter = limiter();
    wait(&limiter);
    let waits = ByHand::waiting(limiter.acquire());
    let mut waits = Some(waits);
    in_child(|| {
        let mut head = waits.take().unwrap();
        let _behind = ByHand::waiting(limiter.acquire());
        while !head.is_woken() {
            std::thread::yield_now();
        }
        while head.poll().is_none() {}
    });
}
