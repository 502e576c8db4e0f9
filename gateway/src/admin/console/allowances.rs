//! Quotas and budgets as the pages show them: how much is used, and how much will be at this pace when they reset.

use super::plot::{self, short};
use super::table::{numbers, table, text};
use super::text::{euros, list, number, percent, word};
use super::view::{Page, link};
use crate::admin::Admin;
use crate::limit_status;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use maud::{Markup, html};
use policy::{ProjectId, Subject};
use serde_json::Value;

/// The smallest part of a window from which a forecast is made.
const SHORTEST: f64 = 0.02;

/// The quotas and budgets of all projects, or of one.
pub(super) fn allowances(admin: &Admin, only: Option<&str>) -> Markup {
    let snapshot = admin.services.current.get();
    let now = Timestamp::now();
    let projects = snapshot.config.projects.iter().zip((0..).map(ProjectId));
    let wanted = projects.filter(|(project, _)| only.map_or(!project.is_removed, |only| project.id == only));
    let mut rows = Vec::new();
    for (project, id) in wanted {
        let status = limit_status::render(&admin.services.gate, Subject::Project(id), Some(project.plan));
        let limited = list(&status, "allowances").iter().filter(|one| !one["limit"].is_null());
        rows.extend(limited.map(|one| row(&project.id, one, now)));
    }
    let columns = [
        text("Project"),
        text("Of"),
        text("Used share"),
        numbers("Used + reserved"),
        numbers("Remaining"),
        numbers("Limit"),
        numbers("Forecast at reset"),
        text("Resets (UTC)"),
    ];
    html! {
        @if rows.is_empty() {
            p.none { "No quota or budget is set; see " code { "projects.yaml" } "." }
        } @else {
            (table("Quotas and budgets", &columns, &rows))
            p.none.small { "The forecast goes on at this window's pace so far." }
        }
    }
}

fn row(project: &str, one: &Value, now: Timestamp) -> Vec<Markup> {
    let (used, held, limit) = (number(&one["used"]), number(&one["reserved"]), number(&one["limit"]));
    let share = if limit > 0.0 { (used + held) / limit } else { 1.0 };
    let is_money = one["measure"] == "eur";
    let amount = |value: f64| if is_money { euros(value) } else { short(value) };
    let unit = if is_money { "budget" } else { word(one, "measure") };
    let forecast = elapsed(word(one, "window"), word(one, "resets_at"), now)
        .filter(|elapsed| *elapsed >= SHORTEST)
        .map(|elapsed| used / elapsed);
    vec![
        html! { a href=(link(Page::Project, &[("id", project)])) { (project) } },
        html! { (unit) " a " (word(one, "window")) },
        html! { (plot::share(share, &format!("{} used", percent(share)))) " " (percent(share)) },
        html! { (amount(used)) @if held > 0.0 { " + " (amount(held)) } },
        html! { (amount(number(&one["remaining"]))) },
        html! { (amount(limit)) },
        html! {
            @match forecast {
                None => "–",
                Some(forecast) if forecast > limit => span.state.warn title="At this pace the limit is reached before it resets" { (amount(forecast)) },
                Some(forecast) => (amount(forecast)),
            }
        },
        html! { (word(one, "resets_at").get(..10).unwrap_or_default()) },
    ]
}

/// The part of a window of a day or a month, in UTC, that has passed.
#[allow(clippy::cast_precision_loss)]
fn elapsed(window: &str, resets_at: &str, now: Timestamp) -> Option<f64> {
    let end: Timestamp = resets_at.parse().ok()?;
    let length = if window == "day" { 1.day() } else { 1.month() };
    let begin = end.to_zoned(TimeZone::UTC).checked_sub(length).ok()?.timestamp();
    let (passed, whole) = (now.as_second() - begin.as_second(), end.as_second() - begin.as_second());
    (whole > 0).then(|| passed as f64 / whole as f64)
}

/// The rate limits of a project and of its plan, and what is left of them.
pub(super) fn rates(admin: &Admin, project: ProjectId) -> Markup {
    let snapshot = admin.services.current.get();
    let plan = snapshot.config.project(project).plan;
    let status = limit_status::render(&admin.services.gate, Subject::Project(project), Some(plan));
    let columns = [
        text("Limit of"),
        text("Counts"),
        text("Used share"),
        numbers("Remaining"),
        numbers("Limit"),
    ];
    let rows: Vec<Vec<Markup>> = list(&status, "rates")
        .iter()
        .map(|one| {
            let (limit, left) = (number(&one["limit"]), number(&one["remaining"]));
            let share = if limit > 0.0 { 1.0 - left / limit } else { 1.0 };
            vec![
                html! { @if one["limit_of"] == "plan" { "plan" } @else { "project" } },
                html! { (word(one, "counts").replace('_', " ")) },
                html! { (plot::share(share, &format!("{} used", percent(share)))) " " (percent(share)) },
                html! { (short(left)) },
                html! { (short(limit)) },
            ]
        })
        .collect();
    html! { @if rows.is_empty() { p.none { "No rate limit." } } @else { (table("Rate limits", &columns, &rows)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_passed_by_the_calendar() {
        let now: Timestamp = "2026-11-16T00:00:00Z".parse().expect("a time");
        assert_eq!(elapsed("month", "2026-12-01T00:00:00Z", now), Some(0.5));
        let now: Timestamp = "2026-11-16T18:00:00Z".parse().expect("a time");
        assert_eq!(elapsed("day", "2026-11-17T00:00:00Z", now), Some(0.75));
        assert_eq!(elapsed("day", "never", now), None);
    }
}
