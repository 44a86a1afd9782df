//! The text form of a limit: a parsed limit is in range, and parses again to itself when printed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strict_rate_limiter_core::limit::{Limit, PER_MAX, RATE_MAX};

fuzz_target!(|text: &str| {
    match text.parse::<Limit>() {
        Ok(limit) => {
            assert!((1..=RATE_MAX).contains(&limit.rate()));
            assert!(!limit.per().is_zero() && limit.per() <= PER_MAX);
            assert_eq!(limit.to_string().parse(), Ok(limit), "written as {limit}");
        }
        Err(error) => assert!(error.to_string().contains(text), "{error} does not name the text"),
    }
});
