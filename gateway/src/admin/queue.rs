//! `/queue/status`, with the original's fields.

use super::{Admin, counts};
use crate::config::Config;
use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};

/// Who runs and who waits, in figures.
pub(super) async fn status(State(admin): State<Admin>) -> Json<Value> {
    let gateway = &admin.gateway;
    let snapshot = gateway.current.get();
    let global = snapshot.config.global;
    let occupancy = gateway.gate.occupancy(0);
    let (number, name) = level(&snapshot.config, occupancy.waiting).unwrap_or((0, "normal"));
    let (completed, failed) = counts(gateway);
    Json(json!({
        "queue_size": occupancy.waiting,
        "active_requests": occupancy.active,
        "max_active_requests": global.max_active_requests,
        "max_queue_size": global.max_queue_size,
        "worker_running": true,
        "worker_count": global.max_active_requests,
        "completed_requests": completed,
        "failed_requests": failed,
        "current_degradation_level": name,
        "current_degradation_level_number": number,
        "queue_usage_ratio": ratio(&snapshot.config, occupancy.waiting),
        "degradation_actions": [],
    }))
}

/// The level that so many waiting stand for: its number and name.
pub(super) fn level(config: &Config, waiting: usize) -> Option<(u32, &str)> {
    config
        .level_at(ratio(config, waiting))
        .map(|level| (level.number, level.name.as_str()))
}

#[allow(clippy::cast_precision_loss)]
fn ratio(config: &Config, waiting: usize) -> f64 {
    waiting as f64 / config.global.max_queue_size.max(1) as f64
}
