//! One request, from the top. [`serve`] reads like the description in `docs/architecture.md`: read,
//! understand, identify, resolve, decide, forward, stream, settle, record.
//!
//! Every way out passes settlement and the ledger: [`serve`] is `walk`, then settle, then record, and
//! only then do the last bytes go to the client. What is held on the way is a guard.

use super::outbound::{self, Extras};
use super::{Gateway, inbound};
use crate::config::{Config, Model};
use crate::gate::Permit;
use crate::identity;
use crate::ledger::{Outcome, Record};
use crate::protocol::meter::Meter;
use crate::protocol::refuse::{Reason, Stop};
use crate::protocol::stream::{Cut, Cutter};
use crate::protocol::{self, Call, Changes, Protocol, Understood, generate};
use crate::upstream::{self, Answer, Outbound, failure};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use policy::{Ask, Estimate, ModelId};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Bytes of English and code that make a token, until a model's own figure is learned.
const BYTES_A_TOKEN: u64 = 4;

/// Pieces gathered into one write, at most.
const GATHER: usize = 64;

/// How far an exchange has come; what is still to do follows from it.
#[derive(Default)]
struct Progress {
    permit: Option<Permit>,
    extras: Extras,
    head_is_sent: bool,
    meter: Option<Meter>,
    overhead: Option<Duration>,
}

/// What goes to the client once the ledger has the record.
enum Rest {
    /// A whole answer.
    Whole {
        status: u16,
        content_type: Bytes,
        body: Bytes,
    },
    /// The end of a stream.
    Tail(Option<Bytes>),
}

/// Serves one request for a model's work. Returns whether the connection may serve another.
pub(super) async fn serve(gateway: &Gateway, session: &mut ServerSession, call: Call) -> bool {
    let headers = &session.req_header().headers;
    let request_id = inbound::sane_request_id(headers).map_or_else(|| gateway.ids.make(), str::to_owned);
    let mut record = Record::begin(gateway.current.get(), call, request_id);
    record.trace_id = inbound::trace_id(headers).map(str::to_owned);
    let mut progress = Progress::default();

    let walked = walk(gateway, session, &mut record, &mut progress).await;
    let rest = conclude(walked, &mut record, &mut progress);
    settle(gateway, &mut record, &mut progress);
    let record = Arc::new(record);
    let rest = match gateway.ledger.commit(&record).await {
        Ok(()) => rest,
        Err(error) => {
            tracing::error!(%error, request_id = record.request_id, "record not written");
            Err(Stop::new(
                Reason::LedgerUnavailable,
                "the gateway cannot write its ledger; try again",
            ))
        }
    };
    deliver(session, &record, &progress, rest).await
}

/// Steps 1 to 10: everything until the answer's last bytes.
async fn walk(
    gateway: &Gateway,
    session: &mut ServerSession,
    record: &mut Record,
    progress: &mut Progress,
) -> Result<Rest, Stop> {
    let snapshot = Arc::clone(&record.snapshot);
    let config = &snapshot.config;
    let call = record.call;
    let body = inbound::body(session, config).await?;
    let understood = protocol::understand(call, &body)?;
    record.requested_model = understood.model.chars().take(256).collect();
    record.streamed = understood.is_streaming;
    let headers = &session.req_header().headers;
    let caller = identity::caller(&snapshot, headers, Some(&understood), crate::clock::now_ms())?;
    let project = config.project(caller.project);
    (record.class, record.priority) = identity::standing(config, &caller, headers, understood.lowered);
    record.caller = Some(caller.clone());
    let (model_id, model) = resolve(config, call, &understood)?;
    record.model = Some(model_id);
    record.estimate = estimate(model, call, &understood)?;
    let ask = Ask {
        project: caller.project,
        user: caller.user,
        plan: project.plan,
        model: model_id,
        class: record.class,
        priority: record.priority,
        estimate: record.estimate,
    };
    let deciding = record.started.elapsed();
    let entry = tokio::select! {
        biased;
        entry = gateway.gate.enter(&ask, &mut progress.extras.standing) => entry?,
        gone = inbound::client_gone(session) => return Err(gone),
    };
    record.queue_wait = entry.waited;
    progress.extras.queue_wait = entry.waited;
    progress.permit = Some(entry.permit);

    let total = model.deadlines.total.saturating_sub(record.started.elapsed());
    let changes = Changes {
        model: model.upstream_name.as_deref().unwrap_or(&model.name),
        max_tokens: per_answer_limit(model, &understood),
    };
    let rewritten = protocol::rewrite(call, &body, &understood, &changes).map(Bytes::from);
    progress.meter = Some(Meter::new(call, understood.is_streaming && !understood.wants_usage));
    drop(understood);
    progress.overhead = Some(deciding);
    let outbound = rewritten.unwrap_or(body);
    match tokio::time::timeout(
        total,
        exchange(gateway, session, record, progress, (model_id, model), outbound),
    )
    .await
    {
        Ok(result) => result,
        Err(_) => Err(Stop::new(
            Reason::UpstreamTimeout,
            format!(
                "the request took longer than {} s in all",
                model.deadlines.total.as_secs()
            ),
        )),
    }
}

