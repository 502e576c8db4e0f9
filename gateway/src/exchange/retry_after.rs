//! A server's `retry-after`.

use http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use std::time::Duration;

/// The longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The forms of an HTTP date after its weekday: IMF-fixdate, RFC 850's and asctime's (RFC 9110, section 5.6.7).
const DATE_FORMS: [&str; 3] = ["%d %b %Y %H:%M:%S GMT", "%d-%b-%y %H:%M:%S GMT", "%b %e %H:%M:%S %Y"];

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3), bounded.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    let after = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
            Duration::try_from(date(value)?.duration_since(now)).unwrap_or_default()
        }
    };
    Some(after.min(LONGEST_RETRY_AFTER))
}

/// An HTTP date, in UTC. Its weekday may be wrong; its date counts.
fn date(value: &str) -> Option<DateTime> {
    let (_, rest) = value.split_once(' ')?;
    let parsed = |form| BrokenDownTime::parse(form, rest.trim_start()).ok()?.to_datetime().ok();
    DATE_FORMS.into_iter().find_map(parsed)
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
        for long_ago in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(of(long_ago), Some(Duration::ZERO), "{long_ago}");
        }
        assert_eq!(of("soon"), None);
        assert_eq!(of("very soon"), None);
    }
}
