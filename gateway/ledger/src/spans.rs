//! Sums of records over minutes, hours and days, for plots and comparisons of the last minutes to months. They are kept in
//! the transaction that writes the records, and reading them costs no scan of records.

use crate::error::Error;
use crate::rollup::{clamped, parameters};
use crate::row::{CORRECTION, Row};
use crate::store::{Store, Timed};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, HashMap};

/// The length of a span of time that has a sum of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanLength {
    /// Kept for a day.
    Minute,
    /// Kept for eight days.
    Hour,
    /// UTC days; they stay.
    Day,
}

impl SpanLength {
    pub(crate) const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// In seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }

    /// Its retention in seconds; `None`: for ever.
    pub(crate) const fn kept(self) -> Option<i64> {
        match self {
            Self::Minute => Some(86_400),
            Self::Hour => Some(8 * 86_400),
            Self::Day => None,
        }
    }
}

/// What sums may be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanGroup {
    /// The project.
    Project,
    /// The model that was used.
    Model,
    /// The server's address.
    Upstream,
    /// The outcome.
    Status,
    /// The error's code.
    Reason,
}

impl SpanGroup {
    const fn column(self) -> &'static str {
        match self {
            Self::Project => "project_id",
            Self::Model => "model",
            Self::Upstream => "upstream",
            Self::Status => "status",
            Self::Reason => "reason",
        }
    }
}

/// The texts that tell spans of one time apart, in the order of [`Key::texts`].
const TEXTS: [&str; 5] = ["project_id", "model", "upstream", "status", "reason"];

/// Latencies of completed requests are counted in so many buckets.
const BUCKETS: usize = 20;

/// The upper bound of the first bucket, in seconds.
const FIRST_BOUND: f64 = 0.01;

/// Each bucket's bound is so many times the one before.
const GROWTH: f64 = 1.75;

/// The summed columns of whole numbers before those of the buckets, in the order of [`Sums::counts`].
const COUNTS: [&str; 8] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_nano_eur",
    "first_tokens",
    "objectives",
    "objectives_met",
];

/// The summed columns of seconds, in the order of [`Sums::seconds`].
const SECONDS: [&str; 3] = ["latency_seconds", "queue_wait_seconds", "first_token_seconds"];

/// The number of columns of `spans`.
const COLUMNS: usize = 2 + TEXTS.len() + COUNTS.len() + BUCKETS + SECONDS.len();

/// The key of a sum, in the order of the table's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) length: i64,
    pub(crate) begins: i64,
    pub(crate) texts: [String; TEXTS.len()],
}

/// The sums of a span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) counts: [i64; COUNTS.len() + BUCKETS],
    pub(crate) seconds: [f64; SECONDS.len()],
}

/// The sums of some records, by minute and texts.
#[derive(Debug, Default)]
pub(crate) struct Spans<'a>(HashMap<(i64, [&'a str; TEXTS.len()]), Sums>);

impl<'a> Spans<'a> {
    pub(crate) fn add(&mut self, row: &'a Row<'_>) {
        let began = row
            .created_at
            .parse()
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .as_second();
        let texts = [
            &*row.project_id,
            &*row.model,
            row.upstream.as_deref().unwrap_or_default(),
            &*row.status,
            row.reason.as_deref().unwrap_or_default(),
        ];
        let minute = began.div_euclid(SpanLength::Minute.seconds());
        self.0.entry((minute, texts)).or_default().add(row);
    }

    /// The sums of all lengths, in the order of their keys.
    pub(crate) fn of_all_lengths(&self) -> BTreeMap<Key, Sums> {
        let mut all: BTreeMap<Key, Sums> = BTreeMap::new();
        for ((minute, texts), sums) in &self.0 {
            let began = minute * SpanLength::Minute.seconds();
            for length in SpanLength::ALL.map(SpanLength::seconds) {
                let key = Key {
                    length,
                    begins: began.div_euclid(length) * length,
                    // PostgreSQL's text has no NUL.
                    texts: texts.map(|text| text.replace('\0', "")),
                };
                all.entry(key).or_default().join(sums);
            }
        }
        all
    }
}

