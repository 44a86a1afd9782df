//! The head of an HTTP answer: reading any head never panics, and a further header never shortens the wait of
//! `Retry-After`. The first line of the input is the status, each other line a header.

#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use strict_rate_limiter_hints::{Answer, Count, Heed, Wait, used_of};

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.parse().ok()).unwrap_or(429);
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let waits = |headers: &[(&str, &str)]| match Answer::new(status, headers.iter().copied(), now)
        .wait(&Heed::default())
    {
        Wait::Asked(asked) => asked.wait,
        _ => Duration::ZERO,
    };
    let answer = Answer::new(status, headers.iter().copied(), now);
    if status >= 400 {
        let asked = answer.retry_after().map_or(Duration::ZERO, |asked| asked.wait);
        assert!(waits(&headers) >= asked);
    }
    answer.usages();
    for (name, _) in &headers {
        for count in [Count::Used, Count::Remaining] {
            let used = used_of(&answer.usage_in(name, count), 40, Duration::from_secs(60));
            assert!(used.is_none_or(|used| used <= 40));
        }
    }
});
