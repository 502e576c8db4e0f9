//! Overview: what runs now, what needs attention, and the last minutes.

use super::super::charts::charts;
use super::super::frame::{Part, range_picker, section};
use super::super::gateways::{gateways, is_one_of_several};
use super::super::history::Sample;
use super::super::plot::{self, Color, Series, short};
use super::super::text::{list, number, percent, seconds, word};
use super::super::tiles::tile;
use super::super::view::{Page, View, link};
use super::requests;
use crate::admin::{Admin, config, limits, queue};
use axum::extract::State;
use ledger::spans::{self, SpanGroup};
use maud::{Markup, html};
use serde_json::Value;

/// The number of newest requests on the page.
const RECENT: u32 = 8;

/// From this used share on, a quota or budget needs attention.
const NEARLY_USED: f64 = 0.8;

pub(super) async fn parts(admin: &Admin, view: &View) -> Result<Vec<Part>, ledger::Error> {
    let axum::Json(status) = queue::status(State(admin.clone())).await;
    let last = admin.console.history.last().unwrap_or_default();
    let samples = admin.console.history.samples();
    let range = view.range();
    let bars = range.until_now();
    let spans = spans::sums(&admin.pool, &bars.query(None), &[SpanGroup::Status], true).await?;
    let recent = requests::newest(admin, RECENT).await?;
    Ok(vec![
        Part::live("tiles", tiles(&status, &last)),
        Part::live("attention", attention(admin, &status)),
        Part::live("gateways", gateways(&status)),
        Part::live("plots", section("plots", plots_title(&status), &plots(&samples))),
        Part::fixed(range_picker(view)),
        Part::live(
            "charts",
            section("charts", range.words(), &charts(range, &bars, &spans)),
        ),
        Part::live(
            "recent",
            section("recent", "Newest requests", &requests::table(&recent)),
        ),
    ])
}

/// Plots are of this gateway alone.
fn plots_title(status: &Value) -> &'static str {
    if is_one_of_several(status) {
        "Last five minutes of this gateway"
    } else {
        "Last five minutes"
    }
}

fn tiles(status: &Value, last: &Sample) -> Markup {
    let level = number(&status["current_degradation_level_number"]);
    // Of all gateways, where there are several.
    let (counted, whose) = if is_one_of_several(status) {
        (&status["cluster"], "requests with a slot, of all gateways")
    } else {
        (status, "requests with a slot")
    };
    let of = |now: &str, most: &str| format!("{} of {}", counted[now], counted[most]);
    let full = number(&counted["queue_size"]) / number(&counted["max_queue_size"]).max(1.0);
    let failed = format!(
        "{} refused, {} failed a second",
        short(last.refused),
        short(last.failed)
    );
    let input = format!("output; {}/s input", short(last.input_tokens));
    html! {
        div.tiles {
            (tile("Running", &of("active_requests", "max_active_requests"), whose, ""))
            (tile("Queued", &of("queue_size", "max_queue_size"), &format!("queue {} full", percent(full)), ""))
            (tile("Completed", &format!("{}/s", short(last.completed)), &failed, ""))
            (tile("Tokens", &format!("{}/s", short(last.output_tokens)), &input, ""))
            (tile("Latency p95", &seconds(last.p95), &format!("p50 {}", seconds(last.p50)), ""))
            (tile("Degradation", word(status, "current_degradation_level"), &format!("pressure {}", short(number(&status["pressure_ratio"]))),
                if level > 0.0 { "warn" } else { "good" }))
        }
    }
}

/// What an operator should look at, each with what to do; nothing where all is well.
fn attention(admin: &Admin, status: &Value) -> Markup {
    let all = problems(admin, status);
    html! {
        @if !all.is_empty() {
            (section("attention", "Needs attention", &html! {
                ul.problems { @for (class, what, page, hint) in &all {
                    li { span class={"state " (class)} { (what) } " " (hint) " " a href=(link(*page, &[])) { (page.title()) } }
                } }
            }))
        }
    }
}

/// The class of its color, what it is, the page that has more, and what it means.
type Problem = (&'static str, String, Page, String);

fn problems(admin: &Admin, status: &Value) -> Vec<Problem> {
    let mut all = Vec::new();
    let snapshot = admin.services.current.get();
    if let Some(reason) = admin.services.ledger.health().reason() {
        let hint = format!("{reason} Records wait in the journal; new requests are refused once the backlog is full.");
        all.push(("bad", "Ledger".to_owned(), Page::Configuration, hint));
    }
    if number(&status["current_degradation_level_number"]) > 0.0 {
        let actions: Vec<&str> = list(status, "degradation_actions")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let what = format!("Degradation {}", word(status, "current_degradation_level"));
        let hint = format!("The queue is filling. In force: {}.", actions.join(", "));
        all.push(("warn", what, Page::Queue, hint));
    }
    for one in snapshot.upstreams.status(&snapshot.config) {
        if one["healthy"] == false {
            let hint = format!(
                "No requests are sent to it. Last failure: {}.",
                word(&one, "last_failure")
            );
            all.push(("bad", word(&one, "upstream").to_owned(), Page::Models, hint));
        }
    }
    for (project, window, quota, budget) in limits::used_shares(&admin.services, &snapshot.config) {
        for (what, share) in [("quota", quota), ("budget", budget)] {
            let Some(share) = share.filter(|share| *share >= NEARLY_USED) else {
                continue;
            };
            let class = if share >= 1.0 { "bad" } else { "warn" };
            all.push((
                class,
                project.to_owned(),
                Page::Projects,
                format!("{} of this {window}'s {what} is used.", percent(share)),
            ));
        }
    }
    let reload = config::last_reload(admin);
    if reload["result"] == "failed" {
        let hint = "The changed files are invalid; the previous configuration stays in force.".to_owned();
        all.push(("bad", "Reload failed".to_owned(), Page::Configuration, hint));
    }
    all
}

fn plots(samples: &[Sample]) -> Markup {
    let series = |name: &'static str, color: Color, of: &dyn Fn(&Sample) -> Option<f64>| Series {
        name,
        color,
        values: samples.iter().map(of).collect(),
    };
    html! {
        div.plots {
            (plot::lines("Requests", "/s", &[
                series("completed", Color::Well, &|sample| Some(sample.completed)),
                series("refused", Color::Refused, &|sample| Some(sample.refused)),
                series("failed", Color::Failed, &|sample| Some(sample.failed)),
            ]))
            (plot::lines("Latency", "s", &[series("p50", Color::Data, &|sample| sample.p50), series("p95", Color::Other, &|sample| sample.p95)]))
            (plot::lines("Tokens", "/s", &[
                series("input", Color::Other, &|sample| Some(sample.input_tokens)),
                series("output", Color::Data, &|sample| Some(sample.output_tokens)),
            ]))
            (plot::lines("Requests at once", "", &[
                series("running", Color::Data, &|sample| Some(sample.running)),
                series("queued", Color::Other, &|sample| Some(sample.waiting)),
            ]))
        }
    }
}
