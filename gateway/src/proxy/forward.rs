//! Steps 9 and 10 of an exchange: the body in the words of a server, and one server after the other, one model after the
//! other, until an answer has begun.

use super::Gateway;
use super::answer::{self, FinalPart};
use super::client::Client;
use super::exchange::{Exchange, about, input_tokens, turn};
use crate::gate::Admission;
use crate::ledger::Record;
use bytes::Bytes;
use pingora_timeout::fast_timeout::fast_timeout;
use policy::AdmissionRequest;
use protocol::meter::Meter;
use protocol::refuse::{ErrorCode, RequestError};
use protocol::translate;
use protocol::{self, Operation, ParsedRequest, RequestChanges};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An intent is written for requests that run longer than this.
const INTEND_AFTER: Duration = Duration::from_millis(250);

/// Steps 9 and 10; again with the models that are to come in this one's place, if its servers fail before the answer
/// has begun.
pub(super) async fn forward(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    body: &Bytes,
    parsed: &ParsedRequest<'_>,
) -> Result<FinalPart, RequestError> {
    loop {
        match forward_once(exchange, client, body, parsed).await {
            Err(stop) if exchange.is_servers_fault(&stop) => {
                fall_back(exchange, client, body, parsed).await.ok_or(stop)?;
            }
            done => return done,
        }
    }
}

/// Steps 9 and 10 with one model, within the deadline for all.
async fn forward_once(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    body: &Bytes,
    parsed: &ParsedRequest<'_>,
) -> Result<FinalPart, RequestError> {
    let record = &mut exchange.record;
    let snapshot = Arc::clone(&record.snapshot);
    let model = snapshot.config.model(record.terms.model);
    let total = exchange.timeout.unwrap_or(Duration::MAX).min(model.deadlines.total);
    let left = total.saturating_sub(record.started.elapsed());
    exchange.asked = record.started.elapsed();
    // A job is its own intent: it is begun again.
    let intent = client.is_here().then(|| {
        record
            .ledger_id
            .get_or_insert_with(|| exchange.gateway.ledger.next_id());
        Record {
            was_forwarded: true,
            ..record.clone()
        }
    });
    let gateway = Arc::clone(&exchange.gateway);
    let answered = pin!(ask_servers(exchange, client, body, parsed, left));
    answer_in_time(&gateway, answered, left, intent.as_ref())
        .await
        .unwrap_or_else(|| {
            let message = format!("the request took longer than {} s in all", total.as_secs_f64());
            Err(RequestError::new(ErrorCode::UpstreamTimeout, message))
        })
}

/// Asks one of the model's servers, and while nothing has come back another, as far as the model's budget for that goes.
async fn ask_servers(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    body: &Bytes,
    parsed: &ParsedRequest<'_>,
    left: Duration,
) -> Result<FinalPart, RequestError> {
    let snapshot = Arc::clone(&exchange.record.snapshot);
    let (upstreams, id) = (&snapshot.upstreams, exchange.record.terms.model);
    exchange.routing_hint.tokens = exchange.record.terms.estimate.tokens();
    upstreams.earn(id);
    let began = Instant::now();
    let (mut tried, mut asked) = (Vec::new(), 0);
    let mut failed: Option<RequestError> = None;
    loop {
        let outbound = prepare(exchange, body, parsed)?;
        // Whoever is picked has gone through its server's breaker, and is asked.
        let endpoint = match upstreams.pick(id, exchange.routing_hint, &tried) {
            Ok(endpoint) => endpoint,
            Err(nobody) => return Err(failed.unwrap_or(nobody)),
        };
        let left = left.saturating_sub(began.elapsed());
        match answer::exchange(exchange, client, &endpoint, outbound, left).await {
            Err(stop) if exchange.is_servers_fault(&stop) => {
                asked += 1;
                // One that is alone is asked once more, where its connection broke before it had said anything.
                let broke = stop.code == ErrorCode::UpstreamError && exchange.upstream_status.is_none();
                let is_worth_it = upstreams.has_choice(id) || (broke && asked == 1);
                if !is_worth_it || asked >= snapshot.config.gateway.attempts || !upstreams.withdraw_retry(id) {
                    return Err(stop);
                }
                if upstreams.has_choice(id) {
                    tried.push(endpoint);
                }
                exchange.gateway.metrics.retried(&exchange.record);
                failed = Some(stop);
            }
            done => return done,
        }
    }
}

