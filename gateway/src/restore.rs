//! Used quotas and budgets after a restart or a reload: the ledger's sums of the day and the month are the least that has
//! been used, by whichever gateway it was recorded.

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
    // Not what is dated after them: the clock may have been set back since.
    for (window, first, after) in [
        (QuotaWindow::Day, now.day_start(), now.day_end()),
        (QuotaWindow::Month, now.month_start(), now.month_end()),
    ] {
        for dimension in [Dimension::Project, Dimension::User, Dimension::Key] {
            for (id, usage) in report::used_between(store, dimension, (&day(first), &day(after))).await? {
                let subject = match dimension {
                    Dimension::Project => config.project_by_id(&id).map(Subject::Project),
                    Dimension::User => config.user_by_id(&id).map(Subject::User),
                    _ => key_number(&id).map(Subject::Key),
                };
                if let Some(subject) = subject {
                    gate.with(|policy, now| policy.restore_usage(subject, window, usage, now));
                }
            }
        }
    }
    Ok(())
}
