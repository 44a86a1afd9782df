//! Limits as text: reading, writing, and the messages of refusals.

use std::error::Error;
use std::time::Duration;

use proptest::prelude::*;
use strict_rate_limiter_core::limit::{PER_MAX, RATE_MAX};
use strict_rate_limiter_core::{Limit, LimitError};

#[test]
fn the_usual_spellings_are_read() {
    let cases = [
        ("10/1s", Limit::tasks(10, Duration::from_secs(1))),
        ("10/s", Limit::tasks(10, Duration::from_secs(1))),
        (" 500/1m ", Limit::tasks(500, Duration::from_secs(60))),
        ("100/250ms", Limit::tasks(100, Duration::from_millis(250))),
        ("90000w/1m", Limit::weight(90_000, Duration::from_secs(60))),
        ("90_000W/m", Limit::weight(90_000, Duration::from_secs(60))),
        ("1/1.5s", Limit::tasks(1, Duration::from_millis(1_500))),
        ("1/0.000000001s", Limit::tasks(1, Duration::from_nanos(1))),
        ("1/1.50m", Limit::tasks(1, Duration::from_secs(90))),
        ("1/1.25ms", Limit::tasks(1, Duration::from_micros(1_250))),
        ("1/2.5us", Limit::tasks(1, Duration::from_nanos(2_500))),
        ("1/3µs", Limit::tasks(1, Duration::from_micros(3))),
        ("1/0.00000000005m", Limit::tasks(1, Duration::from_nanos(3))),
        ("1/1.500000000000000000000000000000s", Limit::tasks(1, Duration::from_millis(1_500))),
        ("1/7d", Limit::tasks(1, Duration::from_secs(7 * 86_400))),
        ("1/1_000ns", Limit::tasks(1, Duration::from_micros(1))),
    ];
    for (text, limit) in cases {
        assert_eq!(text.parse::<Limit>().ok(), limit.ok(), "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_an_error_that_names_it() {
    let cases = [
        ("", "`` is not a limit: it needs a rate, a slash and a period, as in 10/1s or 90000w/1m"),
        (
            "10",
            "`10` is not a limit: it needs a rate, a slash and a period, as in 10/1s or 90000w/1m",
        ),
        ("x/1s", "the rate `x` is not a whole number"),
        ("/1s", "the rate `` is not a whole number"),
        ("1.5/1s", "the rate `1.5` is not a whole number"),
        ("-1/1s", "the rate `-1` is not a whole number"),
        ("_/1s", "the rate `_` is not a whole number"),
        ("10x/1s", "the rate `10x` is not a whole number"),
        ("10/", "the period `` is not a number and a unit"),
        ("10/1", "the period `1` is not a number and a unit"),
        ("10/1.s", "the period `1.s` is not a number and a unit"),
        ("10/.5s", "the period `.5s` is not a number and a unit"),
        ("10/1.2.3s", "the period `1.2.3s` is not a number and a unit"),
        ("10/-1s", "the period `-1s` is not a number and a unit"),
        ("10/1y", "`y` is not a unit of time; use ns, us, ms, s, m, h or d"),
        ("10/1s/2", "`s/2` is not a unit of time"),
        ("10/1.5ns", "the period `1.5ns` is not a whole number of nanoseconds"),
        ("10/0.0000000001s", "is not a whole number of nanoseconds"),
        ("10/0.000000000051m", "is not a whole number of nanoseconds"),
        ("10/0.0000000000000000000000000000000000000001d", "is not a whole number of nanoseconds"),
        ("0/1s", "`0/1s` is not a limit: rate 0 would never let anything run; the least is 1"),
        ("10/0s", "a period of 0 limits nothing; the shortest is 1ns"),
        ("99999999999999999999999/1s", "is over the highest, 1099511627776"),
        ("1/99999999999999999999d", "is over the longest"),
        ("1/4000d", "is over the longest"),
    ];
    for (text, words) in cases {
        let error = text.parse::<Limit>().expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert!(error.starts_with(&format!("`{text}` is not a limit: ")), "{error}");
    }
}

#[test]
fn the_source_of_a_refusal_is_the_number_where_there_is_one() {
    let source = |text: &str| {
        let error = text.parse::<Limit>().unwrap_err();
        error.source().and_then(|source| source.downcast_ref::<LimitError>().cloned())
    };
    assert_eq!(source("0/1s"), Some(LimitError::ZeroRate));
    assert_eq!(source("1/1x"), None);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_value() {
    let second = Duration::from_secs(1);
    assert_eq!(Limit::tasks(0, second), Err(LimitError::ZeroRate));
    assert_eq!(Limit::weight(RATE_MAX + 1, second), Err(LimitError::RateTooHigh(RATE_MAX + 1)));
    assert_eq!(Limit::tasks(1, Duration::ZERO), Err(LimitError::ZeroPeriod));
    let too_long = PER_MAX + Duration::from_nanos(1);
    assert_eq!(Limit::tasks(1, too_long), Err(LimitError::PeriodTooLong(too_long)));
    assert_eq!(Limit::tasks(1, Duration::MAX), Err(LimitError::PeriodTooLong(Duration::MAX)));
    assert!(Limit::weight(RATE_MAX, PER_MAX).is_ok());
}

proptest! {
    #[test]
    fn every_limit_is_read_back_from_what_it_prints(
        tasks in any::<bool>(), rate in 1..=RATE_MAX, per_ns in 1_u64..1 << 58, round in 0_usize..6,
    ) {
        let unit_ns = [1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 86_400_000_000_000][round];
        let per = Duration::from_nanos((per_ns / unit_ns).max(1) * unit_ns);
        let limit = if tasks { Limit::tasks(rate, per) } else { Limit::weight(rate, per) }.unwrap();
        prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
    }

    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "\\PC{0,12}|[0-9w_./smhdun]{0,16}") {
        if let Ok(limit) = text.parse::<Limit>() {
            prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
        }
    }
}
