//! `/limits/{project|user|key}/{id}`: what is left of every rate, quota and budget, and when it resets.

use super::{Admin, refused};
use crate::config::Config;
use crate::limit_status;
use crate::services::Services;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use policy::{Balance, PlanId, ProjectId, QuotaUnit, Subject};

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
    Json(status).into_response()
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
