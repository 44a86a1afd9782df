//! Parses decimal numbers as servers write them: `12`, `+2.0`, `.5`, `1.5e3`. Uses no floating point, so the caller
//! can choose to round up or down.

/// The digits of the largest `u64`. More zeros change nothing.
const DIGITS_MAX: i64 = 20;

/// A number, rounded down and up. Both are equal if it is whole. A number that is too large is `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) floor: u64,
    pub(crate) ceil: u64,
}

/// Parses the text, times 10 to the power of `exponent`. `None` if it is negative or not a number.
pub(crate) fn parse(text: &str, exponent: i64) -> Option<Decimal> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, parse_power(power)?),
        None => (text, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(decimals.bytes());
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The position of the point, after the exponent moved it.
    let point = i64::try_from(whole.len()).ok()?.saturating_add(power).saturating_add(exponent);
    let mut floor = 0_u64;
    let mut is_whole = true;
    for (place, byte) in (0_i64..).zip(digits()) {
        if place < point {
            floor = floor.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
        } else if byte != b'0' {
            is_whole = false;
        }
    }
    let written = i64::try_from(digits().count()).ok()?;
    for _ in 0..point.saturating_sub(written).clamp(0, DIGITS_MAX) {
        floor = floor.saturating_mul(10);
    }
    Some(Decimal { floor, ceil: if is_whole { floor } else { floor.saturating_add(1) } })
}

/// Parses an exponent, clamped to the range that makes a difference.
fn parse_power(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(sign * digits.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_exact_on_both_sides() {
        let read = |text, exponent| parse(text, exponent).map(|number| (number.floor, number.ceil));
        assert_eq!(read("12", 0), Some((12, 12)));
        assert_eq!(read("+2.0", 0), Some((2, 2)));
        assert_eq!(read("3.7", 0), Some((3, 4)));
        assert_eq!(read("1.732", 9), Some((1_732_000_000, 1_732_000_000)));
        assert_eq!(read("0.0000000001", 9), Some((0, 1)), "less than a nanosecond is one");
        assert_eq!(read(".5", 9), Some((500_000_000, 500_000_000)));
        assert_eq!(read("2.", 0), Some((2, 2)));
        assert_eq!(read("1e3", 0), Some((1000, 1000)));
        assert_eq!(read("1.5E+1", 0), Some((15, 15)));
        assert_eq!(read("5e-05", 9), Some((50_000, 50_000)));
        assert_eq!(read("1e-99999999999999999999", 9), Some((0, 1)));
        assert_eq!(read("0e99999999999999999999", 9), Some((0, 0)));
        assert_eq!(read("000000000000000000000000000001", 0), Some((1, 1)));
    }

    #[test]
    fn a_number_that_is_too_large_is_the_largest() {
        for text in ["18446744073709551616", "1e20", "1e99999999999999999999", "99999999999999999"]
        {
            assert_eq!(parse(text, 9).unwrap().floor, u64::MAX, "{text}");
        }
    }

    #[test]
    fn what_is_negative_or_no_number_is_not_read() {
        for text in ["", "-1", "+", ".", "1.5.1", "1e", "1e+", "e3", "1_000", "0x10", "inf", "٣"] {
            assert_eq!(parse(text, 0), None, "{text}");
        }
    }
}