impl Sums {
    fn add(&mut self, row: &Row<'_>) {
        let is_correction = row.status == CORRECTION;
        let counts = [
            i64::from(!is_correction),
            row.input_tokens,
            row.output_tokens,
            row.cached_input_tokens,
            row.cost_nano_eur,
            i64::from(row.first_token_seconds.is_some()),
            row.objectives.unwrap_or_default(),
            row.objectives_met.unwrap_or_default(),
        ];
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
        if row.status == "completed" {
            self.counts[COUNTS.len() + bucket(row.latency_seconds)] += 1;
        }
        let seconds = [
            row.latency_seconds,
            row.queue_wait_seconds,
            row.first_token_seconds.unwrap_or_default(),
        ];
        for (sum, seconds) in self.seconds.iter_mut().zip(seconds) {
            *sum += seconds;
        }
    }
}

impl Sums {
    fn join(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(count);
        }
        for (sum, seconds) in self.seconds.iter_mut().zip(other.seconds) {
            *sum += seconds;
        }
    }
}

fn count_columns() -> impl Iterator<Item = String> {
    let counts = COUNTS.into_iter().map(str::to_owned);
    counts.chain((0..BUCKETS).map(|bucket| format!("l_{bucket}")))
}

/// Adds sums to those in the table. `source` gives rows of all columns, no key twice. Both databases understand it.
fn add_to_spans(source: &str) -> String {
    let keys: Vec<String> = ["length", "begins"]
        .into_iter()
        .chain(TEXTS)
        .map(str::to_owned)
        .collect();
    let seconds = SECONDS.map(str::to_owned);
    let counted = count_columns().map(|column| {
        let sum = format!("spans.{column} + excluded.{column}");
        format!("{column} = {}", clamped(&sum))
    });
    let timed = SECONDS.map(|column| format!("{column} = spans.{column} + excluded.{column}"));
    let updates: Vec<String> = counted.chain(timed).collect();
    let columns: Vec<String> = keys.iter().cloned().chain(count_columns()).chain(seconds).collect();
    format!(
        "INSERT INTO spans ({}) {source} ON CONFLICT ({}) DO UPDATE SET {}",
        columns.join(", "),
        keys.join(", "),
        updates.join(", ")
    )
}

/// The statement that adds one row of parameters.
pub(crate) fn add_one() -> String {
    add_to_spans(&format!("VALUES ({})", parameters(COLUMNS)))
}

/// The statement that adds rows of parameters that are arrays, one a column.
pub(crate) fn add_arrays() -> String {
    add_to_spans(&format!("SELECT * FROM unnest({})", parameters(COLUMNS)))
}

/// The statement that deletes the spans of a length that began before a time.
pub(crate) const DELETE_OLD: &str = "DELETE FROM spans WHERE length = $1 AND begins < $2";

/// The lengths whose spans are deleted, and the time before which they are, for a time in seconds since 1970.
pub(crate) fn old(now: i64) -> impl Iterator<Item = (i64, i64)> {
    let lengths = SpanLength::ALL.into_iter();
    lengths.filter_map(move |length| Some((length.seconds(), now - length.kept()?)))
}

/// The bucket that a latency falls into.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn bucket(seconds: f64) -> usize {
    let number = (seconds / FIRST_BOUND).max(1e-9).log(GROWTH).ceil();
    (number.max(0.0) as usize).min(BUCKETS - 1)
}

/// Which sums are wanted: those of spans that begin from `from` on and before `before`, in seconds since 1970.
#[derive(Debug, Clone)]
pub struct SpanQuery<'a> {
    /// The length of the spans that are read.
    pub length: SpanLength,
    /// The first moment.
    pub from: i64,
    /// The moment after the last.
    pub before: i64,
    /// The only project whose requests count.
    pub project: Option<&'a str>,
}

/// Sums of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanSums {
    /// The beginning of the span in seconds since 1970; 0 where sums are of the whole time.
    pub begins: i64,
    /// The values of what was grouped by.
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
    /// Requests with a first token.
    pub first_tokens: i64,
    /// Objectives of requests.
    pub objectives: i64,
    /// Those of them that were met.
    pub objectives_met: i64,
    /// Completed requests by latency.
    pub latencies: [i64; BUCKETS],
    /// Of all requests together.
    pub latency_seconds: f64,
    /// Of all requests together.
    pub queue_wait_seconds: f64,
    /// Of all requests with a first token together.
    pub first_token_seconds: f64,
}

