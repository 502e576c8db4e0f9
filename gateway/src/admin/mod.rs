//! The operators' listener: health, queue, metrics, usage, configuration. Reads through the same
//! public faces as the proxy, and holds no state of its own.

mod access;
mod config;
pub(crate) mod console;
mod corrections;
mod keys;
mod limits;
mod queue;
pub(crate) mod socket;
pub(crate) mod token;
mod usage;
mod web;

use crate::reload::Reloader;
use crate::services::Services;
use crate::telemetry::Gauges;
use access::Visitor;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use console::session::Console;
use ledger::Store;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use token::Token;

/// State that the admin pages read.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) services: Arc<Services>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) pool: Store,
    pub(crate) token: Arc<Token>,
    pub(crate) console: Arc<Console>,
}

impl Admin {
    /// Takes over changed keys at once.
    async fn reload_keys(&self) {
        match crate::keys::load(&self.pool).await {
            Ok(keys) => self.services.replace_keys(keys),
            Err(error) => tracing::warn!(%error, "cannot read the API keys"),
        }
    }
}

/// All routes. `/health`, `/ready` and, unless configured, `/metrics` are open.
pub(crate) fn router(admin: Admin) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics));
    let guarded = Router::new()
        .route("/queue/status", get(queue::status))
        .route("/queue", get(queue::list))
        .route("/requests/{id}", get(queue::request).delete(queue::cancel))
        .route("/limits/{scope}/{id}", get(limits::show))
        .route("/keys", get(keys::list).post(keys::make))
        .route("/keys/import", post(keys::import))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/keys/{id}/rotate", post(keys::rotate))
        .route("/usage", get(usage::sums))
        .route("/usage/corrections", post(corrections::add))
        .route("/usage/recent", get(usage::recent))
        .route("/usage/summary", get(usage::summary))
        .route("/usage/{scope}/{id}", get(usage::of_one))
        .route("/metrics/summary", get(usage::metrics_summary))
        .route("/metrics/reset", post(usage::reset))
        .route("/upstreams", get(upstreams))
        .route("/config/summary", get(config::show))
        .route("/config/reload", post(config::reload));
    let needs_token = admin.services.current.get().config.gateway.startup.metrics_need_token;
    let (open, guarded) = if needs_token {
        (Router::new(), guarded.merge(metrics))
    } else {
        (metrics, guarded)
    };
    let guarded = guarded.layer(middleware::from_fn_with_state(admin.clone(), authorised));
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/ready", get(ready))
        .route("/openapi.json", get(openapi))
        .merge(open)
        .merge(guarded)
        .merge(console::routes())
        .fallback(|| async { refused(StatusCode::NOT_FOUND, "no such endpoint; see /openapi.json") })
        .layer(middleware::from_fn_with_state(admin.clone(), web::guarded))
        .layer(middleware::from_fn_with_state(admin.clone(), guarded_connection))
        .with_state(admin)
}

/// Notes that a request's head has arrived, bounds the time for its body and its handling, and keeps browsers from
/// guessing types.
async fn guarded_connection(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(origin)) = request.extensions().get::<ConnectInfo<socket::Origin>>() {
        origin.head_received();
    }
    let within = admin.services.current.get().config.gateway.body_timeout;
    let answered = tokio::time::timeout(within, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        let detail = "the request did not arrive, or could not be answered, within timeouts.body_seconds";
        refused(StatusCode::REQUEST_TIMEOUT, detail)
    });
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

async fn authorised(State(admin): State<Admin>, visitor: Visitor, request: Request, next: Next) -> Response {
    match admin.check(&visitor) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    }
}

/// The OpenAPI description of this listener.
const OPENAPI: &str = include_str!("openapi.json");

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let ledger = &admin.services.ledger;
    let trouble = match ledger.health().reason() {
        Some(reason) => Some(reason),
        None => admin.pool.ping().await.err().map(|error| error.to_string()),
    };
    let trouble = trouble.or_else(|| {
        let cut_off = "rate limits and slots: other gateways reach the store of cluster_url, this one does not";
        admin.services.peers.is_cut_off().then(|| cut_off.to_owned())
    });
    match trouble {
        None => Json(json!({"status": "ready"})).into_response(),
        Some(detail) => {
            tracing::error!(detail, "not ready");
            let body = json!({"status": "not ready", "detail": detail, "ledger_backlog": ledger.backlog()});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn metrics(State(admin): State<Admin>, visitor: Visitor, headers: HeaderMap) -> Response {
    let wants_json = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    if wants_json {
        // The original's summary needs the token; it names users.
        return match admin.check(&visitor) {
            Ok(()) => usage::metrics_summary(State(admin)).await,
            Err(denied) => denied.into_response(),
        };
    }
    let services = &admin.services;
    let snapshot = services.current.get();
    let occupancy = services.gate.occupancy(snapshot.config.models.len());
    let models = snapshot.config.models.iter().zip(&occupancy.models);
    let upstreams = snapshot.upstreams.endpoints();
    let gauges = Gauges {
        models: models
            .map(|(model, (active, places))| (model.name.as_str(), *active, *places))
            .collect(),
        waiting: policy::QueueClass::ALL.map(|class| (class.name(), occupancy.waiting_by_class[class])),
        level: occupancy.level,
        pressure: occupancy.pressure,
        buffered: services.buffered.load(Relaxed),
        ledger: services.ledger.health(),
        allowances: limits::used_shares(services, &snapshot.config),
        upstreams: upstreams
            .iter()
            .map(|endpoint| (Arc::clone(&endpoint.authority), endpoint.is_healthy()))
            .collect(),
    };
    match services.metrics.render(&gauges) {
        Ok(text) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(error) => internal(&error),
    }
}

/// Every server: its models, its load and how it is.
async fn upstreams(State(admin): State<Admin>) -> Response {
    let snapshot = admin.services.current.get();
    Json(json!({"upstreams": snapshot.upstreams.status(&snapshot.config)})).into_response()
}

/// A refusal in words, in the original's shape.
fn refused(status: StatusCode, detail: impl Into<String>) -> Response {
    (status, Json(json!({"detail": detail.into()}))).into_response()
}

fn internal(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "admin request failed");
    refused(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal error; see the gateway's log",
    )
}

/// Completed and failed since the start.
pub(super) fn counts(services: &Services) -> (u64, u64) {
    services.metrics.counts()
}

#[cfg(test)]
mod tests {
    use super::OPENAPI;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let described: BTreeSet<&str> = document["paths"]
            .as_object()
            .expect("paths")
            .keys()
            .map(String::as_str)
            .collect();
        let sources = [include_str!("mod.rs"), include_str!("console/mod.rs")];
        let code = sources
            .iter()
            .map(|source| source.split("#[cfg(test)]").next().unwrap_or_default());
        let routes: BTreeSet<&str> = code
            .flat_map(|code| code.split(".route(").skip(1))
            .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
            // What the console's own pages use.
            .filter(|path| {
                !path.starts_with("/console")
                    && !["/login", "/login/provider", "/login/callback", "/logout"].contains(path)
            })
            .collect();
        assert_eq!(routes, described);
    }
}
