//! Times and durations as logs have them, exactly: no detour by floating point.

use std::time::Duration;

use jiff::Timestamp;

/// Nanoseconds since the Unix epoch: of an ISO 8601 time with its offset, or of a number. A number with
/// decimals is in seconds; a whole one in whatever unit makes it a time between 1973 and 5138.
pub(crate) fn instant(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(ns) = seconds(text) {
        if text.contains('.') {
            return Some(ns);
        }
        let whole: u64 = text.parse().ok()?;
        return match whole {
            0..100_000_000_000 => whole.checked_mul(1_000_000_000),
            100_000_000_000..100_000_000_000_000 => whole.checked_mul(1_000_000),
            100_000_000_000_000..100_000_000_000_000_000 => whole.checked_mul(1_000),
            _ => Some(whole),
        };
    }
    let at: Timestamp = text.parse().ok()?;
    u64::try_from(at.as_nanosecond()).ok()
}

/// Nanoseconds: of seconds, or of a number and its unit.
pub(crate) fn duration(text: &str) -> Option<u64> {
    let text = text.trim();
    let in_words = || humantime::parse_duration(text).ok();
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).ok();
    seconds(text).or_else(|| in_words().and_then(ns))
}

/// Decimal seconds in nanoseconds; what is finer than that is cut off.
fn seconds(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<9}")[..9].parse().ok()?;
    // A whole number of more seconds than fit may still be a time in a smaller unit.
    let whole: u64 = whole.parse().ok()?;
    Some(whole.saturating_mul(1_000_000_000).saturating_add(decimals))
}

/// A time for people, in UTC.
pub(crate) fn show(ns: i128) -> String {
    Timestamp::from_nanosecond(ns).map_or_else(|_| format!("{ns} ns"), |at| format!("{at:.6}"))
}

/// A length of time for people.
pub(crate) fn show_length(ns: u128) -> String {
    format!("{:.3?}", Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_in_every_form() {
        let ns = 1_785_000_000_123_000_000;
        for text in [
            "1785000000.123",
            "1785000000123",
            "1785000000123000",
            "1785000000123000000",
            "2026-07-25T17:20:00.123Z",
            "2026-07-25T19:20:00.123+02:00",
            " 2026-07-25 17:20:00.123Z ",
        ] {
            assert_eq!(instant(text), Some(ns), "{text}");
        }
        assert_eq!(instant("1785000000"), Some(1_785_000_000_000_000_000));
        assert_eq!(instant("0.0000000019"), Some(1), "finer than a nanosecond");
        for nonsense in ["", "-1", "now", "1e9", "2026-07-25T17:20:00", ".5", "1.2.3"] {
            assert_eq!(instant(nonsense), None, "{nonsense}");
        }
        assert_eq!(show(ns.into()), "2026-07-25T17:20:00.123000Z");
    }

    #[test]
    fn a_duration_is_in_seconds_unless_it_has_a_unit() {
        assert_eq!(duration("0.25"), Some(250_000_000));
        assert_eq!(duration("3"), Some(3_000_000_000));
        assert_eq!(duration("12ms"), Some(12_000_000));
        assert_eq!(duration("1m 30s"), Some(90_000_000_000));
        for nonsense in ["", "-1", "long", "1.5ms?"] {
            assert_eq!(duration(nonsense), None, "{nonsense}");
        }
    }
}
