//! Usage: the original's summaries, the newest records, and sums by any groups, as JSON or CSV.

use super::{Admin, internal, refused};
use crate::csv;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use ledger::records::{self, Search};
use ledger::report::{self, Dimension, FIGURES, Filter, Line};
use ledger::totals::{self, Totals};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `/usage/recent?limit=50&project=…&request_id=…&client_request_id=…&operation=…`.
#[derive(Deserialize)]
pub(super) struct Recent {
    limit: Option<u32>,
    project: Option<String>,
    request_id: Option<String>,
    client_request_id: Option<String>,
    operation: Option<String>,
}

pub(super) async fn recent(State(admin): State<Admin>, Query(query): Query<Recent>) -> Response {
    let limit = query.limit.unwrap_or(50).clamp(1, 1000);
    admin.services.ledger.flush().await;
    let search = Search {
        project: query.project,
        request_id: query.request_id,
        client_request_id: query.client_request_id,
        operation: query.operation,
    };
    answer(records::recent(&admin.pool, &search, limit).await)
}

pub(super) async fn summary(State(admin): State<Admin>) -> Response {
    admin.services.ledger.flush().await;
    answer(report::summary(&admin.pool, &Filter::default()).await)
}

/// `/usage/project/{id}`, `/usage/user/{id}`, `/usage/key/{id}`.
pub(super) async fn of_one(State(admin): State<Admin>, Path((scope, id)): Path<(String, String)>) -> Response {
    let snapshot = admin.services.current.get();
    let config = &snapshot.config;
    let (dimension, is_configured) = match scope.as_str() {
        "project" => (Dimension::Project, config.project_by_id(&id).is_some()),
        "user" => (Dimension::User, config.user_by_id(&id).is_some()),
        "key" => (Dimension::Key, admin.services.current.number_of(&id).is_some()),
        _ => {
            return refused(
                StatusCode::NOT_FOUND,
                format!("unknown scope `{scope}`; use /usage/project/ID, /usage/user/ID or /usage/key/ID"),
            );
        }
    };
    admin.services.ledger.flush().await;
    let filter = Filter {
        only: Some((dimension, id.clone())),
        ..Filter::default()
    };
    match report::summary(&admin.pool, &filter).await {
        Ok(summary) if summary["total_records"] == 0 && !is_configured => refused(
            StatusCode::NOT_FOUND,
            format!("unknown {scope} `{id}`: not configured, and no record has it"),
        ),
        summary => answer(summary),
    }
}

/// `/usage?from=2026-11-01&to=2026-11-30&by=project,day`.
#[derive(Deserialize)]
pub(super) struct Sums {
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
}

pub(super) async fn sums(State(admin): State<Admin>, headers: HeaderMap, Query(query): Query<Sums>) -> Response {
    let names: Vec<String> = match &query.by {
        None => vec!["project".to_owned()],
        Some(by) => by
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    let mut dimensions = Vec::new();
    for name in &names {
        match name.parse::<Dimension>() {
            Ok(dimension) if dimensions.contains(&dimension) => {
                return refused(
                    StatusCode::BAD_REQUEST,
                    format!("invalid `by`: `{name}` is given twice"),
                );
            }
            Ok(dimension) => dimensions.push(dimension),
            Err(_) => {
                let known = Dimension::ALL.map(Dimension::name).join(", ");
                return refused(
                    StatusCode::BAD_REQUEST,
                    format!("invalid `by`: unknown group `{name}`; use {known}"),
                );
            }
        }
    }
    for (name, day) in [("from", &query.from), ("to", &query.to)] {
        if let Some(day) = day.as_ref().filter(|day| day.parse::<jiff::civil::Date>().is_err()) {
            return refused(
                StatusCode::BAD_REQUEST,
                format!("invalid `{name}`: `{day}` is not a date (UTC) such as 2026-11-01"),
            );
        }
    }
    let filter = Filter {
        from: query.from.clone(),
        to: query.to.clone(),
        only: None,
    };
    admin.services.ledger.flush().await;
    let lines = match report::lines(&admin.pool, &dimensions, &filter).await {
        Ok(lines) => lines,
        Err(error) => return internal(&error),
    };
    let wants_csv = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(b"text/csv"));
    if wants_csv {
        return ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&names, &lines)).into_response();
    }
    let rows: Vec<Value> = lines.iter().map(|line| object(&names, line)).collect();
    Json(json!({"from": query.from, "to": query.to, "by": names, "rows": rows})).into_response()
}

fn object(names: &[String], line: &Line) -> Value {
    let groups = names.iter().cloned().zip(line.groups.iter().cloned().map(Value::from));
    let figures = FIGURES.iter().map(|name| (*name).to_owned()).zip(line.figures());
    Value::Object(groups.chain(figures).collect::<Map<_, _>>())
}

fn csv(names: &[String], lines: &[Line]) -> String {
    let head = names.iter().map(String::as_str).chain(FIGURES);
    let mut text = csv::line(head.map(Value::from));
    for line in lines {
        let groups = line.groups.iter().map(|value| value.as_str().into());
        text.push_str(&csv::line(groups.chain(line.figures())));
    }
    text
}

/// `/metrics/summary`: the original's figures since the last reset, from the ledger.
pub(super) async fn metrics_summary(State(admin): State<Admin>) -> Response {
    admin.services.ledger.flush().await;
    let totals = async {
        let base = totals::base(&admin.pool).await?;
        Ok::<_, ledger::Error>(Totals::read(&admin.pool).await?.since(&base).summary())
    };
    answer(totals.await)
}

/// `/metrics/reset`: the summary counts from now; Prometheus' counters never go back.
pub(super) async fn reset(State(admin): State<Admin>) -> Response {
    admin.services.ledger.flush().await;
    let done = totals::reset(&admin.pool).await;
    answer(done.map(|()| json!({"status": "ok", "message": "Metrics reset"})))
}

fn answer<T: serde::Serialize>(answer: Result<T, ledger::Error>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => internal(&error),
    }
}
