//! Reports: sums by whatever groups are asked for, the original's summaries, and what had been used before this
//! process began. All read the rollups.

use super::record::CORRECTION;
use super::rollup::latency_of;
use super::{Store, Unavailable};
use policy::{NanoEuro, RecordedUsage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::BTreeMap;

/// What a report can be grouped by, and the column.
pub(crate) const GROUPS: [(&str, &str); 7] = [
    ("project", "project_id"),
    ("user", "user_id"),
    ("key", "key_id"),
    ("model", "model"),
    ("backend", "backend"),
    ("status", "status"),
    ("day", "day"),
];

/// Corrections have amounts, and are no requests.
const REQUESTS: &str = "CASE WHEN status = 'correction' THEN 0 ELSE requests END";

/// Which records a report is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// The first day, such as 2026-11-01.
    pub(crate) from: Option<String>,
    /// The last day, itself included.
    pub(crate) to: Option<String>,
    /// A column of the rollups, and its value.
    pub(crate) only: Option<(&'static str, String)>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// The values of the groups that were asked for, in their order.
    pub(crate) groups: Vec<String>,
    pub(crate) requests: i64,
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) cached_input_tokens: i64,
    pub(crate) cost_nano_eur: i64,
}

/// The figures of a line, as they are named.
pub(crate) const FIGURES: [&str; 6] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cost_eur",
];

impl Line {
    /// The figures, in the order of [`FIGURES`].
    pub(crate) fn figures(&self) -> [Value; 6] {
        [
            self.requests.into(),
            self.input_tokens.into(),
            self.output_tokens.into(),
            (self.input_tokens + self.output_tokens).into(),
            self.cached_input_tokens.into(),
            euros(self.cost_nano_eur).into(),
        ]
    }
}

/// Sums by columns of the rollups, which come from [`GROUPS`].
pub(crate) async fn lines(pool: &Store, columns: &[&'static str], filter: &Filter) -> Result<Vec<Line>, Unavailable> {
    let by = columns.join(", ");
    let (select, group) = if columns.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("{by}, "), format!("GROUP BY {by} ORDER BY {by}"))
    };
    let only = filter.only.as_ref();
    let only_column = only.map_or("''", |(column, _)| column);
    let sql = format!(
        "SELECT {select}CAST(coalesce(sum({REQUESTS}), 0) AS BIGINT) AS requests, CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input_tokens, \
         CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output_tokens, CAST(coalesce(sum(cached_input_tokens), 0) AS BIGINT) AS cached, \
         CAST(coalesce(sum(cost_nano_eur), 0) AS BIGINT) AS cost FROM rollups \
         WHERE day >= $1 AND day <= $2 AND {only_column} = $3 {group}"
    );
    let rows = sqlx::query(&sql)
        .bind(filter.from.as_deref().unwrap_or(""))
        .bind(filter.to.as_deref().unwrap_or("9999"))
        .bind(only.map_or("", |(_, value)| value))
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| line(row, columns).map_err(Unavailable::from))
        .collect()
}

