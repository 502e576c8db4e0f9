//! One request, from the top. [`walk`] reads like the description in `docs/architecture.md`: read, identify,
//! understand, resolve, decide, forward, stream; then settle and record.
//!
//! Every way out passes settlement and the ledger: [`serve`] is `walk`, then [`conclude`], and only then do
//! the last bytes go to the client. What is held on the way is a guard.

use super::answer::FinalPart;
use super::client::Client;
use super::forward::forward;
use super::{Gateway, background, inbound, locally, outbound};
use crate::config::{Config, Model};
use crate::gate::{Admission, AdmittedRequest, QueuedRequest, SlotPermit};
use crate::identity;
use crate::record::Record;
use crate::requests::Listed;
use crate::traces::{self, Steps, Trace};
use crate::upstream::RoutingHint;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ledger::Outcome;
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use policy::{AdmissionRequest, Alert, ModelId, Pace, RateLimitStatus, Settlement, Usage};
use protocol::hub::About;
use protocol::meter::{Meter, Source};
use protocol::refuse::{ErrorCode, RequestError};
use protocol::translate::{self, Speaks, Translation};
use protocol::{self, Operation, ParsedRequest};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A request on its way, and all that it holds.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) record: Record,
    pub(super) listed: Listed,
    pub(super) standing: RateLimitStatus,
    /// What the upstream is told of its trace.
    pub(super) traceparent: Option<HeaderValue>,
    /// The ids of its spans, where it is traced.
    trace: Option<Trace>,
    pub(super) head_is_sent: bool,
    pub(super) meter: Option<Meter>,
    /// Where the client's protocol is not its model's server's.
    pub(super) translation: Option<Translation>,
    /// What matters for the choice of a server.
    pub(super) routing_hint: RoutingHint,
    /// How long the client waits, if it says so.
    pub(super) timeout: Option<Duration>,
    /// What was asked of policy, for the models that come in place of the first.
    pub(super) asked_for: Option<AdmissionRequest>,
    /// How many of those were thought of.
    pub(super) fallen_back: usize,
    pub(super) permit: Option<SlotPermit>,
    pub(super) prompt_bytes: usize,
    /// The gateway's own time before the upstream was asked, waiting left out.
    overhead: Option<Duration>,
    /// How long after the start the upstream was asked.
    pub(super) asked: Duration,
    /// The status with which the upstream answered, if it did.
    pub(super) upstream_status: Option<u16>,
}

/// How far the walk has come.
enum Walked {
    /// To the answer's end, but for what is held until the record is safe.
    Through(FinalPart),
    /// Into the queue, where nobody waits for it at a connection.
    Queued(QueuedRequest, Bytes),
}

/// Serves one request for a model's work. Returns whether the connection may serve another.
pub(super) async fn serve(gateway: &Arc<Gateway>, session: &mut ServerSession, call: Operation) -> bool {
    let mut exchange = Exchange::begin(gateway, &session.req_header().headers, call);
    let walked = match walk(&mut exchange, session).await {
        Ok(Walked::Queued(wait, body)) => match background::keep(&exchange, &body).await {
            Ok(queued) => {
                tokio::spawn(background::run(exchange, wait, body));
                return outbound::write(session, queued).await.is_ok();
            }
            Err(stop) => Err(stop),
        },
        Ok(Walked::Through(rest)) => Ok(rest),
        Err(stop) => Err(stop),
    };
    let rest = conclude(&mut exchange, walked).await;
    outbound::deliver(session, &exchange, rest).await
}

