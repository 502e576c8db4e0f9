//! Reports: sums by whatever dimensions are asked for, the original's summary, and the usage that was recorded before
//! this process began. All read the rollups.

use crate::error::Error;
use crate::rollup::COUNT_COLUMNS;
use crate::row::CORRECTION;
use crate::store::{Store, Timed};
use policy::{NanoEuro, RecordedUsage};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::str::FromStr;

/// A dimension by which a report is grouped or filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// The project.
    Project,
    /// The user.
    User,
    /// The API key.
    Key,
    /// The model that was used.
    Model,
    /// The kind of server.
    Backend,
    /// The outcome of requests.
    Status,
    /// The UTC day on which requests began.
    Day,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Dimension; 7] = [
        Self::Project,
        Self::User,
        Self::Key,
        Self::Model,
        Self::Backend,
        Self::Status,
        Self::Day,
    ];

    /// The name in queries and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::User => "user",
            Self::Key => "key",
            Self::Model => "model",
            Self::Backend => "backend",
            Self::Status => "status",
            Self::Day => "day",
        }
    }

    /// The column of the rollups.
    const fn column(self) -> &'static str {
        match self {
            Self::Project => "project_id",
            Self::User => "user_id",
            Self::Key => "key_id",
            Self::Model | Self::Backend | Self::Status | Self::Day => self.name(),
        }
    }
}

impl FromStr for Dimension {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|dimension| dimension.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Invalid(format!("unknown dimension {name:?}; there are {known}"))
        })
    }
}

/// Corrections have amounts, and are no requests.
const REQUESTS: &str = "CASE WHEN status = 'correction' THEN 0 ELSE requests END";

/// Which records a report is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The first day, such as 2026-11-01.
    pub from: Option<String>,
    /// The last day, itself included.
    pub to: Option<String>,
    /// The one value of a dimension that is reported.
    pub only: Option<(Dimension, String)>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The values of the dimensions that were asked for, in their order.
    pub groups: Vec<String>,
    /// Requests.
    pub requests: i64,
    /// Tokens of prompts.
    pub input_tokens: i64,
    /// Tokens of answers.
    pub output_tokens: i64,
    /// Tokens of prompts that servers had cached.
    pub cached_input_tokens: i64,
    /// Nano-euros.
    pub cost_nano_eur: i64,
    /// Objectives of requests.
    pub objectives: i64,
    /// Those of them that were met.
    pub objectives_met: i64,
}

/// The names of a line's figures.
pub const FIGURES: [&str; 8] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cost_eur",
    "objectives",
    "objectives_met",
];

impl Line {
    /// The figures, in the order of [`FIGURES`].
    pub fn figures(&self) -> [Value; 8] {
        [
            self.requests.into(),
            self.input_tokens.into(),
            self.output_tokens.into(),
            self.input_tokens.saturating_add(self.output_tokens).into(),
            self.cached_input_tokens.into(),
            euros(self.cost_nano_eur).into(),
            self.objectives.into(),
            self.objectives_met.into(),
        ]
    }
}

/// Sums by dimensions; a sum that corrections have made negative is 0.
///
/// # Errors
/// When the database fails.
pub async fn lines(store: &Store, by: &[Dimension], filter: &Filter) -> Result<Vec<Line>, Error> {
    let columns: Vec<&str> = by.iter().map(|dimension| dimension.column()).collect();
    let names = columns.join(", ");
    let (select, group) = if columns.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("{names}, "), format!("GROUP BY {names} ORDER BY {names}"))
    };
    let sums = COUNT_COLUMNS.map(|column| {
        let summed = if column == "requests" { REQUESTS } else { column };
        format!("CAST(coalesce(sum({summed}), 0) AS BIGINT) AS {column}")
    });
    let only = filter.only.as_ref();
    let only_column = only.map_or("''", |(dimension, _)| dimension.column());
    let sql = format!(
        "SELECT {select}{} FROM rollups WHERE day >= $1 AND day <= $2 AND {only_column} = $3 {group}",
        sums.join(", ")
    );
    let rows = sqlx::query(&sql)
        .bind(filter.from.as_deref().unwrap_or(""))
        .bind(filter.to.as_deref().unwrap_or("9999"))
        .bind(only.map_or("", |(_, value)| value))
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    rows.iter().map(|row| line(row, &columns)).collect()
}