fn line(row: &AnyRow, columns: &[&'static str]) -> Result<Line, sqlx::Error> {
    let groups = columns.iter().map(|column| row.try_get::<String, _>(*column));
    Ok(Line {
        groups: groups.collect::<Result<_, _>>()?,
        requests: row.try_get("requests")?,
        input_tokens: row.try_get("input_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        cached_input_tokens: row.try_get("cached")?,
        cost_nano_eur: row.try_get("cost")?,
    })
}

/// The original's summary of usage.
pub(crate) async fn summary(pool: &Store, filter: &Filter) -> Result<Value, Unavailable> {
    let total = lines(pool, &[], filter).await?;
    let Some(total) = total.first() else {
        return Ok(json!({}));
    };
    let mut summary = json!({
        "total_records": total.requests,
        "total_input_tokens": total.input_tokens,
        "total_output_tokens": total.output_tokens,
        "total_tokens": total.input_tokens + total.output_tokens,
        "total_estimated_cost_eur": euros(total.cost_nano_eur),
    });
    for (name, column) in GROUPS.iter().filter(|(name, _)| !matches!(*name, "key" | "day")) {
        let counts = lines(pool, &[column], filter).await?;
        let counts = counts
            .into_iter()
            .filter(|line| line.requests > 0)
            .map(|line| (line.groups.concat(), Value::from(line.requests)));
        summary[format!("records_by_{name}")] = Value::Object(counts.collect());
    }
    Ok(summary)
}

/// Everything that `/metrics/summary` counts, since ever.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
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
    pub(crate) async fn read(pool: &Store) -> Result<Self, Unavailable> {
        let mut totals = Self::default();
        let rows = sqlx::query(
            "SELECT status, decision, project_id, user_id, model, CAST(sum(requests) AS BIGINT) AS requests, \
             CAST(sum(input_tokens) AS BIGINT) AS input_tokens, CAST(sum(output_tokens) AS BIGINT) AS output_tokens, CAST(sum(cost_nano_eur) AS BIGINT) AS cost, \
             sum(latency_seconds) AS latency, sum(queue_wait_seconds) AS wait FROM rollups GROUP BY 1, 2, 3, 4, 5",
        )
        .fetch_all(pool)
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
            totals.input_tokens += row.try_get::<i64, _>("input_tokens")?;
            totals.output_tokens += row.try_get::<i64, _>("output_tokens")?;
            totals.cost_nano_eur += row.try_get::<i64, _>("cost")?;
            if row.try_get::<String, _>("status")? == "completed" {
                totals.latency_seconds += row.try_get::<f64, _>("latency")?;
            }
            totals.queue_wait_seconds += row.try_get::<f64, _>("wait")?;
        }
        let rows =
            sqlx::query("SELECT bucket, CAST(sum(requests) AS BIGINT) AS requests FROM latencies GROUP BY bucket");
        for row in rows.fetch_all(pool).await? {
            totals
                .latencies
                .insert(row.try_get("bucket")?, row.try_get("requests")?);
        }
        Ok(totals)
    }

    /// What has come since `base`.
    pub(crate) fn since(mut self, base: &Self) -> Self {
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
        self.input_tokens -= base.input_tokens;
        self.output_tokens -= base.output_tokens;
        self.cost_nano_eur -= base.cost_nano_eur;
        self.latency_seconds -= base.latency_seconds;
        self.queue_wait_seconds -= base.queue_wait_seconds;
        self
    }

    /// The original's fields.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn summary(&self) -> Value {
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

/// What the summary counts from: the totals at the last reset.
pub(crate) async fn base(pool: &Store) -> Result<Totals, Unavailable> {
    let kept = sqlx::query("SELECT value FROM settings WHERE name = 'summary_base'")
        .fetch_optional(pool)
        .await?;
    let Some(kept) = kept else { return Ok(Totals::default()) };
    let kept: String = kept.try_get("value")?;
    serde_json::from_str(&kept).map_err(|error| Unavailable(error.to_string()))
}

/// Lets the summary count from now.
pub(crate) async fn reset(pool: &Store) -> Result<(), Unavailable> {
    let totals = serde_json::to_string(&Totals::read(pool).await?).map_err(|error| Unavailable(error.to_string()))?;
    sqlx::query("INSERT INTO settings VALUES ('summary_base', $1) ON CONFLICT (name) DO UPDATE SET value = $1")
        .bind(totals)
        .execute(pool)
        .await?;
    Ok(())
}

/// What a project, user or key had used from a day on.
pub(crate) async fn used_since(
    pool: &Store,
    column: &'static str,
    day: &str,
) -> Result<Vec<(String, RecordedUsage)>, Unavailable> {
    let sql = format!(
        "SELECT {column} AS id, CAST(sum(input_tokens + output_tokens) AS BIGINT) AS tokens, CAST(sum(cost_nano_eur) AS BIGINT) AS cost, \
         CAST(sum(CASE WHEN decision IN ('rejected', 'correction') THEN 0 ELSE requests END) AS BIGINT) AS requests FROM rollups \
         WHERE day >= $1 GROUP BY 1"
    );
    let rows = sqlx::query(&sql).bind(day).fetch_all(pool).await?;
    let whole = |row: &AnyRow, name: &str| -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0))
    };
    let read = |row: &AnyRow| -> Result<(String, RecordedUsage), sqlx::Error> {
        let usage = RecordedUsage {
            tokens: whole(row, "tokens")?,
            requests: whole(row, "requests")?,
            cost: NanoEuro(whole(row, "cost")?),
        };
        Ok((row.try_get("id")?, usage))
    };
    rows.iter().map(|row| read(row).map_err(Unavailable::from)).collect()
}

/// Euros, for people and JSON only.
#[allow(clippy::cast_precision_loss)]
fn euros(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