impl SpanSums {
    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.cost_nano_eur += other.cost_nano_eur;
        self.first_tokens += other.first_tokens;
        self.objectives += other.objectives;
        self.objectives_met += other.objectives_met;
        for (sum, count) in self.latencies.iter_mut().zip(other.latencies) {
            *sum += count;
        }
        self.latency_seconds += other.latency_seconds;
        self.queue_wait_seconds += other.queue_wait_seconds;
        self.first_token_seconds += other.first_token_seconds;
    }

    /// A quantile of the completed requests' latencies in seconds, within a bucket by a curve of constant growth.
    #[allow(clippy::cast_precision_loss)]
    pub fn latency(&self, part: f64) -> Option<f64> {
        let all: i64 = self.latencies.iter().sum();
        if all == 0 {
            return None;
        }
        let rank = part * all as f64;
        let mut below = 0.0;
        let mut bound = FIRST_BOUND;
        for count in self.latencies.map(|count| count as f64) {
            if count > 0.0 && below + count >= rank {
                let share = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(bound * GROWTH.powf(share - 1.0));
            }
            below += count;
            bound *= GROWTH;
        }
        None
    }

    /// The mean time to the first token, in seconds.
    #[allow(clippy::cast_precision_loss)]
    pub fn mean_first_token(&self) -> Option<f64> {
        (self.first_tokens > 0).then(|| self.first_token_seconds / self.first_tokens as f64)
    }
}

/// Sums of the spans of a time by groups; with `each` a sum for every span, otherwise one for the whole time.
///
/// # Errors
/// When the database fails.
pub async fn sums(store: &Store, query: &SpanQuery<'_>, by: &[SpanGroup], each: bool) -> Result<Vec<SpanSums>, Error> {
    let groups: Vec<&str> = by.iter().map(|group| group.column()).collect();
    let names: Vec<&str> = each
        .then_some("begins")
        .into_iter()
        .chain(groups.iter().copied())
        .collect();
    let summed = count_columns().map(|column| format!("CAST(coalesce(sum({column}), 0) AS BIGINT) AS {column}"));
    let timed = SECONDS.map(|column| format!("coalesce(sum({column}), 0.0) AS {column}"));
    let columns: Vec<String> = names
        .iter()
        .map(|name| (*name).to_owned())
        .chain(summed)
        .chain(timed)
        .collect();
    let grouped = if names.is_empty() {
        String::new()
    } else {
        format!("GROUP BY {0} ORDER BY {0}", names.join(", "))
    };
    let sql = format!(
        "SELECT {} FROM spans WHERE length = $1 AND begins >= $2 AND begins < $3 AND project_id = COALESCE($4, project_id) \
         {grouped}",
        columns.join(", ")
    );
    let rows = sqlx::query(&sql)
        .bind(query.length.seconds())
        .bind(query.from)
        .bind(query.before)
        .bind(query.project)
        .fetch_all(&store.pool())
        .timed(store)
        .await?;
    rows.iter().map(|row| Ok(read(row, &groups, each)?)).collect()
}

fn read(row: &AnyRow, groups: &[&str], each: bool) -> Result<SpanSums, sqlx::Error> {
    let mut latencies = [0; BUCKETS];
    for (number, count) in latencies.iter_mut().enumerate() {
        *count = row.try_get(format!("l_{number}").as_str())?;
    }
    let groups = groups.iter().map(|group| row.try_get::<String, _>(*group));
    Ok(SpanSums {
        begins: if each { row.try_get("begins")? } else { 0 },
        groups: groups.collect::<Result<_, _>>()?,
        requests: row.try_get("requests")?,
        input_tokens: row.try_get("input_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        cached_input_tokens: row.try_get("cached_input_tokens")?,
        cost_nano_eur: row.try_get("cost_nano_eur")?,
        first_tokens: row.try_get("first_tokens")?,
        objectives: row.try_get("objectives")?,
        objectives_met: row.try_get("objectives_met")?,
        latencies,
        latency_seconds: row.try_get("latency_seconds")?,
        queue_wait_seconds: row.try_get("queue_wait_seconds")?,
        first_token_seconds: row.try_get("first_token_seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let mut sums = SpanSums::default();
        assert_eq!(sums.latency(0.5), None);
        for latency in [0.001, 0.02, 0.02, 0.02, 3.0, 100_000.0] {
            sums.latencies[bucket(latency)] += 1;
        }
        let median = sums.latency(0.5).expect("some");
        assert!((0.0175..=0.030_625).contains(&median), "{median}");
        assert!(sums.latency(0.0).expect("some") <= FIRST_BOUND);
        assert!(sums.latency(1.0).expect("some") > 100.0);
        let bounds = [0.01, 0.0174, 0.0176];
        assert_eq!(bounds.map(bucket), [0, 1, 2]);
    }
}
