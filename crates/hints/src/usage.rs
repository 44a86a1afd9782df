//! Parses the counts of a server, in the many formats that servers use.
//!
//! | text | read as |
//! |---|---|
//! | `12`, `3.0` | a count |
//! | `39/40` | a count, of a limit |
//! | `39:10,70:120` | a count for each window, in seconds |
//! | `12, 100;window=60` | a count, and one with its window |
//! | `limit=40, remaining=3, reset=10` | by name |
//! | `"default";r=3;t=10` | by name, as in the IETF's `RateLimit` field |
//! | `"default";q=40;w=10` | the same for `RateLimit-Policy`, which gives the window |

use std::time::Duration;

use crate::decimal;
use crate::time::{self, Clocks};

/// The meaning of a number without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Count {
    /// The units that are left, as in `RateLimit-Remaining` and `X-RateLimit-Remaining`.
    Remaining,
    /// The units that are used, as in `X-MBX-USED-WEIGHT-1M`.
    Used,
}

/// The state of one of the server's windows. Fields that the server did not give are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The name of the window: that of the policy, or the words in the header's name besides `ratelimit`.
    pub name: Option<String>,
    /// The length of the window.
    pub window: Option<Duration>,
    /// The limit of the window, in units.
    pub limit: Option<u64>,
    /// The units used, rounded up.
    pub used: Option<u64>,
    /// The units left, rounded down.
    pub remaining: Option<u64>,
    /// The time from now until the reset of the window.
    pub reset: Option<Duration>,
}

impl Usage {
    /// The units in use of *our* limit, which has this rate. The units left at the server are also the units left of
    /// our limit. If the server gives both counts, takes the more cautious one. `None` if it gives neither.
    pub fn used_of(&self, rate: u64) -> Option<u64> {
        let left = self.limit.zip(self.used).map(|(limit, used)| limit.saturating_sub(used));
        let left = self.remaining.into_iter().chain(left).min();
        let by_left = left.map(|left| rate.saturating_sub(left));
        self.used.map(|used| used.min(rate)).into_iter().chain(by_left).max()
    }
}

/// The units in use of a limit of this rate and period. Takes the most cautious count among the windows of that
/// length and those without a length. Ignores windows of other lengths.
pub fn used_of(usages: &[Usage], rate: u64, per: Duration) -> Option<u64> {
    let about = |usage: &&Usage| usage.window.is_none_or(|window| window == per);
    usages.iter().filter(about).filter_map(|usage| usage.used_of(rate)).max()
}

/// The used units of a limit of this rate, without the `own` units of the request whose answer reported them: those
/// complete next, and a limiter counts them itself. The server may report more than the rate; the rate counts.
pub fn used_before(used: u64, rate: u64, own: u64) -> u64 {
    used.min(rate).saturating_sub(own)
}

/// The windows in the text of one header.
pub(crate) fn read(text: &str, count: Count, clocks: &Clocks) -> Vec<Usage> {
    let mut usages: Vec<Usage> = vec![];
    // Whether the last window was given by name, so that the next items may belong to it.
    let mut is_open = false;
    for item in split(text, ',') {
        let mut parts = split(item, ';').into_iter().map(str::trim);
        let first = parts.next().unwrap_or_default();
        let mut usage = Usage::default();
        let named = key_value(first);
        match named {
            Some((key, value)) => {
                if let Some(open) = usages.last_mut().filter(|_| is_open) {
                    usage = std::mem::take(open);
                    usages.pop();
                }
                usage.set(key, value, clocks);
            }
            None if usage.set_count(first, count) => {}
            None => usage.name = Some(first.trim_matches('"').to_owned()),
        }
        is_open = named.is_some();
        parts.filter_map(key_value).for_each(|(key, value)| usage.set(key, value, clocks));
        usages.push(usage);
    }
    usages.retain(Usage::says_something);
    usages
}

/// Adds the window and the limit of a policy to the usages with its name. A single policy and a single usage belong
/// together without a name.
pub(crate) fn complete_by(usages: &mut [Usage], policies: &[Usage]) {
    let are_single = policies.len() == 1 && usages.len() == 1;
    for usage in usages {
        let named = |policy: &&Usage| usage.name.is_some() && policy.name == usage.name;
        let Some(policy) = policies.iter().find(|policy| named(policy) || are_single) else {
            continue;
        };
        usage.window = usage.window.or(policy.window);
        usage.limit = usage.limit.or(policy.limit);
    }
}

impl Usage {
    fn says_something(&self) -> bool {
        let counts = self.used.or(self.remaining).or(self.limit);
        counts.is_some() || self.reset.is_some()
    }

    /// Parses `12`, `39/40` or `39:10`.
    fn set_count(&mut self, text: &str, count: Count) -> bool {
        let (text, window) = text.split_once(':').unzip_or(text);
        let (text, limit) = text.split_once('/').unzip_or(text);
        let Some(number) = decimal::parse(text.trim(), 0) else { return false };
        match count {
            Count::Remaining => self.remaining = Some(number.floor),
            Count::Used => self.used = Some(number.ceil),
        }
        self.limit = limit.and_then(|limit| whole(limit.trim()));
        self.window = window.and_then(|window| seconds(window.trim()));
        true
    }

