//! The console's pages. What changes is in parts, which `/events` sends again when they differ.

use super::history::Sample;
use super::plot::{self, Series, short};
use super::session::Session;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

/// The result of an action, shown once.
pub(super) enum Notice {
    Done(String),
    Wrong(String),
    /// A new key, which is shown now and never again.
    Secret(String),
}

/// A page around its content.
fn layout(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/console.svg" type="image/svg+xml";
                link rel="stylesheet" href="/console.css";
            }
            body { (content) }
        }
    }
}

pub(super) fn login(trouble: Option<&str>) -> Markup {
    layout(
        "Sluice – log in",
        &html! {
            main.login {
                h1 { "Sluice" }
                @if let Some(trouble) = trouble { p.notice.wrong role="alert" { (trouble) } }
                p { "Open the link that the gateway printed at startup, or create one with " code { "sluice console" } "." }
                form method="post" action="/login" {
                    label for="token" { "Or the admin token" }
                    input #token type="password" name="token" autocomplete="current-password" required;
                    button type="submit" { "Log in" }
                }
            }
        },
    )
}

pub(super) fn console(
    state: &Value,
    samples: &[Sample],
    keys: &[Value],
    session: &Session,
    notice: Option<Notice>,
) -> Markup {
    let parts = parts(state, samples);
    let part = |name: &str| {
        let found = parts.iter().find(|(known, _)| *known == name);
        maud::PreEscaped(found.map(|(_, html)| html.clone()).unwrap_or_default())
    };
    let section = |name: &str, title: &str| {
        html! {
            section aria-labelledby={"h-" (name)} {
                h2 #{"h-" (name)} { (title) }
                div.scroll tabindex="0" role="group" aria-labelledby={"h-" (name)} { div data-part=(name) { (part(name)) } }
            }
        }
    };
    layout(
        "Sluice",
        &html! {
            a.skip href="#main" { "Skip to content" }
            header.top {
                h1 { "Sluice" }
                div data-part="head" { (part("head")) }
                nav aria-label="Sections" {
                    a href="#h-queue" { "Queue" } a href="#h-projects" { "Budgets" } a href="#h-upstreams" { "Upstreams" }
                    a href="#h-recent" { "Requests" } a href="#h-keys" { "Keys" } a href="#h-config" { "Configuration" }
                }
                form method="post" action="/logout" { input type="hidden" name="csrf" value=(session.csrf); button.quiet type="submit" { "Log out" } }
            }
            main #main {
                p #lost.notice.wrong role="alert" hidden { "No connection to the gateway; the data below is outdated. Reconnecting …" }
                @if let Some(notice) = notice { (render_notice(&notice)) }
                div.tiles data-part="tiles" { (part("tiles")) }
                section aria-labelledby="h-plots" {
                    h2 #h-plots { "Last five minutes" }
                    div.plots data-part="plots" { (part("plots")) }
                }
                (section("queue", "Queue"))
                (section("projects", "Quotas and budgets"))
                (section("upstreams", "Upstreams"))
                (section("recent", "Recent requests"))
                (keys_section(keys, state, session))
                section aria-labelledby="h-config" {
                    h2 #h-config { "Configuration in force" }
                    div data-part="config" { (part("config")) }
                    form method="post" action="/console/reload" {
                        input type="hidden" name="csrf" value=(session.csrf);
                        button type="submit" { "Reload configuration" }
                    }
                }
            }
            script src="/console.js" defer {}
        },
    )
}

