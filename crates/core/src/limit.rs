//! What a limit is: `rate` units in any closed interval of length `per`.
//!
//! A [`Limit`] that exists is valid: its parts are checked when it is made from numbers or from text,
//! and never again.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

/// The highest rate: 2⁴⁰ units a period (about 1.1 × 10¹²).
///
/// Together with [`CONCURRENCY_MAX`](crate::config::CONCURRENCY_MAX) it keeps every sum of weights
/// within 64 bits, whatever actual weights the tasks report.
pub const RATE_MAX: u64 = 1 << 40;

/// The longest period: 2⁵⁸ nanoseconds (about nine years).
pub const PER_MAX: Duration = Duration::from_nanos(1 << 58);

/// A duration in nanoseconds, as this crate counts time; `u64::MAX` (584 years) if it is longer.
///
/// ```
/// # use core::time::Duration;
/// # use strict_rate_limiter_core::limit::saturating_ns;
/// assert_eq!(saturating_ns(Duration::from_micros(3)), 3_000);
/// assert_eq!(saturating_ns(Duration::MAX), u64::MAX);
/// ```
#[inline]
pub fn saturating_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The unit that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Each task takes one unit, however heavy it is.
    Task,
    /// Each task takes its weight: bytes, tokens, rows.
    Weight,
}

/// At most `rate` units in any closed interval of length `per`.
///
/// The text form, read by [`str::parse`] and written by [`Display`](fmt::Display), is
/// `RATE/PERIOD` for tasks and `RATEw/PERIOD` for weights. A period is a number and a unit out of
/// `ns`, `us`, `ms`, `s`, `m`, `h` and `d`; the number may have decimals, as long as the period
/// is a whole number of nanoseconds, and may be left out if it is 1. Digits may be grouped by `_`.
///
/// ```
/// use core::time::Duration;
/// use strict_rate_limiter_core::Limit;
///
/// let limit: Limit = "90_000w/1m".parse()?;
/// assert_eq!(limit, Limit::weight(90_000, Duration::from_secs(60))?);
/// assert_eq!(limit.to_string(), "90000w/1m");
/// assert_eq!("10/s".parse::<Limit>()?, "10/1000ms".parse()?);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    unit: Unit,
    rate: u64,
    per_ns: u64,
}

/// Why two numbers do not make a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// The rate is 0, so no task could ever run.
    ZeroRate,
    /// The rate is over [`RATE_MAX`].
    RateTooHigh(u64),
    /// The period is 0, so there is no window.
    ZeroPeriod,
    /// The period is over [`PER_MAX`].
    PeriodTooLong(Duration),
}

/// Why a text is not a limit: the text, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLimitError {
    text: String,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    NoSlash,
    BadRate(String),
    BadPeriod(String),
    UnknownUnit(String),
    FinerThanNanoseconds(String),
    OutOfRange(LimitError),
}

impl Limit {
    /// At most `rate` tasks in any closed interval of length `per`.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use strict_rate_limiter_core::{Limit, LimitError};
    /// assert_eq!(Limit::tasks(10, Duration::from_secs(1))?.to_string(), "10/1s");
    /// assert_eq!(Limit::tasks(0, Duration::from_secs(1)), Err(LimitError::ZeroRate));
    /// # Ok::<(), LimitError>(())
    /// ```
    pub fn tasks(rate: u64, per: Duration) -> Result<Self, LimitError> {
        Self::new(Unit::Task, rate, per)
    }

    /// At most `rate` units of weight in any closed interval of length `per`.
    pub fn weight(rate: u64, per: Duration) -> Result<Self, LimitError> {
        Self::new(Unit::Weight, rate, per)
    }

    fn new(unit: Unit, rate: u64, per: Duration) -> Result<Self, LimitError> {
        if rate == 0 {
            return Err(LimitError::ZeroRate);
        }
        if rate > RATE_MAX {
            return Err(LimitError::RateTooHigh(rate));
        }
        if per.is_zero() {
            return Err(LimitError::ZeroPeriod);
        }
        if per > PER_MAX {
            return Err(LimitError::PeriodTooLong(per));
        }
        Ok(Self { unit, rate, per_ns: saturating_ns(per) })
    }

    /// The unit that this limit counts.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The units that fit in one period.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// The period.
    pub const fn per(&self) -> Duration {
        Duration::from_nanos(self.per_ns)
    }

    /// The period in nanoseconds.
    pub const fn per_ns(&self) -> u64 {
        self.per_ns
    }

    /// The units that a task of `weight` takes from this limit.
    pub const fn units(&self, weight: u64) -> u64 {
        match self.unit {
            Unit::Task => 1,
            Unit::Weight => weight,
        }
    }

