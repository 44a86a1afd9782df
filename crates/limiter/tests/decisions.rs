//! Every decision of the design as a test, on a clock that moves when it is told to.

mod support;

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use strict_rate_limiter::clock::TokioClock;
use strict_rate_limiter::{
    AcquireError, BuildError, ConfigError, LimitError, PushRefusal, Pushed, RateLimiter,
    RateLimiterBuilder, RequestError, TaskError, TryAcquireError,
};
use support::{ByHand, MS, NS, Woken, limiter, settle};

/// What ran, in order.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<&'static str>>>);

impl Trace {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// --- Order

#[tokio::test]
async fn push_run_and_acquire_share_one_line_first_in_first_out() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let trace = Trace::default();
    let running = limiter.acquire().await.unwrap();

    let mut first = ByHand::waiting(limiter.acquire());
    let traced = trace.clone();
    let second = limiter.push(|| async move { traced.add("push") }).await.unwrap();
    let mut third = ByHand::waiting(limiter.run(async { trace.add("run") }));
    let traced = trace.clone();
    let fourth = limiter.push_fn(move || traced.add("push_fn")).await.unwrap();
    assert!(!second.has_run() && !fourth.has_run());
    let Pushed::Queued(second) = second else { panic!("it has to wait") };
    assert!(!second.is_finished());

    running.complete();
    for _ in 0..4 {
        clock.advance(10 * MS + NS);
        if let Some(permit) = first.poll_if_woken() {
            trace.add("acquire");
            permit.unwrap().complete();
        }
        settle().await;
        third.poll_if_woken();
    }
    assert_eq!(trace.take(), ["acquire", "push", "run", "push_fn"]);
    clock.advance(10 * MS + NS);
    assert!(second.is_finished() && limiter.push(|| async {}).await.unwrap().has_run());
}

#[test]
fn a_heavy_head_blocks_the_light_ones_behind_it() {
    let (limiter, clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(10));
    let half = limiter.try_acquire_weight(5).unwrap();
    let mut heavy = ByHand::waiting(limiter.acquire_weight(6));
    let mut light = ByHand::waiting(limiter.acquire_weight(1));
    assert!(light.poll().is_none(), "there is room for it, and it is not its turn");

    half.complete();
    clock.advance(10 * MS + NS);
    assert!(heavy.is_woken() && light.is_woken(), "now there is room for both");
    assert!(heavy.poll().is_some() && light.poll().is_some());
}

#[test]
fn try_acquire_never_overtakes_a_waiter() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(10));
    let _half = limiter.try_acquire_weight(5).unwrap();
    let heavy = ByHand::waiting(limiter.acquire_weight(6));
    assert!(matches!(limiter.try_acquire(), Err(TryAcquireError::Busy { .. })));
    drop(heavy);
    assert!(limiter.try_acquire().is_ok());
}

// --- Several limits

#[test]
fn all_limits_must_allow_and_are_taken_together_or_not_at_all() {
    let (limiter, clock) = limiter(&["2/10ms", "100w/1s"], |builder| builder);
    let held = |limiter: &RateLimiter| {
        limiter.stats().held.iter().map(|held| held.units).collect::<Vec<_>>()
    };
    limiter.try_acquire_weight(90).unwrap().complete();
    assert_eq!(held(&limiter), [1, 90]);
    assert!(limiter.try_acquire_weight(11).is_err(), "too much weight");
    assert_eq!(held(&limiter), [1, 90], "refused by one, taken from none");
    limiter.try_acquire_weight(10).unwrap().complete();
    assert!(limiter.try_acquire_weight(1).is_err(), "too many tasks, and no weight left");

    let mut waiter = ByHand::waiting(limiter.acquire_weight(1));
    clock.advance(10 * MS + NS);
    assert!(waiter.poll().is_none(), "one limit allows it, the other does not");
    assert_eq!(held(&limiter), [0, 100]);
    clock.advance(990 * MS);
    assert!(waiter.poll().is_some());
}

#[test]
fn paced_tasks_never_run_back_to_back() {
    // A third of 10 ms, rounded up.
    let gap = Duration::from_nanos(3_333_334);
    let (limiter, clock) = limiter(&["3/10ms"], RateLimiterBuilder::paced);
    let mut waited = Duration::ZERO;
    for _ in 0..4 {
        limiter.try_acquire().unwrap().complete();
        clock.advance(gap);
        assert!(limiter.try_acquire().is_err());
        clock.advance(NS);
        waited += gap + NS;
    }
    assert!(waited > 10 * MS);
    assert_eq!(limiter.limits().len(), 1, "the pace is not one of the limits asked for");
}

