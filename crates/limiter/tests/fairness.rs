//! A task that never has to wait still lets the other tasks of its runtime run.

mod support;

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use strict_rate_limiter::RateLimiter;
use strict_rate_limiter::clock::TokioClock;
use support::{ByHand, limiter};
use tokio::task::coop;

/// How often another task of the runtime runs while this one is done 10,000 times, without ever waiting.
async fn others_meanwhile<F: Future>(mut again: impl FnMut() -> F) -> u32 {
    let ran = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&ran);
    let other = tokio::spawn(async move {
        loop {
            counts.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..10_000 {
        again().await;
    }
    other.abort();
    ran.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_loop_of_tasks_that_never_wait_yields_to_others() {
    let (limiter, _clock) = limiter(&["1000000000w/1h"], |builder| builder);
    let limiter = &limiter;
    let loops = [
        ("acquire", others_meanwhile(|| async { drop(limiter.acquire().await) }).await),
        (
            "acquire_owned",
            others_meanwhile(|| async { drop(limiter.request().owned().acquire().await) }).await,
        ),
        ("run", others_meanwhile(|| limiter.run(ready(()))).await),
        ("push", others_meanwhile(|| limiter.push(|| ready(()))).await),
        ("push_fn", others_meanwhile(|| limiter.push_fn(|| ())).await),
    ];
    for (name, others) in loops {
        // Tokio's own primitives yield every 128 times.
        assert!(others > 50, "{name}: others ran {others} times");
    }
}

fn use_up_budget(context: &mut Context<'_>) {
    while let Poll::Ready(budget) = coop::poll_proceed(context) {
        budget.made_progress();
    }
}

#[tokio::test]
async fn a_task_that_has_to_yield_keeps_its_position() {
    let (limiter, _clock) = limiter(&["5/1h"], |builder| builder);
    let mut asks = pin!(limiter.acquire());
    let late = poll_fn(|context| {
        use_up_budget(context);
        assert!(asks.as_mut().poll(context).is_pending(), "it has to yield");
        // Another request now is behind it.
        Poll::Ready(limiter.try_acquire().is_err())
    });
    assert!(late.await, "its permit waits for it");
    asks.await.unwrap().complete();

    let mut gives_up = Box::pin(limiter.acquire());
    poll_fn(|context| {
        use_up_budget(context);
        assert!(gives_up.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(gives_up);
    assert_eq!(limiter.stats().running, 0);
    assert_eq!(
        limiter.stats().held[0].units,
        1,
        "a permit that its task never saw is undone in full"
    );
}

#[tokio::test]
async fn a_thread_that_blocks_needs_no_budget() {
    let (limiter, _clock) = limiter(&["5/1h"], |builder| builder);
    poll_fn(|context| {
        use_up_budget(context);
        Poll::Ready(limiter.acquire_blocking().map(drop))
    })
    .await
    .unwrap();
}

/// Time is real here. If the timer took part in tokio's budget, this task's waker would be woken at once under the
/// limiter's lock, and the test would hang.
#[test]
fn a_timer_of_tokios_is_set_by_a_task_that_has_used_up_its_budget() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limit = "1/1ms".parse().unwrap();
        let limiter = RateLimiter::builder().limit(limit).clock(TokioClock::current());
        let limiter = limiter.build().unwrap();
        limiter.try_acquire().unwrap().complete();
        let mut waits: Pin<Box<_>> = Box::pin(limiter.acquire());
        poll_fn(|context| {
            use_up_budget(context);
            Poll::Ready(waits.as_mut().poll(context).is_pending())
        })
        .await;
        waits.await.unwrap().complete();
    });
}

#[test]
fn outside_tokio_its_budget_is_not_used() {
    let (limiter, _clock) = limiter(&["100000/1h"], |builder| builder);
    for _ in 0..1_000 {
        let mut asks = ByHand::new(limiter.acquire());
        asks.poll().expect("there is room").unwrap().complete();
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(coop::poll_proceed(&mut context).is_ready());
}
