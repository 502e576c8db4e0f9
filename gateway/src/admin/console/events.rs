//! `/events`: the state once a second, as JSON; for a page of the console (`?view=/console/queue`) its parts that have
//! changed, rendered.

use super::super::access::Visitor;
use super::super::refused;
use super::session::Session;
use super::view::View;
use super::{Admin, pages, state};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Between two states.
const EVERY: Duration = Duration::from_secs(1);
/// Listeners at once.
const MOST: usize = 32;

static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// One listener; dropped, there is room for another.
struct Listener;

impl Listener {
    fn new() -> Option<Self> {
        let before = LISTENERS.fetch_add(1, Relaxed);
        let listener = Self;
        (before < MOST).then_some(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Relaxed);
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// The path and query of a page.
    view: Option<String>,
}

/// The stream of events of one open page.
struct Feed {
    admin: Admin,
    /// The page, and the session that its forms belong to; `None`: the state as JSON.
    page: Option<(View, Session)>,
    /// The parts that it has, as they were sent last.
    sent: HashMap<&'static str, String>,
    ready: Vec<Event>,
    has_begun: bool,
    _listener: Listener,
}

pub(super) async fn stream(
    State(admin): State<Admin>,
    Query(wanted): Query<Wanted>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Response {
    let session = admin.console.session_of(&headers);
    if session.is_none()
        && let Err(denied) = admin.check(&visitor)
    {
        return denied.into_response();
    }
    let session = session.unwrap_or_else(Session::none);
    let page = match wanted.view.map(|view| view.parse().ok().and_then(|uri| View::of(&uri))) {
        None if session.role.project().is_none() => None,
        None => return not_included(),
        Some(Some(view)) => match session.role.scoped(view) {
            Some(view) => Some((view, session)),
            None => return not_included(),
        },
        Some(None) => {
            let detail = "unknown `view`; use the path of a page of the console, such as /console/queue";
            return refused(StatusCode::BAD_REQUEST, detail);
        }
    };
    let Some(listener) = Listener::new() else {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MOST} listen already; close one of them"),
        );
    };
    let feed = Feed {
        admin,
        page,
        sent: HashMap::new(),
        ready: Vec::new(),
        has_begun: false,
        _listener: listener,
    };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn not_included() -> Response {
    refused(StatusCode::FORBIDDEN, "your role does not include that")
}

impl Feed {
    /// The next event; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Event> {
        let every = self.page.as_ref().map_or(EVERY, |(view, _)| pages::interval(view.page));
        while self.ready.is_empty() {
            if std::mem::replace(&mut self.has_begun, true) {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    // An open page does not delay a shutdown.
                    () = self.admin.services.shutdown.stopping() => return None,
                }
            }
            self.look().await;
        }
        self.ready.pop()
    }

    async fn look(&mut self) {
        let Some((view, session)) = &self.page else {
            // A database that is away for a moment is no reason to end.
            if let Ok(state) = state::collect(&self.admin).await {
                self.ready.push(Event::default().event("state").data(state.to_string()));
            }
            return;
        };
        for part in pages::parts(&self.admin, view, session).await {
            let html = part.html.into_string();
            if part.is_live && self.sent.get(part.name) != Some(&html) {
                self.ready.push(Event::default().event(part.name).data(&html));
                self.sent.insert(part.name, html);
            }
        }
    }
}
