//! `/events`: the state once a second, as JSON; for the console (`?view=console`) the parts of its page that have
//! changed, rendered.

use super::super::{challenge, refused};
use super::{Admin, page, state};
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Between two looks.
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
pub(super) struct View {
    view: Option<String>,
}

/// The stream of events of one open page.
struct Feed {
    admin: Admin,
    is_console: bool,
    /// The parts that it has, as they were sent last.
    sent: HashMap<&'static str, String>,
    ready: Vec<Event>,
    has_begun: bool,
    _listener: Listener,
}

pub(super) async fn stream(State(admin): State<Admin>, Query(view): Query<View>, request: Request) -> Response {
    let headers = request.headers();
    if !admin.is_known(headers) && admin.console.session_of(headers).is_none() {
        return challenge();
    }
    let Some(listener) = Listener::new() else {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MOST} listen already; close one of them"),
        );
    };
    let feed = Feed {
        admin,
        is_console: view.view.as_deref() == Some("console"),
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

impl Feed {
    /// The next event; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            if std::mem::replace(&mut self.has_begun, true) {
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    // An open page does not delay a shutdown.
                    () = self.admin.services.shutdown.stopping() => return None,
                }
            }
            // A database that is away for a moment is no reason to end.
            if let Ok(state) = state::collect(&self.admin).await {
                self.look(&state);
            }
        }
        self.ready.pop()
    }

    fn look(&mut self, state: &Value) {
        if !self.is_console {
            self.ready.push(Event::default().event("state").data(state.to_string()));
            return;
        }
        for (name, html) in page::parts(state, &self.admin.console.history.samples()) {
            if self.sent.get(name) != Some(&html) {
                self.ready.push(Event::default().event(name).data(&html));
                self.sent.insert(name, html);
            }
        }
    }
}
