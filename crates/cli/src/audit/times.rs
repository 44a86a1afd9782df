//! Parses times and durations exactly, and notes how exactly they were written.

use std::time::Duration;

use clap::ValueEnum;
use jiff::{Timestamp, civil};

use super::decimal::{Decimal, NotDecimal};

const SECOND_NS: u64 = 1_000_000_000;

/// A parsed time or duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParsedTime {
    /// Nanoseconds, since the Unix epoch for a time; rounded down.
    pub(crate) ns: u64,
    /// The value of its last digit.
    pub(crate) unit_ns: u64,
    /// It was written as a decimal fraction.
    pub(crate) fraction: bool,
    /// The true value is a fraction of a nanosecond more than `ns`.
    pub(crate) more: bool,
}

/// The unit of durations that are written without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurationUnit {
    /// nanoseconds
    Ns,
    /// microseconds
    Us,
    /// milliseconds
    Ms,
    /// seconds
    S,
}

impl DurationUnit {
    /// The unit is ten to this many nanoseconds.
    fn power(self) -> i32 {
        match self {
            Self::Ns => 0,
            Self::Us => 3,
            Self::Ms => 6,
            Self::S => 9,
        }
    }
}

/// Parses a time: ISO 8601 with an offset, or a number. The unit of a number is the one that puts it between the
/// years 1973 and 5138, else seconds. The error says why the text is not a time.
pub(crate) fn instant(text: &str) -> Result<ParsedTime, &'static str> {
    let text = text.trim();
    let number = match Decimal::read(text) {
        Ok(number) => number,
        Err(NotDecimal::Negative) => return Err("is before 1970"),
        Err(NotDecimal::NoNumber) => return written_out(text),
    };
    let (whole, _) = number.times_ten_to(0).ok_or("is no time")?;
    let power = match whole {
        0..100_000_000_000 => 9,
        100_000_000_000..100_000_000_000_000 => 6,
        100_000_000_000_000..100_000_000_000_000_000 => 3,
        _ => 0,
    };
    read(&number, power).ok_or("is no time")
}

/// Parses nanoseconds since the Unix epoch, as in our own logs.
pub(crate) fn nanoseconds(text: &str) -> Result<ParsedTime, &'static str> {
    let ns = text.trim().parse().map_err(|_| "is no time")?;
    Ok(ParsedTime { ns, unit_ns: 1, fraction: false, more: false })
}

fn read(number: &Decimal, power: i32) -> Option<ParsedTime> {
    let (ns, more) = number.times_ten_to(power)?;
    // The zeros that an exponent implies were not written.
    let digits_below = u32::try_from((power - number.decimals().max(0)).max(0)).ok()?;
    Some(ParsedTime { ns, unit_ns: 10_u64.pow(digits_below), fraction: number.fraction, more })
}

fn written_out(text: &str) -> Result<ParsedTime, &'static str> {
    let text = match text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")) {
        Some(before) => format!("{}Z", before.trim_end()),
        None => text.to_owned(),
    };
    let at: Timestamp = text.parse().map_err(|_| {
        let local = text.parse::<civil::DateTime>().is_ok();
        if local { "has no offset from UTC, such as Z or +02:00" } else { "is no time" }
    })?;
    let ns = u64::try_from(at.as_nanosecond()).map_err(|_| "is before 1970")?;
    Ok(ParsedTime { ns, unit_ns: last_digit_ns(&text), fraction: false, more: false })
}

/// The value of the last digit of an ISO 8601 time.
fn last_digit_ns(text: &str) -> u64 {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time.trim_start());
    let time = time.split(['Z', 'z', '+', '-', '[', ' ']).next().unwrap_or_default();
    let (whole, decimals) = time.split_once(['.', ',']).unwrap_or((time, ""));
    match whole.bytes().filter(u8::is_ascii_digit).count() {
        0..3 => 3_600 * SECOND_NS,
        3..5 => 60 * SECOND_NS,
        _ => 10_u64.pow(9_u32.saturating_sub(decimals.len() as u32)),
    }
}

