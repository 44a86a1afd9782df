//! Refusals at the edges of each range, and their messages.

use std::time::Duration;

use strict_rate_limiter_core::config::{
    ABANDON_GRACE_NS_MAX, CLOCK_DRIFT_PPM_MAX, CONCURRENCY_MAX,
};
use strict_rate_limiter_core::{
    Config, ConfigError, EnqueueError, HeldEntry, Limit, Machine, RequestError, RunningTask,
    StateError, TryGrantError,
};

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

fn config(set: impl FnOnce(&mut Config)) -> Result<(), ConfigError> {
    let mut config = Config::new([limit("5w/1s")]);
    set(&mut config);
    Machine::<()>::new(config).map(drop)
}

#[test]
fn each_setting_is_good_up_to_its_bound_and_refused_past_it() {
    use ConfigError as E;
    assert_eq!(config(|config| config.concurrency = 1), Ok(()));
    assert_eq!(config(|config| config.concurrency = 0), Err(E::ZeroConcurrency));
    assert_eq!(config(|config| config.concurrency = CONCURRENCY_MAX), Ok(()));
    let past = CONCURRENCY_MAX + 1;
    assert_eq!(config(|config| config.concurrency = past), Err(E::ConcurrencyTooHigh(past)));
    assert_eq!(config(|config| config.abandon_grace_ns = ABANDON_GRACE_NS_MAX), Ok(()));
    let past = ABANDON_GRACE_NS_MAX + 1;
    assert_eq!(config(|config| config.abandon_grace_ns = past), Err(E::AbandonGraceTooLong(past)));
    assert_eq!(config(|config| config.clock_drift_ppm = CLOCK_DRIFT_PPM_MAX), Ok(()));
    let past = CLOCK_DRIFT_PPM_MAX + 1;
    assert_eq!(config(|config| config.clock_drift_ppm = past), Err(E::ClockDriftTooHigh(past)));
    assert_eq!(config(|config| config.limits.clear()), Err(E::NoLimit));
    assert_eq!(config(|config| config.paced = true), Err(E::PacedWithoutTaskLimit));
}

