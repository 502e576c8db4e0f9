//! One project: spend, tokens and refusals over time, by model, reason and user; its limits and how much of them is used.

use super::super::allowances::{allowances, rates};
use super::super::charts::{charts, real, spend};
use super::super::frame::{Part, range_picker, section};
use super::super::plot::short;
use super::super::range::Bars;
use super::super::reasons;
use super::super::table::{numbers, table, text};
use super::super::tally::{Tally, by_first, total};
use super::super::text::{euros, percent, seconds};
use super::super::tiles::tile;
use super::super::view::{Page, View, link};
use super::projects::{GOOD, count};
use crate::admin::Admin;
use ledger::report::{self, Dimension, Filter};
use ledger::spans::{self, SpanGroup, SpanSums};
use maud::{Markup, html};
use std::time::Duration;

/// The number of users on the page: those who spent most.
const USERS: usize = 20;

pub(super) async fn parts(admin: &Admin, view: &View) -> Result<Vec<Part>, ledger::Error> {
    let (id, range) = (view.asked.id.as_str(), view.range());
    let bars = range.until_now();
    let query = bars.query(Some(id));
    let over_time = spans::sums(&admin.pool, &query, &[SpanGroup::Status], true).await?;
    let by_model = spans::sums(&admin.pool, &query, &[SpanGroup::Model, SpanGroup::Status], false).await?;
    let by_reason = spans::sums(&admin.pool, &query, &[SpanGroup::Reason, SpanGroup::Status], false).await?;
    let users = users(admin, id, &bars).await?;
    let snapshot = admin.services.current.get();
    let project = snapshot.config.project_by_id(id);
    let limits = html! {
        (section("allowances", "Quotas and budgets", &allowances(admin, Some(id))))
        @if let Some(project) = project { (section("rates", "Rate limits", &rates(admin, project))) }
    };
    let about = html! {
        (range_picker(view))
        @if project.is_none() { p.notice.wrong { "This project is not configured; records of it may remain." } }
    };
    Ok(vec![
        Part::fixed(about),
        Part::live("tiles", tiles(&total(&over_time))),
        Part::live(
            "charts",
            section("charts", range.words(), &charts(range, &bars, &over_time)),
        ),
        Part::live("limits", html! { div.stack { (limits) } }),
        Part::live("models", section("models", "Models", &models(&by_model))),
        Part::live(
            "reasons",
            section(
                "reasons",
                "Refusals and failures",
                &refusals(id, range.name(), &by_reason),
            ),
        ),
        Part::live("users", section("users", "Users", &users)),
        Part::fixed(
            html! { p { a.button href=(link(Page::Requests, &[("project", id), ("range", range.name())])) { "Requests of this project" } } },
        ),
    ])
}

fn tiles(tally: &Tally) -> Markup {
    let refused = tally.refused_rate().map_or("–".to_owned(), percent);
    let failed = format!("{} failed", tally.error_rate().map_or("–".to_owned(), percent));
    let input = format!("output; {} input", short(real(tally.all.input_tokens)));
    let first = format!("first token {} on average", seconds(tally.all.mean_first_token()));
    html! {
        div.tiles {
            (tile("Spend", &euros(spend(&tally.all)), "in this time", ""))
            (tile("Requests", &short(real(tally.all.requests)), &failed, ""))
            (tile("Tokens", &short(real(tally.all.output_tokens)), &input, ""))
            (tile("Refused", &refused, &format!("{} requests", short(real(tally.refused))), if tally.refused > 0 { "warn" } else { "" }))
            (tile("Latency p95", &seconds(tally.all.latency(0.95)), &first, ""))
            @if let Some(met) = tally.attainment() {
                (tile("Objectives met", &percent(met), &format!("of {}", short(real(tally.all.objectives))), if met < GOOD { "warn" } else { "" }))
            }
        }
    }
}

fn models(spans: &[SpanSums]) -> Markup {
    let columns = [
        text("Model"),
        numbers("Requests"),
        numbers("Refused"),
        numbers("Failed"),
        numbers("Latency p50"),
        numbers("Latency p95"),
        numbers("Output tokens"),
        numbers("Spend"),
    ];
    let rows: Vec<Vec<Markup>> = by_first(spans)
        .iter()
        .map(|(model, tally)| {
            vec![
                html! { @if model.is_empty() { span.reason { "none was chosen" } } @else { (model) } },
                html! { (short(real(tally.all.requests))) },
                count(tally.refused, tally.refused_rate(), "warn"),
                count(tally.failed, tally.error_rate(), "bad"),
                html! { (seconds(tally.all.latency(0.5))) },
                html! { (seconds(tally.all.latency(0.95))) },
                html! { (short(real(tally.all.output_tokens))) },
                html! { (euros(spend(&tally.all))) },
            ]
        })
        .collect();
    html! { @if rows.is_empty() { p.none { "No requests in this time." } } @else { (table("Models", &columns, &rows)) } }
}

fn refusals(project: &str, range: &str, spans: &[SpanSums]) -> Markup {
    let mut reasons: Vec<(String, Tally)> = by_first(spans)
        .into_iter()
        .filter(|(reason, _)| !reason.is_empty())
        .collect();
    reasons.sort_by_key(|(_, tally)| -tally.all.requests);
    let rows: Vec<Vec<Markup>> = reasons
        .iter()
        .map(|(reason, tally)| {
            let requests = [("project", project), ("reason", reason), ("range", range)];
            vec![
                html! { a href=(link(Page::Requests, &requests)) { (reason) } },
                html! { (short(real(tally.all.requests))) },
                html! { span.prose { (reasons::advice(reason)) } },
            ]
        })
        .collect();
    let columns = [text("Reason"), numbers("Requests"), text("What to do")];
    html! {
        @if rows.is_empty() { p.none { "None in this time." } } @else { (table("Refusals and failures", &columns, &rows)) }
    }
}

/// Users by spend, from the sums of days.
async fn users(admin: &Admin, project: &str, bars: &Bars) -> Result<Markup, ledger::Error> {
    let day = |seconds: i64| ledger::day_of(Duration::from_secs(seconds.unsigned_abs()));
    let from = day(bars.from);
    let filter = Filter {
        from: Some(from.clone()),
        to: None,
        only: Some((Dimension::Project, project.to_owned())),
    };
    let mut lines = report::lines(&admin.pool, &[Dimension::User], &filter).await?;
    lines.sort_by_key(|line| (-line.cost_nano_eur, -line.requests));
    let all = lines.len();
    lines.truncate(USERS);
    let rows: Vec<Vec<Markup>> = lines
        .iter()
        .map(|line| {
            let user = line.groups.concat();
            vec![
                html! { a href=(link(Page::Requests, &[("project", project), ("user", &user)])) { (user) } },
                html! { (short(real(line.requests))) },
                html! { (short(real(line.input_tokens))) },
                html! { (short(real(line.output_tokens))) },
                html! { (euros(real(line.cost_nano_eur) / 1e9)) },
            ]
        })
        .collect();
    let columns = [
        text("User"),
        numbers("Requests"),
        numbers("Input tokens"),
        numbers("Output tokens"),
        numbers("Spend"),
    ];
    Ok(html! {
        @if rows.is_empty() { p.none { "No requests in this time." } } @else {
            (table("Users", &columns, &rows))
            p.none.small { "Whole days (UTC) from " (from) " on" @if all > USERS { "; the " (USERS) " of " (all) " users that spent most" } "." }
        }
    })
}
