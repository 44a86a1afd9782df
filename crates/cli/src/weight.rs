//! Parses weights, in the ways that people and programs write whole numbers: `5`, `5.0`, `1e3`, `1_000`, `1,000`.

/// Reads a weight exactly. The error says why it is none.
pub(crate) fn parse(field: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(field).map_err(|_| NO_NUMBER)?.trim();
    let (below_zero, text) = match text.as_bytes() {
        [] => return Err("it is empty"),
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        None => (text, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let grouped = whole.contains(',');
    let mut digits = digits(whole)?;
    if !decimals.bytes().all(|byte| byte.is_ascii_digit())
        || digits.is_empty() && decimals.is_empty()
    {
        return Err(NO_NUMBER);
    }
    if decimals == "000"
        && exponent == 0
        && !grouped
        && matches!(digits.trim_start_matches('0').len(), 1..=3)
    {
        return Err("it may be thousands or decimals: write it without the point");
    }
    let places = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    digits.push_str(decimals);
    let significant = digits.trim_start_matches('0');
    let leading = i64::try_from(digits.len() - significant.len()).unwrap_or(i64::MAX);
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    if below_zero {
        return Err("it is below zero");
    }
    // The number of digits before the point.
    let places = places.saturating_sub(leading);
    if i64::try_from(significant.len()).is_ok_and(|digits| digits > places) {
        return Err("it is not a whole number (round it up: a task may take no more than it says)");
    }
    let zeros = usize::try_from(places).unwrap_or(0).saturating_sub(significant.len());
    if places > 20 {
        return Err(TOO_BIG);
    }
    let number = significant.to_owned() + &"0".repeat(zeros);
    number.parse().map_err(|_| TOO_BIG)
}

const NO_NUMBER: &str = "it is not a number";

const TOO_BIG: &str = "it is over the highest number there is, 18446744073709551615";

/// The digits without separators: `_` between any two, `,` between thousands.
fn digits(text: &str) -> Result<String, &'static str> {
    if text.contains(',') {
        let mut groups = text.split(',');
        let first = groups.next().unwrap_or_default();
        if !(1..=3).contains(&first.len()) || !groups.all(|group| group.len() == 3) {
            return Err("its comma stands between no thousands");
        }
    }
    let separates = |byte: u8| byte == b'_' || byte == b',';
    let bytes = text.as_bytes();
    let separated = |at: usize| {
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        at > 0 && digit(at - 1) && digit(at + 1)
    };
    let well_formed = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| byte.is_ascii_digit() || separates(*byte) && separated(at));
    if !well_formed {
        return Err(NO_NUMBER);
    }
    Ok(text.replace(['_', ','], ""))
}

fn exponent(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NO_NUMBER);
    }
    let huge = if text.starts_with('-') { -HUGE } else { HUGE };
    Ok(text.parse::<i64>().unwrap_or(huge).clamp(-HUGE, HUGE))
}

/// An exponent larger than any field has digits.
const HUGE: i64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let cases = [
            ("5", 5),
            (" 7 ", 7),
            ("+7", 7),
            ("007", 7),
            ("5.0", 5),
            ("5.", 5),
            ("12.00", 12),
            ("1e3", 1_000),
            ("1E3", 1_000),
            ("1.5e+3", 1_500),
            ("0.002e3", 2),
            (".5e1", 5),
            ("1200e-2", 12),
            ("1_000", 1_000),
            ("1,000", 1_000),
            ("12,345,678.0", 12_345_678),
            ("1,000.000", 1_000),
            ("1000.000", 1_000),
            ("0", 0),
            ("0.000", 0),
            ("-0.0", 0),
            ("0e999999999999999999999", 0),
            ("18446744073709551615", u64::MAX),
            ("1844674407370955161.5e1", u64::MAX),
            ("1e19", 10_000_000_000_000_000_000),
        ];
        for (text, weight) in cases {
            assert_eq!(parse(text.as_bytes()), Ok(weight), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused_with_the_reason() {
        let cases = [
            ("", "empty"),
            (" \t", "empty"),
            ("1.5", "not a whole number"),
            ("1e-3", "not a whole number"),
            ("0.001", "not a whole number"),
            ("1e-999999999999999999999", "not a whole number"),
            ("-1", "below zero"),
            ("-1e3", "below zero"),
            ("18446744073709551616", "over the highest"),
            ("1e20", "over the highest"),
            ("1e999999999999999999999", "over the highest"),
            ("NaN", "not a number"),
            ("inf", "not a number"),
            ("many", "not a number"),
            ("0x10", "not a number"),
            ("1 000", "not a number"),
            ("5 tokens", "not a number"),
            ("1__0", "not a number"),
            ("_1", "not a number"),
            ("1_", "not a number"),
            ("1e", "not a number"),
            ("e3", "not a number"),
            ("1e3.0", "not a number"),
            ("--1", "not a number"),
            ("+", "not a number"),
            (".", "not a number"),
            ("1.2.3", "not a number"),
            ("٣", "not a number"),
            ("1,5", "between no thousands"),
            ("1,0000", "between no thousands"),
            (",000", "between no thousands"),
            ("1.000", "thousands or decimals"),
            ("250.000", "thousands or decimals"),
        ];
        for (text, words) in cases {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(parse(b"\xff"), Err(NO_NUMBER));
    }
}