// --- Nonsense

#[tokio::test]
async fn nonsense_is_refused_at_once_and_named() {
    let second = Duration::from_secs(1);
    let error = |limiter: Result<RateLimiter, BuildError>| limiter.unwrap_err();
    assert_eq!(error(RateLimiter::new(0, second)), BuildError::Limit(LimitError::ZeroRate));
    assert_eq!(
        error(RateLimiter::new(1, Duration::ZERO)),
        BuildError::Limit(LimitError::ZeroPeriod)
    );
    assert!(error(RateLimiter::new(1, Duration::MAX)).to_string().contains("over the longest"));
    assert!(error(RateLimiter::new(u64::MAX, second)).to_string().contains("over the highest"));
    let built = |set: fn(RateLimiterBuilder) -> RateLimiterBuilder| {
        set(RateLimiter::builder().limit("5w/1s".parse().unwrap())).build().unwrap_err()
    };
    let config = |error| BuildError::Config(error);
    assert_eq!(error(RateLimiter::builder().build()), config(ConfigError::NoLimit));
    assert_eq!(built(|builder| builder.concurrency(0)), config(ConfigError::ZeroConcurrency));
    assert!(matches!(
        built(|builder| builder.concurrency(usize::MAX)),
        BuildError::Config(ConfigError::ConcurrencyTooHigh(usize::MAX))
    ));
    assert_eq!(built(RateLimiterBuilder::paced), config(ConfigError::PacedWithoutTaskLimit));
    assert!(built(|builder| builder.abandon_grace(Duration::MAX)).to_string().contains("grace"));
    assert!(built(|builder| builder.clock_drift(u32::MAX)).to_string().contains("4294967295 ppm"));

    let (limiter, _clock) = limiter(&["5w/1s"], |builder| builder);
    let zero = AcquireError::Weight(RequestError::ZeroWeight);
    assert_eq!(limiter.acquire_weight(0).await.unwrap_err(), zero);
    assert_eq!(limiter.acquire_weight_blocking(0).unwrap_err(), zero);
    let heavy = limiter.acquire_weight(6).await.unwrap_err();
    assert_eq!(heavy.to_string(), "weight 6 is over the limit 5w/1s: it could never run");
    assert!(limiter.try_acquire_weight(u64::MAX).unwrap_err().to_string().contains("1844674407"));
    let refused = limiter.push_weight(6, || async { "the task" }).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::Weight(_)));
    assert_eq!((refused.task)().await, "the task", "nothing is lost");
    assert_eq!(limiter.stats().queued, 0, "nothing was queued for ever");
}

// --- Actual weights

#[test]
fn of_a_smaller_actual_weight_the_rest_is_free_at_once() {
    let (limiter, _clock) = limiter(&["100w/1s"], |builder| builder);
    let permit = limiter.try_acquire_weight(100).unwrap();
    let mut waiter = ByHand::waiting(limiter.acquire_weight(60));
    assert_eq!(permit.complete_with(40), 0);
    assert!(waiter.is_woken());
    assert!(waiter.poll().is_some());
}

#[test]
fn a_larger_actual_weight_is_recorded_in_full_and_reported() {
    let (limiter, clock) = limiter(&["100w/1s"], |builder| builder);
    limiter.try_acquire_weight(30).unwrap().complete();
    clock.advance(500 * MS);
    let permit = limiter.try_acquire_weight(50).unwrap();
    assert_eq!(permit.complete_with(95), 45);
    assert_eq!(limiter.stats().held[0].units, 125);
    let mut waiter = ByHand::waiting(limiter.acquire_weight(6));
    clock.advance(500 * MS + NS);
    assert!(waiter.poll().is_none(), "30 have gone, and 95 + 6 are still too many");
    clock.advance(500 * MS);
    assert!(waiter.poll().is_some());
}

// --- Tasks that fail

#[tokio::test]
async fn a_failed_task_counts_as_a_completion_and_its_caller_gets_the_error() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let answer = limiter.run(async { Err::<(), _>("refused") }).await.unwrap();
    assert_eq!(answer, Err("refused"));
    assert!(limiter.try_acquire().is_err(), "the call may have gone out");
    clock.advance(10 * MS + NS);
    assert!(limiter.try_acquire().is_ok());
}

