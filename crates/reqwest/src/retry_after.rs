//! `Retry-After`: RFC 9110, section 10.2.3.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// How long from now. `None` where it is not there, or says nothing that can be understood.
pub(crate) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    parse(text, SystemTime::now())
}

fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    // A date is a whole second, and the server may mean any moment of it.
    let until = at + Duration::from_secs(1);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else_is() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_770_500);
        let parse = |text| parse(text, now);
        assert_eq!(parse("0"), Some(Duration::ZERO));
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        let at = |ms| Some(Duration::from_millis(ms));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), at(7_500), "to the end of that second");
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), at(7_500));
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), at(7_500));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:00 GMT"), at(0), "long ago");
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