/// Step 4: the model that is asked, if it may be.
fn resolve<'a>(config: &'a Config, call: Call, understood: &Understood<'_>) -> Result<(ModelId, &'a Model), Stop> {
    let name = &understood.model;
    let tagged = || config.model_by_name(name.strip_suffix(":latest")?);
    let id = config.model_by_name(name).or_else(tagged).ok_or_else(|| {
        Stop::param(
            Reason::UnknownModel,
            "model",
            format!("there is no model `{name}`; GET /v1/models lists them"),
        )
    })?;
    let model = config.model(id);
    if !model.enabled {
        return Err(Stop::param(
            Reason::ModelDisabled,
            "model",
            format!("model `{name}` is disabled"),
        ));
    }
    upstream::speaks(model.backend, call)?;
    Ok((id, model))
}

/// The most tokens that each answer may have.
fn per_answer_limit(model: &Model, understood: &Understood<'_>) -> u64 {
    understood.max_tokens.unwrap_or(u64::MAX).min(model.max_output_tokens)
}

/// The worst case of a request, in tokens and money.
fn estimate(model: &Model, call: Call, understood: &Understood<'_>) -> Result<Estimate, Stop> {
    let input_tokens = (understood.prompt_bytes as u64).div_ceil(BYTES_A_TOKEN);
    if input_tokens > model.max_input_tokens {
        return Err(Stop::new(
            Reason::ContextLengthExceeded,
            format!(
                "the prompt has about {input_tokens} tokens, and model `{}` takes at most {}",
                model.name, model.max_input_tokens
            ),
        ));
    }
    let answers = if call.generates() { understood.answers } else { 0 };
    let output_tokens = per_answer_limit(model, understood).saturating_mul(answers);
    let cost = model.input_price.per_1k(input_tokens) + model.output_price.per_1k(output_tokens);
    Ok(Estimate {
        input_tokens,
        output_tokens,
        cost,
    })
}

/// Steps 9 and 10: to an endpoint and back.
async fn exchange(
    gateway: &Gateway,
    session: &mut ServerSession,
    record: &mut Record,
    progress: &mut Progress,
    (model_id, model): (ModelId, &Model),
    body: Bytes,
) -> Result<Rest, Stop> {
    let endpoint = gateway.upstreams.pick(model_id)?;
    record.upstream = Some(Arc::clone(&endpoint.authority));
    record.was_forwarded = true;
    let traceparent = session.req_header().headers.get("traceparent").cloned();
    let outbound = Outbound {
        path: record.call.upstream_path(),
        body,
        request_id: &record.request_id,
        traceparent: traceparent.as_ref(),
        deadlines: model.deadlines,
    };
    let answer = tokio::select! {
        biased;
        answer = gateway.forward.open(endpoint, &outbound) => answer?,
        gone = inbound::client_gone(session) => return Err(gone),
    };
    let status = answer.session.response_header().map_or(0, |head| head.status.as_u16());
    if record.streamed && status == 200 {
        stream(gateway, session, record, progress, answer).await
    } else {
        whole(gateway, session, record, progress, answer, status).await
    }
}