#[tokio::test]
async fn a_panic_goes_to_the_caller_and_neither_poisons_nor_stops_the_queue() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let pusher = limiter.clone();
    let ran_at_once = tokio::spawn(async move {
        let _never = pusher.push(|| async { panic!("at once") }).await;
    });
    assert!(ran_at_once.await.unwrap_err().is_panic());
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));

    let Pushed::Queued(panics) =
        limiter.push(|| async { assert_eq!(1, 2, "in its turn") }).await.unwrap()
    else {
        panic!("the window is full")
    };
    let Pushed::Queued(behind) = limiter.push(|| async { "behind it" }).await.unwrap() else {
        panic!("the window is full")
    };
    clock.advance(10 * MS + NS);
    settle().await;
    let Err(TaskError::Panicked(payload)) = panics.await else { panic!("it panics") };
    assert!(payload.downcast_ref::<String>().unwrap().contains("in its turn"));
    clock.advance(10 * MS + NS);
    assert_eq!(behind.await.unwrap(), "behind it");
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_task_that_panics_has_completed_and_needs_no_grace() {
    let (limiter, _clock) = limiter(&["5/10ms"], |builder| builder.abandon_grace(MINUTE));
    let mut run = ByHand::new(limiter.run(async { panic!("itself") }));
    assert!(catch_unwind(AssertUnwindSafe(|| run.poll())).is_err());
    drop(run);
    assert_eq!(limiter.stats().running, 0);
}

#[test]
fn a_call_that_is_dropped_because_something_else_panics_has_its_grace() {
    let (limiter, clock) =
        limiter(&["5/10ms"], |builder| builder.concurrency(5).abandon_grace(MINUTE));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut call = ByHand::new(limiter.run(pending::<()>()));
        assert!(call.poll().is_none());
        let _in_hand = limiter.try_acquire().unwrap();
        let mut panics = ByHand::new(limiter.run(async { panic!("beside them") }));
        panics.poll();
    }));
    assert!(panicked.is_err());
    assert_eq!(limiter.stats().running, 2, "the call and the permit in hand");
    clock.advance(MINUTE);
    assert_eq!(limiter.stats().running, 0);
}

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
    let granted = ByHand::waiting(limiter.acquire_weight(5));
    let mut next = ByHand::waiting(limiter.acquire_weight(7));
    running.complete_with(0);
    clock.advance(10 * MS + NS);
    assert!(granted.is_woken(), "it has been granted");
    assert_eq!(limiter.stats().running, 1);
    drop(granted);
    assert!(next.is_woken(), "and now the next one has");
    next.poll().unwrap().unwrap().complete();
    assert_eq!(limiter.stats().completed, 2, "the grant that nobody saw was no task");
}

#[test]
fn a_dropped_heavy_head_lets_the_light_ones_through_at_once() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(3));
    let _half = limiter.try_acquire_weight(5).unwrap();
    let heavy = ByHand::waiting(limiter.acquire_weight(10));
    let mut light = ByHand::waiting(limiter.acquire_weight(5));
    drop(heavy);
    assert!(light.is_woken());
    assert!(light.poll().is_some());
}

#[test]
fn an_unpolled_head_holds_its_place_and_never_the_timer() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder.concurrency(2));
    limiter.try_acquire().unwrap().complete();
    clock.advance(MS);
    limiter.try_acquire().unwrap().complete();
    let mut unpolled = ByHand::waiting(limiter.acquire());
    let mut behind = ByHand::waiting(limiter.acquire());

    // Nobody polls anything: the timer alone grants the head, and then whoever is behind it.
    assert_eq!(clock.advance_to_next_timer(), Some(9 * MS + NS));
    assert!(unpolled.is_woken() && !behind.is_woken());
    assert_eq!(clock.advance_to_next_timer(), Some(MS));
    assert!(behind.is_woken());
    behind.poll().unwrap().unwrap().complete();
    assert_eq!(limiter.stats().running, 1, "the head's permit is still its own");
    unpolled.poll().unwrap().unwrap().complete();
    assert_eq!(clock.advance_to_next_timer(), None, "nobody waits, no timer is set");
}

