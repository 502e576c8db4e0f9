//! `POST /usage/corrections`: a record that mends what the ledger says, since nothing in it is ever changed.

use super::{Admin, internal, refused};
use crate::ledger::record::Correction;
use crate::ledger::records;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use policy::Subject;
use serde::Deserialize;
use serde_json::json;

/// No single correction is larger: of tokens, and of nano-euros.
const LARGEST: i64 = 1_000_000_000_000_000_000;

/// What is to be added; amounts may be negative. With `request_id`, whose it is comes from that request's record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    request_id: Option<String>,
    project: Option<String>,
    user: Option<String>,
    key: Option<String>,
    model: Option<String>,
    #[serde(default)]
    input_tokens: i64,
    #[serde(default)]
    output_tokens: i64,
    #[serde(default)]
    cost_eur: f64,
    reason: String,
}

pub(super) async fn add(State(admin): State<Admin>, body: Result<Json<Body>, JsonRejection>) -> Response {
    let body = match body {
        Ok(Json(body)) => body,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let correction = match correction(&admin, body).await {
        Ok(correction) => correction,
        Err(refusal) => return *refusal,
    };
    let snapshot = admin.gateway.current.get();
    if let Err(error) = admin.gateway.ledger.correct(&correction, snapshot.config_version) {
        return internal(&error);
    }
    let config = &snapshot.config;
    let tokens = correction.input_tokens.saturating_add(correction.output_tokens);
    let subjects = [
        config.project_by_id(&correction.project_id).map(Subject::Project),
        config.user_by_id(&correction.user_id).map(Subject::User),
        correction
            .key_id
            .as_ref()
            .and_then(|key| admin.gateway.current.number_of(key))
            .map(Subject::Key),
    ];
    admin.gateway.gate.with(|policy, now| {
        for subject in subjects.into_iter().flatten() {
            policy.correct(subject, tokens, correction.cost_nano_eur, now);
        }
    });
    tracing::info!(
        id = correction.id,
        project = correction.project_id,
        tokens,
        nano_eur = correction.cost_nano_eur,
        "correction recorded"
    );
    Json(json!({"request_id": correction.id, "status": "correction"})).into_response()
}

/// Completes and checks it.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
async fn correction(admin: &Admin, body: Body) -> Result<Correction, Box<Response>> {
    let wrong = |detail: String| Box::new(refused(StatusCode::BAD_REQUEST, detail));
    let (mut project, mut user, mut key, mut model) = (body.project, body.user, body.key, body.model);
    let mut why: String = body.reason.trim().chars().take(500).collect();
    if why.is_empty() {
        return Err(wrong(
            "`reason` is empty; say in words why the ledger is corrected".to_owned(),
        ));
    }
    if let Some(request_id) = &body.request_id {
        admin.gateway.ledger.flush().await;
        let owner = records::owner(&admin.pool, request_id).await;
        let owner = owner.map_err(|error| Box::new(internal(&error)))?;
        let [its_project, its_user, its_key, its_model] =
            owner.ok_or_else(|| wrong(format!("there is no record of a request `{request_id}`")))?;
        project = project.or(its_project);
        user = user.or(its_user);
        key = key.or(its_key);
        model = model.or(its_model);
        why = format!("{why} (request {request_id})");
    }
    let snapshot = admin.gateway.current.get();
    let config = &snapshot.config;
    let user_id = user.ok_or_else(|| wrong("name the `user`, or the `request_id` that is corrected".to_owned()))?;
    let known = config.user_by_id(&user_id).map(|id| config.user(id).project);
    let project_id = project
        .or_else(|| known.map(|project| config.project(project).id.clone()))
        .ok_or_else(|| wrong(format!("there is no user `{user_id}`; name the `project` too")))?;
    let cost = (body.cost_eur * 1e9).round();
    let is_too_large = |amount: i64| amount.checked_abs().is_none_or(|amount| amount > LARGEST);
    if !cost.is_finite()
        || cost.abs() > LARGEST as f64
        || is_too_large(body.input_tokens)
        || is_too_large(body.output_tokens)
    {
        return Err(wrong("an amount is too large".to_owned()));
    }
    let cost_nano_eur = cost as i64;
    if (body.input_tokens, body.output_tokens, cost_nano_eur) == (0, 0, 0) {
        return Err(wrong(
            "nothing would change; give `input_tokens`, `output_tokens` or `cost_eur`, negative for less".to_owned(),
        ));
    }
    Ok(Correction {
        id: format!("correction-{}", admin.gateway.ids.make().trim_start_matches("req-")),
        project_id,
        user_id,
        key_id: key,
        model: model.unwrap_or_default(),
        input_tokens: body.input_tokens,
        output_tokens: body.output_tokens,
        cost_nano_eur,
        why,
    })
}
