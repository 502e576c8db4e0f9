//! To an endpoint and back: the upstream is asked, and its answer goes to the client, whole or as it comes.

use super::client::Client;
use super::exchange::Exchange;
use super::outbound;
use crate::ledger::Record;
use crate::upstream::{Answer, Endpoint, Outbound, failure};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pingora_core::BError;
use pingora_core::protocols::http::HttpTask;
use protocol::meter::Meter;
use protocol::refuse::{ErrorCode, RequestError};
use protocol::stream::{Cut, Cutter};
use protocol::{Protocol, generate};
use std::sync::Arc;
use std::time::Duration;

/// Pieces gathered into one write, at most.
const GATHER: usize = 64;

/// What goes to the client once the ledger has the record.
pub(super) enum FinalPart {
    /// A whole answer.
    Body {
        status: u16,
        content_type: Bytes,
        body: Bytes,
    },
    /// The end of a stream.
    StreamEnd(Option<Bytes>),
}

impl FinalPart {
    pub(super) fn status(&self) -> u16 {
        match self {
            FinalPart::Body { status, .. } => *status,
            FinalPart::StreamEnd(_) => 200,
        }
    }
}

/// Asks one server, and passes its answer on.
pub(super) async fn exchange(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    endpoint: &Arc<Endpoint>,
    body: Bytes,
    left: Duration,
) -> Result<FinalPart, RequestError> {
    let gateway = Arc::clone(&exchange.gateway);
    let record = &mut exchange.record;
    let snapshot = Arc::clone(&record.snapshot);
    let model = snapshot.config.model(record.terms.model);
    let call = exchange
        .translation
        .as_ref()
        .map_or(record.call, |translation| translation.call);
    record.upstream = Some(Arc::clone(&endpoint.authority));
    record.was_forwarded = true;
    exchange.upstream_status = None;
    let first = if record.streamed {
        let is_loaded = endpoint.has_loaded(model.upstream_name.as_deref().unwrap_or(&model.name));
        let load = if is_loaded {
            Duration::ZERO
        } else {
            model.deadlines.load
        };
        left.min(model.deadlines.first_token + load)
    } else {
        left
    };
    let outbound = Outbound {
        path: call.upstream_path(),
        body,
        request_id: &record.request_id,
        traceparent: exchange.traceparent.as_ref(),
        timeout: exchange.timeout.map(|_| left),
        deadlines: model.deadlines,
        first,
        tokens: record.terms.estimate.tokens(),
    };
    let mut answer = tokio::select! {
        biased;
        answer = gateway.forward.open(endpoint, &outbound) => answer?,
        gone = client.gone() => return Err(gone),
    };
    let status = answer.session.response_header().map_or(0, |head| head.status.as_u16());
    exchange.upstream_status = Some(status);
    let after = upstream_retry_after(&answer);
    match status {
        429 => endpoint.pause(after.unwrap_or(Duration::from_secs(1))),
        401 | 403 | 500.. => {
            answer.in_flight.answered_error(status);
            if let Some(after) = after {
                endpoint.pause(after);
            }
        }
        _ => {}
    }
    if record.streamed && status == 200 {
        stream(exchange, client, answer).await
    } else {
        whole(exchange, client, answer, status).await
    }
}

