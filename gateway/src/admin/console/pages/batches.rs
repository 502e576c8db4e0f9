//! Batches: the newest, how far each has come, and how it ended.

use super::super::frame::{Part, section};
use super::super::plot;
use super::super::table::{numbers, table, text};
use super::super::text::moment;
use super::super::view::{Page, link};
use crate::admin::Admin;
use ledger::BatchStatus;
use ledger::batches::{self, Batch};
use maud::{Markup, html};

/// The number of batches on the page.
const SHOWN: i64 = 100;

pub(super) async fn parts(admin: &Admin) -> Result<Vec<Part>, ledger::Error> {
    let newest = batches::newest(&admin.pool, SHOWN).await?;
    Ok(vec![Part::live(
        "batches",
        section("batches", "Newest batches", &all(&newest)),
    )])
}

fn all(newest: &[Batch]) -> Markup {
    let columns = [
        text("Batch"),
        text("Project"),
        text("User"),
        text("Endpoint"),
        text("Status"),
        text("Progress"),
        numbers("Failed"),
        text("Created (UTC)"),
        text("Ends (UTC)"),
    ];
    let rows: Vec<Vec<Markup>> = newest.iter().map(row).collect();
    html! {
        @if rows.is_empty() {
            p.none { "No batches. Clients create them with " code { "POST /v1/batches" } "; they run while nothing more urgent waits." }
        } @else {
            (table("Batches", &columns, &rows))
            p.none.small { "The newest " (SHOWN) " at most; finished batches are deleted when their files expire." }
        }
    }
}

fn row(batch: &Batch) -> Vec<Markup> {
    let (class, meaning) = match batch.status {
        BatchStatus::Completed => ("good", "All requests were made"),
        BatchStatus::Failed => ("bad", "The input file could not be used"),
        BatchStatus::Expired => ("warn", "The completion window ended first"),
        BatchStatus::Cancelled | BatchStatus::Cancelling => ("plain", "Cancelled by its owner"),
        BatchStatus::Validating => ("plain", "Its input file is being read"),
        BatchStatus::InProgress => ("plain", "Its requests run while nothing more urgent waits"),
    };
    let done = batch.completed + batch.failed;
    let share = if batch.total > 0 {
        real(done) / real(batch.total)
    } else {
        0.0
    };
    let ends = batch.finished_at.unwrap_or(batch.expires_at);
    vec![
        html! { code { (batch.id.as_str()) } },
        html! { a href=(link(Page::Project, &[("id", &batch.project_id)])) { (batch.project_id) } },
        html! { (batch.user_id) },
        html! { (batch.endpoint) },
        html! {
            span class={"state " (class)} title=(meaning) { (batch.status.name().replace('_', " ")) }
            @if let Some(problems) = &batch.problems { " " span.reason { (problems) } }
        },
        html! { (plot::part(share, &format!("{done} of {} done", batch.total))) " " (done) " of " (batch.total) },
        html! { (batch.failed) },
        html! { (at(batch.created_at)) },
        html! { (at(ends)) @if batch.finished_at.is_none() { span.reason { " at the latest" } } },
    ]
}

fn at(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "–".to_owned(), |time| moment(&time.to_string()))
}

#[allow(clippy::cast_precision_loss)]
fn real(count: i64) -> f64 {
    count as f64
}
