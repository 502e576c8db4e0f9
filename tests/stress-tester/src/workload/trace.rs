//! Traces: when requests came and how long they were, in the formats that are published.
//!
//! - Azure LLM inference traces of 2023 and 2024: CSV with `TIMESTAMP, ContextTokens, GeneratedTokens`.
//! - BurstGPT: CSV with `Timestamp, …, Request tokens, Response tokens, …`; a response of 0 tokens is a failure, left
//!   out.
//! - Mooncake: JSON lines with `timestamp` in ms, `input_length`, `output_length`, `hash_ids`.
//!
//! Any other CSV has time, prompt tokens and answer tokens in its first three columns.

use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceRow {
    /// Since the first request of the trace.
    pub(crate) at: Duration,
    pub(crate) input_tokens: usize,
    pub(crate) output_tokens: u64,
    /// The prompt's blocks; equal ids are equal blocks. Empty if the trace has none.
    pub(crate) hash_ids: Arc<[u64]>,
}

/// The limit of the part of a trace that is read: until either is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// On the trace's own clock.
    pub(crate) lasts: Option<Duration>,
    pub(crate) rows: Option<usize>,
}

/// Opens a file; one that ends in .gz is unpacked as it is read.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if path.extension().is_some_and(|ending| ending == "gz") {
        Ok(Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(BufReader::new(file)))
    }
}

/// Reads a trace, and sorts it by time.
///
/// # Errors
/// A file that cannot be read or is empty, or a line that is no request, with its number.
pub(crate) fn read(path: &Path, limit: Limit) -> Result<Vec<TraceRow>, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    let mut input = open(path)?;
    let first = input.fill_buf().map_err(|error| in_file(error.to_string()))?;
    let is_json = first.trim_ascii_start().first() == Some(&b'{');
    let mut rows = Rows {
        limit,
        first: f64::INFINITY,
        rows: Vec::new(),
    };
    if is_json {
        rows.read_json(input)
    } else {
        rows.read_csv(input)
    }
    .map_err(in_file)?;
    let first = rows.first;
    if rows.rows.is_empty() {
        return Err(in_file("there are no requests in it".to_owned()));
    }
    rows.rows.sort_by(|one, other| one.0.total_cmp(&other.0));
    let seconds = |at: f64| Duration::try_from_secs_f64(at - first).unwrap_or_default();
    Ok(rows
        .rows
        .into_iter()
        .map(|(at, row)| TraceRow { at: seconds(at), ..row })
        .collect())
}

struct Rows {
    limit: Limit,
    /// Time of the first row.
    first: f64,
    rows: Vec<(f64, TraceRow)>,
}

#[derive(Deserialize)]
struct JsonRow {
    timestamp: f64,
    input_length: usize,
    output_length: u64,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

impl Rows {
    /// Takes a row; false when there are enough.
    fn add(&mut self, at: f64, input_tokens: usize, output_tokens: u64, hash_ids: Vec<u64>) -> bool {
        self.first = self.first.min(at);
        let is_late = self
            .limit
            .lasts
            .is_some_and(|lasts| at - self.first >= lasts.as_secs_f64());
        let is_enough = self.limit.rows.is_some_and(|rows| self.rows.len() >= rows);
        if is_late || is_enough {
            return false;
        }
        let row = TraceRow {
            at: Duration::ZERO,
            input_tokens: input_tokens.max(1),
            output_tokens: output_tokens.max(1),
            hash_ids: hash_ids.into(),
        };
        self.rows.push((at, row));
        true
    }

    fn read_json(&mut self, input: impl BufRead) -> Result<(), String> {
        for (line, number) in input.lines().zip(1..) {
            let line = line.map_err(|error| error.to_string())?;
            if line.trim().is_empty() {
                continue;
            }
            let row: JsonRow = serde_json::from_str(&line).map_err(|error| format!("line {number}: {error}"))?;
            if !self.add(
                row.timestamp / 1000.0,
                row.input_length,
                row.output_length,
                row.hash_ids,
            ) {
                break;
            }
        }
        Ok(())
    }

