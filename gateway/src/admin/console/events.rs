//! `/events`: the state once a second, as JSON; for the console (`?view=console`) the parts of its page that have
//! changed, rendered.

use super::super::{bearer, challenge, refused};
use super::{Admin, page, state};
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
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

pub(super) async fn stream(State(admin): State<Admin>, Query(view): Query<View>, request: Request) -> Response {
    let has_token = bearer(request.headers()).is_some_and(|given| admin.token.is(given));
    if !has_token && admin.console.session_of(request.headers()).is_none() {
        return challenge();
    }
    let Some(listener) = Listener::new() else {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MOST} listen already; close one of them"),
        );
    };
    let is_console = view.view.as_deref() == Some("console");
    let begin = (
        admin,
        Arc::new(listener),
        HashMap::<&'static str, String>::new(),
        Vec::<Event>::new(),
        true,
    );
    let events = stream::unfold(
        begin,
        move |(admin, listener, mut sent, mut ready, is_first)| async move {
            let mut is_first = is_first;
            loop {
                if let Some(event) = ready.pop() {
                    return Some((Ok::<_, Infallible>(event), (admin, listener, sent, ready, is_first)));
                }
                if !std::mem::take(&mut is_first) {
                    let mut stopping = admin.gateway.stopping.clone();
                    tokio::select! {
                        () = tokio::time::sleep(EVERY) => {}
                        // Nobody who only looks holds up a stop.
                        _ = stopping.wait_for(|stop| *stop) => return None,
                    }
                }
                // A database that is away for a moment is no reason to end.
                let Ok(state) = state::collect(&admin).await else {
                    continue;
                };
                if is_console {
                    let samples = admin.console.history.samples();
                    for (name, html) in page::parts(&state, &samples) {
                        if sent.get(name) != Some(&html) {
                            ready.push(Event::default().event(name).data(&html));
                            sent.insert(name, html);
                        }
                    }
                } else {
                    ready.push(Event::default().event("state").data(state.to_string()));
                }
            }
        },
    );
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