#[tokio::test]
async fn a_pushed_task_depends_on_nobodys_polling() {
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
fn whoever_is_polled_with_another_waker_is_woken_by_that_one() {
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

// --- Tasks that are dropped, and long ones

#[test]
fn a_running_task_that_is_dropped_completes_when_its_grace_is_over() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.abandon_grace(5 * MS));
    let mut run = ByHand::waiting(limiter.run(pending::<()>()));
    assert!(run.poll().is_none());
    drop(run);
    assert_eq!(limiter.stats().running, 1, "the bytes may still be on the wire");
    let mut waiter = ByHand::waiting(limiter.acquire());
    clock.advance(5 * MS);
    assert_eq!((limiter.stats().running, limiter.stats().completed), (0, 1));
    clock.advance(10 * MS);
    assert!(waiter.poll().is_none());
    clock.advance(NS);
    assert!(waiter.poll().is_some());
}

#[test]
fn a_permit_that_is_completed_needs_no_grace() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.abandon_grace(5 * MS));
    limiter.try_acquire().unwrap().complete();
    assert_eq!(limiter.stats().running, 0);
    drop(limiter.try_acquire().unwrap());
    assert_eq!(limiter.stats().running, 1);
    limiter.try_acquire_owned().unwrap_err();
}

#[test]
fn no_burst_follows_a_task_that_ran_longer_than_the_period() {
    let (limiter, clock) = limiter(&["2/10ms"], |builder| builder);
    let long = limiter.try_acquire().unwrap();
    clock.advance(100 * MS);
    long.complete();
    limiter.try_acquire().unwrap().complete();
    assert!(limiter.try_acquire().is_err(), "two within 10 ms, whatever came before");
}

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

// --- A task and its own limiter

#[tokio::test]
async fn a_push_from_inside_a_task_is_queued_and_never_run_inside() {
    for concurrency in [1, 2] {
        let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.concurrency(concurrency));
        let trace = Trace::default();
        let (inner_limiter, inner_trace) = (limiter.clone(), trace.clone());
        let outer = async move {
            inner_trace.add("outer begins");
            let traced = inner_trace.clone();
            let inner = inner_limiter.push(|| async move { traced.add("inner") }).await.unwrap();
            assert!(!inner.has_run());
            inner_trace.add("outer ends");
        };
        limiter.run(outer).await.unwrap();
        limiter.drained().await;
        assert_eq!(trace.take(), ["outer begins", "outer ends", "inner"]);
    }
}

#[tokio::test]
async fn an_acquire_inside_a_task_that_leaves_it_no_room_is_an_error() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let inner = limiter.run(async { limiter.acquire().await.map(drop) }).await.unwrap();
    assert_eq!(inner.unwrap_err(), AcquireError::WouldDeadlock);
    let inner = limiter.run(async { limiter.acquire_blocking().map(drop) }).await.unwrap();
    assert_eq!(inner.unwrap_err(), AcquireError::WouldDeadlock);
    assert!(limiter.acquire().await.is_ok(), "outside of it all is well");
}

#[tokio::test]
async fn a_closed_limiter_says_so_inside_of_its_tasks_too() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let asks_once_closed = async {
        limiter.close();
        limiter.acquire().await.map(drop)
    };
    assert_eq!(limiter.run(asks_once_closed).await.unwrap(), Err(AcquireError::Closed));
}

#[tokio::test]
async fn a_task_that_panics_leaves_nobody_inside_of_it() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder);
    let mut panics = ByHand::new(limiter.run(async { panic!("itself") }));
    assert!(catch_unwind(AssertUnwindSafe(|| panics.poll())).is_err());
    assert!(limiter.push(|| async {}).await.unwrap().has_run(), "it is not asked for inside");
}

#[tokio::test]
async fn an_acquire_inside_a_task_that_leaves_it_room_is_granted() {
    let (limiter, _clock) = limiter(&["9w/10ms"], |builder| builder.concurrency(2));
    let outer = async {
        limiter.acquire_weight(5).await.unwrap().complete();
        limiter.acquire_weight(6).await.map(drop)
    };
    let too_heavy = limiter.run_weight(4, outer).await.unwrap();
    assert_eq!(too_heavy.unwrap_err(), AcquireError::WouldDeadlock);
}

#[tokio::test]
async fn a_push_from_inside_a_task_to_a_full_queue_is_an_error_and_not_a_deadlock() {
    let (limiter, _clock) = limiter(&["9/10ms"], |builder| builder.queue_capacity(0));
    let inner = limiter.clone();
    let refused =
        limiter.run(async move { inner.push(|| async {}).await.map(drop) }).await.unwrap();
    assert_eq!(refused.unwrap_err().reason, PushRefusal::Full);
}

