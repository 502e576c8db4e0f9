//! The original's summary of metrics, counted from the rollups since the last reset.

use crate::error::Error;
use crate::report::euros;
use crate::rollup::latency_of;
use crate::row::CORRECTION;
use crate::store::{Store, Timed};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::Row;
use std::collections::BTreeMap;

/// The totals of `/metrics/summary`, of all time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    requests: BTreeMap<String, i64>,
    decisions: BTreeMap<String, i64>,
    projects: BTreeMap<String, i64>,
    users: BTreeMap<String, i64>,
    models: BTreeMap<String, i64>,
    input_tokens: i64,
    output_tokens: i64,
    cost_nano_eur: i64,
    latency_seconds: f64,
    queue_wait_seconds: f64,
    latencies: BTreeMap<i64, i64>,
}

impl Totals {
    /// Reads them from the rollups.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read(store: &Store) -> Result<Self, Error> {
        let mut totals = Self::default();
        let rows = sqlx::query(
            "SELECT status, decision, project_id, user_id, model, CAST(sum(requests) AS BIGINT) AS requests, \
             CAST(sum(input_tokens) AS BIGINT) AS input_tokens, CAST(sum(output_tokens) AS BIGINT) AS output_tokens, CAST(sum(cost_nano_eur) AS BIGINT) AS cost, \
             sum(latency_seconds) AS latency, sum(queue_wait_seconds) AS wait FROM rollups GROUP BY 1, 2, 3, 4, 5",
        )
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
        for row in rows {
            let is_correction = row.try_get::<String, _>("status")? == CORRECTION;
            let requests: i64 = if is_correction { 0 } else { row.try_get("requests")? };
            for (counts, column) in [
                (&mut totals.requests, "status"),
                (&mut totals.decisions, "decision"),
                (&mut totals.projects, "project_id"),
                (&mut totals.users, "user_id"),
                (&mut totals.models, "model"),
            ]
            .into_iter()
            .filter(|_| !is_correction)
            {
                *counts.entry(row.try_get::<String, _>(column)?).or_default() += requests;
            }
            totals.input_tokens = totals.input_tokens.saturating_add(row.try_get("input_tokens")?);
            totals.output_tokens = totals.output_tokens.saturating_add(row.try_get("output_tokens")?);
            totals.cost_nano_eur = totals.cost_nano_eur.saturating_add(row.try_get("cost")?);
            if row.try_get::<String, _>("status")? == "completed" {
                totals.latency_seconds += row.try_get::<f64, _>("latency")?;
            }
            totals.queue_wait_seconds += row.try_get::<f64, _>("wait")?;
        }
        let rows =
            sqlx::query("SELECT bucket, CAST(sum(requests) AS BIGINT) AS requests FROM latencies GROUP BY bucket");
        for row in rows.fetch_all(&store.pool()).timed(store).await? {
            totals
                .latencies
                .insert(row.try_get("bucket")?, row.try_get("requests")?);
        }
        Ok(totals)
    }

    /// The part that came after `base`.
    pub fn since(mut self, base: &Self) -> Self {
        let counts = [
            (&mut self.requests, &base.requests),
            (&mut self.decisions, &base.decisions),
            (&mut self.projects, &base.projects),
            (&mut self.users, &base.users),
            (&mut self.models, &base.models),
        ];
        for (counts, base) in counts {
            subtract(counts, base);
        }
        subtract(&mut self.latencies, &base.latencies);
        self.input_tokens = self.input_tokens.saturating_sub(base.input_tokens).max(0);
        self.output_tokens = self.output_tokens.saturating_sub(base.output_tokens).max(0);
        self.cost_nano_eur = self.cost_nano_eur.saturating_sub(base.cost_nano_eur).max(0);
        self.latency_seconds -= base.latency_seconds;
        self.queue_wait_seconds -= base.queue_wait_seconds;
        self
    }

    /// The original's fields.
    #[allow(clippy::cast_precision_loss)]
    pub fn summary(&self) -> Value {
        let of = |counts: &BTreeMap<String, i64>, name: &str| counts.get(name).copied().unwrap_or(0);
        let mean = |sum: f64, count: i64| if count > 0 { sum / count as f64 } else { 0.0 };
        let completed = of(&self.requests, "completed");
        let queued = of(&self.decisions, "queued");
        json!({
            "total_requests": self.requests.values().sum::<i64>(),
            "accepted_requests": of(&self.decisions, "accepted"),
            "queued_requests": queued,
            "rejected_requests": of(&self.requests, "rejected"),
            "completed_requests": completed,
            "failed_requests": of(&self.requests, "failed") + of(&self.requests, "timed_out"),
            "total_input_tokens": self.input_tokens,
            "total_output_tokens": self.output_tokens,
            "total_estimated_cost_eur": euros(self.cost_nano_eur),
            "average_latency_seconds": mean(self.latency_seconds, completed),
            "p50_latency_seconds": self.percentile(0.50),
            "p95_latency_seconds": self.percentile(0.95),
            "p99_latency_seconds": self.percentile(0.99),
            "average_queue_wait_seconds": mean(self.queue_wait_seconds, queued),
            "requests_by_project": counts(&self.projects),
            "requests_by_user": counts(&self.users),
            "requests_by_model": counts(&self.models),
            "requests_by_status": counts(&self.requests),
        })
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn percentile(&self, part: f64) -> f64 {
        let total: i64 = self.latencies.values().sum();
        let wanted = (total as f64 * part).ceil() as i64;
        let mut seen = 0;
        for (bucket, requests) in &self.latencies {
            seen += requests;
            if seen >= wanted && *requests > 0 {
                return latency_of(*bucket);
            }
        }
        0.0
    }
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, i64>, base: &BTreeMap<K, i64>) {
    for (name, count) in counts.iter_mut() {
        *count -= base.get(name).copied().unwrap_or(0);
    }
    counts.retain(|_, count| *count != 0);
}

fn counts(counts: &BTreeMap<String, i64>) -> Value {
    let counts = counts.iter().map(|(name, count)| (name.clone(), Value::from(*count)));
    Value::Object(counts.collect::<Map<_, _>>())
}

/// The totals at the last reset, from which the summary counts.
///
/// # Errors
/// When the database fails.
pub async fn base(store: &Store) -> Result<Totals, Error> {
    let kept = sqlx::query("SELECT value FROM settings WHERE name = 'summary_base'")
        .fetch_optional(&store.pool())
        .timed(store)
        .await?;
    let Some(kept) = kept else { return Ok(Totals::default()) };
    let kept: String = kept.try_get("value")?;
    serde_json::from_str(&kept).map_err(Error::invalid)
}

/// Lets the summary count from now.
///
/// # Errors
/// When the database fails.
pub async fn reset(store: &Store) -> Result<(), Error> {
    let totals = serde_json::to_string(&Totals::read(store).await?).map_err(Error::invalid)?;
    sqlx::query("INSERT INTO settings VALUES ('summary_base', $1) ON CONFLICT (name) DO UPDATE SET value = $1")
        .bind(totals)
        .execute(&store.pool())
        .timed(store)
        .await?;
    Ok(())
}
