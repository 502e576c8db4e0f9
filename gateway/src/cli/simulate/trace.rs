//! Traces of requests: Azure's CSV, Mooncake's JSON lines, and the ledger's export in either form.

use serde_json::{Map, Value};
use std::time::Duration;

/// A request of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Item {
    /// Since 1970, or since the beginning of a trace that has no dates.
    pub(super) at: Duration,
    pub(super) input_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    /// Hashes of the prompt's pieces of [`PIECE`] tokens, each of all up to its end.
    pub(super) prefix: Vec<u64>,
    /// What the ledger knows beside it.
    pub(super) recorded: Option<Recorded>,
}

/// What the ledger's record of a request says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recorded {
    pub(super) user: String,
    pub(super) model: String,
    pub(super) is_batch: bool,
    pub(super) priority: String,
    pub(super) reserved_output: u64,
    /// From its slot to its end, and to its first token.
    pub(super) held: Duration,
    pub(super) first_token: Duration,
}

/// Tokens of one of Mooncake's hashes.
pub(super) const PIECE: u64 = 512;

/// Reads a trace, its requests in the order in which they come.
///
/// # Errors
/// What is wrong with which line.
pub(super) fn read(text: &str) -> Result<Vec<Item>, String> {
    let is_json = text.trim_start().starts_with('{');
    let mut items = if is_json { json_lines(text)? } else { table(text)? };
    items.sort_by_key(|item| item.at);
    if items.is_empty() {
        return Err("it has no requests".to_owned());
    }
    Ok(items)
}

fn json_lines(text: &str) -> Result<Vec<Item>, String> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let items = lines.map(|(line, number)| {
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("line {number} is no JSON object: {error}"))?;
        item(&|name| object.get(name).filter(|value| !value.is_null()).cloned())
            .map_err(|why| format!("line {number}: {why}"))
    });
    items.filter_map(Result::transpose).collect()
}

fn table(text: &str) -> Result<Vec<Item>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let head = reader.headers().map_err(|error| error.to_string())?.clone();
    let items = reader.records().zip(2..).map(|(row, number)| {
        let row = row.map_err(|error| format!("line {number}: {error}"))?;
        let field = |name: &str| {
            let at = head.iter().position(|field| field == name)?;
            row.get(at).filter(|text| !text.is_empty()).map(Value::from)
        };
        item(&field).map_err(|why| format!("line {number}: {why}"))
    });
    items.filter_map(Result::transpose).collect()
}

/// The request of a line; `None` for a record that no server was asked for.
fn item(field: &dyn Fn(&str) -> Option<Value>) -> Result<Option<Item>, String> {
    if field("request_id").is_some() {
        return record(field);
    }
    if let Some(millis) = field("timestamp") {
        let seconds = number(&millis).unwrap_or(f64::NAN) / 1000.0;
        let hashes = field("hash_ids").unwrap_or_default();
        let hashes = hashes.as_array().map_or(&[][..], Vec::as_slice);
        return Ok(Some(Item {
            at: time(seconds)?,
            input_tokens: count(field, "input_length")?,
            output_tokens: count(field, "output_length")?,
            prefix: hashes.iter().filter_map(Value::as_u64).collect(),
            ..Item::default()
        }));
    }
    let Some(moment) = field("TIMESTAMP") else {
        return Err(
            "neither Azure's columns (TIMESTAMP, ContextTokens, GeneratedTokens), nor Mooncake's fields (timestamp, \
             input_length, output_length), nor a record of `sluice ledger export`"
                .to_owned(),
        );
    };
    Ok(Some(Item {
        at: date(&moment)?,
        input_tokens: count(field, "ContextTokens")?,
        output_tokens: count(field, "GeneratedTokens")?,
        ..Item::default()
    }))
}

