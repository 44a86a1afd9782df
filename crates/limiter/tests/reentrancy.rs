//! Tasks that request another permit of their own limiter while they run: refused at once if all tasks that could
//! make room for them wait inside as well.

mod support;

use std::future::poll_fn;
use std::mem::replace;
use std::task::Poll;

use strict_rate_limiter::AcquireError::{self, WouldDeadlock};
use strict_rate_limiter::RateLimiter;
use support::{ByHand, MS, NS, limiter};

/// A future that is ready at the second poll.
async fn once() {
    let mut was_polled = false;
    poll_fn(|_| if replace(&mut was_polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// A task that makes a request inside at its second poll, and returns the outcome.
async fn asks_inside(limiter: &RateLimiter, weights: [u64; 2]) -> Result<(), AcquireError> {
    let inside = async {
        once().await;
        limiter.request().weight(weights[1]).run(async {}).await
    };
    limiter.request().weight(weights[0]).run(inside).await.expect("it is open")
}

#[test]
fn the_last_of_the_tasks_that_all_wait_inside_is_refused_and_the_others_go_on() {
    let (limiter, _clock) = limiter(&["100/10ms"], |builder| builder.concurrency(3));
    let mut tasks = [(); 3].map(|()| ByHand::waiting(asks_inside(&limiter, [1, 1])));
    assert!(tasks[0].poll().is_none() && tasks[1].poll().is_none(), "the third may end");
    assert_eq!(tasks[2].poll(), Some(Err(WouldDeadlock)), "all that could make room wait inside");
    for task in &mut tasks[..2] {
        assert_eq!(task.poll_if_woken(), Some(Ok(())));
    }
    assert_eq!(limiter.stats().running, 0);
}

#[test]
fn a_chain_of_tasks_inside_each_other_is_refused_when_it_fills_the_limiter() {
    let (limiter, _clock) = limiter(&["100/10ms"], |builder| builder.concurrency(2));
    let third = limiter.run(limiter.run(async { limiter.run(async {}).await }));
    assert_eq!(ByHand::new(third).poll(), Some(Ok(Ok(Err(WouldDeadlock)))));
}

#[test]
fn a_request_is_refused_if_the_tasks_that_wait_inside_fill_the_window_together() {
    let (limiter, clock) = limiter(&["5w/10ms"], |builder| builder.concurrency(9));
    let mut first = ByHand::waiting(asks_inside(&limiter, [2, 3]));
    let mut second = ByHand::waiting(asks_inside(&limiter, [2, 1]));
    assert!(first.poll().is_none(), "3 beside its own 2, once the second has ended");
    assert_eq!(second.poll(), Some(Err(WouldDeadlock)), "the head never fits beside both");
    clock.advance(10 * MS + NS);
    assert_eq!(first.poll_if_woken(), Some(Ok(())));
}

#[test]
fn a_task_is_refused_if_it_would_wait_behind_a_waiter_that_waits_for_it() {
    let (limiter, clock) = limiter(&["5w/10ms"], |builder| builder.concurrency(2));
    let mut outer = ByHand::waiting(asks_inside(&limiter, [1, 1]));
    let mut heavy = ByHand::waiting(limiter.request().weight(5).acquire());
    assert_eq!(outer.poll(), Some(Err(WouldDeadlock)));
    clock.advance(10 * MS + NS);
    assert!(heavy.poll_if_woken().unwrap().is_ok());
}

#[test]
fn a_waiter_inside_that_leaves_keeps_no_other_from_waiting_inside() {
    let (limiter, _clock) = limiter(&["100/10ms"], |builder| builder.concurrency(2));
    let mut first = ByHand::waiting(asks_inside(&limiter, [1, 1]));
    let mut second = ByHand::waiting(asks_inside(&limiter, [1, 1]));
    assert!(first.poll().is_none());
    drop(first);
    assert_eq!(second.poll(), Some(Ok(())));
}

#[test]
fn a_waiter_that_outlives_its_outer_task_counts_as_any_other() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder.concurrency(2));
    let beside = limiter.try_acquire().unwrap();
    let mut left_behind = None;
    {
        let mut outer = ByHand::new(limiter.run(async {
            left_behind = Some(ByHand::waiting(limiter.acquire()));
        }));
        assert_eq!(outer.poll().unwrap(), Ok(()));
    }
    // Both of two run from here on, and neither waits inside.
    clock.advance(10 * MS + NS);
    let mut left_behind = left_behind.unwrap();
    let permit = left_behind.poll_if_woken().unwrap().unwrap();
    let mut waits = ByHand::waiting(limiter.run(async { limiter.acquire().await.map(drop) }));
    permit.complete();
    beside.complete();
    clock.advance(10 * MS + NS);
    assert_eq!(waits.poll_if_woken().unwrap(), Ok(Ok(())));
}