/// Steps 1 to 10: everything until the answer's last bytes.
async fn walk(exchange: &mut Exchange, session: &mut ServerSession) -> Result<Walked, RequestError> {
    let body = inbound::body(session, &exchange.record.snapshot.config).await?;
    let parsed = protocol::parse(exchange.record.call, &body)?;
    identify(exchange, &session.req_header().headers, &parsed)?;
    exchange.routing_hint.beginning = session_hash(&session.req_header().headers);
    let ask = ask(exchange, &body, &parsed)?;
    if let Some(rest) = locally::answer(exchange, ask.input_tokens) {
        return Ok(Walked::Through(rest));
    }
    exchange.overhead = Some(exchange.record.started.elapsed());
    let (offer, standing) = exchange.gateway.gate.offer(&ask);
    exchange.standing = standing;
    let mut client = Client::here(session, Arc::clone(&exchange.listed.cancel));
    let entry = match offer {
        Admission::Admitted(entry) if parsed.in_background => {
            exchange.translation = None;
            exchange.record.terms = entry.terms;
            return Ok(Walked::Queued(QueuedRequest::over(entry), body));
        }
        Admission::Admitted(entry) => entry,
        Admission::Rejected(refusal) => return Err(refusal.into()),
        Admission::Queued(wait) => {
            exchange.listed.note(ask.project, wait.ticket());
            // It is made again when its turn comes: a tree takes more room than a text.
            exchange.translation = None;
            if exchange.record.call == Operation::Generate || parsed.in_background {
                exchange.record.terms = wait.terms();
                return Ok(Walked::Queued(wait, body));
            }
            let _buffered = exchange.gateway.buffer(&exchange.record.snapshot.config, body.len())?;
            turn(exchange, &mut client, wait).await?
        }
    };
    exchange.enter(entry);
    Ok(Walked::Through(forward(exchange, &mut client, &body, &parsed).await?))
}

/// Waits for a place, as long as the client does.
pub(super) async fn turn(
    exchange: &Exchange,
    client: &mut Client<'_>,
    wait: QueuedRequest,
) -> Result<AdmittedRequest, RequestError> {
    let left = exchange.timeout.map_or(Duration::MAX, |timeout| {
        timeout.saturating_sub(exchange.record.started.elapsed())
    });
    tokio::select! {
        biased;
        entry = fast_timeout(left, wait.granted()) => match entry {
            Ok(entry) => Ok(entry?),
            Err(_) => Err(RequestError::new(ErrorCode::QueueTimeout, "the request waited as long as its client does")),
        },
        gone = client.gone() => Err(gone),
    }
}

/// A session sticks to a server by the name that its client gives it.
fn session_hash(headers: &HeaderMap) -> Option<u64> {
    let session = headers.get("x-sluice-session")?;
    Some(BuildHasherDefault::<DefaultHasher>::default().hash_one(session.as_bytes()))
}

/// Step 3: who asks, and how important that is.
fn identify(exchange: &mut Exchange, headers: &HeaderMap, parsed: &ParsedRequest<'_>) -> Result<(), RequestError> {
    if let Err(error) = exchange.gateway.ledger.check_writable() {
        tracing::debug!(%error, "request refused: the ledger cannot be written");
        let message = "the gateway cannot record new requests now; try again";
        return Err(RequestError::new(ErrorCode::LedgerUnavailable, message));
    }
    let record = &mut exchange.record;
    record.requested_model = parsed.model.chars().take(256).collect();
    record.streamed = parsed.is_streaming;
    let snapshot = &record.snapshot;
    let caller = identity::caller(snapshot, headers, Some(parsed), crate::clock::now_ms())?;
    (record.class, record.priority) = identity::standing(&snapshot.config, &caller, headers, parsed.lowered);
    exchange.listed.note(caller.project, None);
    record.caller = Some(caller);
    Ok(())
}

