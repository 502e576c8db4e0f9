//! The gateways of a cluster: what runs and waits at each, and how old these figures are.

use super::frame::section;
use super::table::{numbers, table, text};
use super::text::{list, number, seconds, word};
use crate::cluster::state_of;
use maud::{Markup, html};
use serde_json::Value;

/// The section with the gateways of `/queue/status`; empty where one gateway serves.
pub(super) fn gateways(status: &Value) -> Markup {
    let cluster = &status["cluster"];
    if !is_one_of_several(status) {
        return html! {};
    }
    let columns = [
        text("Gateway"),
        text("Address"),
        text("State"),
        text("Degradation"),
        numbers("Running"),
        numbers("Queued"),
        numbers("Completed"),
        numbers("Failed"),
        numbers("Age of figures"),
    ];
    let mut rows: Vec<Vec<Markup>> = list(cluster, "members").iter().map(row).collect();
    let sum = |name: &str| html! { b { (cluster[name]) } };
    rows.push(vec![
        html! { b { "All live ones" } },
        html! {},
        html! {},
        html! {},
        sum("active_requests"),
        sum("queue_size"),
        sum("completed_requests"),
        sum("failed_requests"),
        html! {},
    ]);
    section("gateways", "Gateways", &table("Gateways", &columns, &rows))
}

/// Returns whether there are other gateways.
pub(super) fn is_one_of_several(status: &Value) -> bool {
    list(&status["cluster"], "members").len() > 1
}

fn row(member: &Value) -> Vec<Markup> {
    let figure = |name: &str| html! { @if let Some(figure) = member[name].as_u64() { (figure) } @else { "–" } };
    let state = state_of(member);
    let (class, meaning) = meaning(state);
    vec![
        html! { span title=(word(member, "gateway")) { (word(member, "name")) } @if member["is_this"] == true { " (this one)" } },
        html! { (word(member, "address")) },
        html! { span class={"state " (class)} title=(meaning) { (state) } },
        html! { (word(member, "current_degradation_level")) },
        figure("active_requests"),
        figure("queue_size"),
        figure("completed_requests"),
        figure("failed_requests"),
        html! { (seconds(Some(number(&member["age_seconds"])))) },
    ]
}

/// The class of a state's color, and what it means.
fn meaning(state: &str) -> (&'static str, &'static str) {
    match state {
        "stopping" => ("warn", "It finishes what runs and takes nothing new"),
        "live" => ("good", "It sends heartbeats and shares rate limits and slots"),
        "on its own" => (
            "warn",
            "It cannot reach the store of rate limits and slots, and uses its part of each",
        ),
        _ => (
            "bad",
            "No heartbeat for more than 5 s: killed, or cut off from the database",
        ),
    }
}
