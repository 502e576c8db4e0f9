//! The queue: `/queue/status` with the original's fields, `/queue` with every request that waits, and single
//! requests by their id.

use super::{Admin, counts, internal};
use crate::cluster;
use crate::exchange::stored;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Counts of the requests that run and wait here, and the degradation level; in a cluster those of all gateways beside them.
pub(super) async fn status(State(admin): State<Admin>) -> Json<Value> {
    let services = &admin.services;
    let snapshot = services.current.get();
    let config = &snapshot.config;
    let occupancy = services.gate.occupancy(0);
    let (completed, failed) = counts(services);
    let mut status = json!({
        "queue_size": occupancy.waiting,
        "active_requests": occupancy.active,
        "max_active_requests": config.global.max_active_requests,
        "max_queue_size": config.global.max_queue_size,
        "worker_running": true,
        "worker_count": config.global.max_active_requests,
        "completed_requests": completed,
        "failed_requests": failed,
        "current_degradation_level": config.level_name(occupancy.level),
        "current_degradation_level_number": occupancy.level,
        "queue_usage_ratio": occupancy.queue_usage,
        "pressure_ratio": occupancy.pressure,
        "degradation_actions": config.level_actions(occupancy.level),
    });
    if let Some(all) = cluster::status(services) {
        status["cluster"] = all;
    }
    Json(status)
}

/// All requests that wait here, each with position, age and expected wait; and the running requests of each model. In a cluster
/// the counts of all gateways beside them.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Value> {
    let services = &admin.services;
    let snapshot = services.current.get();
    let config = &snapshot.config;
    let occupancy = services.gate.occupancy(config.models.len());
    let queue = services.gate.queue();
    let mut by_project: BTreeMap<&str, u64> = BTreeMap::new();
    for (entry, _) in &queue {
        *by_project.entry(&config.project(entry.project).id).or_default() += 1;
    }
    let ids = services.registry.queued();
    let waiting: Vec<Value> = queue
        .into_iter()
        .map(|(entry, expected)| {
            json!({
                // One that has just been taken from the queue has no ticket any more.
                "request_id": ids.get(&entry.ticket).map(|id| &**id),
                "priority": entry.class.name(),
                "project_id": config.project(entry.project).id,
                "user_id": config.user(entry.user).id,
                "model": config.model(entry.model).name,
                "position": entry.position,
                "age_seconds": entry.age.as_secs_f64(),
                "expected_wait_seconds": expected.as_secs_f64(),
            })
        })
        .collect();
    let models = config.models.iter().zip(&occupancy.models);
    let models: Map<String, Value> = models
        .map(|(model, (active, slots))| (model.name.clone(), json!({"active_requests": active, "places": slots})))
        .collect();
    let by_class = occupancy.waiting_by_class.iter();
    let by_class: Map<String, Value> = by_class
        .map(|(class, count)| (class.name().to_owned(), (*count).into()))
        .collect();
    let mut queue = json!({"queue_size": occupancy.waiting, "by_priority": by_class, "by_project": by_project, "models": models, "waiting": waiting});
    if let Some(all) = cluster::queue(services) {
        queue["cluster"] = all;
    }
    Json(queue)
}

/// The status of a request.
pub(super) async fn request(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match stored::status(&admin.services, &id, None).await {
        Ok(Some(status)) => Json(status).into_response(),
        Ok(None) => unknown(&id),
        Err(error) => internal(&error),
    }
}

/// Cancels a request that waits or runs.
pub(super) async fn cancel(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match stored::cancel(&admin.services, &id, None).await {
        Ok(true) => {
            let cancelled = json!({"request_id": id, "status": "cancelled", "message": "Request is being cancelled"});
            return Json(cancelled).into_response();
        }
        Ok(false) => {}
        Err(error) => return internal(&error),
    }
    match stored::status(&admin.services, &id, None).await {
        Ok(Some(status)) => (StatusCode::CONFLICT, Json(status)).into_response(),
        Ok(None) => unknown(&id),
        Err(error) => internal(&error),
    }
}

fn unknown(id: &str) -> Response {
    let message = "no running, queued or recently finished request has this id";
    let body = json!({"request_id": id, "status": "not_found", "message": message});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
