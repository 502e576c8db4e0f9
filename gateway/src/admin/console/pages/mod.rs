//! The pages, a file each. A page collects what it shows and renders it as parts; live parts are sent again when they
//! have changed.

mod batches;
mod configuration;
mod keys;
mod models;
mod overview;
mod project;
mod projects;
mod queue;
mod request;
mod requests;

use super::frame::{self, HEAD, Notice, Part, section};
use super::session::Session;
use super::text::moment;
use super::view::{Page, View};
use crate::admin::Admin;
use crate::config::Identity;
use axum::response::{Html, IntoResponse, Response};
use maud::html;
use std::time::Duration;

/// A page, with what has just been done above it.
pub(super) async fn respond(admin: &Admin, view: &View, session: &Session, notice: Option<Notice>) -> Response {
    let parts = parts(admin, view, session).await;
    Html(frame::page(view, &parts, session, notice.as_ref()).into_string()).into_response()
}

/// The parts of a page. Where the database does not answer, one says so.
pub(super) async fn parts(admin: &Admin, view: &View, session: &Session) -> Vec<Part> {
    let collected = match view.page {
        Page::Overview => overview::parts(admin, view).await,
        Page::Queue => Ok(queue::parts(admin, session).await),
        Page::Projects => projects::parts(admin, view).await,
        Page::Project => project::parts(admin, view).await,
        Page::Models => models::parts(admin, view).await,
        Page::Requests => requests::parts(admin, view, session).await,
        Page::Request => request::parts(admin, view, session).await,
        Page::Keys => keys::parts(admin, view, session).await,
        Page::Batches => batches::parts(admin).await,
        Page::Configuration => Ok(configuration::parts(admin, session)),
    };
    let mut parts = collected.unwrap_or_else(|error| {
        let trouble = html! {
            p.notice.wrong { "The database does not answer: " (error) }
            p { "Requests go on; their records wait in the journal. Check the database, then reload this page." }
        };
        vec![Part::live("trouble", section("trouble", "Database", &trouble))]
    });
    parts.push(Part::live(HEAD, head(admin)));
    parts
}

/// The interval at which a page's parts are rendered again.
pub(super) const fn interval(page: Page) -> Duration {
    match page {
        Page::Overview | Page::Queue => Duration::from_secs(1),
        Page::Requests | Page::Request | Page::Models => Duration::from_secs(2),
        Page::Projects | Page::Project | Page::Keys | Page::Batches | Page::Configuration => Duration::from_secs(5),
    }
}

fn head(admin: &Admin) -> maud::Markup {
    let snapshot = admin.services.current.get();
    let identity = match snapshot.config.gateway.identity {
        Identity::Keys => "keys",
        Identity::Open { .. } => "open",
    };
    html! {
        span { "as of " (moment(&jiff::Timestamp::now().to_string())) " UTC" }
        span { "version " (env!("CARGO_PKG_VERSION")) }
        span { "identity " (identity) }
    }
}
