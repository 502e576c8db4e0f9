//! Projects: what each used and spent, its refusals, quotas and budgets.

use super::super::allowances::allowances;
use super::super::charts::{real, spend};
use super::super::frame::{Part, range_picker, section};
use super::super::plot::{self, short};
use super::super::table::{numbers, table, text};
use super::super::tally::{Tally, by_first};
use super::super::text::{euros, percent};
use super::super::view::{Page, View, link};
use crate::admin::Admin;
use ledger::spans::{self, SpanGroup};
use maud::{Markup, html};
use std::collections::BTreeMap;

pub(super) async fn parts(admin: &Admin, view: &View) -> Result<Vec<Part>, ledger::Error> {
    let range = view.range();
    let query = range.until_now();
    let spans = spans::sums(
        &admin.pool,
        &query.query(None),
        &[SpanGroup::Project, SpanGroup::Status],
        false,
    )
    .await?;
    let mut tallies = by_first(&spans);
    let snapshot = admin.services.current.get();
    for project in snapshot.config.projects.iter().filter(|project| !project.is_removed) {
        tallies.entry(project.id.clone()).or_default();
    }
    Ok(vec![
        Part::fixed(range_picker(view)),
        Part::live(
            "projects",
            section("projects", range.words(), &projects(&tallies, range.name())),
        ),
        Part::live(
            "allowances",
            section("allowances", "Quotas and budgets", &allowances(admin, None)),
        ),
    ])
}

fn projects(tallies: &BTreeMap<String, Tally>, range: &str) -> Markup {
    let columns = [
        text("Project"),
        numbers("Requests"),
        numbers("Refused"),
        numbers("Failed"),
        numbers("Objectives met"),
        numbers("Input tokens"),
        numbers("Output tokens"),
        numbers("Spend"),
        text("Share of spend"),
    ];
    let all: f64 = tallies.values().map(|tally| spend(&tally.all)).sum();
    let mut sorted: Vec<(&String, &Tally)> = tallies.iter().collect();
    sorted.sort_by(|a, b| spend(&b.1.all).total_cmp(&spend(&a.1.all)));
    let rows: Vec<Vec<Markup>> = sorted
        .into_iter()
        .map(|(project, tally)| {
            let share = if all > 0.0 { spend(&tally.all) / all } else { 0.0 };
            vec![
                html! { @if project.is_empty() { span.reason { "unknown caller" } } @else { a href=(link(Page::Project, &[("id", project), ("range", range)])) { (project) } } },
                html! { (short(real(tally.all.requests))) },
                count(tally.refused, tally.refused_rate(), "warn"),
                count(tally.failed, tally.error_rate(), "bad"),
                attainment(tally),
                html! { (short(real(tally.all.input_tokens))) },
                html! { (short(real(tally.all.output_tokens))) },
                html! { (euros(spend(&tally.all))) },
                html! { (plot::part(share, &format!("{} of all spend", percent(share)))) " " (percent(share)) },
            ]
        })
        .collect();
    table("Projects", &columns, &rows)
}

/// The share of objectives that were met.
pub(super) fn attainment(tally: &Tally) -> Markup {
    html! {
        @match tally.attainment() {
            Some(met) if met < GOOD => span.text.warn { (percent(met)) },
            Some(met) => (percent(met)),
            None => "–",
        }
    }
}

/// A smaller share of objectives met is colored.
pub(super) const GOOD: f64 = 0.95;

/// A count with its share, colored where it is not zero.
pub(super) fn count(count: i64, share: Option<f64>, class: &str) -> Markup {
    html! {
        @if count == 0 { "0" } @else {
            span class={"text " (class)} { (short(real(count))) @if let Some(share) = share { " (" (percent(share)) ")" } }
        }
    }
}
