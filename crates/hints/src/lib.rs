//! Reads from an HTTP answer how long the server asks to wait before the next request, and how many units it has
//! counted so far.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use strict_rate_limiter_hints::{Answer, Heed, Wait};
//!
//! let headers = [("Retry-After", "1.5"), ("X-RateLimit-Remaining", "0")];
//! let answer = Answer::new(429, headers, SystemTime::now());
//! let Wait::Asked(asked) = answer.wait(&Heed::default()) else { panic!() };
//! assert_eq!((asked.wait, asked.header), (Duration::from_millis(1500), "retry-after"));
//! assert_eq!(answer.usages()[0].remaining, Some(0));
//! ```
//!
//! These are pure functions of the headers and of a time argument: no HTTP client, no clock and no I/O. None of them
//! panics, whatever a server sends.
//!
//! # What counts as a request to wait
//!
//! * `Retry-After`, `retry-after-ms` and `x-ms-retry-after-ms`, on every status from 400 up (or on those
//!   that [`Heed`] names): whole and decimal seconds or milliseconds, rounded up to the nanosecond;
//!   HTTP's three date formats, and ISO 8601; spans with units, as `6m0s`. If there are several such headers, the
//!   longest wait counts. A number that is too large means for ever. A date is compared with the answer's own
//!   `Date`, so that a wrong clock on our side does not change the wait. Our clock is used if there is no `Date`, or
//!   if it is later than the date asked for. Dates in the past are ignored.
//! * The reset time of a window (`x-ratelimit-reset`, `x-rate-limit-reset`, `ratelimit-reset`,
//!   `RateLimit: …;t=10`, and variants that contain a vendor's or a window's name): seconds from now
//!   or, from 10⁹ up, a time since 1970 in seconds, milliseconds or finer; the size tells the unit. It counts
//!   if the same window has 0 units left, on any status. It also counts on a 429 or 503 that has no `Retry-After`
//!   and reports no used-up window, unless the window has units left.
//! * A 429 or 503 without any of these [asks for an unstated time](Wait::Unstated). The caller chooses one from its
//!   limits. All other answers ask for nothing.
//!
//! # What does not count
//!
//! `Retry-After` on a 202 or a redirect is about that one resource, not about the rate of requests. It is ignored
//! unless [`Heed`] names the status.

mod decimal;
mod rate_limit_headers;
mod time;
mod usage;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

pub use usage::{Count, Usage, used_before, used_of};

use time::Clocks;

/// The headers that ask for a wait, each with the unit of its numbers as a power of ten nanoseconds.
const ASK: [(&str, i64); 3] =
    [("retry-after", 9), ("retry-after-ms", 6), ("x-ms-retry-after-ms", 6)];

/// The [header](Asked::header) of a wait that no header states: the answer refuses the request without a time.
pub const REFUSAL: &str = "refusal";

/// The statuses that refuse a request because of its rate, even without any header.
const REFUSALS: [u16; 2] = [429, 503];

/// The head of an HTTP answer: the status, the headers and the time of its arrival.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    status: u16,
    headers: Vec<(&'a str, &'a str)>,
    clocks: Clocks,
}

/// Which answers are searched for a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heed {
    /// `None` for 400 and up.
    statuses: Option<BTreeSet<u16>>,
    used_up: bool,
}

/// The wait before the next request that an answer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The answer asks for no wait.
    Nothing,
    /// The answer refuses the request and states no time that we understand.
    Unstated,
    /// The answer states a time.
    Asked(Asked),
}

/// A wait that a header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// The wait, from the arrival of the answer. `Duration::MAX` means for ever.
    pub wait: Duration,
    /// The name of the header in lower case: `"retry-after"`, for example. `"ratelimit-reset"` stands for every
    /// header with a reset time, and [`REFUSAL`] for none.
    pub header: &'static str,
}

impl Default for Heed {
    fn default() -> Self {
        Self { statuses: None, used_up: true }
    }
}

impl Heed {
    /// Reads `Retry-After` and the similar headers only on these statuses, instead of on all from 400 up.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Whether a window with 0 units left asks to wait until its reset, on any status. True by default.
    #[must_use]
    pub fn used_up(mut self, used_up: bool) -> Self {
        self.used_up = used_up;
        self
    }

