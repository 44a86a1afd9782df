//! Parses the times in headers: spans, and timestamps, which are turned into spans.
//!
//! A timestamp is compared with the server's own `Date`, if the answer has one. Both come from the server, so their
//! difference is right even if our clock is wrong. Our clock is used if there is no `Date`, or if `Date` is later
//! than the timestamp, which shows that two clocks of the server disagree. To always take the longer wait would be
//! wrong: with our clock years behind, it would wait for years.
//!
//! A timestamp in whole seconds may mean any time in that second, so a timestamp has a first and a last nanosecond.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::fmt::rfc2822;

use crate::decimal;

/// A number of seconds from this on (September 2001) is a timestamp since 1970; a lower one (under 32 years) is a
/// span.
const EPOCH_SECONDS: u64 = 1_000_000_000;

/// The readings of both clocks, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    server: Option<u64>,
    ours: u64,
}

/// A timestamp: its first and its last nanosecond since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timestamp {
    first: u64,
    last: u64,
}

impl Clocks {
    /// `date` is the text of the answer's `Date`.
    pub(crate) fn new(now: SystemTime, date: Option<&str>) -> Self {
        let server = date.and_then(|text| http_date(text.trim())).map(|moment| moment.first);
        Self { server, ours: since_1970(now) }
    }

    /// The time until a timestamp. `None` if it is in the past: then a clock is probably wrong.
    fn until(&self, moment: Timestamp) -> Option<Duration> {
        let now = self.server.filter(|server| *server <= moment.first).unwrap_or(self.ours);
        let left = moment.last.checked_sub(now).filter(|left| *left > 0)?;
        Some(span(left, moment.last == u64::MAX))
    }
}

/// Parses the value of `Retry-After` and similar headers: a number of `10^exponent` nanoseconds, a timestamp, or a
/// span with units. Of several values, separated by commas, takes the longest if it understands all.
pub(crate) fn wait(text: &str, exponent: i64, clocks: &Clocks) -> Option<Duration> {
    longest_of(text, |text| {
        let number = decimal::parse(text, exponent).map(|ns| span(ns.ceil, ns.floor == u64::MAX));
        number.or_else(|| written_out(text, clocks))
    })
}

/// Parses a reset time: as [`wait`], but a number may be a timestamp since 1970, in seconds or a finer unit. Its size
/// tells the unit.
pub(crate) fn reset(text: &str, clocks: &Clocks) -> Option<Duration> {
    longest_of(text, |text| match decimal::parse(text, 0) {
        Some(number) if number.floor >= EPOCH_SECONDS => clocks.until(epoch(text)?),
        Some(_) => wait(text, 9, clocks),
        None => written_out(text, clocks),
    })
}

/// The longest of several values, since a proxy may join two headers with a comma. `None` if one value cannot be
/// parsed, because it might be the longest.
fn longest_of(text: &str, one: impl Fn(&str) -> Option<Duration>) -> Option<Duration> {
    let text = bare(text);
    one(text).or_else(|| {
        let pieces: Option<Vec<_>> = text.split(',').map(|piece| one(bare(piece))).collect();
        pieces?.into_iter().max()
    })
}

fn bare(text: &str) -> &str {
    text.trim().trim_matches('"').trim()
}

fn written_out(text: &str, clocks: &Clocks) -> Option<Duration> {
    if let Some(moment) = http_date(text).or_else(|| iso_date(text)) {
        return clocks.until(moment);
    }
    let span: SignedDuration = text.parse().ok()?;
    Duration::try_from(span).ok()
}

/// Parses a number as a timestamp in seconds, milliseconds, microseconds or nanoseconds, by its size.
fn epoch(text: &str) -> Option<Timestamp> {
    let whole = decimal::parse(text, 0)?.floor;
    // 10 to 12 digits are seconds, 13 to 15 milliseconds, and so on.
    let exponent = 9 - 3 * i64::from(whole.max(1).ilog10().saturating_sub(9) / 3);
    let exponent = exponent.max(0);
    let first = decimal::parse(text, exponent)?.floor;
    let decimals = match text.split_once('.') {
        // With a power of ten (`1.7e9`), the value of the last digit is unknown: take one whole unit.
        Some((_, decimals)) if !text.contains(['e', 'E']) => decimals.len(),
        _ => 0,
    };
    let decimals = i64::try_from(decimals).unwrap_or(exponent).min(exponent);
    let digit = 10_u64.pow(u32::try_from(exponent - decimals).unwrap_or(0));
    Some(Timestamp { first, last: first.saturating_add(digit) })
}

fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(at) = httpdate::parse_http_date(text) {
        return Some(whole_second(since_1970(at)));
    }
    // The same format with another zone, or with a wrong day of the week, which is ignored.
    let date = text.split_once(',').map_or(text, |(_, date)| date.trim());
    let at = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(whole_second(saturate(at.as_nanosecond())))
}

fn iso_date(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(whole_second(saturate(at.as_nanosecond())))
}

fn whole_second(first: u64) -> Timestamp {
    Timestamp { first, last: first.saturating_add(1_000_000_000) }
}