/// A stream: pieces go out as they come, what has arrived together in one write.
async fn stream(
    gateway: &Gateway,
    session: &mut ServerSession,
    record: &mut Record,
    progress: &mut Progress,
    mut answer: Answer,
) -> Result<Rest, Stop> {
    let protocol = record.protocol();
    let content_type = content_type(&answer);
    let mut head = Some(outbound::head(record, &progress.extras, 200, &content_type, None).map_err(|_| broken())?);
    let mut cutter = Cutter::new(protocol);
    let meter = progress.meter.get_or_insert_with(|| Meter::new(record.call, false));
    let mut cut = Cut::default();
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            gone = inbound::client_gone(session) => return Err(gone),
        };
        let mut arrived = Some(arrived);
        let mut is_done = false;
        while let Some(piece) = arrived.take() {
            match piece {
                Ok(Some(piece)) if cut.held.is_none() => cutter.push(piece, meter, &mut cut),
                Ok(Some(_)) => {}
                Ok(None) => is_done = true,
                Err(error) => return Err(failure(answer.endpoint(), &error, "in the middle of its answer")),
            }
            is_done |= answer.session.response_done();
            if !is_done && cut.pass.len() < GATHER {
                arrived = answer.session.read_response_body().now_or_never();
            }
        }
        if !cut.pass.is_empty() && record.first_token.is_none() {
            record.first_token = Some(record.started.elapsed());
        }
        if is_done && !meter.has_finished() {
            return Err(Stop::new(
                Reason::UpstreamError,
                "the model's server ended its answer in the middle",
            ));
        }
        if !cut.pass.is_empty() {
            let mut tasks = Vec::with_capacity(cut.pass.len() + 1);
            tasks.extend(head.take().map(|head| HttpTask::Header(head, false)));
            tasks.extend(cut.pass.drain(..).map(outbound::piece));
            progress.head_is_sent = true;
            outbound::write(session, tasks).await?;
        }
        if is_done {
            gateway.forward.keep(answer).await;
            let tail = cut.held.take().or_else(|| cutter.rest());
            if let Some(head) = head {
                progress.head_is_sent = true;
                outbound::write(session, vec![HttpTask::Header(head, false)]).await?;
            }
            return Ok(Rest::Tail(tail));
        }
    }
}

/// An answer that is not streamed: gathered, metered, and sent as a whole.
async fn whole(
    gateway: &Gateway,
    session: &mut ServerSession,
    record: &mut Record,
    progress: &mut Progress,
    mut answer: Answer,
    status: u16,
) -> Result<Rest, Stop> {
    let most = record.snapshot.config.gateway.max_response_bytes;
    let mut first: Option<Bytes> = None;
    let mut more: Option<BytesMut> = None;
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            gone = inbound::client_gone(session) => return Err(gone),
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
            Err(error) => return Err(failure(answer.endpoint(), &error, "in the middle of its answer")),
        }
        if more.as_ref().is_some_and(|all| all.len() > most) {
            return Err(Stop::new(
                Reason::UpstreamError,
                format!("the model's answer is larger than {most} bytes"),
            ));
        }
        if answer.session.response_done() {
            break;
        }
    }
    let body = more.map(BytesMut::freeze).or(first).unwrap_or_default();
    let content_type = content_type(&answer);
    let retry_after = upstream_retry_after(&answer);
    if answer.session.response_done() {
        gateway.forward.keep(answer).await;
    }
    record.first_token = Some(record.started.elapsed());
    if status == 200 {
        if let Some(meter) = &mut progress.meter {
            meter.see_whole(&body);
        }
        return answered(record, progress, content_type, body);
    }
    refused_by_upstream(record.protocol(), status, &body, retry_after).map(|()| Rest::Whole {
        status,
        content_type,
        body,
    })
}

/// The upstream's answer as the client's protocol has it.
fn answered(record: &mut Record, progress: &Progress, content_type: Bytes, body: Bytes) -> Result<Rest, Stop> {
    if record.protocol() != Protocol::Generate {
        return Ok(Rest::Whole {
            status: 200,
            content_type,
            body,
        });
    }
    let (usage, _) = usage(record, progress);
    let cost = record.price(usage).euros();
    let made = generate::answer(&record.request_id, &body, &record.estimate, usage, cost);
    let body = made.ok_or_else(|| {
        Stop::new(
            Reason::UpstreamError,
            "the model's server did not answer with a chat completion",
        )
    })?;
    Ok(Rest::Whole {
        status: 200,
        content_type: Bytes::from_static(b"application/json"),
        body: body.into(),
    })
}