/// Parses a duration: a number in `unit`, by default seconds, or numbers with units, as in `12ms` and `1m30.5s`. The
/// error says why the text is not a duration.
pub(crate) fn duration(text: &str, unit: Option<DurationUnit>) -> Result<ParsedTime, &'static str> {
    let text = text.trim();
    match Decimal::read(text) {
        Ok(number) => read(&number, unit.unwrap_or(DurationUnit::S).power()).ok_or("is too long"),
        Err(NotDecimal::Negative) => Err("is negative"),
        Err(NotDecimal::NoNumber) => match in_words(text) {
            Some(_) if unit.is_some() => Err("has a unit of its own; leave out --duration-unit"),
            Some(read) => Ok(read),
            None if text.starts_with('-') && in_words(&text[1..]).is_some() => Err("is negative"),
            None => Err("is no duration"),
        },
    }
}

fn in_words(text: &str) -> Option<ParsedTime> {
    let mut sum = ParsedTime { ns: 0, unit_ns: 0, fraction: false, more: false };
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let (number, after) = rest.split_at(number);
        let after = after.trim_start();
        let word = after.find(|next: char| !next.is_alphabetic()).unwrap_or(after.len());
        let (word, after) = after.split_at(word);
        rest = after.trim_start();
        let number = Decimal::read(number).ok()?;
        let (power, times) = unit(word)?;
        let part = read(&number, power)?;
        // Minutes and longer units are whole seconds, so scale their fractions as seconds.
        let (ns, below) = (part.ns.checked_mul(times)?, u64::from(part.more) * (times - 1));
        sum = ParsedTime {
            ns: sum.ns.checked_add(ns)?.checked_add(below)?,
            unit_ns: part.unit_ns.checked_mul(times)?,
            fraction: part.fraction,
            more: sum.more || part.more,
        };
    }
    (sum.unit_ns > 0).then_some(sum)
}

/// A unit of time as (power, factor): the factor times ten to the power, in nanoseconds.
fn unit(word: &str) -> Option<(i32, u64)> {
    Some(match word {
        "ns" | "nsec" | "nsecs" | "nanos" | "nanosecond" | "nanoseconds" => (0, 1),
        "us" | "µs" | "μs" | "usec" | "usecs" | "micros" | "microsecond" | "microseconds" => {
            (3, 1)
        }
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => (6, 1),
        "s" | "sec" | "secs" | "second" | "seconds" => (9, 1),
        "m" | "min" | "mins" | "minute" | "minutes" => (9, 60),
        "h" | "hr" | "hrs" | "hour" | "hours" => (9, 3_600),
        "d" | "day" | "days" => (9, 86_400),
        _ => return None,
    })
}

/// A time in UTC, for display.
pub(crate) fn show(ns: i128) -> String {
    Timestamp::from_nanosecond(ns).map_or_else(|_| format!("{ns} ns"), |at| format!("{at:.6}"))
}