    fn set(&mut self, key: &str, value: &str, clocks: &Clocks) {
        let value = value.trim_matches('"');
        match key.to_ascii_lowercase().as_str() {
            "r" | "remaining" => self.remaining = whole(value),
            "used" | "count" => self.used = decimal::parse(value, 0).map(|number| number.ceil),
            "q" | "quota" | "limit" => self.limit = whole(value),
            "w" | "window" => self.window = seconds(value),
            "t" | "reset" => self.reset = time::reset(value, clocks),
            "name" | "policy" => self.name = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// Units, rounded down.
fn whole(text: &str) -> Option<u64> {
    decimal::parse(text, 0).map(|number| number.floor)
}

fn seconds(text: &str) -> Option<Duration> {
    let ns = decimal::parse(text, 9)?;
    Some(Duration::from_nanos(ns.floor))
}

fn key_value(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    Some((key.trim(), value.trim()))
}

/// Splits at each separator that is not in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    let mut pieces: Vec<&str> = text
        .split(|character| {
            is_quoted ^= character == '"';
            character == separator && !is_quoted
        })
        .map(str::trim)
        .collect();
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

trait UnzipOr<'a> {
    /// The text before and after the separator; all of it before, if there is no separator.
    fn unzip_or(self, whole: &'a str) -> (&'a str, Option<&'a str>);
}

impl<'a> UnzipOr<'a> for Option<(&'a str, &'a str)> {
    fn unzip_or(self, whole: &'a str) -> (&'a str, Option<&'a str>) {
        self.map_or((whole, None), |(before, after)| (before, Some(after)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn read(text: &str, count: Count) -> Vec<Usage> {
        super::read(text, count, &Clocks::new(SystemTime::UNIX_EPOCH, None))
    }

    fn used(text: &str, count: Count, per: u64) -> Option<u64> {
        used_of(&read(text, count), 40, Duration::from_secs(per))
    }

    #[test]
    fn a_bare_number_is_a_count_of_what_the_caller_says() {
        assert_eq!(used("12", Count::Remaining, 60), Some(28));
        assert_eq!(used("12", Count::Used, 60), Some(12));
        assert_eq!(used("3.0", Count::Remaining, 60), Some(37));
        assert_eq!(used("3.9", Count::Remaining, 60), Some(37), "three whole ones are left");
        assert_eq!(used("3.1", Count::Used, 60), Some(4), "the fourth has begun");
        assert_eq!(used("12;w=60", Count::Remaining, 60), Some(28));
        assert_eq!(used("500", Count::Remaining, 60), Some(0));
        assert_eq!(used("500", Count::Used, 60), Some(40));
        assert_eq!(used("99999999999999999999", Count::Used, 60), Some(40));
    }

    #[test]
    fn a_count_may_be_of_a_limit() {
        assert_eq!(used("39/40", Count::Used, 60), Some(39));
        assert_eq!(used("1 / 40", Count::Remaining, 60), Some(39));
        // The server's limit is lower than ours, so its remaining units count.
        assert_eq!(used("9/10", Count::Used, 60), Some(39));
    }

    #[test]
    fn of_several_windows_the_one_that_is_as_long_as_the_period_counts() {
        assert_eq!(used("39:10,7:120", Count::Used, 10), Some(39));
        assert_eq!(used("39:10,7:120", Count::Used, 120), Some(7));
        assert_eq!(used("39:10,7:120", Count::Used, 60), None, "nothing is said of a minute");
        assert_eq!(used("12, 3;window=60", Count::Remaining, 60), Some(37));
        assert_eq!(used("12, 3;window=60", Count::Remaining, 10), Some(28));
        assert_eq!(used("12, 30;window=60", Count::Remaining, 60), Some(28), "the more cautious");
    }

    #[test]
    fn names_say_what_is_counted() {
        for text in [
            "limit=40, remaining=3",
            "limit=40, remaining=3, reset=10",
            "limit=40;remaining=3;reset=10",
            "remaining = 3",
            "\"default\";r=3;t=10",
            "default;r=3",
            "\"a, b; c\";r=3",
            "\"default\";r=30, \"other\";r=3",
        ] {
            assert_eq!(used(text, Count::Used, 60), Some(37), "{text}");
        }
        let said = read("\"default\";r=3;t=10, \"day\";r=5;t=100", Count::Remaining);
        assert_eq!(said[0].name.as_deref(), Some("default"));
        assert_eq!(said[0].reset, Some(Duration::from_secs(10)));
        assert_eq!((said[1].remaining, said.len()), (Some(5), 2));
    }

    #[test]
    fn a_policy_says_how_long_the_window_of_its_name_is() {
        let policies = read("\"minute\";q=40;w=60, \"day\";q=1000;w=86400", Count::Remaining);
        let mut said = read("\"day\";r=0, \"minute\";r=3", Count::Remaining);
        complete_by(&mut said, &policies);
        assert_eq!(used_of(&said, 40, MINUTE), Some(37));
        assert_eq!(used_of(&said, 1000, 1440 * MINUTE), Some(1000));
        let mut single = read("limit=40, remaining=3", Count::Remaining);
        complete_by(&mut single, &policies[..1]);
        assert_eq!(single[0].window, Some(MINUTE));
    }

    #[test]
    fn the_request_that_was_answered_is_not_counted_twice() {
        assert_eq!(used_before(8, 10, 2), 6);
        assert_eq!(used_before(1, 10, 2), 0, "the server has not counted it yet");
        assert_eq!(used_before(1_000, 10, 2), 8, "at most the rate is in use");
        assert_eq!(used_before(u64::MAX, 10, u64::MAX), 0);
    }

    #[test]
    fn nonsense_counts_nothing() {
        for text in
            ["", "-1", "many", "1.5.1", "=", ";;,,", "a=b", "\"", "r", "remaining=-1", "1 2"]
        {
            assert_eq!(used(text, Count::Remaining, 60), None, "{text}");
        }
    }
}
