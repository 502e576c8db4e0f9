//! Used quotas and budgets after a restart or a reload: the ledger's sums of the day and the month are the least that has
//! been used, by whichever gateway it was recorded. After the clock was set back, so are those of later days and months.

use crate::config::Config;
use crate::gate::Gate;
use ledger::Store;
use ledger::report::{self, Dimension};
use policy::{KeyId, QuotaWindow, Subject, Time};
use std::time::Duration;

/// Raises what policy counts as used to what the ledger has recorded, for every configured project and user and every
/// key with a number.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn restore_usage(
    config: &Config,
    key_number: impl Fn(&str) -> Option<KeyId>,
    gate: &Gate,
    store: &Store,
) -> Result<(), ledger::Error> {
    let now = crate::clock::now();
    let day = |time: Time| ledger::day_of(Duration::from_nanos(time.nanos()));
    let subject = |dimension: Dimension, id: &str| match dimension {
        Dimension::Project => config.project_by_id(id).map(Subject::Project),
        Dimension::User => config.user_by_id(id).map(Subject::User),
        _ => key_number(id).map(Subject::Key),
    };
    for (window, first, after, characters) in [
        (QuotaWindow::Day, now.day_start(), now.day_end(), "2026-11-25".len()),
        (QuotaWindow::Month, now.month_start(), now.month_end(), "2026-11".len()),
    ] {
        let (first, after) = (day(first), day(after));
        for dimension in [Dimension::Project, Dimension::User, Dimension::Key] {
            for (id, usage) in report::used_between(store, dimension, (&first, &after)).await? {
                if let Some(subject) = subject(dimension, &id) {
                    gate.with(|policy, now| policy.restore_usage(subject, window, usage, now));
                }
            }
            // What is dated after them: the clock was set back since, and will come to it.
            for (dates, id, usage) in report::used_in_each_from(store, dimension, &after, characters).await? {
                if let (Some(subject), Some(at)) = (subject(dimension, &id), moment_in(&dates)) {
                    gate.with(|policy, now| policy.restore_later_usage(subject, window, usage, (at, now)));
                }
            }
        }
    }
    Ok(())
}

/// A moment in the day, or the month, whose dates begin so.
fn moment_in(dates: &str) -> Option<Time> {
    let date = if dates.len() == "2026-11".len() {
        format!("{dates}-01")
    } else {
        dates.to_owned()
    };
    let date: jiff::civil::Date = date.parse().ok()?;
    let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(Time::after_epoch(Duration::try_from(start.as_duration()).ok()?))
}
