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

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3), bounded; before it `retry-after-ms`, which OpenAI and
/// Azure send and which is more exact. Seconds may have a fraction, as some servers in Python write it.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = text("retry-after-ms").and_then(|value| value.parse::<f64>().ok());
    let seconds = millis.map(|millis| millis / 1000.0);
    let after = match seconds.or_else(|| text("retry-after")?.parse::<f64>().ok()) {
        Some(seconds) if seconds.is_nan() => return None,
        Some(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_RETRY_AFTER),
        None => {
            let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
            Duration::try_from(date(text("retry-after")?)?.duration_since(now)).unwrap_or_default()
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
        assert_eq!(of(" 12.5 "), Some(Duration::from_millis(12_500)));
        assert_eq!(of("-5"), Some(Duration::ZERO));
        assert_eq!(of("1e300"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("NaN"), None);
        let mut both = HeaderMap::new();
        both.insert("retry-after", HeaderValue::from_static("3"));
        both.insert("retry-after-ms", HeaderValue::from_static("2500"));
        assert_eq!(read(&both), Some(Duration::from_millis(2500)));
        assert_eq!(of("soon"), None);
        assert_eq!(of("very soon"), None);
    }
}
