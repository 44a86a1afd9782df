//! Order, several limits, weights and refusals, on a manual clock.

mod support;

use std::task::{Poll, Waker};
use std::time::Duration;

use strict_rate_limiter::clock::{Clock, ManualClock, Timer};
use strict_rate_limiter::{
    AcquireError, BuildError, ConfigError, LimitError, PushRefusal, Pushed, RateLimiter,
    RateLimiterBuilder, RequestError, TryAcquireError,
};
use support::{ByHand, MS, NS, Trace, limiter, settle};

// --- Order

#[tokio::test]
async fn push_run_and_acquire_share_one_queue_first_in_first_out() {
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
    let half = limiter.request().weight(5).try_acquire().unwrap();
    let mut heavy = ByHand::waiting(limiter.request().weight(6).acquire());
    let mut light = ByHand::waiting(limiter.request().weight(1).acquire());
    assert!(light.poll().is_none(), "there is room for it, but the head is first");

    half.complete();
    clock.advance(10 * MS + NS);
    assert!(heavy.is_woken() && light.is_woken(), "now there is room for both");
    assert!(heavy.poll().is_some() && light.poll().is_some());
}

#[test]
fn try_acquire_never_overtakes_a_waiter() {
    let (limiter, _clock) = limiter(&["10w/10ms"], |builder| builder.concurrency(10));
    let _half = limiter.request().weight(5).try_acquire().unwrap();
    let heavy = ByHand::waiting(limiter.request().weight(6).acquire());
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
    limiter.request().weight(90).try_acquire().unwrap().complete();
    assert_eq!(held(&limiter), [1, 90]);
    assert!(limiter.request().weight(11).try_acquire().is_err(), "too much weight");
    assert_eq!(held(&limiter), [1, 90], "refused by one, taken from none");
    limiter.request().weight(10).try_acquire().unwrap().complete();
    assert!(
        limiter.request().weight(1).try_acquire().is_err(),
        "too many tasks, and no weight left"
    );

    let mut waiter = ByHand::waiting(limiter.request().weight(1).acquire());
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

// --- Invalid settings and weights

#[tokio::test]
async fn invalid_settings_and_weights_are_refused_at_once_with_their_values() {
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
    assert_eq!(limiter.request().weight(0).acquire().await.unwrap_err(), zero);
    assert_eq!(limiter.request().weight(0).acquire_blocking().unwrap_err(), zero);
    let heavy = limiter.request().weight(6).acquire().await.unwrap_err();
    assert_eq!(heavy.to_string(), "weight 6 is over the limit 5w/1s: it could never run");
    assert!(
        limiter
            .request()
            .weight(u64::MAX)
            .try_acquire()
            .unwrap_err()
            .to_string()
            .contains("1844674407")
    );
    let refused = limiter.request().weight(6).push(|| async { "the task" }).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::Weight(_)));
    assert_eq!((refused.task)().await, "the task", "nothing is lost");
    assert_eq!(limiter.stats().queued, 0, "nothing was queued for ever");
}

#[test]
fn limits_are_read_from_text_where_a_limiter_is_built() {
    fn build(limit: &str) -> Result<RateLimiter, BuildError> {
        RateLimiter::builder().limit(limit.parse()?).build()
    }
    assert!(build("10/1s").is_ok());
    assert!(matches!(build("10 a second"), Err(BuildError::Parse(_))));
}

#[test]
fn a_limit_that_is_not_there_cannot_be_reconciled_and_equal_ones_are_all() {
    let (limiter, _clock) = limiter(&["10/1h", "10/1h", "5w/1h"], |builder| builder);
    let unknown = limiter.reconcile("10/2h".parse().unwrap(), 1).unwrap_err();
    let told = "10/2h is no limit of this limiter, which has 10/1h, 10/1h, 5w/1h";
    assert_eq!(unknown.to_string(), told);
    assert_eq!(limiter.reconcile("10/1h".parse().unwrap(), 4), Ok(4));
    let held = limiter.stats().held.iter().map(|held| held.units).collect::<Vec<_>>();
    assert_eq!(held, [4, 4, 0]);
}

// --- Actual weights