/// An upstream's refusal: the client's mistakes pass through, the upstream's own troubles become the
/// gateway's refusals.
fn refused_by_upstream(
    protocol: Protocol,
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
) -> Result<(), Stop> {
    let passes = matches!(status, 400 | 404 | 405 | 409 | 413 | 415 | 422);
    if passes && protocol != Protocol::Generate {
        return Ok(());
    }
    let said = error_message(body);
    let stop = match status {
        429 | 503 => {
            let mut stop = Stop::new(Reason::NoHealthyUpstream, "the model's server is overloaded");
            stop.retry_after = retry_after.or(stop.retry_after);
            stop
        }
        401 | 403 => Stop::new(
            Reason::UpstreamError,
            "the model's server does not accept the gateway's key",
        ),
        504 => Stop::new(Reason::UpstreamTimeout, "the model's server took too long"),
        _ if passes => Stop::new(
            Reason::BadRequest,
            said.unwrap_or_else(|| format!("the model's server answered {status}")),
        ),
        _ => Stop::new(Reason::UpstreamError, format!("the model's server answered {status}")),
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

fn broken() -> Stop {
    Stop::new(
        Reason::UpstreamError,
        "the model's server sent a head that cannot be passed on",
    )
}

/// Writes into the record how the walk ended.
fn conclude(walked: Result<Rest, Stop>, record: &mut Record, progress: &mut Progress) -> Result<Rest, Stop> {
    record.latency = record.started.elapsed();
    match walked {
        Ok(rest) => {
            record.http_status = match &rest {
                Rest::Whole { status, .. } => *status,
                Rest::Tail(_) => 200,
            };
            record.outcome = if record.http_status == 200 {
                Outcome::Completed
            } else {
                Outcome::Failed
            };
            Ok(rest)
        }
        Err(stop) => {
            record.outcome = match stop.reason {
                Reason::ClientGone => Outcome::Cancelled,
                Reason::UpstreamTimeout | Reason::QueueTimeout => Outcome::TimedOut,
                _ if record.was_forwarded => Outcome::Failed,
                _ => Outcome::Rejected,
            };
            record.http_status = if progress.head_is_sent && stop.reason != Reason::ClientGone {
                200
            } else {
                stop.reason.status()
            };
            record.stop = Some(stop.clone());
            Err(stop)
        }
    }
}

fn usage(record: &Record, progress: &Progress) -> (protocol::meter::Usage, protocol::meter::Source) {
    progress
        .meter
        .as_ref()
        .map_or((record.usage, record.usage_source), |meter| {
            let input = if record.call.generates() || record.outcome == Outcome::Completed {
                record.estimate.input_tokens
            } else {
                0
            };
            meter.usage(input)
        })
}

/// Step 11: what was used, the permit back, and the metrics, from the record that the ledger gets.
fn settle(gateway: &Gateway, record: &mut Record, progress: &mut Progress) {
    let has_worked =
        record.outcome == Outcome::Completed || progress.head_is_sent || record.outcome == Outcome::Cancelled;
    if record.was_forwarded && has_worked {
        (record.usage, record.usage_source) = usage(record, progress);
        record.cost = record.price(record.usage);
    }
    drop(progress.permit.take());
    gateway.metrics.observe(record, progress.overhead);
    match record.outcome {
        Outcome::Completed => gateway.completed.fetch_add(1, Relaxed),
        Outcome::Failed | Outcome::TimedOut => gateway.failed.fetch_add(1, Relaxed),
        Outcome::Rejected | Outcome::Cancelled => 0,
    };
}

/// The last bytes. Returns whether the connection may serve another request.
async fn deliver(session: &mut ServerSession, record: &Record, progress: &Progress, rest: Result<Rest, Stop>) -> bool {
    let tasks = match rest {
        Ok(Rest::Tail(tail)) => vec![outbound::last(tail)],
        Ok(Rest::Whole {
            status,
            content_type,
            body,
        }) => {
            let Ok(head) = outbound::head(record, &progress.extras, status, &content_type, Some(body.len())) else {
                return false;
            };
            vec![HttpTask::Header(head, false), outbound::last(Some(body))]
        }
        Err(stop) if stop.reason == Reason::ClientGone => return false,
        Err(stop) if progress.head_is_sent => {
            // An error event, and then no clean end: the connection closes without the last chunk.
            let event = Bytes::from(stop.event(record.protocol()));
            let _ = outbound::write(session, vec![outbound::piece(event)]).await;
            return false;
        }
        Err(stop) => {
            let Ok(tasks) = outbound::refusal(record, &progress.extras, &stop) else {
                return false;
            };
            tasks
        }
    };
    let reads_on = record
        .stop
        .as_ref()
        .is_none_or(|stop| !matches!(stop.reason, Reason::BodyTooLarge | Reason::RequestTimeout));
    outbound::write(session, tasks).await.is_ok() && reads_on
}
