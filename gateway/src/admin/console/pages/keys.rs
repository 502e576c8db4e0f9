//! Keys: made, rotated and revoked here; a secret is shown once.

use super::super::frame::{Part, csrf, section};
use super::super::session::Session;
use super::super::table::{table, text};
use super::super::text::{joined, list, moment, word};
use super::super::view::View;
use crate::admin::Admin;
use crate::config::Role;
use maud::{Markup, html};
use serde_json::Value;

pub(super) async fn parts(admin: &Admin, view: &View, session: &Session) -> Result<Vec<Part>, ledger::Error> {
    let mut keys = crate::keys::list(&admin.pool).await?;
    keys.retain(|key| session.role.sees(word(key, "project_id")));
    let list = Part::live("keys", section("keys", "API keys", &all(&keys, session)));
    if session.role == Role::Viewer {
        return Ok(vec![list]);
    }
    let form = section("new-key", "Create a key", &form(admin, view, session));
    Ok(vec![Part::fixed(form), list])
}

fn form(admin: &Admin, view: &View, session: &Session) -> Markup {
    let snapshot = admin.services.current.get();
    let config = &snapshot.config;
    let users = config.users.iter().filter(|user| !user.is_removed);
    let users = users.filter(|user| session.role.sees(&config.project(user.project).id));
    html! {
        form.inline method="post" action="/console/keys" {
            (csrf(session))
            div.field { label for="user" { "User" }
                select #user name="user" {
                    @for user in users { option value=(user.id) selected[user.id == view.asked.user] { (user.id) } }
                } }
            div.field { label for="label" { "Label" } input #label name="label" placeholder="laptop of Ada" maxlength="200"; }
            div.field { label for="expires" { "Expires after" } input #expires name="expires" placeholder="30d, 1y; empty: never"; }
            div.field { label for="models" { "Models" } input #models name="models" placeholder="a, b; empty: all"; }
            button type="submit" { "Create key" }
        }
    }
}

fn all(keys: &[Value], session: &Session) -> Markup {
    let columns = [
        text("Key"),
        text("Label"),
        text("User"),
        text("Project"),
        text("State"),
        text("Models"),
        text("Expires (UTC)"),
        text("Last used (UTC)"),
        text("Actions"),
    ];
    let rows: Vec<Vec<Markup>> = keys.iter().map(|key| row(key, session)).collect();
    html! {
        @if keys.is_empty() {
            p.none { "No API keys. Create one above, or many at once with " code { "sluice keys import team.csv" } "." }
        } @else {
            (table("API keys", &columns, &rows))
        }
    }
}

fn row(key: &Value, session: &Session) -> Vec<Markup> {
    let state = word(key, "state");
    let class = match state {
        "active" => "good",
        "revoked" => "bad",
        _ => "plain",
    };
    vec![
        html! { code { (word(key, "id")) } },
        html! { (word(key, "label")) },
        html! { (word(key, "user_id")) },
        html! { (word(key, "project_id")) },
        html! {
            span class={"state " (class)} { (state) }
            @if let Some(until) = key["old_secret_until"].as_str() { " " span.reason { "old secret until " (moment(until)) } }
        },
        html! { @if list(key, "models").is_empty() { "all" } @else { (joined(key, "models")) } },
        html! { (key["expires_at"].as_str().map_or("never".to_owned(), moment)) },
        html! { (key["last_used_at"].as_str().map_or("never".to_owned(), moment)) },
        html! { @if state == "active" && session.role != Role::Viewer { (actions(word(key, "id"), session)) } },
    ]
}

fn actions(id: &str, session: &Session) -> Markup {
    html! {
        form.row method="post" action="/console/keys/rotate" {
            (csrf(session))
            input type="hidden" name="id" value=(id);
            button.plain #{"rotate-" (id)} type="submit" aria-label={"Rotate " (id)} title="A new secret for the same key; the old one works for another hour" { "Rotate" }
            button.danger #{"revoke-" (id)} type="submit" formaction="/console/keys/revoke" aria-label={"Revoke " (id)} { "Revoke" }
        }
    }
}
