//! All that the console shows but its plots, as one JSON value; `/events` sends the same.

use super::Admin;
use crate::admin::{config, queue};
use crate::limit_status;
use axum::extract::State;
use policy::{ProjectId, Subject};
use serde_json::{Value, json};

/// The number of newest requests on the page.
const RECENT: u32 = 15;
/// The number of waiting requests on the page.
const WAITING: usize = 50;

pub(super) async fn collect(admin: &Admin) -> Result<Value, ledger::Error> {
    let services = &admin.services;
    let snapshot = services.current.get();
    let axum::Json(status) = queue::status(State(admin.clone())).await;
    let axum::Json(mut queue) = queue::list(State(admin.clone())).await;
    if let Some(waiting) = queue["waiting"].as_array_mut() {
        waiting.truncate(WAITING);
    }
    services.ledger.flush().await;
    let recent = ledger::records::recent(&admin.pool, &ledger::records::Search::default(), RECENT).await?;
    let projects = snapshot
        .config
        .projects
        .iter()
        .zip((0..).map(ProjectId))
        .filter(|(project, _)| !project.is_removed);
    let projects: Vec<Value> = projects
        .map(|(project, id)| {
            let mut rendered = limit_status::render(&services.gate, Subject::Project(id), Some(project.plan));
            rendered["id"] = project.id.as_str().into();
            rendered["name"] = project.name.as_str().into();
            rendered
        })
        .collect();
    let last = admin.console.history.last().unwrap_or_default();
    Ok(json!({
        "at": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "status": status,
        "queue": queue,
        "rates": {
            "completed_a_second": last.completed, "refused_a_second": last.refused, "failed_a_second": last.failed,
            "input_tokens_a_second": last.input_tokens, "output_tokens_a_second": last.output_tokens,
            "p50_seconds": last.p50, "p95_seconds": last.p95,
        },
        "upstreams": snapshot.upstreams.status(&snapshot.config),
        "projects": projects,
        "recent": recent,
        "config": {
            "version": snapshot.version, "config_version": snapshot.config_version,
            "last_reload": config::last_reload(admin),
            "identity": match snapshot.config.gateway.identity {
                crate::config::Identity::Keys => "keys",
                crate::config::Identity::Open { .. } => "open",
            },
            "users": snapshot.config.users.iter().filter(|user| !user.is_removed).map(|user| user.id.as_str()).collect::<Vec<_>>(),
            "models": snapshot.config.models.iter().filter(|model| model.enabled).map(|model| model.name.as_str()).collect::<Vec<_>>(),
        },
    }))
}
