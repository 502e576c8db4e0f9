//! The second account of what was used: the ledger's rows, added up here, against the gateway's counters and sums.

use crate::{Gateway, as_admin};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::collections::BTreeSet;

/// Tokens, requests and nano-euros.
type Amounts = [i64; 3];

/// Compares, once nothing runs or waits: every counter of `/limits` with the rows of its window, and the sums of
/// `/usage/project` with all rows. For a ledger of at most a thousand rows.
///
/// # Panics
///
/// Panics if they differ, or something is still reserved.
pub async fn ledger_agrees(gateway: &Gateway) {
    let rows = gateway.records().await;
    assert!(rows.len() < 1000, "`/usage/recent` has not returned all rows");
    for (scope, column) in [("project", "project_id"), ("user", "user_id"), ("key", "key_id")] {
        let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row[column].as_str()).collect();
        for id in ids.into_iter().filter(|id| !id.is_empty()) {
            let own: Vec<&Value> = rows.iter().filter(|row| row[column] == id).collect();
            counters_agree(gateway, scope, id, &own).await;
        }
    }
}

async fn counters_agree(gateway: &Gateway, scope: &str, id: &str, rows: &[&Value]) {
    let url = format!("{}/limits/{scope}/{id}", gateway.admin);
    let answer = as_admin(gateway.http.get(url)).await;
    if answer.status() == 404 {
        // It is not configured at present.
        return;
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
        // Corrections may take back more than was used; a counter is never negative.
        assert_eq!(
            used,
            recorded[at].max(0),
            "{measure} of {scope} {id} in {window:?}, counted and recorded"
        );
        assert_eq!(counter["reserved"].as_f64(), Some(0.0), "{scope} {id}: {counter}");
    }
    let summary = gateway.admin_json(&format!("/usage/{scope}/{id}")).await;
    let all = rows.iter().map(|row| amounts(row)[0]).sum::<i64>();
    assert_eq!(summary["total_tokens"], all, "sums of {scope} {id}: {summary}");
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

/// What a row counts for. A correction is no request, and neither is one that was not forwarded.
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
