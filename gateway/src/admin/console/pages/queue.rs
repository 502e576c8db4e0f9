//! Queue: who runs, who waits, for how long, and the end of a wait.

use super::super::frame::{Part, csrf, section};
use super::super::gateways::{gateways, is_one_of_several};
use super::super::session::Session;
use super::super::table::{numbers, table, text};
use super::super::text::{list, number, seconds, word};
use super::super::view::Page;
use crate::admin::{Admin, queue};
use axum::extract::State;
use maud::{Markup, html};
use serde_json::Value;

/// The number of waiting requests on the page.
const WAITING: usize = 100;

pub(super) async fn parts(admin: &Admin, session: &Session) -> Vec<Part> {
    let axum::Json(status) = queue::status(State(admin.clone())).await;
    let axum::Json(queue) = queue::list(State(admin.clone())).await;
    let (all, here) = if is_one_of_several(&status) {
        ("Slots by model, of all gateways", "Queued requests of this gateway")
    } else {
        ("Slots by model", "Queued requests")
    };
    vec![
        Part::live("gateways", gateways(&status)),
        Part::live("slots", section("slots", all, &slots(&queue))),
        Part::live("queue", section("queue", here, &waiting(&queue, session))),
    ]
}

fn slots(queue: &Value) -> Markup {
    let all = [&queue["cluster"], queue];
    let models = all.into_iter().find_map(|queue| queue["models"].as_object());
    let models = models.into_iter().flatten();
    let rows: Vec<Vec<Markup>> = models
        .map(|(model, slots)| {
            vec![
                html! { (model) },
                html! { (slots["active_requests"]) },
                html! { @if let Some(most) = slots["places"].as_u64() { (most) } @else { "no limit of its own" } },
            ]
        })
        .collect();
    table(
        "Slots by model",
        &[text("Model"), numbers("Running"), numbers("Slots")],
        &rows,
    )
}

fn waiting(queue: &Value, session: &Session) -> Markup {
    let all = list(queue, "waiting");
    let counts = |name: &str| {
        html! { @for (name, count) in queue[name].as_object().into_iter().flatten() { span.pill { (name) " " b { (count) } } } }
    };
    let rows: Vec<Vec<Markup>> = all.iter().take(WAITING).map(|one| row(one, session)).collect();
    let columns = [
        text("Priority"),
        text("Project"),
        text("User"),
        text("Model"),
        numbers("Position"),
        numbers("Waiting"),
        numbers("Expected wait"),
        text("Action"),
    ];
    html! {
        p.pills { (counts("by_priority")) (counts("by_project")) }
        @if all.is_empty() {
            p.none { "The queue is empty: every request got a slot at once." }
        } @else {
            (table("Queued requests", &columns, &rows))
            @if all.len() > WAITING { p.none { "The first " (WAITING) " of " (number(&queue["queue_size"])) "." } }
        }
    }
}

fn row(one: &Value, session: &Session) -> Vec<Markup> {
    let id = one["request_id"].as_str();
    vec![
        html! { (word(one, "priority")) },
        html! { (word(one, "project_id")) },
        html! { (word(one, "user_id")) },
        html! { (word(one, "model")) },
        html! { (one["position"]) },
        html! { (seconds(one["age_seconds"].as_f64())) },
        html! { (seconds(one["expected_wait_seconds"].as_f64())) },
        html! {
            @if let (Some(id), true) = (id, session.role.may_change_all()) {
                form method="post" action="/console/requests/cancel" {
                    (csrf(session))
                    input type="hidden" name="id" value=(id);
                    input type="hidden" name="page" value=(Page::Queue.path());
                    button.danger #{"cancel-" (id)} type="submit" aria-label={"Cancel " (id)} { "Cancel" }
                }
            }
        },
    ]
}