#[test]
fn every_refusal_names_the_value() {
    let cases = [
        (ConfigError::NoLimit.to_string(), "there is no limit: give at least one, such as 10/1s"),
        (ConfigError::ZeroConcurrency.to_string(), "concurrency 0 would never let anything run"),
        (ConfigError::ConcurrencyTooHigh(7).to_string(), "concurrency 7 is over the highest"),
        (ConfigError::PacedWithoutTaskLimit.to_string(), "add one, such as 10/1s"),
        (ConfigError::AbandonGraceTooLong(7).to_string(), "an abandon grace of 7 ns is over"),
        (ConfigError::ClockDriftTooHigh(7).to_string(), "a clock drift of 7 ppm is over"),
        (RequestError::ZeroWeight.to_string(), "weight 0 takes nothing from any limit"),
        (
            RequestError::TooHeavy { weight: 7, limit: limit("5w/1s") }.to_string(),
            "weight 7 is over the limit 5w/1s: it could never run",
        ),
        (EnqueueError::Request(RequestError::ZeroWeight).to_string(), "weight 0 takes nothing"),
        (EnqueueError::Closed.to_string(), "the limiter is closed"),
        (TryGrantError::Request(RequestError::ZeroWeight).to_string(), "weight 0 takes nothing"),
        (TryGrantError::Closed.to_string(), "the limiter is closed"),
        (TryGrantError::Busy { not_before: Some(7) }.to_string(), "no grant before 7 ns"),
        (TryGrantError::Busy { not_before: None }.to_string(), "no grant until a task completes"),
        (StateError::Corrupt("here").to_string(), "the state contradicts itself: here"),
        (StateError::Config(ConfigError::NoLimit).to_string(), "there is no limit"),
    ];
    for (said, words) in cases {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_task_that_could_never_run_is_refused_and_one_that_must_wait_is_not() {
    let limits = [limit("2/1s"), limit("5w/1s")];
    let mut machine = Machine::new(Config { concurrency: 2, ..Config::new(limits) }).unwrap();
    assert_eq!(machine.check(5), Ok(()));
    let too_heavy = RequestError::TooHeavy { weight: 6, limit: limit("5w/1s") };
    assert_eq!(machine.check(6), Err(too_heavy.clone()));
    assert_eq!(machine.enqueue(6, ()), Err(EnqueueError::Request(too_heavy.clone())));
    assert_eq!(machine.try_grant(0, 6), Err(TryGrantError::Request(too_heavy)));
    assert!(machine.grant_at_once(u64::MAX).is_none());
    let inside = |weight| [RunningTask { id: 0, weight }];
    assert!(machine.could_nest(&inside(2), 3, &[]) && !machine.could_nest(&inside(3), 3, &[]));
    assert!(!machine.could_nest(&inside(u64::MAX), u64::MAX, &[]));
    let alone = Machine::<()>::new(Config::new(limits)).unwrap();
    assert!(!alone.could_nest(&inside(1), 1, &[]), "one at a time leaves room for none inside");
    machine.close();
    assert!(machine.is_closed());
    assert_eq!(machine.enqueue(1, ()), Err(EnqueueError::Closed));
}

#[test]
fn the_busy_say_when_it_makes_sense_to_ask_again() {
    let mut machine = Machine::<()>::new(Config::new([limit("1/100ns")])).unwrap();
    let permit = machine.try_grant(10, 1).unwrap();
    assert_eq!(machine.try_grant(11, 1), Err(TryGrantError::Busy { not_before: None }));
    assert_eq!(machine.stats(11).next_opening, None);
    machine.complete(permit, 20, 20, None);
    assert_eq!(machine.try_grant(21, 1), Err(TryGrantError::Busy { not_before: Some(121) }));
    machine.pause_until(500);
    machine.pause_until(400);
    assert_eq!(machine.try_grant(200, 1), Err(TryGrantError::Busy { not_before: Some(500) }));
    assert_eq!(machine.stats(500).next_opening, Some(500), "now");
    assert_eq!(machine.stats(500).completed, 1);
    assert!(machine.grant_at_once(1).is_some());
}

#[test]
fn a_pause_that_is_ended_early_leaves_nothing_behind() {
    let mut machine = Machine::<()>::new(Config::new([limit("1/100ns")])).unwrap();
    machine.pause_until(u64::MAX);
    assert_eq!(machine.try_grant(10, 1), Err(TryGrantError::Busy { not_before: Some(u64::MAX) }));
    assert!(!machine.is_like_new(10));
    machine.resume();
    assert!(machine.is_like_new(10));
    assert!(machine.try_grant(10, 1).is_ok());
    machine.resume();
    assert_eq!(machine.try_grant(10, 1), Err(TryGrantError::Busy { not_before: None }));
}

#[test]
fn what_is_remembered_is_held_from_its_end_in_any_order() {
    let mut machine = Machine::<()>::new(Config::new([limit("10w/100ns")])).unwrap();
    // Entries out of order, and far over the rate.
    machine.remember(60, [HeldEntry::new(50, 3), HeldEntry::new(40, 99)]);
    assert_eq!(machine.stats(140).held[0].units, 102);
    assert_eq!(machine.stats(141).held[0].units, 3);
    assert_eq!(machine.stats(150).held[0].units, 3);
    assert_eq!(machine.stats(151).held[0].units, 0);
    machine.remember(200, [HeldEntry::new(200, 0)]);
    assert_eq!(machine.stats(200).held[0].units, 0);
    machine.remember(300, [HeldEntry::new(300, u64::MAX); 5]);
    let far = Limit::weight(strict_rate_limiter_core::limit::RATE_MAX, Duration::from_secs(1));
    let mut full = Machine::<()>::new(Config::new([far.unwrap()])).unwrap();
    full.remember(1, [HeldEntry::new(1, u64::MAX); 10]);
    assert!(full.try_grant(1, 1).is_err());
    assert!(full.try_grant(1_000_000_002, 1).is_ok());
}

#[test]
fn a_state_error_about_the_settings_has_their_error_as_its_source() {
    use std::error::Error;
    let error = StateError::Config(ConfigError::ZeroConcurrency);
    assert_eq!(error.source().unwrap().to_string(), ConfigError::ZeroConcurrency.to_string());
    assert!(StateError::Corrupt("here").source().is_none());
}
