//! One request: how it went, what it used and cost, and what to do where it failed.

use super::super::frame::{Part, csrf, section};
use super::super::plot::{self, short};
use super::super::reasons;
use super::super::session::Session;
use super::super::text::{euros, moment, number, seconds, word};
use super::super::view::{Page, View, link};
use super::requests;
use crate::admin::Admin;
use crate::config::Role;
use crate::exchange::stored;
use ledger::search;
use maud::{Markup, html};
use serde_json::Value;

pub(super) async fn parts(admin: &Admin, view: &View, session: &Session) -> Result<Vec<Part>, ledger::Error> {
    let id = view.asked.id.trim();
    admin.services.ledger.flush().await;
    let mut records = search::by_id(&admin.pool, id).await?;
    records.retain(|record| session.role.sees(word(record, "project_id")));
    let Some(record) = records.first() else {
        return Ok(vec![Part::live("live", live(admin, id, session).await?)]);
    };
    Ok(vec![
        Part::live("live", html! {}),
        Part::live("outcome", section("outcome", "Outcome", &outcome(record))),
        Part::live("timeline", section("timeline", "Timeline", &timeline(record))),
        Part::live("usage", section("usage", "Usage and cost", &usage(record))),
        Part::live("details", section("details", "Details", &details(record))),
    ])
}

/// A request that has no record yet, or is unknown.
async fn live(admin: &Admin, id: &str, session: &Session) -> Result<Markup, ledger::Error> {
    let status = match session.role.scope(&admin.services.current.get().config) {
        Ok(scope) => stored::status(&admin.services, id, scope).await?,
        Err(()) => None,
    };
    let Some(status) = status else {
        let hint = html! {
            p.none { "No request with this id runs, waits or is recorded. Records are kept as long as " code { "ledger.retention_days" } " says." }
        };
        return Ok(section("live", "Unknown request", &hint));
    };
    let name = word(&status, "status");
    Ok(section(
        "live",
        "Not ended yet",
        &html! {
            p { span.state.plain { (name) } " " (reasons::outcome(name)) }
            @if let Some(position) = status["position"].as_u64() {
                p { "Position " b { (position) } "; expected wait " b { (seconds(status["expected_wait_seconds"].as_f64())) } "." }
            }
            @if session.role != Role::Viewer {
                form method="post" action="/console/requests/cancel" {
                    (csrf(session))
                    input type="hidden" name="id" value=(id);
                    button.danger #{"cancel-" (id)} type="submit" { "Cancel request" }
                }
            }
        },
    ))
}

fn outcome(record: &Value) -> Markup {
    let advice = record["reason"].as_str().map(reasons::advice).unwrap_or_default();
    html! {
        p { (requests::status(record)) " " span { "HTTP " (record["http_status"]) } }
        p { (reasons::outcome(word(record, "status"))) }
        @if !advice.is_empty() { p { b { "What to do: " } (advice) } }
        @if let Some(message) = record["error_message"].as_str() { p { code { (message) } } }
        @if let Some(degraded) = record["degraded"].as_str() {
            p { span.state.warn { "degraded" } " at admission the level was " (degraded) "." }
        }
    }
}

fn timeline(record: &Value) -> Markup {
    let (wait, latency) = (
        number(&record["queue_wait_seconds"]),
        number(&record["latency_seconds"]),
    );
    let first = record["first_token_seconds"].as_f64();
    let tokens = number(&record["output_tokens"]);
    let speed = first
        .filter(|first| latency > *first && tokens > 1.0)
        .map(|first| tokens / (latency - first));
    html! {
        p.legendline { (requests::key("wait", "queued")) (requests::key("first", "time to first token")) (requests::key("rest", "streaming")) }
        div.wide { (plot::steps(wait, first, latency, latency)) }
        dl.facts {
            (fact("Began (UTC)", &moment(word(record, "created_at"))))
            (fact("Queued", &seconds(Some(wait))))
            (fact("First token after", &seconds(first)))
            (fact("Ended after", &seconds(Some(latency))))
            (fact("Ended (UTC)", &moment(word(record, "updated_at"))))
            @if let Some(evictions) = record["evictions"].as_u64() {
                (fact("Evicted", &format!("{evictions} times, after {}", seconds(record["evicted_seconds"].as_f64()))))
            }
            @if let Some(speed) = speed { (fact("Output", &format!("{} tokens/s", short(speed)))) }
        }
    }
}

fn usage(record: &Value) -> Markup {
    let tokens = |name: &str| record[name].to_string();
    html! {
        dl.facts {
            (fact("Input tokens", &tokens("input_tokens")))
            (fact("of them cached", &tokens("cached_input_tokens")))
            (fact("Output tokens", &tokens("output_tokens")))
            (fact("Estimated input", &tokens("input_tokens_estimated")))
            (fact("Reserved output", &tokens("output_tokens_reserved")))
            (fact("Counted by", word(record, "usage_source")))
            (fact("Cost", &euros(number(&record["cost_eur"]))))
            (fact("Reserved cost", &euros(number(&record["estimated_cost_eur"]))))
            (fact("Price list", &tokens("config_version")))
        }
    }
}

fn details(record: &Value) -> Markup {
    let of = |name: &str| word(record, name).to_owned();
    let linked = |page: Page, name: &str, field: &str| {
        let value = word(record, field);
        html! { @if value.is_empty() { "–" } @else { a href=(link(page, &[(name, value)])) { (value) } } }
    };
    html! {
        dl.facts {
            (fact_with("Request", &html! { code { (word(record, "request_id")) } }))
            @if record["client_request_id"].is_string() { (fact("Client's id", word(record, "client_request_id"))) }
            (fact_with("Project", &linked(Page::Project, "id", "project_id")))
            (fact_with("User", &linked(Page::Requests, "user", "user_id")))
            @if record["key_id"].is_string() { (fact_with("Key", &linked(Page::Requests, "key", "key_id"))) }
            (fact("Requested model", &of("requested_model")))
            (fact("Model", &of("model")))
            (fact("Server", &of("upstream")))
            (fact("Operation", &of("operation")))
            (fact("Protocol", &of("client_protocol")))
            (fact("Streamed", if record["streamed"] == true { "yes" } else { "no" }))
            (fact("Type", &of("request_type")))
            (fact("Priority", &of("priority")))
            (fact("Decision", &of("decision")))
            (fact("Degradation level", &of("degradation_level")))
            @if record["trace_id"].is_string() { (fact("Trace", &of("trace_id"))) }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    fact_with(name, &html! { @if value.is_empty() { "–" } @else { (value) } })
}

fn fact_with(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}
