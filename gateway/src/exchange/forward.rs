//! Sending an admitted request: one server after the other while nothing of an answer has come, then the fallback models.

use super::Reply;
use super::admit::Admitted;
use super::answer::{self, Outgoing};
use super::client::Client;
use super::final_part::FinalPart;
use super::recorder::Concluded;
use super::reply;
use super::resolve::about;
use super::storage;
use crate::record::Record;
use crate::services::Services;
use bytes::Bytes;
use futures_util::FutureExt;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::error::{Blame, ErrorCode, RequestError};
use protocol::meter::Meter;
use protocol::translate;
use protocol::{self, Operation, RequestChanges};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that run longer than this leave an intent in the journal, which becomes their record if the gateway is
/// killed.
const INTENT_AFTER: Duration = Duration::from_millis(250);

/// A body of so many bytes is not copied for what has to change in it.
const LARGE: usize = 1 << 20;

/// Why a request was given back without a record, to be sent again.
pub(super) enum Withdrawn {
    /// The end of the drain interrupted it: the next process sends it again.
    Stopping,
    /// Its servers are unreachable, overloaded or limiting; the pause that they ask for.
    Unavailable(Option<Duration>),
    /// It was evicted for a request of a higher priority; the time for which it had its slot.
    Evicted(Duration),
}