/// Step 4: for what, whether it may be had, and how much it is at worst.
pub(super) fn ask(
    exchange: &mut Exchange,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
) -> Result<AdmissionRequest, RequestError> {
    let record = &mut exchange.record;
    let snapshot = Arc::clone(&record.snapshot);
    let config = &snapshot.config;
    let call = record.call;
    let caller = record
        .caller
        .as_ref()
        .ok_or_else(|| RequestError::new(ErrorCode::UnknownUser, "nobody said who asks"))?;
    let (model_id, model) = resolve(config, parsed)?;
    if let Some(key) = caller.key.as_ref().filter(|key| !key.allows(&model.name)) {
        let message = format!("key {} may not ask for model `{}`", key.id, model.name);
        return Err(RequestError::param(ErrorCode::ModelNotAllowed, "model", message));
    }
    record.model = Some(model_id);
    exchange.prompt_bytes = parsed.prompt_bytes;
    let input_tokens = snapshot.tokens.tokens(model_id, parsed.prompt_bytes);
    if input_tokens > model.max_input_tokens {
        let (name, most) = (&model.name, model.max_input_tokens);
        let message = format!("the prompt has about {input_tokens} tokens, and model `{name}` takes at most {most}");
        return Err(RequestError::new(ErrorCode::ContextLengthExceeded, message));
    }
    let upstreams = &snapshot.upstreams;
    let speaks = upstreams.speaks(model_id);
    let translated = |speaks: Speaks| {
        if speaks.natively(call) {
            return Ok(None);
        }
        translate::request(speaks, call, body, parsed, &about(record, model, input_tokens))
    };
    let smaller = model.smaller.filter(|smaller| {
        let (its, smaller) = (upstreams.speaks(*smaller), config.model(*smaller));
        let is_allowed = caller.key.as_ref().is_none_or(|key| key.allows(&smaller.name));
        smaller.enabled && is_allowed && (its == speaks || translated(its).is_ok())
    });
    exchange.translation = translated(speaks)?;
    if upstreams.has_choice(model_id) && exchange.routing_hint.beginning.is_none() {
        let beginning = parsed.prompt.map(protocol::beginning);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        exchange.routing_hint.beginning = beginning.map(|beginning| hasher.hash_one(beginning));
    }
    let ask = AdmissionRequest {
        project: caller.project,
        user: caller.user,
        key: caller.key.as_ref().map(|key| key.number),
        plan: config.project(caller.project).plan,
        model: model_id,
        smaller,
        class: record.class,
        priority: record.priority,
        input_tokens,
        max_tokens: parsed.max_tokens.unwrap_or(u64::MAX).min(model.max_output_tokens),
        answers: if call.generates() { parsed.answers } else { 0 },
    };
    exchange.asked_for = Some(ask);
    Ok(ask)
}

/// What an answer in another protocol needs to know of the request.
pub(super) fn about(record: &Record, model: &Model, prompt_tokens: u64) -> About {
    About {
        request_id: record.request_id.clone(),
        model: record.requested_model.clone(),
        created: crate::clock::now_ms() / 1000,
        context: model.max_input_tokens + model.max_output_tokens,
        prompt_tokens,
    }
}

/// Step 4: the model that is asked, if it may be.
fn resolve<'a>(config: &'a Config, parsed: &ParsedRequest<'_>) -> Result<(ModelId, &'a Model), RequestError> {
    let name = &parsed.model;
    let tagged = || config.model_by_name(name.strip_suffix(":latest")?);
    let id = config.model_by_name(name).or_else(tagged).ok_or_else(|| {
        let message = format!("there is no model `{name}`; GET /v1/models lists them");
        RequestError::param(ErrorCode::UnknownModel, "model", message)
    })?;
    let model = config.model(id);
    if !model.enabled {
        let message = format!("model `{name}` is disabled");
        return Err(RequestError::param(ErrorCode::ModelDisabled, "model", message));
    }
    Ok((id, model))
}

