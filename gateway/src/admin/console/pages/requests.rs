//! Requests: search among the records, newest first.

use super::super::frame::{Part, section};
use super::super::plot::{self, short};
use super::super::range::Range;
use super::super::reasons;
use super::super::session::Session;
use super::super::table::{self, numbers, text};
use super::super::text::{euros, moment, number, seconds, word};
use super::super::view::{Asked, Page, View, link};
use crate::admin::Admin;
use ledger::search::{self, Found, SCANNED, Wanted};
use ledger::{Outcome, records};
use maud::{Markup, html};
use serde_json::Value;

/// Characters of a request's id that are shown: `req_`, its second, and what tells it from others of that second.
const SHORT_ID: usize = 18;

/// The number of requests on the page.
const SHOWN: usize = 50;

pub(super) async fn parts(admin: &Admin, view: &View, session: &Session) -> Result<Vec<Part>, ledger::Error> {
    let asked = &view.asked;
    admin.services.ledger.flush().await;
    let found = find(admin, view).await?;
    let title = if is_search(asked) { "Results" } else { "Newest requests" };
    let list = section("requests", title, &results(view, &found));
    let list = if is_search(asked) {
        Part::fixed(list)
    } else {
        Part::live("requests", list)
    };
    Ok(vec![
        Part::fixed(section("search", "Search", &form(admin, view, session))),
        list,
    ])
}

/// Returns whether more is asked for than the newest requests, which change all the time.
fn is_search(asked: &Asked) -> bool {
    let fields = [
        &asked.id,
        &asked.project,
        &asked.user,
        &asked.key,
        &asked.model,
        &asked.upstream,
        &asked.status,
        &asked.reason,
        &asked.before,
    ];
    fields.iter().any(|field| !field.is_empty())
}

async fn find(admin: &Admin, view: &View) -> Result<Found, ledger::Error> {
    let asked = &view.asked;
    if !asked.id.is_empty() {
        let mut records = search::by_id(&admin.pool, asked.id.trim()).await?;
        records.retain(|record| asked.project.is_empty() || record["project_id"] == *asked.project);
        return Ok(Found {
            records,
            ..Found::default()
        });
    }
    let wanted = Wanted {
        project: given(&asked.project),
        user: given(&asked.user),
        key: given(&asked.key),
        model: given(&asked.model),
        upstream: given(&asked.upstream),
        status: given(&asked.status),
        reason: given(&asked.reason),
        from: Some(view.range().until_now().from),
        until: None,
        before: asked.before.parse().ok(),
    };
    search::search(&admin.pool, &wanted, SHOWN).await
}

fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// The newest records.
pub(super) async fn newest(admin: &Admin, limit: u32) -> Result<Vec<Value>, ledger::Error> {
    admin.services.ledger.flush().await;
    records::recent(&admin.pool, &records::Search::default(), limit).await
}

fn form(admin: &Admin, view: &View, session: &Session) -> Markup {
    let (asked, snapshot) = (&view.asked, admin.services.current.get());
    let projects = snapshot.config.projects.iter().filter(|project| !project.is_removed);
    let projects = projects.map(|project| project.id.as_str());
    let projects: Vec<&str> = projects.filter(|project| session.role.sees(project)).collect();
    let models = snapshot.config.models.iter().filter(|model| !model.is_removed);
    let models: Vec<&str> = models.map(|model| model.name.as_str()).collect();
    let statuses: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
    html! {
        form.inline method="get" action=(view.page.path()) {
            (choice("project", "Project", &asked.project, &projects))
            (choice("model", "Model", &asked.model, &models))
            (choice("status", "Status", &asked.status, &statuses))
            (field("reason", "Reason", &asked.reason, "queue_full"))
            (field("user", "User", &asked.user, ""))
            (field("key", "Key", &asked.key, "key-…"))
            (field("id", "Request id", &asked.id, "req_… or client's own"))
            div.field { label for="range" { "Time" }
                select #range name="range" {
                    @for range in Range::ALL { option value=(range.name()) selected[range == view.range()] { (range.words()) } }
                } }
            button type="submit" { "Search" }
            @if is_search(asked) { a href=(link(Page::Requests, &[])) { "Reset" } }
        }
    }
}

fn choice(name: &str, label: &str, current: &str, values: &[&str]) -> Markup {
    let is_unknown = !current.is_empty() && !values.contains(&current);
    html! {
        div.field { label for=(name) { (label) }
            select id=(name) name=(name) {
                option value="" { "all" }
                @if is_unknown { option value=(current) selected { (current) } }
                @for value in values { option value=(value) selected[*value == current] { (value.replace('_', " ")) } }
            } }
    }
}

