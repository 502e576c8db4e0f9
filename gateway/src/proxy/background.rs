//! `/generate` when no place is free: the client is told `queued` at once, the request goes on without it,
//! and its answer is kept to be fetched at `/requests/{id}`.

use super::Gateway;
use super::answer::Rest;
use super::client::Client;
use super::exchange::{Exchange, conclude, forward};
use super::outbound;
use crate::gate::Wait;
use crate::protocol;
use crate::protocol::refuse::{Reason, Stop};
use crate::requests::Status;
use bytes::Bytes;
use pingora_core::protocols::http::HttpTask;
use policy::ProjectId;
use serde_json::{Value, json};
use std::sync::Arc;

/// The original's answer to a request that was queued.
pub(super) fn queued(exchange: &Exchange) -> Vec<HttpTask> {
    let body = status_body(exchange, "queued", "Request queued for background processing");
    let body = Bytes::from(body.to_string());
    match outbound::head(exchange, 200, b"application/json", Some(body.len())) {
        Ok(head) => vec![HttpTask::Header(head, false), outbound::last(Some(body))],
        Err(_) => Vec::new(),
    }
}

/// Waits, runs and concludes without a client; keeps the answer.
pub(super) async fn run(mut exchange: Exchange, wait: Wait, body: Bytes) {
    let walked = walk(&mut exchange, wait, body).await;
    let concluded = conclude(&mut exchange, walked);
    let Some(caller) = &exchange.record.caller else { return };
    let answer = match concluded {
        Ok(Rest::Whole { body, .. }) => serde_json::from_slice(&body).unwrap_or_default(),
        Ok(Rest::Tail(_)) => Value::Null,
        Err(stop) => {
            let mut answer = status_body(&exchange, word(&stop), &stop.message);
            answer["detail"] = stop.reason.name().into();
            answer
        }
    };
    exchange
        .gateway
        .requests
        .keep(&exchange.record.request_id, caller.project, answer);
}

async fn walk(exchange: &mut Exchange, wait: Wait, body: Bytes) -> Result<Rest, Stop> {
    let gateway = Arc::clone(&exchange.gateway);
    let _buffered = gateway.buffer(&exchange.record.snapshot.config, body.len())?;
    let mut client = Client::away(Arc::clone(&exchange.listed.cancel));
    let entry = tokio::select! {
        biased;
        entry = wait.granted() => entry?,
        gone = client.gone() => return Err(gone),
    };
    exchange.enter(entry);
    let understood = protocol::understand(exchange.record.call, &body)?;
    forward(exchange, &mut client, &body, understood).await
}

/// What `/requests/{id}` says: the answer, or how far the request has come.
pub(crate) fn status(gateway: &Gateway, id: &str, of: Option<ProjectId>) -> Option<Value> {
    match gateway.requests.status(id, of)? {
        Status::Ended(answer) => Some(answer),
        Status::Processing => {
            Some(json!({"request_id": id, "status": "processing", "message": "Request is being processed"}))
        }
        Status::Queued(ticket) => {
            let mut body = json!({"request_id": id, "status": "queued", "message": "Request is waiting in the queue"});
            if let Some((position, expected)) = ticket.and_then(|ticket| gateway.gate.place_of(ticket)) {
                body["position"] = position.into();
                body["expected_wait_seconds"] = expected.as_secs_f64().into();
            }
            Some(body)
        }
    }
}

/// The original's fields, before there is an answer or where there will be none.
fn status_body(exchange: &Exchange, status: &str, message: &str) -> Value {
    let record = &exchange.record;
    let estimate = record.terms.estimate;
    json!({
        "request_id": record.request_id,
        "status": status,
        "message": message,
        "estimated_input_tokens": estimate.input_tokens,
        "estimated_output_tokens": estimate.output_tokens,
        "estimated_cost_eur": estimate.cost.euros(),
    })
}

/// The original's word for how a request ended without its answer.
fn word(stop: &Stop) -> &'static str {
    match stop.reason {
        Reason::Cancelled | Reason::ClientGone => "cancelled",
        Reason::QueueTimeout | Reason::UpstreamTimeout => "timed_out",
        Reason::QueueFull => "rejected",
        _ => "failed",
    }
}
