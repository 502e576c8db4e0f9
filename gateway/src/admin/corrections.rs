//! `POST /usage/corrections`: a record that mends what the ledger says, since nothing in it is ever changed.

use super::{Admin, internal, refused};
use crate::registry::random_request_id;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger::Correction;
use ledger::records::{self, MAX_NANO_EUR, MAX_TOKENS};
use policy::Subject;
use serde::Deserialize;
use serde_json::json;

/// Amounts to be added; they may be negative. With `request_id`, project and user come from that request's record.
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
    let snapshot = admin.services.current.get();
    if let Err(error) = admin
        .services
        .ledger
        .correct(&correction, snapshot.config_version)
        .await
    {
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
            .and_then(|key| admin.services.current.number_of(key))
            .map(Subject::Key),
    ];
    admin.services.gate.with(|policy, now| {
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
    let mut reason: String = body.reason.trim().chars().take(500).collect();
    if reason.is_empty() {
        return Err(wrong(
            "`reason` is empty; describe why the ledger is corrected".to_owned(),
        ));
    }
    if let Some(request_id) = &body.request_id {
        admin.services.ledger.flush().await;
        let accounts = records::accounts(&admin.pool, project.as_deref(), request_id).await;
        let mut accounts = accounts.map_err(|error| Box::new(internal(&error)))?;
        let account = accounts
            .pop()
            .ok_or_else(|| wrong(format!("no record has the request id `{request_id}`")))?;
        if !accounts.is_empty() {
            return Err(wrong(format!(
                "several records have the id `{request_id}`; name `project`, `user`, `key` and `model` instead"
            )));
        }
        project = Some(account.project_id);
        user = user.or(Some(account.user_id));
        key = key.or(account.key_id);
        model = model.or(Some(account.model));
        reason = format!("{reason} (request {request_id})");
    }
    let snapshot = admin.services.current.get();
    let config = &snapshot.config;
    let user_id =
        user.ok_or_else(|| wrong("give the `user`, or the `request_id` of the record to correct".to_owned()))?;
    let known = config.user_by_id(&user_id).map(|id| config.user(id).project);
    let project_id = project
        .or_else(|| known.map(|project| config.project(project).id.clone()))
        .ok_or_else(|| wrong(format!("unknown user `{user_id}`; give the `project` too")))?;
    let cost = (body.cost_eur * 1e9).round();
    let is_too_large = |amount: i64| amount.checked_abs().is_none_or(|amount| amount > MAX_TOKENS);
    if !cost.is_finite()
        || cost.abs() > MAX_NANO_EUR as f64
        || is_too_large(body.input_tokens)
        || is_too_large(body.output_tokens)
    {
        return Err(wrong(format!(
            "a correction may be at most {MAX_TOKENS} tokens and {} euros; make several",
            MAX_NANO_EUR / 1_000_000_000
        )));
    }
    let cost_nano_eur = cost as i64;
    if (body.input_tokens, body.output_tokens, cost_nano_eur) == (0, 0, 0) {
        return Err(wrong(
            "the correction is empty; give `input_tokens`, `output_tokens` or `cost_eur`, negative for less".to_owned(),
        ));
    }
    let random = random_request_id().map_err(|error| wrong(error.to_string()))?;
    Ok(Correction {
        id: format!("correction-{}", random.trim_start_matches("req_")),
        project_id,
        user_id,
        key_id: key,
        model: model.unwrap_or_default(),
        input_tokens: body.input_tokens,
        output_tokens: body.output_tokens,
        cost_nano_eur,
        reason: reason.into(),
    })
}
