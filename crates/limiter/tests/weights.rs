//! All acquiring and running calls, with all that a request can set: a weight of 3 under a limit of 3, a deadline that
//! cannot be met, a full queue.

mod support;

use std::future::ready;
use std::time::Duration;

use strict_rate_limiter::{
    AcquireError, OwnedRequest, PushRefusal, RateLimiter, Request, RequestError, TryAcquireError,
};
use support::{ByHand, MS, limiter};

/// How the limiter answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Granted,
    Waits,
    /// No permit of this weight can ever be granted.
    Never,
    TooLate,
    Full,
    /// Not now, from a call that never waits.
    Busy,
}

use Answer::{Busy, Full, Granted, Never, TooLate, Waits};

/// One call, with all that a request can set.
struct Way {
    name: &'static str,
    /// Whether it would block this thread if it has to wait.
    blocks: bool,
    /// Whether it never waits, and so ignores a deadline.
    tries: bool,
    /// Whether it joins the queue of pushes.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "there are no pushes"))]
    pushes: bool,
    borrowed: fn(Request<'_>) -> Answer,
    owned: fn(OwnedRequest) -> Answer,
}

impl From<AcquireError> for Answer {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Weight(_) => Never,
            AcquireError::DeadlineExceeded { not_before } => {
                assert!(not_before.is_some(), "it is known at once");
                TooLate
            }
            AcquireError::Full => Full,
            other => panic!("{other}"),
        }
    }
}

impl From<TryAcquireError> for Answer {
    fn from(error: TryAcquireError) -> Self {
        match error {
            TryAcquireError::Weight(_) => Never,
            TryAcquireError::Busy { .. } => Busy,
            other => panic!("{other}"),
        }
    }
}

#[cfg(feature = "tokio")]
impl<F> From<strict_rate_limiter::PushError<F>> for Answer {
    fn from(error: strict_rate_limiter::PushError<F>) -> Self {
        match error.reason {
            PushRefusal::Weight(_) => Never,
            PushRefusal::DeadlineExceeded { not_before } => {
                assert!(not_before.is_some(), "it is known at once");
                TooLate
            }
            PushRefusal::Full => Full,
            other => panic!("{other}"),
        }
    }
}

fn answer<T, E: Into<Answer>>(result: Result<T, E>) -> Answer {
    result.map_or_else(Into::into, |_| Granted)
}

fn polled<F: Future<Output = Result<T, E>>, T, E: Into<Answer>>(future: F) -> Answer {
    ByHand::new(future).poll().map_or(Waits, answer)
}

#[cfg(feature = "tokio")]
fn pushed<F, T, E>(future: F) -> Answer
where
    F: Future<Output = Result<strict_rate_limiter::Pushed<T>, E>>,
    E: Into<Answer>,
{
    match ByHand::new(future).poll() {
        Some(Ok(pushed)) if pushed.has_run() => Granted,
        None | Some(Ok(_)) => Waits,
        Some(Err(error)) => error.into(),
    }
}

/// The same calls on a request that borrows and on one that does not.
macro_rules! way {
    ($name:literal, $blocks:literal, $tries:literal, $pushes:literal, $request:ident => $ask:expr) => {
        Way {
            name: $name,
            blocks: $blocks,
            tries: $tries,
            pushes: $pushes,
            borrowed: |$request| $ask,
            owned: |$request| $ask,
        }
    };
}

const WAYS: &[Way] = &[
    way!("acquire", false, false, false, request => polled(request.acquire())),
    way!("acquire_blocking", true, false, false, request => answer(request.acquire_blocking())),
    way!("try_acquire", false, true, false, request => answer(request.try_acquire())),
    way!("run", false, false, false, request => polled(request.run(ready(())))),
    #[cfg(feature = "tokio")]
    way!("push", false, false, true, request => pushed(request.push(|| ready(())))),
    #[cfg(feature = "tokio")]
    way!("push_fn", false, false, true, request => pushed(request.push_fn(|| ()))),
    #[cfg(feature = "tokio")]
    way!("try_push", false, false, true, request => answer(request.try_push(|| ready(())))),
    #[cfg(feature = "tokio")]
    way!("try_push_fn", false, false, true, request => answer(request.try_push_fn(|| ()))),
];

/// Makes one call with this weight, borrowed or owned, with or without a deadline.
fn ask(
    way: &Way,
    limiter: &RateLimiter,
    owned: bool,
    weight: u64,
    within: Option<Duration>,
) -> Answer {
    let mut request = limiter.request().weight(weight);
    if let Some(within) = within {
        request = request.within(within);
    }
    if owned { (way.owned)(request.owned()) } else { (way.borrowed)(request) }
}

/// Every way, borrowed and owned.
fn every_way(check: impl Fn(&Way, bool, &str)) {
    for way in WAYS {
        for owned in [false, true] {
            check(way, owned, &format!("{}, owned: {owned}", way.name));
        }
    }
}

#[tokio::test]
async fn every_call_takes_its_weight() {
    every_way(|way, owned, name| {
        for within in [None, Some(MS)] {
            let (limiter, _clock) = limiter(&["3w/1h"], |builder| builder);
            assert_eq!(ask(way, &limiter, owned, 4, within), Never, "{name}: 4 of 3");
            assert_eq!(ask(way, &limiter, owned, 0, within), Never, "{name}: nothing");
            assert_eq!(ask(way, &limiter, owned, 3, within), Granted, "{name}");
            assert_eq!(limiter.stats().held[0].units, 3, "{name}");
            assert!(limiter.try_acquire().is_err(), "{name}: nothing fits beside it");
        }
    });
}