impl Admitted<'_> {
    /// Forwards to the model's servers and to its fallbacks, settles, records, and makes the reply.
    pub(super) async fn forward(self: Box<Self>, client: &mut Client<'_>) -> Box<Reply> {
        let (mut recorder, result) = self.run(client).await;
        let result = if recorder.conversation.kept_input.is_some() {
            Box::pin(storage::keep(&mut recorder, result)).await
        } else {
            result
        };
        Box::new(reply::build(&mut recorder, result, client.head_is_sent()))
    }

    /// Forwards to the model's servers and to its fallbacks, settles and records.
    async fn run(self: Box<Self>, client: &mut Client<'_>) -> Concluded {
        let mut admitted = self;
        loop {
            let result = admitted.ask(client).await;
            match admitted.next(client, result).await {
                Ok(next) => admitted = next,
                Err(concluded) => return concluded,
            }
        }
    }

    /// The same for a stored job, which the next process sends again if the end of the drain interrupts it.
    pub(super) async fn run_job(self: Box<Self>, client: &mut Client<'_>) -> Result<Concluded, Withdrawn> {
        let mut admitted = self;
        loop {
            match admitted.ask(client).await {
                Err(_) if client.is_evicted() => return Err(admitted.evict()),
                Err(error) if error.code == ErrorCode::ShuttingDown => {
                    admitted.withdraw();
                    return Err(Withdrawn::Stopping);
                }
                result => match admitted.next(client, result).await {
                    Ok(next) => admitted = next,
                    Err(concluded) => return Ok(concluded),
                },
            }
        }
    }

    /// The same for a line of a batch, which uses the model's own servers only. While they are unreachable, overloaded or
    /// limiting, nothing of an answer was made: it is sent again later.
    pub(super) async fn run_line(mut self: Box<Self>, client: &mut Client<'_>) -> Result<Concluded, Withdrawn> {
        match self.ask(client).await {
            Err(_) if client.is_evicted() => Err(self.evict()),
            Err(error) if error.code == ErrorCode::ShuttingDown => {
                self.withdraw();
                Err(Withdrawn::Stopping)
            }
            Err(error) if self.is_unavailable(&error) => {
                self.withdraw();
                Err(Withdrawn::Unavailable(error.retry_after))
            }
            result => Ok(self.conclude(result, false)),
        }
    }

    /// The attempt at a fallback model if this one may be tried elsewhere; else the end.
    async fn next(
        self: Box<Self>,
        client: &mut Client<'_>,
        result: Result<FinalPart, RequestError>,
    ) -> Result<Box<Self>, Concluded> {
        match result {
            Err(error) if error.may_retry() && !client.head_is_sent() => Box::pin(self.fall_back(client, error)).await,
            result => Err(self.conclude(result, client.head_is_sent())),
        }
    }

    /// Gives everything back, and leaves no record. Returns the time for which it had its slot.
    fn withdraw(self: Box<Self>) -> Duration {
        let held = self.slot.withdraw();
        self.recorder.abandon();
        held
    }

    /// The same for a request that is evicted: what its server has done is counted, and charged to nobody.
    fn evict(self: Box<Self>) -> Withdrawn {
        let (services, record) = (Arc::clone(&self.recorder.services), self.recorder.record.clone());
        let held = self.withdraw();
        services.metrics.evicted(&record, held);
        tracing::debug!(
            request_id = record.request_id,
            "evicted for a request of a higher priority"
        );
        Withdrawn::Evicted(held)
    }

    fn is_unavailable(&self, error: &RequestError) -> bool {
        let has_answered = self.upstream_status.is_some_and(|status| status == 200);
        error.code == ErrorCode::NoHealthyUpstream || (error.code == ErrorCode::UpstreamError && !has_answered)
    }

    /// Asks one model's servers. A panic on the way is an error like any other, so that what was used is settled and a
    /// client that has the beginning of its answer is told.
    async fn ask(&mut self, client: &mut Client<'_>) -> Result<FinalPart, RequestError> {
        // Pinned first, since a future is copied into what wraps it.
        let asked = pin!(self.ask_model(client));
        let asked = AssertUnwindSafe(asked).catch_unwind().await;
        asked.unwrap_or_else(|_| Err(super::panicked()))
    }

    /// Asks one model's servers, within the deadline for the whole request.
    async fn ask_model(&mut self, client: &mut Client<'_>) -> Result<FinalPart, RequestError> {
        let recorder = &mut self.recorder;
        let snapshot = Arc::clone(&recorder.record.snapshot);
        let services = Arc::clone(&recorder.services);
        let deadlines = &snapshot.config.model(recorder.record.terms.model).deadlines;
        let total = recorder.head.timeout.unwrap_or(Duration::MAX).min(deadlines.total);
        let is_clients = recorder.head.timeout.is_some_and(|timeout| timeout <= deadlines.total);
        let elapsed = recorder.record.started.elapsed();
        recorder.forwarded_after = elapsed;
        // A stored job needs no intent: it is run again.
        let intent = client.is_connected().then(|| {
            let record = &mut recorder.record;
            record.number.get_or_insert_with(|| services.ledger.next_number());
            Record {
                was_forwarded: true,
                ..record.clone()
            }
        });
        let left = total.saturating_sub(elapsed);
        let answered = pin!(self.ask_servers(client, left));
        within(&services, answered, left, intent.as_ref())
            .await
            .unwrap_or_else(|| {
                let message = format!("the request took longer than its deadline of {} s", total.as_secs_f64());
                let error = RequestError::new(ErrorCode::UpstreamTimeout, message);
                // A client's own short deadline is no failure of the server.
                Err(if is_clients {
                    error.blamed_on(Blame::Client)
                } else {
                    error
                })
            })
    }

    /// Asks one of the model's servers, and another while nothing has come back and the retry budget lasts.
    async fn ask_servers(&mut self, client: &mut Client<'_>, left: Duration) -> Result<FinalPart, RequestError> {
        let snapshot = Arc::clone(&self.recorder.record.snapshot);
        let (upstreams, model) = (&snapshot.upstreams, self.recorder.record.terms.model);
        let has_choice = upstreams.has_choice(model);
        self.hint.tokens = self.recorder.record.terms.estimate.tokens();
        upstreams.earn(model);
        let began = Instant::now();
        let (mut tried, mut attempts) = (Vec::new(), 0);
        let mut failure: Option<RequestError> = None;
        loop {
            let outgoing = self.prepare()?;
            let endpoint = match upstreams.pick(model, self.hint, &tried) {
                Ok(endpoint) => endpoint,
                Err(none_left) => return Err(failure.unwrap_or(none_left)),
            };
            let left = left.saturating_sub(began.elapsed());
            match answer::exchange(self, client, &endpoint, outgoing, left).await {
                Err(error) if error.may_retry() && !client.head_is_sent() => {
                    attempts += 1;
                    // A sole server is asked once more if its connection broke before any part of an answer.
                    let is_unanswered = matches!(self.upstream_status, None | Some(200..300));
                    let has_begun = self.recorder.record.first_token.is_some();
                    let broke = error.code == ErrorCode::UpstreamError && is_unanswered && !has_begun;
                    let is_worth_it = has_choice || (broke && attempts == 1);
                    let may_retry = is_worth_it && attempts < snapshot.config.gateway.attempts;
                    if !may_retry || !upstreams.withdraw_retry(model) {
                        return Err(error);
                    }
                    if has_choice {
                        tried.push(endpoint);
                    }
                    self.recorder.services.metrics.retried(&self.recorder.record);
                    self.recorder.services.incidents.retried(&self.recorder.record, &error);
                    failure = Some(error);
                }
                result if self.refuses_stream_options(&result) => self.asks_usage = false,
                result => return result,
            }
        }
    }

    /// Returns whether a server refuses the field by which the gateway, and not the client, asks for a stream's usage.
    fn refuses_stream_options(&self, result: &Result<FinalPart, RequestError>) -> bool {
        let (Ok(FinalPart::Refused { error, .. }) | Err(error)) = result else {
            return false;
        };
        let record = &self.recorder.record;
        let native_apis = record.snapshot.upstreams.native_apis(record.terms.model);
        let is_translated = !native_apis.supports(record.operation);
        let is_ours = self.asks_usage && self.parsed.is_streaming && (is_translated || !self.parsed.wants_usage);
        let is_named = |name: &str| error.message.contains(name) || error.param.as_deref() == Some(name);
        is_ours && error.code == ErrorCode::BadRequest && (is_named("stream_options") || is_named("include_usage"))
    }

    /// The body as the server is to have it, translated if need be; and a fresh meter for its answer.
    fn prepare(&mut self) -> Result<Outgoing, RequestError> {
        let record = &self.recorder.record;
        let (operation, terms) = (record.operation, record.terms);
        let model = record.snapshot.config.model(terms.model);
        let native_apis = record.snapshot.upstreams.native_apis(terms.model);
        let tokenizer = model.tokenizer;
        let name = model.upstream_name.as_deref().unwrap_or(&model.name);
        let is_reduced = terms.degradations.max_tokens_reduced;
        let changes = |asked: Operation| {
            let rule = asked.limit_rule(is_reduced);
            RequestChanges {
                asks_usage: self.asks_usage,
                ..RequestChanges::new(&self.parsed, name, terms.max_tokens, rule)
            }
        };
        let first = self.translation.take().filter(|_| self.request.model == terms.model);
        let translation = match first {
            Some(translation) => Some(translation),
            None if native_apis.supports(operation) => None,
            None => {
                let about = about(&self.recorder, model, terms.estimate.input_tokens);
                translate::request(native_apis, operation, self.body, &self.parsed, &about)?
            }
        };
        let Some(mut translation) = translation else {
            let strips_usage = self.parsed.is_streaming && !self.parsed.wants_usage;
            self.meter = Meter::new(operation, strips_usage).with_tokenizer(tokenizer);
            self.recorder.dropped = self.parsed.withheld();
            let changes = changes(operation);
            let body = if self.body.len() < LARGE {
                let rewritten = protocol::rewrite(operation, self.body, &self.parsed, &changes);
                rewritten.map(|body| vec![Bytes::from(body)])
            } else {
                protocol::rewrite_in_pieces(operation, self.body, &self.parsed, &changes)
            };
            return Ok(Outgoing {
                body: body.unwrap_or_else(|| vec![self.body.clone()]),
                translation: None,
            });
        };
        self.meter = Meter::new(translation.operation, false).with_tokenizer(tokenizer);
        self.recorder.dropped.clone_from(&translation.dropped);
        Ok(Outgoing {
            body: vec![translation.body(&changes(translation.operation)).into()],
            translation: Some(translation),
        })
    }
}

/// Waits for an answer, `total` at most; writes the intent of one that takes longer than [`INTENT_AFTER`].
async fn within<T>(
    services: &Services,
    mut answered: Pin<&mut impl Future<Output = T>>,
    total: Duration,
    intent: Option<&Record>,
) -> Option<T> {
    let moment = total.min(INTENT_AFTER);
    if let Ok(answered) = fast_timeout(moment, answered.as_mut()).await {
        return Some(answered);
    }
    if let Some(record) = intent {
        services.ledger.intend(&record.interrupted());
    }
    fast_timeout(total.saturating_sub(moment), answered).await.ok()
}
