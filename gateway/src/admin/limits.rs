//! `/limits/{project|user|key}/{id}`: what is left of every rate, quota and budget, and when it resets.

use super::{Admin, refused};
use crate::cluster;
use crate::config::Config;
use crate::limit_status;
use crate::services::Services;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use policy::{Balance, PlanId, ProjectId, QuotaUnit, Subject};
use serde_json::Value;

pub(super) async fn show(State(admin): State<Admin>, Path((kind, id)): Path<(String, String)>) -> Response {
    let services = &admin.services;
    let snapshot = services.current.get();
    let Some((subject, plan)) = find(services, &snapshot.config, &kind, &id) else {
        let detail = format!(
            "unknown {kind} \"{id}\"; request /limits/project/ID, /limits/user/ID or /limits/key/ID with a configured id"
        );
        return refused(StatusCode::NOT_FOUND, detail);
    };
    let mut status = limit_status::render(&services.gate, subject, plan);
    status["id"] = id.into();
    if let Some(shared) = cluster::limits(services, subject, plan).await {
        count_use_of_all(&mut status["rates"], &shared["rates"]);
        status["cluster"] = shared;
    }
    Json(status).into_response()
}

/// A gateway knows what others have used of a rate limit once it has used it too: there is no more left than the store says.
fn count_use_of_all(own: &mut Value, shared: &Value) {
    for rate in own.as_array_mut().into_iter().flatten() {
        let is_it = |one: &&Value| one["limit_of"] == rate["limit_of"] && one["counts"] == rate["counts"];
        let Some(all) = shared.as_array().into_iter().flatten().find(is_it) else {
            continue;
        };
        if all["remaining"].as_u64() < rate["remaining"].as_u64() {
            rate["remaining"] = all["remaining"].clone();
            rate["resets_in_seconds"] = all["resets_in_seconds"].clone();
        }
    }
}

fn find(services: &Services, config: &Config, kind: &str, id: &str) -> Option<(Subject, Option<PlanId>)> {
    match kind {
        "project" => {
            let project = config.project_by_id(id)?;
            Some((Subject::Project(project), Some(config.project(project).plan)))
        }
        "user" => Some((Subject::User(config.user_by_id(id)?), None)),
        "key" => Some((Subject::Key(services.current.number_of(id)?), None)),
        _ => None,
    }
}

/// A project's id, a window, and the used shares of its quota and of its budget in it.
pub(super) type UsedShare<'a> = (&'a str, &'static str, Option<f64>, Option<f64>);

/// The used shares of every project's quotas and budgets.
pub(super) fn used_shares<'a>(services: &Services, config: &'a Config) -> Vec<UsedShare<'a>> {
    let mut shares = Vec::new();
    for (project, id) in config.projects.iter().zip((0..).map(ProjectId)) {
        if !crate::config::limits_anything(&project.limits.allowance) {
            continue;
        }
        let (balances, _) = services.gate.limits_of(Subject::Project(id), None);
        for window in balances.chunks(3) {
            let share = |is: &dyn Fn(QuotaUnit) -> bool| {
                let counted = window.iter().filter(|balance| is(balance.unit));
                counted.filter_map(used_share).reduce(f64::max)
            };
            let quota = share(&|unit| unit != QuotaUnit::Cost);
            let budget = share(&|unit| unit == QuotaUnit::Cost);
            shares.push((project.id.as_str(), window[0].window.name(), quota, budget));
        }
    }
    shares
}

#[allow(clippy::cast_precision_loss)]
fn used_share(balance: &Balance) -> Option<f64> {
    let limit = balance.limit.filter(|limit| *limit > 0)?;
    Some(balance.used as f64 / limit as f64)
}