/// A span; `Duration::MAX` if the number did not fit.
fn span(ns: u64, is_for_ever: bool) -> Duration {
    if is_for_ever { Duration::MAX } else { Duration::from_nanos(ns) }
}

fn since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    saturate(since.as_nanos().cast_signed())
}

fn saturate(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:30 GMT";

    /// Half a second after `DATE`.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_770_500)
    }

    fn alone() -> Clocks {
        Clocks::new(now(), None)
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what is read")]
    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn seconds_are_read_whole_and_with_decimals_rounded_up() {
        let read = |text| wait(text, 9, &alone());
        assert_eq!(read("0"), ms(0));
        assert_eq!(read("120"), ms(120_000));
        assert_eq!(read(" 2.0 "), ms(2_000));
        assert_eq!(read("1.732"), ms(1_732));
        assert_eq!(read("0.503"), ms(503));
        assert_eq!(read("+7"), ms(7_000));
        assert_eq!(read("1e3"), ms(1_000_000));
        assert_eq!(read("1.0000000001"), Some(Duration::from_nanos(1_000_000_001)));
        assert_eq!(read("\"30\""), ms(30_000));
        assert_eq!(read("30s"), ms(30_000));
        assert_eq!(read("6m0s"), ms(360_000));
        assert_eq!(read("20ms"), ms(20));
        assert_eq!(read("99999999999999999999999"), Some(Duration::MAX), "for ever");
        assert_eq!(read("31536000"), ms(31_536_000_000));
    }

    #[test]
    fn milliseconds_are_read_with_decimals() {
        assert_eq!(wait("2000", 6, &alone()), ms(2_000));
        assert_eq!(wait("1.5", 6, &alone()), Some(Duration::from_micros(1_500)));
    }

    #[test]
    fn of_several_the_longest_counts() {
        assert_eq!(wait("2, 7, 3", 9, &alone()), ms(7_000));
        assert_eq!(wait("2, soon", 9, &alone()), None, "soon may be later");
    }

    #[test]
    fn dates_last_to_the_end_of_their_second() {
        let read = |text| wait(text, 9, &alone());
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), ms(7_500));
        assert_eq!(read("Sunday, 06-Nov-94 08:49:37 GMT"), ms(7_500));
        assert_eq!(read("Sun Nov  6 08:49:37 1994"), ms(7_500));
        assert_eq!(read("Mon, 06 Nov 1994 08:49:37 GMT"), ms(7_500), "a Sunday");
        assert_eq!(read("Sun, 06 Nov 1994 09:49:37 +0100"), ms(7_500));
        assert_eq!(read("1994-11-06T08:49:37Z"), ms(7_500));
        assert_eq!(read("1994-11-06T08:50Z"), ms(30_500), "as Jira writes it");
        assert_eq!(read("Sun, 06 Nov 1994 08:49:29 GMT"), None, "it has passed");
    }

    #[test]
    fn a_moment_is_judged_by_the_servers_own_date() {
        let hour = Duration::from_secs(3600);
        for ours in [now(), now() - hour, now() + hour, SystemTime::UNIX_EPOCH] {
            let clocks = Clocks::new(ours, Some(DATE));
            assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 9, &clocks), ms(8_000));
            assert_eq!(wait(DATE, 9, &clocks), ms(1_000));
        }
    }

    #[test]
    fn where_the_servers_clocks_disagree_ours_decides() {
        let clocks = Clocks::new(now(), Some("Sun, 06 Nov 1994 08:49:39 GMT"));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 9, &clocks), ms(7_500));
        let clocks = Clocks::new(now(), Some("yesterday"));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 9, &clocks), ms(7_500));
    }

    #[test]
    fn a_reset_is_seconds_from_now_or_a_moment_since_1970_by_its_size() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let read = |text| reset(text, &Clocks::new(now, None));
        assert_eq!(read("30"), ms(30_000));
        assert_eq!(read("1.2"), ms(1_200));
        assert_eq!(read("1700000010"), ms(10_500));
        assert_eq!(read("1700000010.25"), ms(9_760), "to the end of that hundredth");
        assert_eq!(read("1700000010000"), ms(9_501));
        assert_eq!(read("1700000010000000"), Some(Duration::from_micros(9_500_001)));
        assert_eq!(read("1700000010000000000"), Some(Duration::from_nanos(9_500_000_001)));
        assert_eq!(read("1600000000"), None, "long ago");
        assert_eq!(read("1s"), ms(1_000));
        assert_eq!(read("99999999999999999999999"), Some(Duration::MAX));
        assert_eq!(read("1e30"), Some(Duration::MAX));
        assert_eq!(read("5, 1700000010"), ms(10_500));
    }

    #[test]
    fn nonsense_is_not_understood() {
        for nonsense in ["", "-1", "-5s", "soon", "1.5.1", "NaN", ",", "Sun, 06 Nov", "12 34"] {
            assert_eq!(wait(nonsense, 9, &alone()), None, "{nonsense}");
            assert_eq!(reset(nonsense, &alone()), None, "{nonsense}");
        }
    }
}
