//! The second account of what was used: the ledger's rows, added up here, against the gateway's counters and sums.

use crate::{Gateway, as_admin};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Tokens, requests and nano-euros.
type Amounts = [i64; 3];

/// A record is appended a moment after its request has given up its slot; nothing may differ for longer than this.
const AGREES_WITHIN: Duration = Duration::from_secs(5);

/// Compares, once nothing runs or waits: every counter of `/limits` with the rows of its window, and the sums of
/// `/usage` with all rows. For a ledger of at most a thousand rows.
///
/// # Panics
///
/// Panics if they differ, or something is still reserved.
pub async fn ledger_agrees(gateway: &Gateway) {
    let give_up = Instant::now() + AGREES_WITHIN;
    while let Err(difference) = compare(gateway).await {
        assert!(Instant::now() < give_up, "{difference}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn compare(gateway: &Gateway) -> Result<(), String> {
    let rows = gateway.records().await;
    assert!(rows.len() < 1000, "`/usage/recent` has not returned all rows");
    for (scope, column) in [("project", "project_id"), ("user", "user_id"), ("key", "key_id")] {
        let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row[column].as_str()).collect();
        for id in ids.into_iter().filter(|id| !id.is_empty()) {
            let own: Vec<&Value> = rows.iter().filter(|row| row[column] == id).collect();
            compare_one(gateway, scope, id, &own).await?;
        }
    }
    Ok(())
}

async fn compare_one(gateway: &Gateway, scope: &str, id: &str, rows: &[&Value]) -> Result<(), String> {
    let url = format!("{}/limits/{scope}/{id}", gateway.admin);
    let answer = as_admin(gateway.http.get(url)).await;
    if answer.status() == 404 {
        // It is not configured at present.
        return Ok(());
    }
    let limits: Value = answer.json().await.expect("JSON");
    for counter in limits["allowances"].as_array().expect("a list") {
        let window = Window::of(counter);
        let recorded = rows.iter().filter(|row| window.contains(row)).map(|row| amounts(row));
        let recorded = recorded.fold([0; 3], |sum, row| std::array::from_fn(|at| sum[at] + row[at]));
        let measure = counter["measure"].as_str().expect("a measure");
        let (at, used) = match measure {
            "tokens" => (0, counter["used"].as_i64().expect("tokens")),
            "requests" => (1, counter["used"].as_i64().expect("requests")),
            _ => (2, nanos(&counter["used"])),
        };
        let recorded = recorded[at];
        if used != recorded || counter["reserved"].as_f64() != Some(0.0) {
            return Err(format!(
                "{scope} {id}: recorded {recorded} in {window:?}, counted {counter}"
            ));
        }
    }
    let summary = gateway.admin_json(&format!("/usage/{scope}/{id}")).await;
    let all = rows.iter().map(|row| amounts(row)[0]).sum::<i64>();
    if summary["total_tokens"] == all {
        Ok(())
    } else {
        Err(format!("{scope} {id}: {all} tokens recorded, summed {summary}"))
    }
}

/// The dates of a counter's window.
#[derive(Debug)]
struct Window {
    from: Date,
    before: Date,
}

impl Window {
    fn of(counter: &Value) -> Self {
        let resets: Timestamp = counter["resets_at"].as_str().expect("a time").parse().expect("a time");
        let before = resets.to_zoned(jiff::tz::TimeZone::UTC).date();
        let length = if counter["window"] == "day" { 1.day() } else { 1.month() };
        Self {
            from: before - length,
            before,
        }
    }

    fn contains(&self, row: &Value) -> bool {
        let date: Date = row["created_at"].as_str().expect("a time")[..10]
            .parse()
            .expect("a date");
        self.from <= date && date < self.before
    }
}

/// The number of requests that a row counts for. A correction is no request, and neither is one that was not forwarded.
fn amounts(row: &Value) -> Amounts {
    let is_request = !["rejected", "correction"].contains(&row["decision"].as_str().expect("a decision"));
    [
        row["total_tokens"].as_i64().expect("tokens"),
        i64::from(is_request),
        nanos(&row["cost_eur"]),
    ]
}

#[allow(clippy::cast_possible_truncation)]
fn nanos(euros: &Value) -> i64 {
    (euros.as_f64().expect("euros") * 1e9).round() as i64
}
