//! Sums of records, kept in the same transaction that writes them: a segment's records become a few rows to add
//! to. What a report says is therefore what the records say, and costs no scan.

use super::row::Row;
use std::collections::HashMap;

/// Each bucket of latencies is so much wider than the one before.
const WIDER: f64 = 1.05;

/// What sums are kept by: day, project, user, key, model, backend, status, decision.
pub(super) type Group<'a> = [&'a str; 8];

/// Sums of one group.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: i64,
    pub(super) input_tokens: i64,
    pub(super) output_tokens: i64,
    pub(super) cached_input_tokens: i64,
    pub(super) cost_nano_eur: i64,
    pub(super) latency_seconds: f64,
    pub(super) queue_wait_seconds: f64,
}

/// The sums of some records.
#[derive(Debug, Default)]
pub(super) struct Rollup<'a> {
    pub(super) groups: HashMap<Group<'a>, Sums>,
    pub(super) latencies: HashMap<(&'a str, i64), i64>,
}

impl<'a> Rollup<'a> {
    pub(super) fn add(&mut self, row: &'a Row<'_>) {
        let day = row.created_at.get(..10).unwrap_or_default();
        let key = row.key_id.as_deref().unwrap_or_default();
        let group = [
            day,
            &row.project_id,
            &row.user_id,
            key,
            &row.model,
            &row.backend,
            &row.status,
            &row.decision,
        ];
        let sums = self.groups.entry(group).or_default();
        sums.requests += 1;
        sums.input_tokens += row.input_tokens;
        sums.output_tokens += row.output_tokens;
        sums.cached_input_tokens += row.cached_input_tokens;
        sums.cost_nano_eur += row.cost_nano_eur;
        sums.latency_seconds += row.latency_seconds;
        sums.queue_wait_seconds += row.queue_wait_seconds;
        if row.status == "completed" {
            *self.latencies.entry((day, bucket(row.latency_seconds))).or_default() += 1;
        }
    }
}

/// The bucket that a latency falls into.
#[allow(clippy::cast_possible_truncation)]
fn bucket(seconds: f64) -> i64 {
    (seconds.max(1e-6) * 1e6).log(WIDER).floor() as i64
}

/// The middle of a bucket, in seconds.
#[allow(clippy::cast_precision_loss)]
pub(super) fn latency_of(bucket: i64) -> f64 {
    WIDER.powf(bucket as f64 + 0.5) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_three_percent_of_what_falls_into_it() {
        for seconds in [0.000_001, 0.000_4, 0.05, 0.5, 2.0, 119.0] {
            let told = latency_of(bucket(seconds));
            assert!((told / seconds - 1.0).abs() < 0.03, "{seconds} became {told}");
        }
    }
}