    /// The limit that pacing adds beside this one: 1 task in `per / rate`, rounded up.
    pub(crate) fn pace(&self) -> Self {
        Self { unit: Unit::Task, rate: 1, per_ns: self.per_ns.div_ceil(self.rate) }
    }
}

const UNITS_NS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit_ns) = UNITS_NS
            .into_iter()
            .find(|(_, unit_ns)| self.per_ns.is_multiple_of(*unit_ns))
            .expect("every period is a whole number of nanoseconds");
        let weight = match self.unit {
            Unit::Task => "",
            Unit::Weight => "w",
        };
        write!(f, "{}{weight}/{}{name}", self.rate, self.per_ns / unit_ns)
    }
}

impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Self, ParseLimitError> {
        let fail = |reason| ParseLimitError { text: text.to_string(), reason };
        let (rate, per) = text.trim().split_once('/').ok_or_else(|| fail(Reason::NoSlash))?;
        let (unit, digits) = match rate.strip_suffix(['w', 'W']) {
            Some(digits) => (Unit::Weight, digits),
            None => (Unit::Task, rate),
        };
        let rate = parse_whole(digits).ok_or_else(|| fail(Reason::BadRate(rate.to_string())))?;
        let per = parse_period(per).map_err(fail)?;
        Self::new(unit, rate, per).map_err(|error| fail(Reason::OutOfRange(error)))
    }
}

/// Digits, grouped by `_` or not. Saturates, so that a number far out of range is reported as out
/// of range and not as malformed.
fn parse_whole(digits: &str) -> Option<u64> {
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.bytes().filter(|byte| *byte != b'_').try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

fn parse_period(text: &str) -> Result<Duration, Reason> {
    let unit_at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ns = match unit {
        "µs" | "μs" => 1_000,
        "" => return Err(Reason::BadPeriod(text.to_string())),
        _ => UNITS_NS
            .into_iter()
            .find_map(|(name, unit_ns)| (name == unit).then_some(unit_ns))
            .ok_or_else(|| Reason::UnknownUnit(unit.to_string()))?,
    };
    let bad = || Reason::BadPeriod(text.to_string());
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let whole = if number.is_empty() { 1 } else { parse_whole(whole).ok_or_else(bad)? };
    if !decimals.bytes().all(|byte| byte.is_ascii_digit()) || decimals.is_empty() {
        return Err(bad());
    }
    let decimals = decimals.trim_end_matches('0');
    let finer = || Reason::FinerThanNanoseconds(text.to_string());
    // A day is 2¹⁶ · 3³ · 5¹¹ ns, so more decimals than 16 never come out whole.
    let scale = 10_u128.pow(decimals.len().try_into().ok().filter(|n| *n <= 16).ok_or_else(finer)?);
    let part = decimals.bytes().fold(0, |sum, byte| sum * 10 + u128::from(byte - b'0'));
    let part_ns = part * u128::from(unit_ns);
    if !part_ns.is_multiple_of(scale) {
        return Err(finer());
    }
    let ns = u128::from(whole) * u128::from(unit_ns) + part_ns / scale;
    let nanos = (ns % 1_000_000_000) as u32;
    Ok(Duration::new(u64::try_from(ns / 1_000_000_000).unwrap_or(u64::MAX), nanos))
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroRate => write!(f, "rate 0 would never let anything run; the least is 1"),
            Self::RateTooHigh(rate) => write!(f, "rate {rate} is over the highest, {RATE_MAX}"),
            Self::ZeroPeriod => write!(f, "a period of 0 limits nothing; the shortest is 1ns"),
            Self::PeriodTooLong(per) => {
                write!(f, "a period of {per:?} is over the longest, {PER_MAX:?}")
            }
        }
    }
}

impl fmt::Display for ParseLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a limit: ", self.text)?;
        match &self.reason {
            Reason::NoSlash => {
                write!(f, "it needs a rate, a slash and a period, as in 10/1s or 90000w/1m")
            }
            Reason::BadRate(rate) => {
                write!(
                    f,
                    "the rate `{rate}` is not a whole number, with or without a `w` for weight"
                )
            }
            Reason::BadPeriod(per) => {
                write!(f, "the period `{per}` is not a number and a unit, as in 250ms, 1.5s or 1m")
            }
            Reason::UnknownUnit(unit) => {
                write!(f, "`{unit}` is not a unit of time; use ns, us, ms, s, m, h or d")
            }
            Reason::FinerThanNanoseconds(per) => {
                write!(f, "the period `{per}` is not a whole number of nanoseconds")
            }
            Reason::OutOfRange(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LimitError {}

impl core::error::Error for ParseLimitError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.reason {
            Reason::OutOfRange(error) => Some(error),
            _ => None,
        }
    }
}
