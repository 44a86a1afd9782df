//! Parses decimal numbers exactly, without floating point.

/// A number that is not negative: `digits * 10^exponent`, and a little more if `cut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    digits: u128,
    exponent: i32,
    /// Some digits that did not fit were not zero.
    cut: bool,
    /// It was written with a point or an exponent.
    pub(crate) fraction: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDecimal {
    Negative,
    NoNumber,
}

impl Decimal {
    /// Reads `12`, `0.25`, `.5`, `9.5e-6`, `1E3`.
    pub(crate) fn read(text: &str) -> Result<Self, NotDecimal> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + decimals.len() == 0 || !all_digits(whole) || !all_digits(decimals) {
            return Err(NotDecimal::NoNumber);
        }
        let power: i32 = match exponent {
            None => 0,
            Some(text) => {
                let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
                // Five digits suffice for any time, and cannot overflow below.
                if digits.is_empty() || digits.len() > 5 || !all_digits(digits) {
                    return Err(NotDecimal::NoNumber);
                }
                text.parse().map_err(|_| NotDecimal::NoNumber)?
            }
        };
        let mut read = Self {
            digits: 0,
            exponent: power,
            cut: false,
            fraction: exponent.is_some() || number.contains('.'),
        };
        for (place, byte) in whole.bytes().chain(decimals.bytes()).enumerate() {
            let digit = u128::from(byte - b'0');
            let after_point = place >= whole.len();
            match read.digits.checked_mul(10).and_then(|digits| digits.checked_add(digit)) {
                Some(digits) if !read.cut => {
                    read.digits = digits;
                    read.exponent -= i32::from(after_point);
                }
                _ if after_point => read.cut |= digit > 0,
                _ => return Err(NotDecimal::NoNumber),
            }
        }
        if negative && (read.digits > 0 || read.cut) {
            return Err(NotDecimal::Negative);
        }
        Ok(read)
    }

    /// The number times ten to the power, rounded down, and whether that dropped anything. `None` if it does not
    /// fit.
    pub(crate) fn times_ten_to(&self, power: i32) -> Option<(u64, bool)> {
        let exponent = self.exponent + power;
        let scale = |exponent: i32| 10_u128.checked_pow(exponent.unsigned_abs());
        let (whole, rest) = match scale(exponent) {
            _ if self.digits == 0 => (0, false),
            Some(scale) if exponent >= 0 => (self.digits.checked_mul(scale)?, false),
            Some(scale) => (self.digits / scale, !self.digits.is_multiple_of(scale)),
            None if exponent > 0 => return None,
            None => (0, true),
        };
        Some((u64::try_from(whole).ok()?, rest || self.cut))
    }

    /// The number of digits behind the point; negative if an exponent implies zeros.
    pub(crate) fn decimals(&self) -> i32 {
        -self.exponent
    }

    /// The value, if it is a whole number.
    pub(crate) fn whole(&self) -> Option<u64> {
        self.times_ten_to(0).filter(|(_, rest)| !rest).map(|(whole, _)| whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> Option<(u64, bool)> {
        Decimal::read(text).ok()?.times_ten_to(9)
    }

    #[test]
    fn every_digit_counts_and_none_is_made_up() {
        assert_eq!(ns("9.5e-6"), Some((9_500, false)));
        assert_eq!(ns("1e3"), Some((1_000_000_000_000, false)));
        assert_eq!(ns("1.785000000123456789e9"), Some((1_785_000_000_123_456_789, false)));
        assert_eq!(ns(".5"), Some((500_000_000, false)));
        assert_eq!(ns("5."), Some((5_000_000_000, false)));
        assert_eq!(ns("+0.25"), Some((250_000_000, false)));
        // A floating point number would be 4 ns more.
        assert_eq!(ns("1785000000.123456789"), Some((1_785_000_000_123_456_789, false)));
    }

    #[test]
    fn what_is_finer_than_a_nanosecond_is_told() {
        assert_eq!(ns("0.0000000019"), Some((1, true)));
        assert_eq!(ns("1e-10"), Some((0, true)));
        assert_eq!(ns("1e-99999"), Some((0, true)));
        assert_eq!(ns("0.00000000000000000000000000000000000000000000000001"), Some((0, true)));
        assert_eq!(ns("1.00000000000000000000000000000000000000000"), Some((1_000_000_000, false)));
        let long = "1.00000000000000000000000000000000000000000000000007";
        assert_eq!(ns(long), Some((1_000_000_000, true)));
    }

    #[test]
    fn zero_has_no_sign_and_nothing_else_is_negative() {
        assert_eq!(ns("-0.000"), Some((0, false)));
        assert_eq!(Decimal::read("-0.001"), Err(NotDecimal::Negative));
        assert_eq!(Decimal::read("-1e-60"), Err(NotDecimal::Negative));
    }

    #[test]
    fn nonsense_is_no_number_and_what_does_not_fit_is_none() {
        for text in
            ["", "-", ".", "e3", "1e", "1e+", "1.2.3", "1e9999999", "0x1", "1 2", "NaN", "1_0"]
        {
            assert_eq!(Decimal::read(text), Err(NotDecimal::NoNumber), "{text}");
        }
        assert_eq!(Decimal::read(&"9".repeat(60)), Err(NotDecimal::NoNumber));
        for huge in ["1e99999", "1e30", "99999999999999999999"] {
            assert_eq!(ns(huge), None, "{huge}");
        }
        assert_eq!(ns("0e99999"), Some((0, false)));
    }

    #[test]
    fn a_whole_number_may_be_written_as_spreadsheets_do() {
        let whole = |text| Decimal::read(text).ok().and_then(|number| number.whole());
        assert_eq!(
            (whole("5.0"), whole("1e3"), whole("5.5"), whole("7")),
            (Some(5), Some(1_000), None, Some(7))
        );
    }
}