/// A stream: pieces go out as they come, what has arrived together in one write.
async fn stream(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    mut answer: Answer,
) -> Result<FinalPart, RequestError> {
    let mut translation = exchange.translation.take();
    let content_type = match &translation {
        Some(_) => stream_type(exchange.record.protocol()),
        None => content_type(&answer),
    };
    let mut head = Some(outbound::head(exchange, 200, &content_type, None).map_err(|_| broken())?);
    let record = &mut exchange.record;
    let meter = exchange.meter.get_or_insert_with(|| Meter::new(record.call, false));
    let mut cutter = Cutter::new(
        translation
            .as_ref()
            .map_or(record.call, |translation| translation.call)
            .protocol(),
    );
    let mut cut = Cut::default();
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            gone = client.gone() => return Err(gone),
        };
        let mut arrived = Some(arrived);
        let mut is_done = false;
        while let Some(piece) = arrived.take() {
            match piece {
                Ok(Some(_)) if cut.held.is_some() => {}
                Ok(Some(piece)) => match &mut translation {
                    None => cutter.push(piece, meter, &mut cut),
                    Some(translation) => cutter
                        .translate(piece, meter, translation, &mut cut)
                        .inspect_err(|stop| answer.in_flight.failed(&stop.message))?,
                },
                Ok(None) => is_done = true,
                Err(error) => return Err(failed(&mut answer, &error)),
            }
            is_done |= answer.session.response_done();
            if !is_done && cut.pass.len() < GATHER {
                arrived = answer.session.read_response_body().now_or_never();
            }
        }
        if !cut.pass.is_empty() && record.first_token.is_none() {
            record.first_token = Some(record.started.elapsed());
            answer.first_token_received();
        }
        if is_done && !meter.has_finished() {
            let message = "the model's server ended its answer in the middle";
            answer.in_flight.failed(message);
            return Err(RequestError::new(ErrorCode::UpstreamError, message));
        }
        if !cut.pass.is_empty() {
            let mut tasks = Vec::with_capacity(cut.pass.len() + 1);
            tasks.extend(head.take().map(|head| HttpTask::Header(head, false)));
            tasks.extend(cut.pass.drain(..).map(outbound::piece));
            exchange.head_is_sent = true;
            client.write(tasks).await?;
        }
        if is_done {
            exchange.gateway.forward.keep(answer).await;
            let tail = match &mut translation {
                Some(translation) if cut.held.is_none() => Some(translation.finish()),
                _ => cut.held.take().or_else(|| cutter.rest()),
            };
            if let Some(head) = head {
                exchange.head_is_sent = true;
                client.write(vec![HttpTask::Header(head, false)]).await?;
            }
            return Ok(FinalPart::StreamEnd(tail));
        }
    }
}

/// The type of a stream in a client's protocol.
fn stream_type(protocol: Protocol) -> Bytes {
    Bytes::from_static(match protocol {
        Protocol::Ollama => b"application/x-ndjson",
        _ => b"text/event-stream",
    })
}

/// A server that broke off.
fn failed(answer: &mut Answer, error: &BError) -> RequestError {
    let stop = failure(answer.endpoint(), error, "in the middle of its answer");
    answer.in_flight.failed(&stop.message);
    stop
}

/// An answer that is not streamed: gathered, metered, and sent as a whole.
async fn whole(
    exchange: &mut Exchange,
    client: &mut Client<'_>,
    mut answer: Answer,
    status: u16,
) -> Result<FinalPart, RequestError> {
    let most = exchange.record.snapshot.config.gateway.max_response_bytes;
    let mut first: Option<Bytes> = None;
    let mut more: Option<BytesMut> = None;
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            gone = client.gone() => return Err(gone),
        };
        match arrived {
            Ok(Some(piece)) => match (&mut first, &mut more) {
                (None, None) => first = Some(piece),
                (_, Some(all)) => all.extend_from_slice(&piece),
                (Some(start), None) => {
                    let mut all = BytesMut::with_capacity((start.len() + piece.len()) * 2);
                    all.extend_from_slice(start);
                    all.extend_from_slice(&piece);
                    more = Some(all);
                }
            },
            Ok(None) => break,
            Err(error) => return Err(failed(&mut answer, &error)),
        }
        if more.as_ref().is_some_and(|all| all.len() > most) {
            let message = format!("the model's answer is larger than {most} bytes");
            return Err(RequestError::new(ErrorCode::UpstreamError, message));
        }
        if answer.session.response_done() {
            break;
        }
    }
    let body = more.map(BytesMut::freeze).or(first).unwrap_or_default();
    let content_type = content_type(&answer);
    let retry_after = upstream_retry_after(&answer);
    exchange.record.first_token = Some(exchange.record.started.elapsed());
    if status == 200 {
        if let Some(meter) = &mut exchange.meter {
            meter.see_whole(&body);
        }
        let rest = answered(exchange, content_type, body).inspect_err(|stop| answer.in_flight.failed(&stop.message))?;
        keep(exchange, answer).await;
        return Ok(rest);
    }
    keep(exchange, answer).await;
    let is_native = exchange.translation.is_none();
    let body = refused_by_upstream(&exchange.record, is_native, status, body, retry_after)?;
    Ok(FinalPart::Body {
        status,
        content_type,
        body,
    })
}