/// Steps 11 and 12: writes into the record how the walk ended, puts the actual in the place of what was
/// reserved, gives the permit back, and commits the record.
pub(super) async fn conclude(
    exchange: &mut Exchange,
    walked: Result<FinalPart, RequestError>,
) -> Result<FinalPart, RequestError> {
    let rest = exchange.end(walked);
    exchange.settle();
    let gateway = &exchange.gateway;
    let overhead = exchange.overhead.filter(|_| exchange.record.was_forwarded);
    gateway.metrics.observe(&exchange.record, overhead);
    let counter = match exchange.record.outcome {
        Outcome::Completed => Some(&gateway.completed),
        Outcome::Failed | Outcome::TimedOut => Some(&gateway.failed),
        Outcome::Rejected | Outcome::Cancelled | Outcome::Interrupted => None,
    };
    counter.map(|counter| counter.fetch_add(1, Relaxed));
    exchange.tell();
    let is_unrecorded = matches!(&rest, Err(stop) if stop.reason == ErrorCode::LedgerUnavailable);
    if is_unrecorded {
        // The ledger takes nothing on: the refusal is in the metrics alone.
        return rest;
    }
    match gateway.ledger.commit(&exchange.record.entry()).await {
        Ok(()) => rest,
        Err(error) => {
            tracing::error!(%error, request_id = exchange.record.request_id, "record not written");
            let message = "the gateway cannot write its ledger; try again";
            Err(RequestError::new(ErrorCode::LedgerUnavailable, message))
        }
    }
}

impl Exchange {
    fn begin(gateway: &Arc<Gateway>, headers: &HeaderMap, call: Operation) -> Self {
        let request_id = inbound::sane_request_id(headers).map_or_else(|| gateway.ids.make(), str::to_owned);
        let mut exchange = Self::new(gateway, request_id, call);
        exchange.trace = gateway.traces.as_ref().and_then(|traces| traces.begin(headers));
        if let Some(trace) = &exchange.trace {
            exchange.record.trace_id = Some(trace.id());
            exchange.traceparent = trace.traceparent();
        } else {
            exchange.record.trace_id = traces::id_of(headers);
            exchange.traceparent = headers.get("traceparent").cloned();
        }
        exchange.timeout = inbound::timeout(headers);
        exchange
    }

    pub(super) fn new(gateway: &Arc<Gateway>, request_id: String, call: Operation) -> Self {
        let listed = gateway.requests.list(&request_id);
        Self {
            gateway: Arc::clone(gateway),
            record: Record::begin(gateway.current.get(), call, request_id),
            listed,
            standing: RateLimitStatus::default(),
            traceparent: None,
            trace: None,
            head_is_sent: false,
            meter: None,
            translation: None,
            routing_hint: RoutingHint::default(),
            timeout: None,
            asked_for: None,
            fallen_back: 0,
            permit: None,
            prompt_bytes: 0,
            overhead: None,
            asked: Duration::ZERO,
            upstream_status: None,
        }
    }

    /// Takes what was granted.
    pub(super) fn enter(&mut self, entry: AdmittedRequest) {
        let before = self.record.queue_wait;
        self.record.queue_wait = entry
            .waited
            .map(|waited| waited + before.unwrap_or_default())
            .or(before);
        self.record.terms = entry.terms;
        self.record.model = Some(entry.terms.model);
        self.permit = Some(entry.permit);
        if let Some(caller) = self.record.caller.as_ref().filter(|_| entry.waited.is_some()) {
            self.listed.note(caller.project, None);
        }
    }

    /// Whether a failure is that of the servers that were asked, and nobody has seen anything of an answer.
    pub(super) fn is_servers_fault(&self, stop: &RequestError) -> bool {
        let failed = matches!(
            stop.reason,
            ErrorCode::NoHealthyUpstream | ErrorCode::UpstreamError | ErrorCode::UpstreamTimeout
        );
        failed && !self.head_is_sent
    }

    /// Its trace and its line in the log, where they are wanted.
    fn tell(&self) {
        let record = &self.record;
        if let (Some(traces), Some(trace)) = (&self.gateway.traces, self.trace) {
            let steps = Steps {
                parsed: self.overhead,
                asked: self.asked,
            };
            traces.end(trace, record, steps);
        }
        if record.snapshot.config.gateway.telemetry.log_requests {
            crate::telemetry::log(record);
        }
    }