    fn includes(&self, status: u16) -> bool {
        self.statuses.as_ref().map_or(status >= 400, |statuses| statuses.contains(&status))
    }
}

impl Wait {
    /// The wait to apply. A refusal that states no time waits for the limiter's own `backoff`, and its header is
    /// [`REFUSAL`]. `None` if the answer asks for no wait.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use strict_rate_limiter_hints::{Answer, Heed, REFUSAL};
    /// let answer = Answer::new(503, [], SystemTime::now());
    /// let asked = answer.wait(&Heed::default()).or_backoff(|| Duration::from_secs(1)).unwrap();
    /// assert_eq!((asked.wait, asked.header), (Duration::from_secs(1), REFUSAL));
    /// ```
    pub fn or_backoff(self, backoff: impl FnOnce() -> Duration) -> Option<Asked> {
        match self {
            Self::Asked(asked) => Some(asked),
            Self::Unstated => Some(Asked { wait: backoff(), header: REFUSAL }),
            Self::Nothing => None,
        }
    }
}

impl<'a> Answer<'a> {
    /// `now` is the wall clock time of the arrival. The case of header names does not matter. Repeat a header that
    /// occurs several times.
    pub fn new(
        status: u16,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        now: SystemTime,
    ) -> Self {
        let headers: Vec<_> = headers.into_iter().collect();
        let clocks = Clocks::new(now, values(&headers, "date").next());
        Self { status, headers, clocks }
    }

    /// The wait that the answer asks for.
    pub fn wait(&self, heed: &Heed) -> Wait {
        let is_heeded = heed.includes(self.status);
        let is_refusal = is_heeded && REFUSALS.contains(&self.status);
        let retry_after = if is_heeded { self.retry_after() } else { None };
        let usages = self.usages();
        let used_up = heed.used_up.then(|| rate_limit_headers::of_used_up(&usages)).flatten();
        let asked = retry_after.into_iter().chain(used_up).max_by_key(|asked| asked.wait);
        let asked = asked
            .or_else(|| is_refusal.then(|| rate_limit_headers::of_unstated(&usages)).flatten());
        match asked {
            Some(asked) => Wait::Asked(asked),
            None if is_refusal => Wait::Unstated,
            None => Wait::Nothing,
        }
    }

    /// The longest wait in `Retry-After` and the similar headers, whatever the status.
    pub fn retry_after(&self) -> Option<Asked> {
        let asked = ASK.into_iter().flat_map(|(header, exponent)| {
            let waits = values(&self.headers, header);
            let waits = waits.filter_map(move |text| time::wait(text, exponent, &self.clocks));
            waits.map(move |wait| Asked { wait, header })
        });
        asked.max_by_key(|asked| asked.wait)
    }

    /// The state of the server's windows according to the well-known headers: `RateLimit` with its policies, and
    /// `x-ratelimit-remaining`, `-used`, `-limit` and `-reset`, also with further words in their names.
    pub fn usages(&self) -> Vec<Usage> {
        let mut usages = rate_limit_headers::by_name(&self.headers, &self.clocks);
        usages.extend(self.usage_in("ratelimit", Count::Remaining));
        usages
    }

    /// The units that one header reports of a limit with this rate and period, without the `own` units of the request
    /// that was answered: those complete next, and a limiter counts them itself. `None` if the header reports nothing
    /// about the limit.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use strict_rate_limiter_hints::{Answer, Count};
    /// let answer = Answer::new(200, [("ratelimit-remaining", "3")], SystemTime::now());
    /// let second = Duration::from_secs(1);
    /// assert_eq!(answer.used_before("ratelimit-remaining", Count::Remaining, 10, second, 1), Some(6));
    /// ```
    pub fn used_before(
        &self,
        header: &str,
        count: Count,
        rate: u64,
        per: Duration,
        own: u64,
    ) -> Option<u64> {
        let used = used_of(&self.usage_in(header, count), rate, per)?;
        Some(used_before(used, rate, own))
    }