fn record(field: &dyn Fn(&str) -> Option<Value>) -> Result<Option<Item>, String> {
    let text = |name: &str| field(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    if text("status").as_deref() != Some("completed") {
        return Ok(None);
    }
    let seconds = |name: &str| field(name).as_ref().and_then(number).unwrap_or_default();
    let since_slot = |name: &str| {
        let held = seconds(name) - seconds("queue_wait_seconds");
        Duration::try_from_secs_f64(held.max(0.0)).unwrap_or_default()
    };
    let input_tokens = count(field, "input_tokens")?;
    Ok(Some(Item {
        at: date(&field("created_at").unwrap_or_default())?,
        input_tokens,
        cached_tokens: count(field, "cached_input_tokens")?.min(input_tokens),
        output_tokens: count(field, "output_tokens")?,
        prefix: Vec::new(),
        recorded: Some(Recorded {
            user: text("user_id").unwrap_or_default(),
            model: text("model").unwrap_or_default(),
            is_batch: text("request_type").as_deref() == Some("batch"),
            priority: text("priority").unwrap_or_default(),
            reserved_output: count(field, "output_tokens_reserved")?,
            held: since_slot("latency_seconds"),
            first_token: since_slot("first_token_seconds").min(since_slot("latency_seconds")),
        }),
    }))
}

fn count(field: &dyn Fn(&str) -> Option<Value>, name: &str) -> Result<u64, String> {
    let value = field(name).ok_or_else(|| format!("`{name}` is missing"))?;
    let tokens = number(&value).filter(|number| (0.0..1e12).contains(number));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    tokens
        .map(|tokens| tokens as u64)
        .ok_or_else(|| format!("`{name}` is {value}, and no number of tokens"))
}

/// A number, in JSON or as a field of a table.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A date and time (UTC), or seconds.
fn date(value: &Value) -> Result<Duration, String> {
    if let Some(seconds) = number(value) {
        return time(seconds);
    }
    let text = value.as_str().unwrap_or_default();
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        Some(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    let since = moment.and_then(|moment| Duration::try_from(moment.as_duration()).ok());
    since.ok_or_else(|| format!("{value} is no time"))
}

fn time(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_kinds_of_traces_are_read() {
        let azure =
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47.18,396,109\n2023-11-16 18:15:46.68,374,44\n";
        let items = read(azure).expect("Azure's");
        assert_eq!(
            (items[0].input_tokens, items[0].output_tokens),
            (374, 44),
            "in the order of time"
        );
        assert_eq!(items[1].at.saturating_sub(items[0].at), Duration::from_millis(500));
        // 2023-11-16 is day 19,677 since 1970.
        assert_eq!(items[0].at.as_secs() / 86_400, 19_677);

        let mooncake =
            "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n";
        let items = read(mooncake).expect("Mooncake's");
        assert_eq!(
            (items[0].at, &items[0].prefix[..]),
            (Duration::from_millis(27_482), &[46, 47][..])
        );

        let record = |status: &str| {
            format!(
                "{{\"request_id\":\"a\",\"created_at\":\"2026-11-28T10:00:00.5Z\",\"status\":\"{status}\",\"user_id\":\"u\",\"model\":\"m\",\"request_type\":\"batch\",\"priority\":\"low\",\"input_tokens\":100,\"cached_input_tokens\":40,\"output_tokens\":7,\"output_tokens_reserved\":64,\"latency_seconds\":3.5,\"queue_wait_seconds\":1.5,\"first_token_seconds\":2.0}}"
            )
        };
        let items = read(&format!("{}\n{}\n", record("completed"), record("rejected"))).expect("records");
        assert_eq!(items.len(), 1, "a request that no server answered loads none");
        let known = items[0].recorded.as_ref().expect("a record");
        assert_eq!((known.user.as_str(), known.is_batch), ("u", true));
        assert_eq!(
            (known.held, known.first_token),
            (Duration::from_secs(2), Duration::from_millis(500))
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        let wrong = [
            (
                "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n2,x,3\n",
                "line 3: `ContextTokens`",
            ),
            ("TIMESTAMP,ContextTokens\n1,2\n", "line 2: `GeneratedTokens` is missing"),
            ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,2,3\n", "is no time"),
            ("{\"timestamp\": 1}\n", "`input_length` is missing"),
            ("{\"timestamp\": 1\n", "no JSON object"),
            ("a,b\n1,2\n", "Azure's columns"),
            ("", "no requests"),
        ];
        for (text, message) in wrong {
            let error = read(text).expect_err(text);
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