fn field(name: &str, label: &str, current: &str, placeholder: &str) -> Markup {
    html! { div.field { label for=(name) { (label) } input id=(name) name=(name) value=(current) placeholder=(placeholder); } }
}

fn results(view: &View, found: &Found) -> Markup {
    let more = found.next.map(|next| {
        let (asked, next) = (&view.asked, next.to_string());
        link(
            Page::Requests,
            &[
                ("project", &asked.project),
                ("model", &asked.model),
                ("status", &asked.status),
                ("reason", &asked.reason),
                ("user", &asked.user),
                ("key", &asked.key),
                ("upstream", &asked.upstream),
                ("range", view.range().name()),
                ("before", &next),
            ],
        )
    });
    let until = found.searched_to.and_then(|at| jiff::Timestamp::from_second(at).ok());
    html! {
        @if found.records.is_empty() {
            @if until.is_none() { p.none { "No request matches" @if view.asked.id.is_empty() { " in this time. Try a longer one" } "." } }
        } @else {
            (table(&found.records))
        }
        @if let Some(until) = until {
            p.none { "Searched the newest " (short(SCANNED_SHOWN)) " records of this time, down to " (moment(&until.to_string())) " UTC." }
        }
        @if let Some(more) = more {
            p { a.button href=(more) { @if until.is_some() { "Search older requests" } @else { "Older requests" } } }
        }
    }
}

#[allow(clippy::cast_precision_loss)]
const SCANNED_SHOWN: f64 = SCANNED as f64;

/// Records as a table.
pub(super) fn table(all: &[Value]) -> Markup {
    let longest = all
        .iter()
        .map(|one| number(&one["latency_seconds"]))
        .fold(0.0, f64::max);
    let columns = [
        text("Time (UTC)"),
        text("Request"),
        text("Project"),
        text("User"),
        text("Model"),
        text("Status"),
        text("Timeline"),
        numbers("Latency"),
        numbers("Tokens"),
        numbers("Cost"),
    ];
    let today = jiff::Timestamp::now().to_string();
    let rows: Vec<Vec<Markup>> = all.iter().map(|one| row(one, longest, &today)).collect();
    html! {
        @if all.is_empty() { p.none { "No requests yet." } } @else {
            p.legendline { (key("wait", "queued")) (key("first", "time to first token")) (key("rest", "streaming")) }
            (table::table("Requests", &columns, &rows))
        }
    }
}

/// An entry of the timeline's legend.
pub(super) fn key(class: &str, name: &str) -> Markup {
    html! { span.legend { svg.key viewBox="0 0 12 8" aria-hidden="true" { rect class=(class) width="12" height="8" {} } (name) } }
}

fn row(one: &Value, longest: f64, today: &str) -> Vec<Markup> {
    let (wait, latency) = (number(&one["queue_wait_seconds"]), number(&one["latency_seconds"]));
    let (id, at) = (word(one, "request_id"), moment(word(one, "created_at")));
    let is_today = at.get(..10) == today.get(..10);
    vec![
        html! { span.time { @if is_today { (at.get(11..).unwrap_or_default()) } @else { (at.get(5..).unwrap_or_default()) } } },
        html! { a href=(link(Page::Request, &[("id", id)])) title=(id) { code { (id.get(..SHORT_ID).unwrap_or(id)) } } },
        html! { (word(one, "project_id")) },
        html! { (word(one, "user_id")) },
        html! { span.nowrap title=(word(one, "operation")) { (word(one, "model")) } },
        status(one),
        plot::steps(wait, one["first_token_seconds"].as_f64(), latency, longest),
        html! { (seconds(Some(latency))) },
        html! { (short(number(&one["total_tokens"]))) },
        html! { (euros(number(&one["cost_eur"]))) },
    ]
}

/// The outcome: green for completed, amber for what the gateway refused, red for what failed, gray for the rest.
pub(super) fn status(one: &Value) -> Markup {
    let status = word(one, "status");
    let class = match status {
        "completed" => "good",
        "rejected" => "warn",
        "failed" | "timed_out" | "interrupted" => "bad",
        _ => "plain",
    };
    html! {
        span class={"state " (class)} title=(reasons::outcome(status)) { (status.replace('_', " ")) }
        @if let Some(reason) = one["reason"].as_str() { " " span.reason title=(reasons::advice(reason)) { (reason) } }
    }
}