fn render_notice(notice: &Notice) -> Markup {
    match notice {
        Notice::Done(words) => html! { p.notice role="status" { (words) } },
        Notice::Wrong(words) => html! { p.notice.wrong role="alert" { (words) } },
        Notice::Secret(secret) => html! {
            p.notice role="status" { "New key (shown only once): " code #secret { (secret) } }
        },
    }
}

/// Everything that changes by itself, by name.
pub(super) fn parts(state: &Value, samples: &[Sample]) -> Vec<(&'static str, String)> {
    [
        ("head", head(state)),
        ("tiles", tiles(state)),
        ("plots", plots(samples)),
        ("queue", queue(state)),
        ("projects", projects(state)),
        ("upstreams", upstreams(state)),
        ("recent", recent(state)),
        ("config", config(state)),
    ]
    .map(|(name, markup)| (name, markup.into_string()))
    .to_vec()
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("–")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn seconds(value: &Value) -> String {
    value
        .as_f64()
        .map_or("–".to_owned(), |seconds| format!("{} s", short(seconds)))
}

fn head(state: &Value) -> Markup {
    html! {
        span { "version " (word(state, "version")) }
        span { "identity " (word(&state["config"], "identity")) }
        span { "as of " (word(state, "at")) }
    }
}

fn tiles(state: &Value) -> Markup {
    let (status, rates) = (&state["status"], &state["rates"]);
    let level = number(&status["current_degradation_level_number"]);
    let actions: Vec<&str> = list(status, "degradation_actions")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let pressure = format!(
        "pressure {}, queue {:.0} % full",
        short(number(&status["pressure_ratio"])),
        number(&status["queue_usage_ratio"]) * 100.0
    );
    let why = match actions.as_slice() {
        [] => pressure,
        actions => format!("{pressure}; {}", actions.join(", ")),
    };
    let of = |now: &str, most: &str| format!("{} of {}", status[now], status[most]);
    html! {
        (tile("Running", &of("active_requests", "max_active_requests"), "", ""))
        (tile("Waiting", &of("queue_size", "max_queue_size"), "", ""))
        (tile("Completed", &format!("{}/s", short(number(&rates["completed_a_second"]))),
            &format!("{} refused, {} failed a second", short(number(&rates["refused_a_second"])), short(number(&rates["failed_a_second"]))), ""))
        (tile("Tokens", &format!("{}/s", short(number(&rates["output_tokens_a_second"]))),
            &format!("output; {}/s input", short(number(&rates["input_tokens_a_second"]))), ""))
        (tile("Latency p95", &seconds(&rates["p95_seconds"]), &format!("p50 {}", seconds(&rates["p50_seconds"])), ""))
        (tile("Degradation", word(status, "current_degradation_level"), &why, if level > 0.0 { "warn" } else { "good" }))
    }
}

fn tile(name: &str, value: &str, more: &str, class: &str) -> Markup {
    html! {
        div class={"tile " (class)} {
            div.name { (name) }
            div.value { (value) }
            div.more { (more) }
        }
    }
}

fn plots(samples: &[Sample]) -> Markup {
    let series = |name: &'static str, of: &dyn Fn(&Sample) -> Option<f64>| Series {
        name,
        values: samples.iter().map(of).collect(),
    };
    html! {
        (plot::lines("Requests", "/s", &[
            series("completed", &|sample| Some(sample.completed)),
            series("refused", &|sample| Some(sample.refused)),
            series("failed", &|sample| Some(sample.failed)),
        ]))
        (plot::lines("Latency", "s", &[series("p50", &|sample| sample.p50), series("p95", &|sample| sample.p95)]))
        (plot::lines("Tokens", "/s", &[
            series("read", &|sample| Some(sample.input_tokens)),
            series("written", &|sample| Some(sample.output_tokens)),
        ]))
        (plot::lines("Requests at once", "", &[
            series("running", &|sample| Some(sample.running)),
            series("waiting", &|sample| Some(sample.waiting)),
        ]))
    }
}

fn queue(state: &Value) -> Markup {
    let queue = &state["queue"];
    let waiting = list(queue, "waiting");
    let all = number(&queue["queue_size"]);
    html! {
        p {
            @for (lane, count) in queue["by_priority"].as_object().into_iter().flatten() {
                span.pill { (lane) " " b { (count) } }
            }
            @for (project, count) in queue["by_project"].as_object().into_iter().flatten() {
                span.pill { (project) " " b { (count) } }
            }
        }
        p {
            @for (model, places) in queue["models"].as_object().into_iter().flatten() {
                span.pill.model {
                    (model) " running " b { (places["active_requests"]) }
                    @if let Some(most) = places["places"].as_u64() { " of " (most) }
                }
            }
        }
        @if waiting.is_empty() {
            p.none { "The queue is empty." }
        } @else {
            table {
                thead { tr { th scope="col" { "Priority" } th scope="col" { "Project" } th scope="col" { "User" } th scope="col" { "Model" }
                    th.n scope="col" { "Position" } th.n scope="col" { "Waiting" } th.n scope="col" { "Expected wait" } } }
                tbody {
                    @for one in waiting {
                        tr {
                            td { (word(one, "priority")) } td { (word(one, "project_id")) } td { (word(one, "user_id")) } td { (word(one, "model")) }
                            td.n { (one["position"]) } td.n { (seconds(&one["age_seconds"])) } td.n { (seconds(&one["expected_wait_seconds"])) }
                        }
                    }
                }
            }
            @if all > number(&waiting.len().into()) { p { "The first " (waiting.len()) " of " (all) "." } }
        }
    }
}

fn projects(state: &Value) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Project" } th scope="col" { "Window" } th scope="col" { "Measure" } th scope="col" { "Used share" }
                th.n scope="col" { "Used + reserved" } th.n scope="col" { "Remaining" } th.n scope="col" { "Limit" } th scope="col" { "Resets" } } }
            tbody {
                @for project in list(state, "projects") {
                    @for one in list(project, "allowances").iter().filter(|one| !one["limit"].is_null()) {
                        @let (used, held, limit) = (number(&one["used"]), number(&one["reserved"]), number(&one["limit"]));
                        @let part = if limit > 0.0 { (used + held) / limit } else { 1.0 };
                        @let percent = format!("{:.1} %", part * 100.0);
                        tr {
                            td { (word(project, "id")) } td { (word(one, "window")) } td { (word(one, "measure")) }
                            td { (plot::share(part, &format!("{percent} used"))) " " (percent) }
                            td.n { (short(used)) @if held > 0.0 { " + " (short(held)) } }
                            td.n { (short(number(&one["remaining"]))) } td.n { (short(limit)) }
                            td { (word(one, "resets_at").get(..10).unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

fn upstreams(state: &Value) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Server" } th scope="col" { "Backend" } th scope="col" { "State" } th.n scope="col" { "Running" }
                th.n scope="col" { "Outstanding tokens" } th scope="col" { "Models" } th scope="col" { "Last failure" } } }
            tbody {
                @for one in list(state, "upstreams") {
                    @let is_healthy = one["healthy"].as_bool().unwrap_or(false);
                    tr {
                        td { (word(one, "upstream")) } td { (word(one, "backend")) }
                        td { @if is_healthy { span.state.good { "healthy" } } @else { span.state.bad { @if one["away"] == true { "unreachable" } @else { "breaker " (word(one, "breaker")) } } } }
                        td.n { (one["active_requests"]) } td.n { (short(number(&one["outstanding_tokens"]))) }
                        td { (list(one, "models").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")) }
                        td { (word(one, "last_failure")) }
                    }
                }
            }
        }
    }
}

fn recent(state: &Value) -> Markup {
    let all = list(state, "recent");
    let longest = all
        .iter()
        .map(|one| number(&one["latency_seconds"]))
        .fold(0.0, f64::max);
    html! {
        @if all.is_empty() { p.none { "No requests yet." } } @else {
            p.legendline {
                span.legend { svg.key viewBox="0 0 12 8" aria-hidden="true" { rect.wait width="12" height="8" {} } "queued" }
                span.legend { svg.key viewBox="0 0 12 8" aria-hidden="true" { rect.first width="12" height="8" {} } "time to first token" }
                span.legend { svg.key viewBox="0 0 12 8" aria-hidden="true" { rect.rest width="12" height="8" {} } "streaming" }
            }
            table {
                thead { tr { th scope="col" { "Time" } th scope="col" { "Project" } th scope="col" { "Model" } th scope="col" { "Status" }
                    th scope="col" { "Steps" } th.n scope="col" { "Latency" } th.n scope="col" { "Tokens" } th.n scope="col" { "Cost" } th scope="col" { "Request" } } }
                tbody {
                    @for one in all {
                        @let status = word(one, "status");
                        tr {
                            td { (word(one, "created_at").get(11..19).unwrap_or_default()) }
                            td { (word(one, "project_id")) } td title=(word(one, "operation")) { (word(one, "model")) }
                            td { span class={"state " (if status == "completed" { "good" } else { "bad" })} { (status) }
                                @if let Some(reason) = one["reason"].as_str() { " " (reason) } }
                            td { (plot::steps(number(&one["queue_wait_seconds"]), one["first_token_seconds"].as_f64(), number(&one["latency_seconds"]), longest)) }
                            td.n { (seconds(&one["latency_seconds"])) } td.n { (one["total_tokens"]) }
                            td.n { (format!("€{:.5}", number(&one["estimated_cost_eur"]))) } td.id { (word(one, "request_id")) }
                        }
                    }
                }
            }
        }
    }
}

fn keys_section(keys: &[Value], state: &Value, session: &Session) -> Markup {
    html! {
        section aria-labelledby="h-keys" {
            h2 #h-keys { "Keys" }
            form.inline method="post" action="/console/keys" {
                input type="hidden" name="csrf" value=(session.csrf);
                label for="user" { "User" }
                select #user name="user" {
                    @for user in list(&state["config"], "users").iter().filter_map(Value::as_str) { option value=(user) { (user) } }
                }
                label for="expires" { "Expires after" }
                input #expires name="expires" placeholder="30d, 12h; empty: never" size="22";
                button type="submit" { "Create key" }
            }
            @if keys.is_empty() { p.none { "No API keys." } } @else {
                div.scroll tabindex="0" role="group" aria-labelledby="h-keys" {
                    table {
                        thead { tr { th scope="col" { "Key" } th scope="col" { "User" } th scope="col" { "Project" } th scope="col" { "State" }
                            th scope="col" { "Expires" } th scope="col" { "Last used" } th scope="col" { "Action" } } }
                        tbody {
                            @for key in keys {
                                @let id = word(key, "id");
                                tr {
                                    td.id { (id) } td { (word(key, "user_id")) } td { (word(key, "project_id")) } td { (word(key, "state")) }
                                    td { (word(key, "expires_at")) } td { (word(key, "last_used_at")) }
                                    td {
                                        @if key["state"] == "active" {
                                            form method="post" action="/console/keys/revoke" {
                                                input type="hidden" name="csrf" value=(session.csrf);
                                                input type="hidden" name="id" value=(id);
                                                button.danger type="submit" aria-label={"Revoke " (id)} { "Revoke" }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn config(state: &Value) -> Markup {
    let config = &state["config"];
    let reload = &config["last_reload"];
    html! {
        p {
            "Version " b { (config["version"]) } " since startup; price list " b { (config["config_version"]) } "; models "
            (list(config, "models").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")) "."
        }
        @if reload.is_null() {
            p.none { "Not reloaded since startup." }
        } @else if reload["result"] == "ok" {
            p { "Reloaded at " (word(reload, "at")) "; " @if list(reload, "changes").is_empty() { "no changes." } @else { "changed:" } }
            ul { @for change in list(reload, "changes").iter().filter_map(Value::as_str) { li { code { (change) } } } }
        } @else {
            p.notice.wrong { "Reload failed at " (word(reload, "at")) "; the previous configuration stays in force:" }
            ul { @for problem in list(reload, "problems").iter().filter_map(Value::as_str) { li { code { (problem) } } } }
        }
    }
}
