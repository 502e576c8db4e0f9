//! Configuration: what is in force, how the last reload went, and reloading.

use super::super::frame::{Part, csrf, section};
use super::super::session::Session;
use super::super::table::{numbers, table, text};
use super::super::text::{list, moment, number, word};
use crate::admin::{Admin, config};
use crate::config::summary::summary;
use maud::{Markup, html};
use serde_json::Value;

pub(super) fn parts(admin: &Admin, session: &Session) -> Vec<Part> {
    let snapshot = admin.services.current.get();
    let reload = config::last_reload(admin);
    let summary = summary(&snapshot.config);
    let versions = html! {
        p {
            "Version " b { (snapshot.version) } " since startup; price list " b { (snapshot.config_version) } "."
        }
        (last_reload(&reload))
    };
    let form = html! {
        @if session.role.may_change_all() {
            form method="post" action="/console/reload" {
                (csrf(session))
                button type="submit" { "Reload configuration" }
            }
        }
    };
    vec![
        Part::live("config", section("config", "In force", &versions)),
        Part::fixed(form),
        Part::live("models", section("models", "Models", &models(&summary))),
        Part::live("limits", section("limits", "Limits", &limits(&summary))),
    ]
}

fn last_reload(reload: &Value) -> Markup {
    html! {
        @if reload.is_null() {
            p.none { "Not reloaded since startup." }
        } @else if reload["result"] == "ok" {
            p { "Reloaded at " (moment(word(reload, "at"))) " UTC; " @if list(reload, "changes").is_empty() { "no changes." } @else { "changed:" } }
            ul { @for change in list(reload, "changes").iter().filter_map(Value::as_str) { li { code { (change) } } } }
        } @else {
            p.notice.wrong { "Reload failed at " (moment(word(reload, "at"))) " UTC; the previous configuration stays in force. Correct the files, then reload again:" }
            ul { @for problem in list(reload, "problems").iter().filter_map(Value::as_str) { li { code { (problem) } } } }
        }
    }
}

fn models(summary: &Value) -> Markup {
    let columns = [
        text("Model"),
        text("State"),
        text("Backend"),
        numbers("Input tokens at most"),
        numbers("Output tokens at most"),
        numbers("€ per 1,000 input tokens"),
        numbers("€ per 1,000 output tokens"),
    ];
    let models = summary["models"].as_object().into_iter().flatten();
    let rows: Vec<Vec<Markup>> = models
        .map(|(name, model)| {
            vec![
                html! { (name) },
                html! { @if model["enabled"] == true { span.state.good { "enabled" } } @else { span.state.plain { "disabled" } } },
                html! { (word(model, "backend")) },
                html! { (model["max_input_tokens"]) },
                html! { (model["max_output_tokens"]) },
                html! { (number(&model["input_cost_per_1k_tokens_eur"])) },
                html! { (number(&model["output_cost_per_1k_tokens_eur"])) },
            ]
        })
        .collect();
    table("Models", &columns, &rows)
}

fn limits(summary: &Value) -> Markup {
    let global = &summary["limits"]["global_limits"];
    let value = |value: &Value| value.as_f64().map_or("no limit".to_owned(), |value| value.to_string());
    let plans = summary["limits"]["rate_limits"].as_object().into_iter().flatten();
    let rows: Vec<Vec<Markup>> = plans
        .map(|(name, plan)| {
            let limits = [
                "requests_per_minute",
                "tokens_per_minute",
                "requests_per_day",
                "tokens_per_day",
            ];
            let values = limits.map(|limit| html! { (value(&plan[limit])) });
            [html! { (name) }].into_iter().chain(values).collect()
        })
        .collect();
    let columns = [
        text("Plan"),
        numbers("Requests a minute"),
        numbers("Tokens a minute"),
        numbers("Requests a day"),
        numbers("Tokens a day"),
    ];
    html! {
        dl.facts {
            div { dt { "Running at once" } dd { (value(&global["max_active_requests"])) } }
            div { dt { "Queued at once" } dd { (value(&global["max_queue_size"])) } }
            div { dt { "Longest wait" } dd { (value(&global["max_queue_wait_seconds"])) " s" } }
            div { dt { "Request timeout" } dd { (value(&global["request_timeout_seconds"])) " s" } }
            div { dt { "Scheduling" } dd { (word(&summary["limits"], "scheduling")) } }
        }
        (table("Plans", &columns, &rows))
    }
}