    /// The windows in one header, whose bare numbers mean `count`. If it names a policy, the length of the window
    /// comes from `RateLimit-Policy`.
    pub fn usage_in(&self, header: &str, count: Count) -> Vec<Usage> {
        let read = |header, count| -> Vec<Usage> {
            let texts = values(&self.headers, header);
            texts.flat_map(|text| usage::read(text, count, &self.clocks)).collect()
        };
        let mut usages = read(header, count);
        usage::complete_by(&mut usages, &read("ratelimit-policy", Count::Remaining));
        usages
    }
}

/// The values of a header, in order.
fn values<'a>(headers: &[(&'a str, &'a str)], name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, text)| *text)
}

/// The README's Rust is compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + seconds(1_700_000_000)
    }

    fn wait(status: u16, headers: &[(&str, &str)], heed: &Heed) -> Wait {
        Answer::new(status, headers.iter().copied(), now()).wait(heed)
    }

    /// The wait that an answer asks for, with the default [`Heed`].
    fn asked(status: u16, headers: &[(&str, &str)]) -> Option<u64> {
        match wait(status, headers, &Heed::default()) {
            Wait::Asked(asked) => Some(asked.wait.as_secs()),
            Wait::Unstated => Some(u64::MAX),
            Wait::Nothing => None,
        }
    }

    const UNSTATED: Option<u64> = Some(u64::MAX);

    #[test]
    fn every_status_from_400_up_is_asked() {
        for status in [400, 403, 408, 418, 420, 429, 500, 503, 529, 598, 999] {
            assert_eq!(asked(status, &[("Retry-After", "2")]), Some(2), "{status}");
        }
        for status in [200, 202, 301, 304, 307, 399] {
            assert_eq!(asked(status, &[("Retry-After", "2")]), None, "{status}");
        }
    }

    #[test]
    fn a_set_of_statuses_takes_their_place() {
        let heed = Heed::default().statuses([202, 429]);
        let header = [("retry-after", "2")];
        assert!(matches!(wait(202, &header, &heed), Wait::Asked(_)));
        assert!(matches!(wait(429, &header, &heed), Wait::Asked(_)));
        assert_eq!(wait(503, &header, &heed), Wait::Nothing);
        assert_eq!(wait(429, &[], &heed), Wait::Unstated);
        assert_eq!(wait(503, &[], &heed), Wait::Nothing);
    }

    #[test]
    fn an_answer_that_says_nothing_asks_only_where_it_refuses() {
        assert_eq!(asked(429, &[]), UNSTATED);
        assert_eq!(asked(503, &[]), UNSTATED);
        for status in [200, 400, 403, 418, 500, 502, 529] {
            assert_eq!(asked(status, &[]), None, "{status}");
        }
        assert_eq!(asked(429, &[("retry-after", "soon")]), UNSTATED);
        assert_eq!(asked(418, &[("retry-after", "-1")]), None);
        assert_eq!(asked(429, &[("retry-after", "0")]), Some(0), "it says so");
        let passed = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(asked(429, &[("retry-after", passed)]), UNSTATED, "our clock may be ahead");
    }

    #[test]
    fn of_several_headers_the_longest_counts() {
        let headers = [("retry-after", "2"), ("Retry-After", "7"), ("retry-after-ms", "3000")];
        assert_eq!(asked(429, &headers), Some(7));
        assert_eq!(asked(429, &[("retry-after", "2"), ("x-ms-retry-after-ms", "3000")]), Some(3));
        assert_eq!(asked(429, &[("retry-after", "soon"), ("retry-after-ms", "3000")]), Some(3));
    }

    #[test]
    fn a_window_that_is_used_up_asks_until_it_begins_anew_on_any_status() {
        let used_up = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000009")];
        assert_eq!(asked(200, &used_up), Some(10), "to the end of that second");
        assert_eq!(asked(403, &used_up), Some(10));
        assert_eq!(wait(200, &used_up, &Heed::default().used_up(false)), Wait::Nothing);
        assert_eq!(asked(200, &[("RateLimit", "\"default\";r=0;t=9")]), Some(9));
        assert_eq!(asked(200, &[("ratelimit", "limit=40, remaining=0, reset=9")]), Some(9));
        let left = [("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "1700000009")];
        assert_eq!(asked(200, &left), None);
        assert_eq!(asked(403, &left), None, "it is forbidden for another reason");
    }

    #[test]
    fn a_refusal_waits_for_the_window_that_it_names() {
        for name in
            ["x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset", "RateLimit-Reset"]
        {
            assert_eq!(asked(429, &[(name, "9")]), Some(9), "{name}");
            assert_eq!(asked(503, &[(name, "1700000009")]), Some(10), "{name}");
            assert_eq!(asked(403, &[(name, "9")]), None, "{name}");
            assert_eq!(asked(200, &[(name, "9")]), None, "{name}");
        }
        let both = [("retry-after", "2"), ("x-ratelimit-reset", "9")];
        assert_eq!(asked(429, &both), Some(2), "the answer to this very request");
        let day_left = [("x-ratelimit-remaining", "500"), ("x-ratelimit-reset", "70000")];
        assert_eq!(asked(429, &day_left), UNSTATED, "the day's window is not what is used up");
        let day_used_up = [("retry-after", "2"), ("ratelimit", "\"day\";r=0;t=70000")];
        assert_eq!(asked(429, &day_used_up), Some(70_000));
    }

    #[test]
    fn the_header_that_asked_is_named() {
        let asked = |headers: &[_]| Answer::new(429, headers.iter().copied(), now());
        let header = |answer: Answer<'_>| match answer.wait(&Heed::default()) {
            Wait::Asked(asked) => asked.header,
            other => panic!("{other:?}"),
        };
        assert_eq!(header(asked(&[("Retry-After-Ms", "1")])), "retry-after-ms");
        assert_eq!(header(asked(&[("X-Rate-Limit-Reset", "1")])), "ratelimit-reset");
    }

    #[test]
    fn a_refusal_without_a_time_waits_for_the_backoff_and_no_other_answer_asks_for_it() {
        let second = seconds(1);
        let applied = |status, headers: &[_]| {
            let wait = wait(status, headers, &Heed::default());
            wait.or_backoff(|| second).map(|asked| (asked.wait, asked.header))
        };
        assert_eq!(applied(429, &[]), Some((second, REFUSAL)));
        assert_eq!(applied(429, &[("retry-after", "7")]), Some((seconds(7), "retry-after")));
        assert_eq!(applied(429, &[("retry-after", "0")]), Some((Duration::ZERO, "retry-after")));
        assert_eq!(applied(200, &[]), None);
        let unused = || panic!("the answer states a time, or asks for none");
        assert_eq!(Wait::Nothing.or_backoff(unused), None);
    }

    #[test]
    fn the_servers_date_is_its_now() {
        let headers = [
            ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("DATE", "Sun, 06 Nov 1994 08:49:30 GMT"),
        ];
        assert_eq!(asked(503, &headers), Some(8), "our clock is 29 years ahead");
        let headers = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1600000009"),
            ("date", "Sun, 13 Sep 2020 12:26:40 GMT"),
        ];
        assert_eq!(asked(200, &headers), Some(10), "our clock is 3 years ahead");
    }

    #[test]
    fn a_header_that_counts_is_read_by_its_name() {
        let headers = [
            ("X-App-Rate-Limit-Count", "39:10,70:120"),
            ("RateLimit", "\"m\";r=3"),
            ("RateLimit-Policy", "\"m\";q=40;w=60"),
        ];
        let answer = Answer::new(200, headers, now());
        let used =
            |header, count, rate, per| used_of(&answer.usage_in(header, count), rate, seconds(per));
        assert_eq!(used("x-app-rate-limit-count", Count::Used, 100, 120), Some(70));
        assert_eq!(used("ratelimit", Count::Remaining, 40, 60), Some(37));
        assert_eq!(used("ratelimit", Count::Remaining, 40, 61), None);
        assert_eq!(used("another", Count::Remaining, 40, 60), None);
        let before =
            |own, per| answer.used_before("ratelimit", Count::Remaining, 40, seconds(per), own);
        assert_eq!((before(1, 60), before(50, 60), before(1, 61)), (Some(36), Some(0), None));
    }
}
