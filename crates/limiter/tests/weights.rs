//! Every way of asking for a permit takes the weight that it was asked for: 3 of a limit of 3, so that
//! nothing else fits beside it.

mod support;

use std::future::ready;

use strict_rate_limiter::{RateLimiter, RequestError, TryAcquireError};
use support::{ByHand, limiter};

/// Asks for a weight in one way, and completes. Whether that was granted on the spot.
type Way = fn(&RateLimiter, u64) -> bool;

fn is_granted<F: Future<Output = Result<T, E>>, T, E>(future: F) -> bool {
    ByHand::new(future).poll().is_some_and(|granted| granted.is_ok())
}

const WAYS: &[(&str, Way)] = &[
    ("acquire_weight", |limiter, weight| is_granted(limiter.acquire_weight(weight))),
    ("acquire_weight_owned", |limiter, weight| is_granted(limiter.acquire_weight_owned(weight))),
    ("acquire_weight_blocking", |limiter, weight| limiter.acquire_weight_blocking(weight).is_ok()),
    ("try_acquire_weight", |limiter, weight| limiter.try_acquire_weight(weight).is_ok()),
    ("try_acquire_weight_owned", |limiter, weight| {
        limiter.try_acquire_weight_owned(weight).is_ok()
    }),
    ("run_weight", |limiter, weight| is_granted(limiter.run_weight(weight, ready(())))),
];

#[cfg(feature = "tokio")]
const PUSHES: &[(&str, Way)] = &[
    ("push_weight", |limiter, weight| is_granted(limiter.push_weight(weight, || ready(())))),
    ("push_fn_weight", |limiter, weight| is_granted(limiter.push_fn_weight(weight, || ()))),
    ("try_push_weight", |limiter, weight| {
        limiter.try_push_weight(weight, || ready(())).is_ok_and(|_| true)
    }),
];

#[cfg(not(feature = "tokio"))]
const PUSHES: &[(&str, Way)] = &[];

#[cfg(feature = "keyed")]
mod keyed {
    use super::*;
    use strict_rate_limiter::KeyedRateLimiter;

    type Way = fn(&KeyedRateLimiter<u8>, u64) -> bool;

    const WAYS: &[(&str, Way)] = &[
        ("acquire_weight", |keys, weight| is_granted(keys.acquire_weight(&1, weight))),
        ("try_acquire_weight", |keys, weight| keys.try_acquire_weight(&1, weight).is_ok()),
        ("run_weight", |keys, weight| is_granted(keys.run_weight(&1, weight, ready(())))),
    ];

    #[test]
    fn every_way_of_asking_for_a_key_takes_its_weight() {
        for (name, way) in WAYS {
            let clock = strict_rate_limiter::clock::ManualClock::new();
            let settings = RateLimiter::builder().limit("3w/1h".parse().unwrap()).clock(clock);
            let keys = KeyedRateLimiter::new(settings).unwrap();
            // Somebody holds the key, so that it is not forgotten meanwhile.
            let limiter = keys.limiter(&1);
            assert!(!way(&keys, 4), "{name}: 4 of 3");
            assert!(way(&keys, 3), "{name}");
            assert_eq!(limiter.stats().held[0].units, 3, "{name}");
        }
    }
}

#[tokio::test]
async fn every_way_of_asking_takes_its_weight() {
    for (name, way) in WAYS.iter().chain(PUSHES) {
        let (limiter, _clock) = limiter(&["3w/1h"], |builder| builder);
        assert!(!way(&limiter, 4), "{name}: 4 of 3");
        assert!(!way(&limiter, 0), "{name}: nothing");
        assert!(way(&limiter, 3), "{name}");
        assert_eq!(limiter.stats().held[0].units, 3, "{name}");
        assert!(limiter.try_acquire().is_err(), "{name}: nothing fits beside it");
    }
}

#[test]
fn what_could_never_run_is_named() {
    let (limiter, _clock) = limiter(&["3w/1h"], |builder| builder);
    let refused = limiter.try_acquire_weight(4).unwrap_err();
    let limit = "3w/1h".parse().unwrap();
    let too_heavy = RequestError::TooHeavy { weight: 4, limit };
    assert_eq!(refused, TryAcquireError::Weight(too_heavy));
}
