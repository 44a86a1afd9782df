//! Reads the headers that give one field of a window each: `x-ratelimit-remaining`, `x-ratelimit-reset-requests`,
//! `anthropic-ratelimit-tokens-remaining`, `x-rate-limit-reset`. Headers whose names share the other words
//! (`requests`, `tokens`) describe the same window.

use std::collections::BTreeMap;

use crate::Asked;
use crate::time::{self, Clocks};
use crate::usage::{self, Count, Usage};

/// The field of a window that a header gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Remaining,
    Used,
    Limit,
    Reset { is_span: bool },
}

/// The windows, grouped by the common words in the header names.
pub(crate) fn by_name(headers: &[(&str, &str)], clocks: &Clocks) -> Vec<Usage> {
    let mut windows: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for (header, text) in headers {
        let Some((field, window)) = field_of(header) else { continue };
        windows.entry(window).or_default().extend(read(field, text, clocks));
    }
    let windows = windows.into_iter().flat_map(|(window, said)| {
        let name = (!window.is_empty()).then_some(window);
        merge(said)
            .into_iter()
            .map(move |usage| Usage { name: usage.name.or(name.clone()), ..usage })
    });
    windows.collect()
}

/// The longest time until the reset of a window without units left.
pub(crate) fn of_used_up(usages: &[Usage]) -> Option<Asked> {
    longest(usages.iter().filter(|usage| left(usage) == Some(0)))
}

/// The longest time until the reset of a window that gives no counts.
pub(crate) fn of_unstated(usages: &[Usage]) -> Option<Asked> {
    longest(usages.iter().filter(|usage| left(usage).is_none()))
}

fn longest<'a>(usages: impl Iterator<Item = &'a Usage>) -> Option<Asked> {
    let wait = usages.filter_map(|usage| usage.reset).max()?;
    Some(Asked { wait, header: "ratelimit-reset" })
}

fn left(usage: &Usage) -> Option<u64> {
    let left = usage.limit.zip(usage.used).map(|(limit, used)| limit.saturating_sub(used));
    usage.remaining.into_iter().chain(left).min()
}

fn field_of(header: &str) -> Option<(Field, String)> {
    let header = header.to_ascii_lowercase();
    let mut words: Vec<&str> = header.split('-').filter(|word| *word != "x").collect();
    if let Some(rate) = words.windows(2).position(|pair| pair == ["rate", "limit"]) {
        words.splice(rate..rate + 2, ["ratelimit"]);
    }
    let marker = words.iter().position(|word| *word == "ratelimit")?;
    words.remove(marker);
    let mut take = |word| words.iter().position(|other| *other == word).map(|at| words.remove(at));
    let field = if take("remaining").is_some() {
        Field::Remaining
    } else if take("used").is_some() {
        Field::Used
    } else if take("reset").is_some() {
        Field::Reset { is_span: take("after").is_some() }
    } else {
        take("limit")?;
        Field::Limit
    };
    Some((field, words.join("-")))
}

fn read(field: Field, text: &str, clocks: &Clocks) -> Vec<Usage> {
    let count = |count| usage::read(text, count, clocks);
    match field {
        Field::Remaining => count(Count::Remaining),
        Field::Used => count(Count::Used),
        // A bare number is the limit; policies may follow it.
        Field::Limit => {
            let limit =
                count(Count::Remaining).into_iter().next().and_then(|usage| usage.remaining);
            limit
                .map(|limit| Usage { limit: Some(limit), ..Usage::default() })
                .into_iter()
                .collect()
        }
        Field::Reset { is_span } => {
            let reset =
                if is_span { time::wait(text, 9, clocks) } else { time::reset(text, clocks) };
            reset
                .map(|reset| Usage { reset: Some(reset), ..Usage::default() })
                .into_iter()
                .collect()
        }
    }
}

/// Merges the fields from several headers. Windows of different lengths stay separate; a field without a length
/// applies to each of them.
fn merge(said: Vec<Usage>) -> Vec<Usage> {
    let (common, mut windows): (Vec<_>, Vec<_>) =
        said.into_iter().partition(|usage| usage.window.is_none());
    if windows.is_empty() {
        windows.push(Usage::default());
    }
    for window in &mut windows {
        for said in &common {
            // If a field is given twice, keep the more cautious one.
            window.used = window.used.max(said.used);
            window.reset = window.reset.max(said.reset);
            window.remaining = less(window.remaining, said.remaining);
            window.limit = less(window.limit, said.limit);
        }
    }
    windows
}

fn less(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn windows(headers: &[(&str, &str)]) -> Vec<Usage> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        by_name(headers, &Clocks::new(now, None))
    }

    #[test]
    fn headers_of_one_window_are_one_statement() {
        let said = windows(&[
            ("X-RateLimit-Limit", "5000"),
            ("X-RateLimit-Remaining", "4999"),
            ("X-RateLimit-Used", "1"),
            ("X-RateLimit-Reset", "1700000009"),
            ("X-RateLimit-Resource", "core"),
        ]);
        let [usage] = &said[..] else { panic!("{said:?}") };
        assert_eq!((usage.limit, usage.remaining, usage.used), (Some(5000), Some(4999), Some(1)));
        assert_eq!((usage.reset, &usage.name), (Some(Duration::from_secs(10)), &None));
    }

    #[test]
    fn the_words_beside_ratelimit_tell_windows_apart() {
        let said = windows(&[
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-remaining-tokens", "9000"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2023-11-14T22:13:29Z"),
        ]);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(of_used_up(&said).unwrap().wait, Duration::from_secs(10));
        assert_eq!(of_used_up(&said[1..]).unwrap().wait, Duration::from_millis(120));
        assert_eq!(of_used_up(&said[2..]), None, "tokens are left");
    }

    #[test]
    fn a_reset_after_is_a_span_however_large() {
        let said =
            windows(&[("x-ratelimit-reset-after", "1700000009"), ("x-ratelimit-remaining", "0")]);
        assert_eq!(of_used_up(&said).unwrap().wait, Duration::from_secs(1_700_000_009));
    }

    #[test]
    fn a_window_that_says_its_limit_and_its_use_says_what_is_left() {
        let said = windows(&[
            ("ratelimit-used", "40"),
            ("ratelimit-limit", "40"),
            ("ratelimit-reset", "9"),
        ]);
        assert_eq!(of_used_up(&said).unwrap().wait, Duration::from_secs(9));
    }

    #[test]
    fn other_headers_say_nothing() {
        assert_eq!(
            windows(&[("limit", "1"), ("x-reset", "1"), ("x-ratelimit", "1"), ("", "")]),
            []
        );
    }
}