/// The connection is used again, if its answer has come to its end.
async fn keep(exchange: &Exchange, mut answer: Answer) {
    if answer.session.response_done() {
        exchange.gateway.forward.keep(answer).await;
    } else {
        answer.in_flight.succeeded();
    }
}

/// The upstream's answer as the client's protocol has it.
fn answered(exchange: &mut Exchange, content_type: Bytes, body: Bytes) -> Result<FinalPart, RequestError> {
    let Some(mut translation) = exchange.translation.take() else {
        return Ok(FinalPart::Body {
            status: 200,
            content_type,
            body,
        });
    };
    let mut body = translation.whole(&body)?;
    let record = &exchange.record;
    if record.protocol() == Protocol::Generate {
        let (usage, _) = exchange.usage();
        let cost = record.price(usage).euros();
        body = generate::answer(&record.request_id, &body, &record.terms.estimate, usage, cost);
    }
    Ok(FinalPart::Body {
        status: 200,
        content_type: Bytes::from_static(b"application/json"),
        body: body.into(),
    })
}

/// An upstream's refusal: the client's mistakes pass through, the upstream's own troubles become the
/// gateway's refusals.
fn refused_by_upstream(
    record: &Record,
    is_native: bool,
    status: u16,
    body: Bytes,
    retry_after: Option<Duration>,
) -> Result<Bytes, RequestError> {
    let passes = matches!(status, 400 | 404 | 405 | 409 | 413 | 415 | 422);
    if passes && is_native {
        return Ok(body);
    }
    let said = error_message(&body);
    let stop = match status {
        429 | 503 => {
            let mut stop = RequestError::new(ErrorCode::NoHealthyUpstream, "the model's server is overloaded");
            stop.retry_after = retry_after.or(stop.retry_after);
            stop
        }
        401 | 403 => RequestError::new(
            ErrorCode::UpstreamError,
            "the model's server does not accept the gateway's key",
        ),
        504 => RequestError::new(ErrorCode::UpstreamTimeout, "the model's server took too long"),
        _ if passes => {
            let said = said.unwrap_or_else(|| format!("the model's server answered {status}"));
            let stop = RequestError::new(ErrorCode::BadRequest, said);
            if record.protocol() != Protocol::Generate {
                return Ok(stop.body(record.protocol(), &record.request_id).into());
            }
            stop
        }
        _ => RequestError::new(
            ErrorCode::UpstreamError,
            format!("the model's server answered {status}"),
        ),
    };
    Err(stop)
}

/// The sentence in an upstream's error, if there is one.
fn error_message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let said = body.pointer("/error/message").or_else(|| body.get("error"))?;
    said.as_str().map(|said| said.chars().take(500).collect())
}

fn content_type(answer: &Answer) -> Bytes {
    let given = answer
        .session
        .response_header()
        .and_then(|head| head.headers.get("content-type"));
    given.map_or(Bytes::from_static(b"application/json"), |value| {
        Bytes::copy_from_slice(value.as_bytes())
    })
}

fn upstream_retry_after(answer: &Answer) -> Option<Duration> {
    let head = answer.session.response_header()?;
    let seconds = head.headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn broken() -> RequestError {
    RequestError::new(
        ErrorCode::UpstreamError,
        "the model's server sent a head that cannot be passed on",
    )
}