    /// How the walk ended.
    fn end(&mut self, walked: Result<FinalPart, RequestError>) -> Result<FinalPart, RequestError> {
        let record = &mut self.record;
        record.latency = record.started.elapsed();
        match walked {
            Ok(rest) => {
                record.http_status = rest.status();
                record.outcome = if record.http_status == 200 {
                    Outcome::Completed
                } else {
                    Outcome::Failed
                };
                Ok(rest)
            }
            Err(stop) => {
                record.outcome = match stop.reason {
                    ErrorCode::ClientGone | ErrorCode::Cancelled => Outcome::Cancelled,
                    ErrorCode::UpstreamTimeout | ErrorCode::QueueTimeout => Outcome::TimedOut,
                    _ if record.was_forwarded => Outcome::Failed,
                    _ => Outcome::Rejected,
                };
                let is_in_the_stream = self.head_is_sent && stop.reason != ErrorCode::ClientGone;
                record.http_status = if is_in_the_stream { 200 } else { stop.reason.status() };
                record.stop = Some(stop.clone());
                Err(stop)
            }
        }
    }

    /// What was used takes the place of what was reserved.
    fn settle(&mut self) {
        let outcome = self.record.outcome;
        let has_worked = outcome == Outcome::Completed || self.head_is_sent || outcome == Outcome::Cancelled;
        if self.record.was_forwarded && has_worked {
            (self.record.usage, self.record.usage_source) = self.usage();
            self.record.cost = self.record.price(self.record.usage);
        }
        let Some(permit) = self.permit.take() else { return };
        let record = &self.record;
        let settled = permit.settle(&Settlement {
            usage: Usage {
                input_tokens: record.usage.input_tokens,
                output_tokens: record.usage.output_tokens,
                cost: record.cost,
            },
            pace: self.pace(),
            has_completed: outcome == Outcome::Completed,
            was_answered: self.upstream_status.is_some(),
        });
        for alert in &settled.alerts {
            self.alert(alert);
        }
        self.gateway.metrics.overrun(record, settled.overrun_tokens);
        if let Some(model) = record.model
            && record.usage_source == Source::Upstream
            && outcome == Outcome::Completed
        {
            let tokens = record.usage.input_tokens;
            record.snapshot.tokens.learn(model, self.prompt_bytes, tokens);
        }
    }

    /// What was used, as far as it is known.
    pub(super) fn usage(&self) -> (protocol::meter::Usage, Source) {
        let record = &self.record;
        self.meter
            .as_ref()
            .map_or((record.usage, record.usage_source), |meter| {
                let reads_prompt = record.call.generates() || record.outcome == Outcome::Completed;
                let input = if reads_prompt {
                    record.terms.estimate.input_tokens
                } else {
                    0
                };
                meter.usage(input)
            })
    }

    /// How the upstream's answer came, for whoever finds out how many it can take at once.
    fn pace(&self) -> Pace {
        let record = &self.record;
        let first_token = record.first_token.map(|after| after.saturating_sub(self.asked));
        let gaps = u32::try_from(record.usage.output_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let writing = record
            .latency
            .saturating_sub(record.first_token.unwrap_or(record.latency));
        let has_gaps = record.streamed && record.outcome == Outcome::Completed && gaps > 0;
        Pace {
            first_token: first_token.filter(|_| record.streamed),
            gap: has_gaps.then(|| writing / gaps),
            is_overloaded: matches!(self.upstream_status, Some(429 | 503)),
        }
    }

    fn alert(&self, alert: &Alert) {
        let key = self.record.caller.as_ref().and_then(|caller| caller.key.as_ref());
        let who = match alert.scope {
            policy::Scope::User => self.record.user_id(),
            policy::Scope::Key => key.map_or("", |key| &key.id),
            _ => self.record.project_id(),
        };
        tracing::warn!(
            scope = alert.scope.word(), id = who, window = alert.period.word(), measure = ?alert.measure,
            used = alert.used, limit = alert.limit,
            "an allowance is nearly used up"
        );
        self.gateway
            .metrics
            .alert(self.record.project_id(), alert.period.word());
    }
}
