//! Whatever a server says: nothing panics, and what is understood is never answered with less than it
//! asks for.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use strict_rate_limiter_hints::{Answer, Count, Heed, Wait, used_of};

const NAMES: [&str; 16] = [
    "retry-after",
    "Retry-After",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-reset",
    "x-rate-limit-reset",
    "x-ratelimit-remaining",
    "x-ratelimit-used",
    "x-ratelimit-reset-after",
    "x-app-rate-limit-count",
];

/// Texts made of what headers are made of, and any others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,25}(\\.[0-9]{0,25})?([eE][-+]?[0-9]{1,20})?",
        "[-+0-9.,:;/=\"a-zA-Z ]{0,40}",
        "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        "[0-9]{1,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z",
        "(\"[a-z]{0,3}\"|[0-9]{1,4})(;[rtqw]=[-0-9.]{1,12}){0,4}(, \"[a-z]{0,3}\";r=[0-9]{1,3})?",
        any::<String>(),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name =
        prop_oneof![prop::sample::select(&NAMES[..]).prop_map(String::from), any::<String>()];
    prop::collection::vec((name, text()), 0..8)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn answer(status: u16, headers: &[(String, String)], now: SystemTime) -> Answer<'_> {
    Answer::new(status, headers.iter().map(|(name, text)| (&**name, &**text)), now)
}

fn waits(wait: Wait) -> Duration {
    match wait {
        Wait::Asked(asked) => asked.wait,
        _ => Duration::ZERO,
    }
}

proptest! {
    #[test]
    fn nothing_that_a_server_says_panics(
        status in any::<u16>(),
        headers in headers(),
        now in any::<u64>(),
        rate in any::<u64>(),
        per in any::<u64>(),
        own in any::<u64>(),
    ) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(now);
        let answer = answer(status, &headers, now);
        answer.wait(&Heed::default());
        answer.usages();
        for count in [Count::Used, Count::Remaining] {
            for (name, _) in &headers {
                let usages = answer.usage_in(name, count);
                let per = Duration::from_nanos(per);
                let used = used_of(&usages, rate, per);
                prop_assert!(used.is_none_or(|used| used <= rate));
                let before = answer.used_before(name, count, rate, per, own);
                prop_assert_eq!(before.is_some(), used.is_some());
                prop_assert!(before <= used);
            }
        }
    }

    #[test]
    fn decimal_seconds_are_rounded_up_to_the_nanosecond(
        whole in 0_u64..1_000_000,
        decimals in "[0-9]{0,18}",
        space in "[ \\t]{0,2}",
    ) {
        let headers = [("retry-after".into(), format!("{space}{whole}.{decimals}{space}"))];
        let ns = waits(answer(429, &headers, at(0)).wait(&Heed::default())).as_nanos();
        // The exact value, in units of 10⁻¹⁸ s.
        let fraction: u128 = format!("{decimals:0<18}").parse().unwrap();
        let exact = u128::from(whole) * 10_u128.pow(18) + fraction;
        prop_assert_eq!(ns, exact.div_ceil(10_u128.pow(9)));
    }

    #[test]
    fn nothing_else_in_an_answer_shortens_what_retry_after_asks(
        status in 400_u16..600,
        seconds in 0_u64..100_000,
        mut noise in headers(),
        place in any::<prop::sample::Index>(),
    ) {
        noise.insert(place.index(noise.len() + 1), ("retry-after".into(), seconds.to_string()));
        let waited = waits(answer(status, &noise, at(1_700_000_000)).wait(&Heed::default()));
        prop_assert!(waited >= Duration::from_secs(seconds), "{waited:?}");
    }

    #[test]
    fn a_date_is_waited_for_to_the_end_of_its_second_whatever_our_clock_says(
        date in 0_u64..4_000_000_000,
        ahead in 0_u64..100_000,
        ours in 0_u64..4_000_000_000,
    ) {
        let (date, until) = (at(date), at(date + ahead));
        let headers = [
            ("date".into(), httpdate::fmt_http_date(date)),
            ("retry-after".into(), httpdate::fmt_http_date(until)),
        ];
        let waited = waits(answer(503, &headers, at(ours)).wait(&Heed::default()));
        prop_assert_eq!(waited, Duration::from_secs(ahead + 1));
        let waited = waits(answer(503, &headers[1..], date).wait(&Heed::default()));
        prop_assert_eq!(waited, Duration::from_secs(ahead + 1));
    }

    #[test]
    fn what_is_left_never_comes_out_as_more(rate in 1_u64..1000, left in 0_u64..2000, tenths in 0..10) {
        for text in [
            format!("{left}.{tenths}"),
            format!("{left}/{}", left + 7),
            format!("{left};w=60"),
            format!("remaining={left}"),
            format!("\"a\";r={left};t=4"),
        ] {
            let headers = [("left".into(), text)];
            let said = answer(200, &headers, at(0)).usage_in("left", Count::Remaining);
            let used = used_of(&said, rate, Duration::from_secs(60)).unwrap();
            prop_assert!(rate - used <= left);
        }
    }
}
