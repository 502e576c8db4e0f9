//! Lifetimes of keys as people write them: `30d`, `2w`, `1y`, `2026-12-31`.

use super::Error;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Nothing is to expire later, in years from now; who wants more wants a key that does not expire.
const LONGEST_YEARS: i64 = 100;

/// The end of a lifetime that begins now, in milliseconds since 1970: a span such as `30d`, a date (until the end of that
/// day, UTC), or a time such as `2026-12-31T18:00:00Z`.
pub(crate) fn end_of(text: &str, now_ms: i64) -> Result<i64, Error> {
    let now = at(now_ms)?;
    let end = match text.parse::<Date>() {
        // A time begins with a date, which must not stand for it.
        Ok(day) if !text.contains(['T', 't', ':', ' ']) => end_of_day(day),
        _ => text.parse::<Timestamp>().ok().or_else(|| after(text, now)),
    };
    let end = end.ok_or_else(|| wrong(text, "is neither a time span nor a date"))?;
    if end <= now {
        return Err(wrong(text, "is in the past"));
    }
    let latest = after(&format!("{LONGEST_YEARS}y"), now);
    if latest.is_some_and(|latest| end > latest) {
        return Err(wrong(
            text,
            &format!("is more than {LONGEST_YEARS} years away; leave it out for a key that does not expire"),
        ));
    }
    Ok(end.as_millisecond())
}

/// The end of a grace period that begins now: a span such as `1h`, or `0s` for none.
pub(crate) fn grace_end(text: &str, now_ms: i64) -> Result<i64, Error> {
    let now = at(now_ms)?;
    let end = after(text, now).filter(|end| *end >= now);
    let end = end.ok_or_else(|| {
        Error::Wrong(format!(
            "invalid grace period `{text}`: use a time span such as 1h or 2d, or 0s to end the old secret at once"
        ))
    })?;
    Ok(end.as_millisecond())
}

fn at(ms: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(ms).map_err(|error| Error::Failed(error.to_string()))
}

fn end_of_day(day: Date) -> Option<Timestamp> {
    let next = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(next.timestamp())
}

fn after(text: &str, now: Timestamp) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    let end = now.to_zoned(TimeZone::UTC).checked_add(span).ok()?;
    Some(end.timestamp())
}

fn wrong(text: &str, why: &str) -> Error {
    Error::Wrong(format!(
        "invalid lifetime `{text}`: it {why}; use a time span such as 12h, 30d, 2w or 1y, or a date such as 2026-12-31"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26T08:00:00Z.
    const NOW: i64 = 1_795_680_000_000;

    fn ends(text: &str) -> String {
        end_of(text, NOW).map_or_else(|error| error.to_string(), |end| at(end).expect("a time").to_string())
    }

    #[test]
    fn spans_and_dates_end_where_a_calendar_says() {
        assert_eq!(at(NOW).expect("a time").to_string(), "2026-11-26T08:00:00Z");
        for (text, end) in [
            ("45m", "2026-11-26T08:45:00Z"),
            ("12h", "2026-11-26T20:00:00Z"),
            ("30d", "2026-12-26T08:00:00Z"),
            ("2w", "2026-12-10T08:00:00Z"),
            ("1y", "2027-11-26T08:00:00Z"),
            ("1y 6mo", "2028-05-26T08:00:00Z"),
            ("90 days", "2027-02-24T08:00:00Z"),
            ("2026-12-31", "2027-01-01T00:00:00Z"),
            ("2026-11-26", "2026-11-27T00:00:00Z"),
            ("2026-12-31T18:00:00Z", "2026-12-31T18:00:00Z"),
        ] {
            assert_eq!(ends(text), end, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, reason) in [
            ("soon", "is neither"),
            ("", "is neither"),
            ("30", "is neither"),
            ("2026-02-30", "is neither"),
            ("2026-11-25", "is in the past"),
            ("0d", "is in the past"),
            ("-3d", "is in the past"),
            ("3d ago", "is in the past"),
            ("9999999d", "is neither"),
            ("101y", "is more than 100 years away"),
        ] {
            assert!(ends(text).contains(reason), "{text}: {}", ends(text));
        }
    }

    #[test]
    fn a_grace_period_may_be_nothing() {
        assert_eq!(grace_end("0s", NOW).expect("a time"), NOW);
        assert_eq!(grace_end("1h", NOW).expect("a time"), NOW + 3_600_000);
        assert!(grace_end("-1h", NOW).is_err());
        assert!(grace_end("2026-12-31", NOW).is_err());
    }
}
