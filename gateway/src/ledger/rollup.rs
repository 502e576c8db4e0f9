//! Sums of records, kept in the same transaction that writes them: a segment's records become a few rows to add
//! to. What a report says is therefore what the records say, and costs no scan.

use super::row::Row;
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// Each bucket of latencies is so much wider than the one before.
const WIDER: f64 = 1.05;

/// What sums are kept by: day, project, user, key, model, backend, status, decision.
type Group<'a> = [&'a str; 8];

/// Sums of one group.
#[derive(Debug, Default)]
struct Sums {
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    cost_nano_eur: i64,
    latency_seconds: f64,
    queue_wait_seconds: f64,
}

/// The sums of some records.
#[derive(Debug, Default)]
pub(super) struct Rollup<'a> {
    groups: HashMap<Group<'a>, Sums>,
    latencies: HashMap<(&'a str, i64), i64>,
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

    /// Adds to what the database has.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut add = connection.prepare_cached(
            "INSERT INTO rollups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
             ON CONFLICT DO UPDATE SET requests = requests + ?9, input_tokens = input_tokens + ?10, \
             output_tokens = output_tokens + ?11, cached_input_tokens = cached_input_tokens + ?12, \
             cost_nano_eur = cost_nano_eur + ?13, latency_seconds = latency_seconds + ?14, \
             queue_wait_seconds = queue_wait_seconds + ?15",
        )?;
        for (group, sums) in &self.groups {
            let [day, project, user, key, model, backend, status, decision] = group;
            add.execute(params![
                day,
                project,
                user,
                key,
                model,
                backend,
                status,
                decision,
                sums.requests,
                sums.input_tokens,
                sums.output_tokens,
                sums.cached_input_tokens,
                sums.cost_nano_eur,
                sums.latency_seconds,
                sums.queue_wait_seconds,
            ])?;
        }
        let mut add = connection.prepare_cached(
            "INSERT INTO latencies VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET requests = requests + ?3",
        )?;
        for ((day, bucket), requests) in &self.latencies {
            add.execute(params![day, bucket, requests])?;
        }
        Ok(())
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
