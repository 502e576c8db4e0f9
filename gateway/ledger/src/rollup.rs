//! Sums of records, kept in the same transaction that writes them: a segment's records become a few rows to add
//! to. What a report says is therefore what the records say, and costs no scan.

use crate::row::Row;
use std::collections::HashMap;
use std::fmt::Write;

/// The columns of `rollups` that tell its groups apart, in the order of [`Group`].
pub(crate) const GROUP_COLUMNS: [&str; 8] = [
    "day",
    "project_id",
    "user_id",
    "key_id",
    "model",
    "backend",
    "status",
    "decision",
];

/// The summed columns of whole numbers, in the order of [`Sums::counts`].
pub(crate) const COUNT_COLUMNS: [&str; 7] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_nano_eur",
    "objectives",
    "objectives_met",
];

/// The summed columns of seconds, in the order of [`Sums::seconds`].
pub(crate) const SECONDS_COLUMNS: [&str; 2] = ["latency_seconds", "queue_wait_seconds"];

/// No sum of one group passes this, either way: the largest whole number that JSON carries exactly.
pub(crate) const MAX_SUM: i64 = 9_007_199_254_740_991;

/// Each bucket of latencies is so much wider than the one before.
const BUCKET_GROWTH: f64 = 1.05;

/// The values of [`GROUP_COLUMNS`].
pub(crate) type Group<'a> = [&'a str; GROUP_COLUMNS.len()];

/// The number of columns of `rollups`.
pub(crate) const ROLLUP_COLUMNS: usize = GROUP_COLUMNS.len() + COUNT_COLUMNS.len() + SECONDS_COLUMNS.len();

/// Sums of one group.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) counts: [i64; COUNT_COLUMNS.len()],
    pub(crate) seconds: [f64; SECONDS_COLUMNS.len()],
}

impl Sums {
    fn of(row: &Row<'_>) -> Self {
        Self {
            counts: [
                1,
                row.input_tokens,
                row.output_tokens,
                row.cached_input_tokens,
                row.cost_nano_eur,
                row.objectives.unwrap_or_default(),
                row.objectives_met.unwrap_or_default(),
            ],
            seconds: [row.latency_seconds, row.queue_wait_seconds],
        }
    }

    /// Adds other sums, within [`MAX_SUM`].
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(count).clamp(-MAX_SUM, MAX_SUM);
        }
        for (sum, seconds) in self.seconds.iter_mut().zip(other.seconds) {
            *sum += seconds;
        }
    }
}

/// The sums of some records.
#[derive(Debug, Default)]
pub(crate) struct Rollup<'a> {
    pub(crate) groups: HashMap<Group<'a>, Sums>,
    pub(crate) latencies: HashMap<(&'a str, i64), i64>,
}

impl<'a> Rollup<'a> {
    pub(crate) fn add(&mut self, row: &'a Row<'_>) {
        let day = row.created_at.get(..10).unwrap_or_default();
        let group = [
            day,
            &row.project_id,
            &row.user_id,
            row.key_id.as_deref().unwrap_or_default(),
            &row.model,
            &row.backend,
            &row.status,
            &row.decision,
        ];
        self.groups.entry(group).or_default().add(&Sums::of(row));
        if row.status == "completed" {
            *self.latencies.entry((day, bucket(row.latency_seconds))).or_default() += 1;
        }
    }
}

/// Adds the sums of groups to those in the table, within [`MAX_SUM`]. `source` gives rows of group columns, counts and
/// seconds, no group twice. Both databases understand it.
pub(crate) fn add_to_rollups(source: &str) -> String {
    let columns: Vec<&str> = GROUP_COLUMNS
        .into_iter()
        .chain(COUNT_COLUMNS)
        .chain(SECONDS_COLUMNS)
        .collect();
    let mut sql = format!(
        "INSERT INTO rollups ({}) {source} ON CONFLICT ({}) DO UPDATE SET ",
        columns.join(", "),
        GROUP_COLUMNS.join(", ")
    );
    for column in COUNT_COLUMNS {
        let sum = format!("rollups.{column} + excluded.{column}");
        let _ = write!(sql, "{column} = {}, ", clamped(&sum));
    }
    let seconds = SECONDS_COLUMNS.map(|column| format!("{column} = rollups.{column} + excluded.{column}"));
    sql + &seconds.join(", ")
}

/// Adds to buckets of the table of latencies. `source` gives rows of day, bucket and requests, no bucket twice.
pub(crate) fn add_to_latencies(source: &str) -> String {
    format!(
        "INSERT INTO latencies (day, bucket, requests) {source} \
         ON CONFLICT (day, bucket) DO UPDATE SET requests = latencies.requests + excluded.requests"
    )
}

/// The parameters of a statement, numbered from 1.
pub(crate) fn parameters(count: usize) -> String {
    let numbered: Vec<String> = (1..=count).map(|number| format!("${number}")).collect();
    numbered.join(", ")
}

/// A sum within [`MAX_SUM`], in SQL.
pub(crate) fn clamped(sum: &str) -> String {
    format!("CASE WHEN {sum} > {MAX_SUM} THEN {MAX_SUM} WHEN {sum} < -{MAX_SUM} THEN -{MAX_SUM} ELSE {sum} END")
}

/// The bucket that a latency falls into.
#[allow(clippy::cast_possible_truncation)]
fn bucket(seconds: f64) -> i64 {
    (seconds.max(1e-6) * 1e6).log(BUCKET_GROWTH).floor() as i64
}

/// The middle of a bucket, in seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn latency_of(bucket: i64) -> f64 {
    BUCKET_GROWTH.powf(bucket as f64 + 0.5) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_three_percent_of_what_falls_into_it() {
        for seconds in [0.000_001, 0.000_4, 0.05, 0.5, 2.0, 119.0] {
            let middle = latency_of(bucket(seconds));
            assert!((middle / seconds - 1.0).abs() < 0.03, "{seconds} became {middle}");
        }
    }
}