/// The body as the server is to have it, and what its answer is measured and translated by.
fn prepare(exchange: &mut Exchange, body: &Bytes, parsed: &ParsedRequest<'_>) -> Result<Bytes, RequestError> {
    let record = &exchange.record;
    let (call, terms, snapshot) = (record.call, record.terms, &record.snapshot);
    let model = snapshot.config.model(terms.model);
    let name = model.upstream_name.as_deref().unwrap_or(&model.name);
    let is_reduced = terms.degradations.max_tokens_reduced;
    let changes = |asked: Operation| RequestChanges::new(parsed, name, terms.max_tokens, asked.limit_rule(is_reduced));
    // What was translated for the first server serves once; an answer's writer has a state.
    let of_the_ask = exchange.asked_for.filter(|ask| ask.model == terms.model);
    let speaks = snapshot.upstreams.speaks(terms.model);
    let translation = match exchange.translation.take().filter(|_| of_the_ask.is_some()) {
        Some(translation) => Some(translation),
        None if speaks.natively(call) => None,
        None => {
            let about = about(record, model, terms.estimate.input_tokens);
            translate::request(speaks, call, body, parsed, &about)?
        }
    };
    let Some(mut translation) = translation else {
        exchange.meter = Some(Meter::new(call, parsed.is_streaming && !parsed.wants_usage));
        let rewritten = protocol::rewrite(call, body, parsed, &changes(call)).map(Bytes::from);
        return Ok(rewritten.unwrap_or_else(|| body.clone()));
    };
    exchange.meter = Some(Meter::new(translation.call, false));
    let outbound = translation.body(&changes(translation.call)).into();
    exchange.translation = Some(translation);
    Ok(outbound)
}

/// Puts the next of the model's fallbacks in its place: decided on anew, as if the first had not been asked for. `None`
/// where none is left, or may be had.
async fn fall_back(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    body: &Bytes,
    parsed: &ParsedRequest<'_>,
) -> Option<()> {
    let first = exchange.asked_for?;
    let snapshot = Arc::clone(&exchange.record.snapshot);
    let config = &snapshot.config;
    while let Some(id) = config.model(first.model).fallbacks.get(exchange.fallen_back).copied() {
        exchange.fallen_back += 1;
        let model = config.model(id);
        let key = exchange.record.caller.as_ref().and_then(|caller| caller.key.as_ref());
        let input_tokens = input_tokens(&snapshot, id, exchange.record.call, &exchange.size);
        let about = about(&exchange.record, model, input_tokens);
        let said = translate::request(
            snapshot.upstreams.speaks(id),
            exchange.record.call,
            body,
            parsed,
            &about,
        );
        let may_be_had = model.enabled && key.is_none_or(|key| key.allows(&model.name));
        if !may_be_had || said.is_err() || exchange.size.least_tokens() > model.max_input_tokens {
            continue;
        }
        let ask = AdmissionRequest {
            model: id,
            smaller: None,
            input_tokens,
            max_tokens: parsed.max_tokens.unwrap_or(u64::MAX).min(model.max_output_tokens),
            ..first
        };
        let (offer, standing) = match exchange.permit.take() {
            Some(permit) => permit.replace(&ask),
            None => exchange.gateway.gate.offer(&ask),
        };
        exchange.standing = standing;
        let entry = match offer {
            Admission::Admitted(entry) => entry,
            Admission::Rejected(_) => continue,
            Admission::Queued(wait) => {
                exchange.listed.note(ask.project, wait.ticket());
                match turn(exchange, client, wait).await {
                    Ok(entry) => entry,
                    Err(_) => continue,
                }
            }
        };
        exchange.translation = None;
        exchange.upstream_status = None;
        exchange.enter(entry);
        return Some(());
    }
    None
}

/// Waits for an answer, `total` at most. Of one that takes longer than a moment an intent is written, so that it is
/// not forgotten if the gateway is killed.
async fn answer_in_time<T>(
    gateway: &Gateway,
    mut answered: Pin<&mut impl Future<Output = T>>,
    total: Duration,
    intent: Option<&Record>,
) -> Option<T> {
    let moment = total.min(INTEND_AFTER);
    if let Ok(answered) = fast_timeout(moment, answered.as_mut()).await {
        return Some(answered);
    }
    if let Some(record) = intent {
        gateway.ledger.intend(record);
    }
    fast_timeout(total.saturating_sub(moment), answered).await.ok()
}
