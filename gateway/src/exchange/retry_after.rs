//! A server's `retry-after`.

use http::HeaderMap;
use jiff::fmt::rfc2822::DateTimeParser;
use std::time::{Duration, SystemTime};

/// The longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3), bounded.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    let after = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            // Its weekday may be wrong; its date counts.
            let parser = DateTimeParser::new().relaxed_weekday(true);
            let at = parser.parse_timestamp(value).ok()?;
            SystemTime::from(at)
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        }
    };
    Some(after.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_bounded() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_str(value).expect("a header"));
            read(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("18446744073709551615"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("soon"), None);
    }
}