fn line(row: &AnyRow, columns: &[&str]) -> Result<Line, Error> {
    let groups = columns.iter().map(|column| row.try_get::<String, _>(*column));
    Ok(Line {
        groups: groups.collect::<Result<_, _>>()?,
        requests: row.try_get("requests")?,
        input_tokens: row.try_get::<i64, _>("input_tokens")?.max(0),
        output_tokens: row.try_get::<i64, _>("output_tokens")?.max(0),
        cached_input_tokens: row.try_get::<i64, _>("cached_input_tokens")?.max(0),
        cost_nano_eur: row.try_get::<i64, _>("cost_nano_eur")?.max(0),
        objectives: row.try_get("objectives")?,
        objectives_met: row.try_get("objectives_met")?,
    })
}

/// The original's summary of usage.
///
/// # Errors
/// When the database fails.
pub async fn summary(store: &Store, filter: &Filter) -> Result<Value, Error> {
    let total = lines(store, &[], filter).await?;
    let Some(total) = total.first() else {
        return Ok(json!({}));
    };
    let mut summary = json!({
        "total_records": total.requests,
        "total_input_tokens": total.input_tokens,
        "total_output_tokens": total.output_tokens,
        "total_tokens": total.input_tokens.saturating_add(total.output_tokens),
        "total_estimated_cost_eur": euros(total.cost_nano_eur),
    });
    for dimension in Dimension::ALL {
        if matches!(dimension, Dimension::Key | Dimension::Day) {
            continue;
        }
        let counts = lines(store, &[dimension], filter).await?;
        let counts = counts
            .into_iter()
            .filter(|line| line.requests > 0)
            .map(|line| (line.groups.concat(), Value::from(line.requests)));
        summary[format!("records_by_{}", dimension.name())] = Value::Object(counts.collect());
    }
    Ok(summary)
}

/// The usage of every project, user or key from a day on, as quotas count it.
///
/// # Errors
/// When the database fails.
pub async fn used_between(
    store: &Store,
    by: Dimension,
    days: (&str, &str),
) -> Result<Vec<(String, RecordedUsage)>, Error> {
    let sql = format!(
        "SELECT {} AS id, {} FROM rollups WHERE day >= $1 AND day < $2 GROUP BY 1",
        by.column(),
        used_columns()
    );
    let rows = sqlx::query(&sql)
        .bind(days.0)
        .bind(days.1)
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    let read = |row: &AnyRow| Ok((row.try_get("id")?, used(row)?));
    rows.iter().map(read).collect()
}

/// The usage of every project, user or key in each day, or each month, from a day on: the first so many characters of its
/// dates, an id, and the sum.
///
/// # Errors
/// When the database fails.
pub async fn used_in_each_from(
    store: &Store,
    by: Dimension,
    day: &str,
    characters: usize,
) -> Result<Vec<(String, String, RecordedUsage)>, Error> {
    let sql = format!(
        "SELECT substr(day, 1, {characters}) AS dates, {} AS id, {} FROM rollups WHERE day >= $1 GROUP BY 1, 2",
        by.column(),
        used_columns()
    );
    let rows = sqlx::query(&sql)
        .bind(day)
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    let read = |row: &AnyRow| Ok((row.try_get("dates")?, row.try_get("id")?, used(row)?));
    rows.iter().map(read).collect()
}

/// The sums that quotas count.
fn used_columns() -> String {
    format!(
        "CAST(sum(input_tokens + output_tokens) AS BIGINT) AS tokens, \
         CAST(sum(cost_nano_eur) AS BIGINT) AS cost, \
         CAST(sum(CASE WHEN decision IN ('rejected', '{CORRECTION}') THEN 0 ELSE requests END) AS BIGINT) AS requests"
    )
}

/// The sums of a row. One that corrections have made negative is 0.
fn used(row: &AnyRow) -> Result<RecordedUsage, sqlx::Error> {
    let sum = |name: &str| -> Result<u64, sqlx::Error> { Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0)) };
    Ok(RecordedUsage {
        tokens: sum("tokens")?,
        requests: sum("requests")?,
        cost: NanoEuro(sum("cost")?),
    })
}

/// Euros, for people and JSON only.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn euros(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
