//! `/limits/{project|user|key}/{id}`: what is left of every rate, quota and budget, and when it resets.

use super::{Admin, refused};
use crate::config::Config;
use crate::services::Services;
use crate::standing;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use policy::{Balance, Measure, PlanId, Scope};

pub(super) async fn show(State(admin): State<Admin>, Path((scope, id)): Path<(String, String)>) -> Response {
    let services = &admin.services;
    let snapshot = services.current.get();
    let Some((scope, number, plan)) = find(services, &snapshot.config, &scope, &id) else {
        let detail = format!("there is no {scope} `{id}`; ask for /limits/project/…, /limits/user/… or /limits/key/…");
        return refused(StatusCode::NOT_FOUND, detail);
    };
    let mut standing = standing::of(&services.gate, scope, number, plan);
    standing["id"] = id.into();
    Json(standing).into_response()
}

fn find(services: &Services, config: &Config, scope: &str, id: &str) -> Option<(Scope, u32, Option<PlanId>)> {
    match scope {
        "project" => {
            let project = config.project_by_id(id)?;
            Some((Scope::Project, project.0, Some(config.project(project).plan)))
        }
        "user" => Some((Scope::User, config.user_by_id(id)?.0, None)),
        "key" => Some((Scope::Key, services.current.number_of(id)?.0, None)),
        _ => None,
    }
}

/// A project's id, a window, and the used shares of its quota and of its budget in it.
pub(super) type UsedShare<'a> = (&'a str, &'static str, Option<f64>, Option<f64>);

/// The used shares of every project's quotas and budgets.
pub(super) fn used_shares<'a>(services: &Services, config: &'a Config) -> Vec<UsedShare<'a>> {
    let mut shares = Vec::new();
    for (project, number) in config.projects.iter().zip(0..) {
        if !crate::config::limits_anything(&project.limits.allowance) {
            continue;
        }
        let (balances, _) = services.gate.standing_of(Scope::Project, number, None);
        for window in balances.chunks(3) {
            let share = |is: &dyn Fn(Measure) -> bool| {
                let counted = window.iter().filter(|balance| is(balance.measure));
                counted.filter_map(used_share).reduce(f64::max)
            };
            let quota = share(&|measure| measure != Measure::Cost);
            let budget = share(&|measure| measure == Measure::Cost);
            shares.push((project.id.as_str(), window[0].period.word(), quota, budget));
        }
    }
    shares
}

#[allow(clippy::cast_precision_loss)]
fn used_share(balance: &Balance) -> Option<f64> {
    let limit = balance.limit.filter(|limit| *limit > 0)?;
    Some(balance.used as f64 / limit as f64)
}