#[test]
fn with_a_smaller_actual_weight_the_rest_is_free_at_once() {
    let (limiter, _clock) = limiter(&["100w/1s"], |builder| builder);
    let permit = limiter.request().weight(100).try_acquire().unwrap();
    let mut waiter = ByHand::waiting(limiter.request().weight(60).acquire());
    assert_eq!(permit.complete_with(40), 0);
    assert!(waiter.is_woken());
    assert!(waiter.poll().is_some());
}

#[test]
fn a_larger_actual_weight_is_recorded_in_full_and_reported() {
    let (limiter, clock) = limiter(&["100w/1s"], |builder| builder);
    limiter.request().weight(30).try_acquire().unwrap().complete();
    clock.advance(500 * MS);
    let permit = limiter.request().weight(50).try_acquire().unwrap();
    assert_eq!(permit.complete_with(95), 45);
    assert_eq!(limiter.stats().held[0].units, 125);
    let mut waiter = ByHand::waiting(limiter.request().weight(6).acquire());
    clock.advance(500 * MS + NS);
    assert!(waiter.poll().is_none(), "30 have gone, and 95 + 6 are still too many");
    clock.advance(500 * MS);
    assert!(waiter.poll().is_some());
}

// --- Queue full

#[tokio::test]
async fn a_push_waits_for_room_in_order_and_try_push_returns_the_task() {
    let (limiter, clock) = limiter(&["1/10ms"], |builder| builder.queue_capacity(2));
    let trace = Trace::default();
    let task = |name: &'static str| {
        let traced = trace.clone();
        move || async move { traced.add(name) }
    };
    limiter.try_acquire().unwrap().complete();
    _ = limiter.push(task("first")).await.unwrap();
    _ = limiter.push(task("second")).await.unwrap();
    let mut third = ByHand::waiting(limiter.push(task("third")));
    let refused = limiter.request().try_push(task("fourth")).unwrap_err();
    assert_eq!(refused.reason, PushRefusal::Full);
    let mut behind = ByHand::waiting(limiter.acquire());

    clock.advance(10 * MS + NS);
    settle().await;
    assert!(third.is_woken(), "the first has run: there is room");
    assert!(matches!(third.poll(), Some(Ok(Pushed::Queued(_)))));
    limiter.request().try_push(task("fourth")).unwrap_err();
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
fn a_push_without_a_runtime_returns_the_task() {
    let (limiter, _clock) = limiter(&["1/10ms"], |builder| builder);
    let ran = ByHand::new(limiter.push(|| async { 1 })).poll();
    assert!(matches!(ran, Some(Ok(Pushed::Ran(1)))), "permitted at once, it needs no runtime");
    let queued = ByHand::new(limiter.push(|| async { 2 })).poll().unwrap();
    assert_eq!(queued.unwrap_err().reason, PushRefusal::NoRuntime);
    assert_eq!(limiter.stats().queued, 0);
    let refused = limiter.request().try_push(|| async { 3 }).unwrap_err();
    assert_eq!(refused.reason, PushRefusal::NoRuntime);
    assert_eq!((limiter.stats().queued, limiter.stats().running), (0, 0));
}

/// A clock whose timers never fire.
#[derive(Debug)]
struct NoTimers(ManualClock);

struct NoTimer;

impl Clock for NoTimers {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(NoTimer)
    }
}

impl Timer for NoTimer {
    fn set(&mut self, _: u64, _: &Waker) -> Poll<()> {
        Poll::Pending
    }

    fn clear(&mut self) {}
}

#[test]
fn a_full_queue_whose_head_can_be_granted_takes_a_new_waiter() {
    let clock = ManualClock::new();
    let builder = RateLimiter::builder().limit("1/10ms".parse().unwrap());
    let builder = builder.queue_capacity(1).refuse_when_full().clock(NoTimers(clock.clone()));
    let limiter = builder.build().unwrap();
    limiter.try_acquire().unwrap().complete();
    let mut head = ByHand::waiting(limiter.acquire());
    let mut refused = ByHand::new(limiter.acquire());
    assert_eq!(refused.poll().unwrap().unwrap_err(), AcquireError::Full);
    clock.advance(10 * MS + NS);
    let _newcomer = ByHand::waiting(limiter.acquire());
    assert!(head.is_woken() && head.poll().is_some());
}