#[tokio::test]
async fn every_call_is_refused_at_once_if_it_would_be_too_late() {
    every_way(|way, owned, name| {
        let (limiter, clock) = limiter(&["3w/1h"], |builder| builder);
        limiter.request().weight(3).try_acquire().unwrap().complete();
        let refused = if way.tries { Busy } else { TooLate };
        let hour = Duration::from_secs(3_600);
        assert_eq!(ask(way, &limiter, owned, 3, Some(MS)), refused, "{name}");
        assert_eq!(ask(way, &limiter, owned, 3, Some(hour)), refused, "{name}: a nanosecond more");
        assert_eq!(limiter.stats().queued, 0, "{name}: it has not joined");
        if !way.tries && !way.blocks && !way.name.starts_with("try_push") {
            let in_time = ask(way, &limiter, owned, 3, Some(hour + support::NS));
            assert_eq!(in_time, Waits, "{name}");
        }
        clock.advance(hour + support::NS);
    });
}

#[tokio::test]
async fn every_call_is_refused_at_once_if_the_queue_is_full() {
    every_way(|way, owned, name| {
        let (limiter, _clock) =
            limiter(&["3w/1h"], |builder| builder.queue_capacity(1).refuse_when_full());
        limiter.request().weight(3).try_acquire().unwrap().complete();
        let waits = ByHand::waiting(limiter.acquire());
        let refused = if way.tries { Busy } else { Full };
        assert_eq!(ask(way, &limiter, owned, 3, None), refused, "{name}");
        assert_eq!(limiter.stats().queued, 1, "{name}: it has not joined");
        drop(waits);
        if !way.tries && !way.blocks && !way.name.starts_with("try_push") {
            assert_eq!(ask(way, &limiter, owned, 3, None), Waits, "{name}: there is room");
        }
    });
}

/// Without `refuse_when_full` the capacity bounds pushes only.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn by_default_a_full_queue_bounds_pushes_alone() {
    every_way(|way, owned, name| {
        if way.blocks {
            return;
        }
        let (limiter, _clock) = limiter(&["3w/1h"], |builder| builder.queue_capacity(1));
        limiter.request().weight(3).try_acquire().unwrap().complete();
        let _waits = ByHand::waiting(limiter.acquire());
        let answer = match way.name {
            "try_push" | "try_push_fn" => Full,
            _ if way.tries => Busy,
            _ => Waits,
        };
        assert_eq!(ask(way, &limiter, owned, 3, None), answer, "{name}");
        assert!(way.pushes || limiter.stats().queued <= 2);
    });
}

#[cfg(feature = "keyed")]
#[tokio::test]
async fn every_call_for_a_key_takes_its_weight() {
    for way in WAYS {
        let clock = strict_rate_limiter::clock::ManualClock::new();
        let settings = RateLimiter::builder().limit("3w/1h".parse().unwrap()).clock(clock);
        let keyed = strict_rate_limiter::KeyedRateLimiter::new(settings).unwrap();
        // A handle keeps the key from being removed meanwhile.
        let limiter = keyed.limiter(&1);
        let ask = |weight| (way.owned)(keyed.request(&1).weight(weight));
        assert_eq!(ask(4), Never, "{}: 4 of 3", way.name);
        assert_eq!(ask(3), Granted, "{}", way.name);
        assert_eq!(limiter.stats().held[0].units, 3, "{}", way.name);
    }
}

#[cfg(feature = "keyed")]
#[tokio::test]
async fn the_plain_calls_for_a_key_are_for_that_key() {
    let settings = RateLimiter::builder().limit("1/1h".parse().unwrap());
    let keyed = strict_rate_limiter::KeyedRateLimiter::new(settings).unwrap();
    let limiters: Vec<_> = (0..6).map(|key| keyed.limiter(&key)).collect();
    keyed.acquire(&0).await.unwrap().complete();
    keyed.try_acquire(&1).unwrap().complete();
    let blocked = keyed.clone();
    tokio::task::spawn_blocking(move || blocked.acquire_blocking(&2).unwrap().complete());
    assert_eq!(keyed.run(&3, ready(3)).await.unwrap(), 3);
    assert!(keyed.push(&4, || ready(())).await.unwrap().has_run());
    assert!(keyed.push_fn(&5, || ()).await.unwrap().has_run());
    while limiters[2].stats().completed == 0 {
        tokio::task::yield_now().await;
    }
    let completed = limiters.iter().map(|limiter| limiter.stats().completed);
    assert_eq!(completed.collect::<Vec<_>>(), [1; 6]);
}

#[test]
fn the_error_of_a_weight_that_could_never_run_names_the_limit() {
    let (limiter, _clock) = limiter(&["3w/1h"], |builder| builder);
    let refused = limiter.request().weight(4).try_acquire().unwrap_err();
    let limit = "3w/1h".parse().unwrap();
    let too_heavy = RequestError::TooHeavy { weight: 4, limit };
    assert_eq!(refused, TryAcquireError::Weight(too_heavy));
}
