//! Models and upstreams: slots, latency, error rate and cache hits of each model; the state of each server.

use super::super::charts::real;
use super::super::frame::{Part, range_picker, section};
use super::super::plot::short;
use super::super::table::{numbers, table, text};
use super::super::tally::{Tally, by_first};
use super::super::text::{joined, number, percent, seconds, word};
use super::super::view::View;
use super::projects::{attainment, count};
use crate::admin::Admin;
use ledger::spans::{self, SpanGroup};
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) async fn parts(admin: &Admin, view: &View) -> Result<Vec<Part>, ledger::Error> {
    let range = view.range();
    let query = range.until_now();
    let query = query.query(None);
    let of_models = spans::sums(&admin.pool, &query, &[SpanGroup::Model, SpanGroup::Status], false).await?;
    let of_servers = spans::sums(&admin.pool, &query, &[SpanGroup::Upstream, SpanGroup::Status], false).await?;
    let snapshot = admin.services.current.get();
    let upstreams = snapshot.upstreams.status(&snapshot.config);
    let title = format!("Models, {}", range.words().to_lowercase());
    let of_servers = by_first(&of_servers);
    let servers_title = format!("Upstreams, {}", range.words().to_lowercase());
    Ok(vec![
        Part::live("state", section("state", "Upstreams now", &states(&upstreams))),
        Part::fixed(range_picker(view)),
        Part::live(
            "models",
            section("models", &title, &models(admin, &by_first(&of_models))),
        ),
        Part::live(
            "servers",
            section("servers", &servers_title, &servers(&upstreams, &of_servers)),
        ),
    ])
}

fn models(admin: &Admin, tallies: &BTreeMap<String, Tally>) -> Markup {
    let snapshot = admin.services.current.get();
    let occupancy = admin.services.gate.occupancy(snapshot.config.models.len());
    let columns = [
        text("Model"),
        numbers("Slots in use"),
        numbers("Requests"),
        numbers("Refused"),
        numbers("Error rate"),
        numbers("First token, mean"),
        numbers("Latency p50"),
        numbers("Latency p95"),
        numbers("Objectives met"),
        numbers("Output tokens"),
        numbers("Cache hits"),
    ];
    let configured = snapshot.config.models.iter().zip(&occupancy.models);
    let nothing = Tally::default();
    let rows: Vec<Vec<Markup>> = configured
        .filter(|(model, _)| !model.is_removed)
        .map(|(model, (running, slots))| {
            let tally = tallies.get(&model.name).unwrap_or(&nothing);
            let name = html! { (model.name) @if !model.enabled { " " span.state.plain { "disabled" } } };
            let in_use = html! { (running) @if let Some(slots) = slots { " of " (slots) } };
            let refused = count(tally.refused, tally.refused_rate(), "warn");
            let tokens = html! { (short(real(tally.all.output_tokens))) };
            let [requests, errors, first, p50, p95, hits] = figures(tally);
            let met = attainment(tally);
            vec![
                name, in_use, requests, refused, errors, first, p50, p95, met, tokens, hits,
            ]
        })
        .collect();
    table("Models", &columns, &rows)
}

/// Requests, error rate, first token, p50, p95 and cache hits.
fn figures(tally: &Tally) -> [Markup; 6] {
    let rate = tally.error_rate();
    let class = if rate.is_some_and(|rate| rate > 0.0) {
        "text bad"
    } else {
        "text"
    };
    [
        html! { (short(real(tally.all.requests))) },
        html! { span class=(class) { (rate.map_or("–".to_owned(), percent)) } },
        html! { (seconds(tally.all.mean_first_token())) },
        html! { (seconds(tally.all.latency(0.5))) },
        html! { (seconds(tally.all.latency(0.95))) },
        html! { (tally.cache_hits().map_or("–".to_owned(), percent)) },
    ]
}

fn servers(upstreams: &[Value], tallies: &BTreeMap<String, Tally>) -> Markup {
    let columns = [
        text("Server"),
        numbers("Requests"),
        numbers("Error rate"),
        numbers("First token, mean"),
        numbers("Latency p50"),
        numbers("Latency p95"),
        numbers("Cache hits"),
    ];
    let nothing = Tally::default();
    let rows: Vec<Vec<Markup>> = upstreams
        .iter()
        .map(|one| {
            let name = word(one, "upstream");
            let figures = figures(tallies.get(name).unwrap_or(&nothing));
            [html! { (name) }].into_iter().chain(figures).collect()
        })
        .collect();
    table("Upstreams", &columns, &rows)
}

fn states(upstreams: &[Value]) -> Markup {
    let columns = [
        text("Server"),
        text("Backend"),
        text("State"),
        numbers("Running"),
        numbers("Of other clients"),
        numbers("Outstanding tokens"),
        numbers("KV cache used"),
        text("Models"),
        text("Last failure"),
    ];
    let rows: Vec<Vec<Markup>> = upstreams.iter().map(row).collect();
    html! { @if rows.is_empty() { p.none { "No upstream is configured." } } @else { (table("Upstreams now", &columns, &rows)) } }
}

fn row(one: &Value) -> Vec<Markup> {
    vec![
        html! { (word(one, "upstream")) },
        html! { (word(one, "backend")) },
        state(one),
        html! { (one["active_requests"]) },
        html! { (one["requests_of_others"]) },
        html! { (short(number(&one["outstanding_tokens"]))) },
        html! { (one["cache_used"].as_f64().map_or("–".to_owned(), percent)) },
        html! { (joined(one, "models")) },
        html! { (word(one, "last_failure")) },
    ]
}

/// The state of a server, and what it means where it is not healthy.
fn state(one: &Value) -> Markup {
    let (class, name, meaning) = if one["healthy"] == true {
        ("good", "healthy".to_owned(), "")
    } else if one["away"] == true {
        (
            "bad",
            "unreachable".to_owned(),
            "accepts no connections; tried again until it does",
        )
    } else {
        let meaning = "failed too often; a few requests test whether it has recovered";
        ("bad", format!("breaker {}", word(one, "breaker")), meaning)
    };
    html! { span class={"state " (class)} { (name) } @if !meaning.is_empty() { " " span.reason { (meaning) } } }
}