/// A duration, for display.
pub(crate) fn show_length(ns: u128) -> String {
    format!("{:.3?}", Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (u64, u64) {
        let read = instant(text).unwrap_or_else(|what| panic!("{text} {what}"));
        (read.ns, read.unit_ns)
    }

    fn took(text: &str) -> (u64, u64) {
        let read = duration(text, None).unwrap_or_else(|what| panic!("{text} {what}"));
        (read.ns, read.unit_ns)
    }

    #[test]
    fn a_time_is_the_same_in_every_form() {
        let ms = 1_000_000;
        let ns = 1_785_000_000_123 * ms;
        for text in [
            "1785000000.123",
            "1.785000000123e9",
            "1785000000123",
            "2026-07-25T17:20:00.123Z",
            "2026-07-25T19:20:00.123+02:00",
            " 2026-07-25 17:20:00.123Z ",
            "2026-07-25 17:20:00.123 UTC",
        ] {
            assert_eq!(at(text), (ns, ms), "{text}");
        }
        assert_eq!(at("1785000000123000"), (ns, 1_000));
        assert_eq!(at("1785000000123000000"), (ns, 1));
        // Milliseconds with decimals, not seconds in the year 58534.
        assert_eq!(at("1785000000123.456"), (ns + 456_000, 1_000));
        assert_eq!(show(ns.into()), "2026-07-25T17:20:00.123000Z");
    }

    #[test]
    fn a_time_is_as_fine_as_its_last_digit() {
        let s = SECOND_NS;
        assert_eq!(at("1785000000"), (1_785_000_000 * s, s));
        assert_eq!(at("1e9"), (1_000_000_000 * s, s));
        assert_eq!(at("1785000000.50"), (1_785_000_000 * s + s / 2, s / 100));
        assert_eq!(at("2026-07-25T17:20:00Z"), (1_785_000_000 * s, s));
        assert_eq!(at("2026-07-25T17:20:00,5Z"), (1_785_000_000 * s + s / 2, s / 10));
        assert_eq!(at("2026-07-25T17:20Z"), (1_785_000_000 * s, 60 * s));
        assert!(instant("1785000000.5").unwrap().fraction);
        assert!(!instant("2026-07-25T17:20:00.5Z").unwrap().fraction);
        let finer = instant("0.0000000019").unwrap();
        assert_eq!((finer.ns, finer.unit_ns, finer.more), (1, 1, true));
    }

    #[test]
    fn what_is_no_time_is_told_why() {
        for (text, why) in [
            ("", "is no time"),
            ("now", "is no time"),
            ("1.2.3", "is no time"),
            ("1e40", "is no time"),
            ("-1", "is before 1970"),
            ("1969-07-20T20:17:40Z", "is before 1970"),
            ("2026-07-25T17:20:00", "has no offset from UTC, such as Z or +02:00"),
            ("2026-07-25 17:20:00", "has no offset from UTC, such as Z or +02:00"),
        ] {
            assert_eq!(instant(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_duration_is_in_seconds_unless_it_has_a_unit_or_is_told_one() {
        let ms = 1_000_000;
        assert_eq!(took("0.25"), (250 * ms, 10 * ms));
        assert_eq!(took("3"), (3_000 * ms, 1_000 * ms));
        assert_eq!(took("9.5e-6"), (9_500, 100));
        assert_eq!(took("12ms"), (12 * ms, ms));
        assert_eq!(took("1.234567ms"), (1_234_567, 1));
        assert_eq!(took("12.3µs"), (12_300, 100));
        assert_eq!(took("1m 30s"), (90_000 * ms, 1_000 * ms));
        assert_eq!(took("1m30.5s"), (90_500 * ms, 100 * ms));
        assert_eq!(took("1.5 hours"), (5_400_000 * ms, 360_000 * ms));
        let of = |text, unit| duration(text, Some(unit)).map(|read| (read.ns, read.unit_ns));
        assert_eq!(of("2500000", DurationUnit::Ns), Ok((2_500_000, 1)));
        assert_eq!(of("2500", DurationUnit::Us), Ok((2_500_000, 1_000)));
        assert_eq!(of("2.5", DurationUnit::Ms), Ok((2_500_000, 100_000)));
        assert_eq!(of("2", DurationUnit::S), Ok((2_000_000_000, SECOND_NS)));
        assert_eq!(
            of("2ms", DurationUnit::S),
            Err("has a unit of its own; leave out --duration-unit")
        );
        for negative in ["-1", "-0.5", "-12ms"] {
            assert_eq!(duration(negative, None), Err("is negative"), "{negative}");
        }
        for nonsense in ["", "long", "1.5ms?", "ms", "1 fortnight", "5m3"] {
            assert_eq!(duration(nonsense, None), Err("is no duration"), "{nonsense}");
        }
        assert_eq!(duration("1e30", None), Err("is too long"));
    }
}