    fn read_csv(&mut self, input: impl Read) -> Result<(), String> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(input);
        let columns = Columns::find(reader.headers().map_err(|error| error.to_string())?);
        for (row, number) in reader.records().zip(2..) {
            let row = row.map_err(|error| format!("line {number}: {error}"))?;
            let field = |at: usize, what: &str| {
                row.get(at)
                    .ok_or_else(|| format!("line {number}: there is no column {} for {what}", at + 1))
            };
            let tokens = |text: &str| {
                let number_of = text.parse::<f64>().ok().filter(|tokens| (0.0..1e9).contains(tokens));
                number_of.ok_or_else(|| format!("line {number}: `{text}` is no number of tokens"))
            };
            let time = field(columns.time, "the time")?;
            let at = seconds(time).ok_or_else(|| format!("line {number}: `{time}` is no time"))?;
            let input_tokens = tokens(field(columns.input, "prompt tokens")?)?;
            let output_tokens = tokens(field(columns.output, "answer tokens")?)?;
            if columns.skips_failures && output_tokens == 0.0 {
                continue;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            if !self.add(at, input_tokens as usize, output_tokens as u64, Vec::new()) {
                break;
            }
        }
        Ok(())
    }
}

/// Where a CSV has what.
struct Columns {
    time: usize,
    input: usize,
    output: usize,
    /// 0 tokens of answer mean that the request failed.
    skips_failures: bool,
}

impl Columns {
    fn find(head: &csv::StringRecord) -> Self {
        let names: Vec<String> = head
            .iter()
            .map(|name| {
                name.chars()
                    .filter(char::is_ascii_alphanumeric)
                    .collect::<String>()
                    .to_ascii_lowercase()
            })
            .collect();
        let at = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        let failures = at(&["responsetokens"]);
        Self {
            time: at(&["timestamp", "arrivaltimestamp", "arrivaltime", "time"]).unwrap_or(0),
            input: at(&[
                "contexttokens",
                "requesttokens",
                "prompttokens",
                "inputtokens",
                "inputlength",
            ])
            .unwrap_or(1),
            output: failures
                .or_else(|| at(&["generatedtokens", "outputtokens", "completiontokens", "outputlength"]))
                .unwrap_or(2),
            skips_failures: failures.is_some(),
        }
    }
}

/// Seconds of a time: a number, or a date and time with or without an offset.
#[allow(clippy::cast_precision_loss)]
fn seconds(time: &str) -> Option<f64> {
    if let Ok(seconds) = time.parse::<f64>() {
        return Some(seconds).filter(|seconds| seconds.is_finite());
    }
    let moment = time.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = time.parse().ok()?;
        Some(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(moment.as_nanosecond() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds, tokens of prompt and answer, hash ids.
    type Fields = (u128, usize, u64, Vec<u64>);

    fn rows(text: &str, limit: Limit) -> Result<Vec<Fields>, String> {
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("trace");
        std::fs::write(&file, text).expect("writable");
        let rows = read(&file, limit)?.into_iter();
        Ok(rows
            .map(|row| {
                (
                    row.at.as_millis(),
                    row.input_tokens,
                    row.output_tokens,
                    row.hash_ids.to_vec(),
                )
            })
            .collect())
    }

    const ALL: Limit = Limit {
        lasts: None,
        rows: None,
    };

    /// First lines of the published files.
    #[test]
    fn every_published_format_is_read() {
        let azure_2023 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n\
                          2023-11-16 18:17:04.0319600,3180,8\n";
        assert_eq!(
            rows(azure_2023, ALL),
            Ok(vec![(0, 4808, 10, vec![]), (52, 3180, 8, vec![])])
        );
        let azure_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n\
                          2024-05-10 00:00:00.017335+00:00,2399,6\n";
        assert_eq!(
            rows(azure_2024, ALL),
            Ok(vec![(0, 2162, 5, vec![]), (7, 2399, 6, vec![])])
        );
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n\
                     45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,Conversation log\n";
        assert_eq!(
            rows(burst, ALL),
            Ok(vec![(0, 472, 18, vec![]), (113_000, 417, 276, vec![])])
        );
        let mooncake = "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1, 2]}\n\
                        {\"timestamp\": 3000, \"input_length\": 7322, \"output_length\": 490, \"hash_ids\": [0, 14]}\n";
        assert_eq!(
            rows(mooncake, ALL),
            Ok(vec![(0, 6758, 500, vec![0, 1, 2]), (3000, 7322, 490, vec![0, 14])])
        );
    }

    #[test]
    fn a_trace_is_read_up_to_its_limit_and_an_invalid_line_is_named() {
        let text = "at,in,out\n10,1,1\n11,2,2\n12.5,3,3\n";
        let count = |limit| rows(text, limit).map(|rows| rows.len());
        assert_eq!(
            count(Limit {
                lasts: Some(Duration::from_secs(2)),
                rows: None
            }),
            Ok(2)
        );
        assert_eq!(
            count(Limit {
                lasts: None,
                rows: Some(1)
            }),
            Ok(1)
        );
        assert!(rows("at,in,out\n10,1,1\n11,x,2\n", ALL).is_err_and(|why| why.contains("line 3: `x`")));
        assert!(
            rows("at,in,out\n10,1\n", ALL).is_err_and(|why| why.contains("line 2") && why.contains("answer tokens"))
        );
        assert!(rows("at,in,out\n", ALL).is_err_and(|why| why.contains("no requests")));
    }
}