// --- Queue full

#[tokio::test]
async fn a_push_waits_for_room_in_its_place_and_try_push_hands_the_task_back() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.queue_capacity(2));
    let trace = Trace::default();
    let task = |name: &'static str| {
        let traced = trace.clone();
        move || async move { traced.add(name) }
    };
    limiter.try_acquire().unwrap().complete();
    limiter.push(task("first")).await.unwrap();
    limiter.push(task("second")).await.unwrap();
    let mut third = ByHand::waiting(limiter.push(task("third")));
    let refused = limiter.try_push(task("fourth")).unwrap_err();
    assert_eq!(refused.reason, PushRefusal::Full);
    let mut behind = ByHand::waiting(limiter.acquire());

    clock.advance(10 * MS + NS);
    settle().await;
    assert!(third.is_woken(), "the first has run: there is room");
    assert!(matches!(third.poll(), Some(Ok(Pushed::Queued(_)))));
    limiter.try_push(task("fourth")).unwrap_err();
    for _ in 0..3 {
        clock.advance(10 * MS + NS);
        settle().await;
        if let Some(permit) = behind.poll_if_woken() {
            trace.add("behind");
            permit.unwrap().complete();
        }
    }
    assert_eq!(trace.take(), ["first", "second", "third", "behind"]);
}

#[tokio::test]
async fn a_push_that_stops_waiting_for_room_leaves_no_trace() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.queue_capacity(0));
    limiter.try_acquire().unwrap().complete();
    let waits = ByHand::waiting(limiter.push(|| async { unreachable!("it was dropped") }));
    let mut next = ByHand::waiting(limiter.push(|| async { "ran" }));
    drop(waits);
    clock.advance(10 * MS + NS);
    assert!(next.is_woken());
    assert!(matches!(next.poll(), Some(Ok(Pushed::Ran("ran")))));
}

#[test]
fn a_push_without_a_runtime_hands_the_task_back() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder);
    let ran = ByHand::new(limiter.push(|| async { 1 })).poll();
    assert!(matches!(ran, Some(Ok(Pushed::Ran(1)))), "permitted at once, it needs no runtime");
    let queued = ByHand::new(limiter.push(|| async { 2 })).poll().unwrap();
    assert_eq!(queued.unwrap_err().reason, PushRefusal::NoRuntime);
    assert_eq!(limiter.stats().queued, 0);
    let refused = limiter.try_push(|| async { 3 }).unwrap_err();
    assert_eq!(refused.reason, PushRefusal::NoRuntime);
    assert_eq!((limiter.stats().queued, limiter.stats().running), (0, 0));
}

// --- The end

#[tokio::test]
async fn after_close_new_work_is_refused_and_what_was_accepted_still_runs() {
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
async fn after_abort_what_is_queued_is_dropped_and_what_runs_ends_by_itself() {
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
async fn after_the_last_handle_is_dropped_what_was_accepted_still_runs() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder);
    let mut queued = vec![];
    for task in 0..3 {
        queued.push(limiter.push(move || async move { task }).await.unwrap());
    }
    let mut owned = ByHand::waiting(limiter.acquire_owned());
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
fn whoever_stops_waiting_for_drained_leaves_no_trace() {
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

// --- Pause, clock

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
fn resuming_loosens_no_limit() {
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
fn the_backoff_is_the_shortest_period_that_is_used_up_else_the_shortest() {
    let limits = ["1000/1d", "5w/10ms", "2/1s"];
    let (limiter, clock) = limiter(&limits, |builder| builder.concurrency(3).paced());
    let (day, second) = (Duration::from_secs(86_400), Duration::from_secs(1));
    assert_eq!(
        limiter.backoff(),
        10 * MS,
        "nothing is used up, and the pace is no limit of theirs"
    );
    let first = limiter.try_acquire_weight(1).unwrap();
    assert_eq!(limiter.backoff(), 10 * MS);
    first.complete_with(4);
    clock.advance(day / 1_000 + NS);
    let second_one = limiter.try_acquire_weight(5).unwrap();
    assert_eq!(limiter.backoff(), 10 * MS, "the weight is used up by what runs");
    second_one.complete_with(1);
    limiter.reconcile(2, 2);
    assert_eq!(limiter.backoff(), second, "of the weight there is some left");
    limiter.reconcile(0, 1_000);
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
fn history_is_held_as_if_it_had_run_here() {
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
