//! The record of one request, written exactly once however the request ends: [`Recorder`] is a guard, so an error, a
//! panic and a dropped task all leave a record, and the resources beside it are released by guards of their own.

use super::conversation::Conversation;
use super::final_part::FinalPart;
use super::head::RequestHead;
use crate::fault;
use crate::gate::SlotPermit;
use crate::record::Record;
use crate::registry::{Registration, random_request_id};
use crate::services::Services;
use crate::shutdown::Detached;
use crate::traces::{self, Steps, Trace};
use ledger::{Answer, Claim, Entry, Outcome, Receipt, Written};
use policy::{AdmissionRequest, Alert, Pace, RateLimitStatus, Settlement, Units};
use protocol::error::{Blame, ErrorCode, RequestError};
use protocol::meter::{Bounds, Meter, Source, Usage};
use protocol::{Operation, PromptSize, Work};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Servers pad a sound to whole windows of what their models hear at once, and count whole seconds.
const AUDIO_PADDING: Duration = Duration::from_secs(30);

/// Frames of a spectrogram, of which no speech model makes more than a token each (Whisper's hop is 10 ms).
const MOST_AUDIO_TOKENS_PER_SECOND: u64 = 100;

/// Everything that is known of a request while it runs. The states of an exchange hold it in a box, since each consumes
/// the one before, and it is large.
pub(crate) struct Recorder {
    pub(super) services: Arc<Services>,
    pub(super) record: Record,
    pub(super) registration: Registration,
    pub(super) head: RequestHead,
    /// The caller's rate limits after this request, for the response headers.
    pub(super) rate_limits: RateLimitStatus,
    /// Fields of the request that its server does not get, for the header `x-sluice-dropped`.
    pub(super) dropped: Vec<Cow<'static, str>>,
    /// Its part in a stored conversation.
    pub(super) conversation: Conversation,
    trace: Option<Trace>,
    /// The gateway's own time before it asked for a slot.
    pub(super) overhead: Option<Duration>,
    /// The time from its start until the request was last sent to a server.
    pub(super) forwarded_after: Duration,
    is_written: bool,
    /// Of a request that goes on without a client: its record is written with its answer, if this gateway still has the
    /// work that it is of.
    pub(super) claim: Option<Claim>,
    /// Keeps the process from its end until such a request has its answer.
    pub(super) detached: Option<Detached>,
    /// True if the client has the head of an answer, so that the status that it got is 200.
    head_is_sent: bool,
    /// Of the record, once it is in the journal.
    receipt: Option<Receipt>,
}

/// A request whose record is written, with what is left to tell its client.
pub(super) type Concluded = (Box<Recorder>, Result<FinalPart, RequestError>);

/// The served request: its slot, usage and speed. Input of a settlement.
pub(super) struct Served {
    pub(super) slot: SlotPermit,
    pub(super) meter: Meter,
    /// The status with which the server answered; `None` if it did not.
    pub(super) upstream_status: Option<u16>,
    /// As it was asked for.
    pub(super) request: AdmissionRequest,
    /// The size of the prompt.
    pub(super) size: PromptSize,
    pub(super) head_is_sent: bool,
}

impl Recorder {
    /// Begins the record of a request that a client sends.
    pub(super) fn begin(services: &Arc<Services>, head: RequestHead, operation: Operation) -> Box<Self> {
        let trace = services
            .traces
            .as_ref()
            .and_then(|traces| traces.begin(head.traceparent.as_ref()));
        let id = random_request_id().unwrap_or_else(|error| {
            tracing::error!(%error, "the operating system has no entropy; this request id is not random");
            format!("req_{:?}", Instant::now())
        });
        let mut recorder = Self::new(services, &id, head, operation);
        match &trace {
            Some(trace) => {
                recorder.record.trace_id = Some(trace.id());
                recorder.head.traceparent = trace.traceparent();
            }
            None => recorder.record.trace_id = traces::id_of(recorder.head.traceparent.as_ref()),
        }
        recorder.trace = trace;
        recorder
    }

    /// Begins the record of stored work that runs under the id it was accepted with.
    pub(super) fn resume(services: &Arc<Services>, id: &str, operation: Operation, claim: Claim) -> Box<Self> {
        let mut recorder = Self::new(services, id, RequestHead::default(), operation);
        recorder.claim = Some(claim);
        recorder
    }

    fn new(services: &Arc<Services>, id: &str, head: RequestHead, operation: Operation) -> Box<Self> {
        let mut record = Record::begin(services.current.get(), operation, id.to_owned());
        record.client_request_id.clone_from(&head.client_request_id);
        Box::new(Self {
            record,
            registration: services.registry.register(id),
            services: Arc::clone(services),
            head,
            rate_limits: RateLimitStatus::default(),
            dropped: Vec::new(),
            conversation: Conversation::default(),
            trace: None,
            overhead: None,
            forwarded_after: Duration::ZERO,
            is_written: false,
            claim: None,
            detached: None,
            head_is_sent: false,
            receipt: None,
        })
    }

    /// Settles and records; the answer's last bytes may go out once the record is [durable](Self::take_receipt). A request without
    /// a client is recorded with its [answer](Self::finish).
    ///
    /// # Errors
    /// The error that ended the request, or `ledger_unavailable` if its record cannot be written.
    pub(super) fn conclude(
        &mut self,
        result: Result<FinalPart, RequestError>,
        served: Option<Served>,
    ) -> Result<FinalPart, RequestError> {
        self.head_is_sent = served.as_ref().is_some_and(|served| served.head_is_sent);
        self.note_end(&result);
        if let Some(served) = served {
            self.settle(served);
        }
        if self.claim.is_some() {
            return result;
        }
        match self.write() {
            Ok(()) => result,
            Err(error) => Err(error),
        }
    }

    /// Notes how the request ended.
    fn note_end(&mut self, result: &Result<FinalPart, RequestError>) {
        let head_is_sent = self.head_is_sent;
        let record = &mut self.record;
        record.latency = record.started.elapsed();
        match result {
            Ok(part) => {
                record.http_status = part.status();
                record.error = part.refusal().cloned();
                record.outcome = if record.http_status < 400 {
                    Outcome::Completed
                } else {
                    Outcome::Failed
                };
            }
            Err(error) => {
                record.outcome = match error.code {
                    ErrorCode::ClientGone | ErrorCode::Cancelled => Outcome::Cancelled,
                    ErrorCode::UpstreamTimeout | ErrorCode::QueueTimeout => Outcome::TimedOut,
                    _ if record.was_forwarded => Outcome::Failed,
                    _ => Outcome::Rejected,
                };
                let is_in_stream = head_is_sent && error.code != ErrorCode::ClientGone;
                record.http_status = if is_in_stream { 200 } else { error.code.status() };
                record.error = Some(error.clone());
            }
        }
    }

    /// Replaces what was reserved by what was used, and frees the slot.
    fn settle(&mut self, mut served: Served) {
        let outcome = self.record.outcome;
        // The server has worked for a client that disconnects or sets a short deadline.
        let is_clients_end = self
            .record
            .error
            .as_ref()
            .is_some_and(|error| error.blame == Blame::Client);
        let has_worked = outcome == Outcome::Completed
            || (served.head_is_sent && self.record.http_status < 400)
            || outcome == Outcome::Cancelled
            || (outcome == Outcome::TimedOut && is_clients_end);
        fault::at(fault::Step::Settling);
        if self.record.was_forwarded && has_worked {
            self.record.units = self.units(&served.meter, &served.size);
            (self.record.usage, self.record.usage_source) = self.used(&served.meter, &served.request, &served.size);
            self.record.cost = self.record.price(self.record.usage);
        }
        let usage = self.record.usage;
        served.slot.note(Settlement {
            usage: policy::Usage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cached_input_tokens: usage.cached_input_tokens,
                cost: self.record.cost,
            },
            was_forwarded: self.record.was_forwarded,
            pace: self.pace(served.upstream_status),
            has_completed: outcome == Outcome::Completed,
            was_answered: served.upstream_status.is_some(),
        });
        let settled = served.slot.settle();
        for alert in &settled.alerts {
            self.alert(alert);
        }
        self.services.metrics.overrun(&self.record, settled.overrun_tokens);
        if let Some(model) = self.record.model
            && self.record.usage_source == Source::Upstream
            && outcome == Outcome::Completed
            && served.size.is_text_alone()
        {
            let (tokens, project) = (&self.record.snapshot.tokens, served.request.project);
            let tokenizer = self.record.snapshot.config.model(model).tokenizer;
            let estimated = served.size.text.tokens(tokenizer);
            tokens.learn(model, project, &served.size.text, estimated, usage.input_tokens);
        }
    }

    /// The usage, as far as the answer reports it.
    pub(super) fn used(&self, meter: &Meter, request: &AdmissionRequest, size: &PromptSize) -> (Usage, Source) {
        let record = &self.record;
        let is_text = matches!(record.operation.work(), Work::Embed | Work::Score | Work::Count);
        let reads_prompt = !is_text || record.outcome == Outcome::Completed;
        let input = if reads_prompt {
            // What was reserved for a sound's duration gives way to what was heard of it.
            let (reserved, heard) = (self.audio_tokens(request.units), self.audio_tokens(record.units));
            record
                .terms
                .estimate
                .input_tokens
                .saturating_sub(reserved)
                .saturating_add(heard)
        } else {
            0
        };
        let most = record.terms.max_tokens.saturating_mul(request.answers);
        meter.usage(&Bounds {
            estimated_input: input,
            max_input: self.most_input(size),
            max_output: Some(most.saturating_add(request.units.output_tokens)),
            bytes_per_token: None,
        })
    }

    /// The most input tokens that a server can mean for a sound or an image; `None` where only a text was sent.
    fn most_input(&self, size: &PromptSize) -> Option<u64> {
        let model = self.record.snapshot.config.model(self.record.model?);
        match self.record.operation.work() {
            Work::Transcribe => {
                let seconds = size.longest_audio().saturating_add(AUDIO_PADDING).as_secs();
                let of_audio = seconds.saturating_mul(MOST_AUDIO_TOKENS_PER_SECOND);
                Some(of_audio.saturating_add(model.max_input_tokens))
            }
            Work::Draw => Some(model.max_input_tokens),
            _ => None,
        }
    }

    /// The input tokens of a sound.
    fn audio_tokens(&self, units: Units) -> u64 {
        self.record.model.map_or(0, |model| {
            let media = self.record.snapshot.config.model(model).media_tokens();
            PromptSize::tokens_of_audio(units.audio_millis, &media)
        })
    }

    /// The usage apart from the tokens of prompts and answers: the server's own figures where they are plausible.
    fn units(&self, meter: &Meter, size: &PromptSize) -> Units {
        let asked = self.record.units;
        let longest = size.longest_audio().saturating_add(AUDIO_PADDING).as_millis();
        let heard = meter.audio_millis().filter(|heard| u128::from(*heard) <= longest);
        Units {
            audio_millis: heard.unwrap_or(asked.audio_millis),
            images: meter.images().map_or(asked.images, |made| made.min(asked.images)),
            ..asked
        }
    }

    /// The speed of the server's answer, for the adaptive concurrency limit.
    fn pace(&self, upstream_status: Option<u16>) -> Pace {
        let record = &self.record;
        let first_token = record
            .first_token
            .map(|after| after.saturating_sub(self.forwarded_after));
        let gaps = u32::try_from(record.usage.output_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let writing = record
            .latency
            .saturating_sub(record.first_token.unwrap_or(record.latency));
        let has_gaps = record.streamed && record.outcome == Outcome::Completed && gaps > 0;
        Pace {
            first_token: first_token.filter(|_| record.streamed),
            gap: has_gaps.then(|| writing / gaps),
            is_overloaded: matches!(upstream_status, Some(429 | 503)),
        }
    }

    fn alert(&self, alert: &Alert) {
        let key = self.record.caller.as_ref().and_then(|caller| caller.key.as_ref());
        let who = match alert.subject {
            policy::Subject::User(_) => self.record.user_id(),
            policy::Subject::Key(_) => key.map_or("", |key| &key.id),
            _ => self.record.project_id(),
        };
        tracing::warn!(
            scope = alert.subject.kind(),
            id = who,
            window = alert.window.name(),
            "{} {who} {}: it is nearly used up",
            alert.subject.kind(),
            alert.unit.used(alert.window, alert.used, alert.limit)
        );
        self.services
            .metrics
            .alert(self.record.project_id(), alert.window.name());
    }

    /// Commits the record, observes metrics and ends the trace.
    fn write(&mut self) -> Result<(), RequestError> {
        let committed = self.commit();
        self.is_written = true;
        self.observe();
        committed
    }

    /// Appends the record to the ledger, under a number of its own: if this panics, the guard appends it again, and of two
    /// records with one number the first one counts.
    fn commit(&mut self) -> Result<(), RequestError> {
        if self.is_unrecorded() {
            self.services.metrics.unrecorded(&self.record);
            return Ok(());
        }
        let ledger = &self.services.ledger;
        self.record.number.get_or_insert_with(|| ledger.next_number());
        fault::at(fault::Step::Recording);
        let receipt = ledger.append(&self.record.entry()).map_err(|error| {
            tracing::error!(%error, request_id = self.record.request_id, "cannot write the record of a request");
            RequestError::new(
                ErrorCode::RecordNotWritten,
                "the gateway cannot write its ledger; try again later",
            )
        })?;
        self.receipt = Some(receipt);
        fault::at(fault::Step::Recorded);
        Ok(())
    }

    /// Returns whether the ledger takes no records at present, or too many strangers call: the refusal is counted in the
    /// metrics alone.
    fn is_unrecorded(&self) -> bool {
        let is_unrecorded = |error: &RequestError| {
            !error.is_recorded() || (error.is_strangers() && !self.services.strangers.may_record())
        };
        self.record.error.as_ref().is_some_and(is_unrecorded)
    }

    /// Writes the answer of a request that has no client, and its record with it. If another gateway has taken the work
    /// over, that one's answer counts, and what was used here is recorded as interrupted.
    ///
    /// # Errors
    /// When the database refuses the answer, or the process ends: the work is done again.
    pub(super) async fn finish(mut self: Box<Self>, answer: Answer) -> Result<Written, ledger::Error> {
        let services = Arc::clone(&self.services);
        let Some(claim) = &self.claim else {
            return Err(ledger::Error::Invalid(
                "a request with a client has no answer to keep".to_owned(),
            ));
        };
        let is_unrecorded = self.is_unrecorded();
        self.record.number.get_or_insert_with(|| services.ledger.next_number());
        fault::at(fault::Step::Recording);
        let entry = (!is_unrecorded).then(|| self.record.entry());
        let written = services.ledger.finish(claim, answer, entry.as_ref()).await?;
        if written == Written::TakenOver {
            self.record_as_interrupted();
            self.is_written = true;
            return Ok(written);
        }
        self.is_written = true;
        // The answer is written, and stays so, even if this panics.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if is_unrecorded {
                services.metrics.unrecorded(&self.record);
            }
            self.observe();
            fault::at(fault::Step::Recorded);
        }));
        Ok(written)
    }

    /// Records what a request has used whose answer another gateway gives.
    fn record_as_interrupted(&self) {
        let record = &self.record;
        self.services.metrics.cluster.lost();
        if !record.was_forwarded {
            return;
        }
        let entry = Entry {
            outcome: Outcome::Interrupted,
            reason: Some("interrupted"),
            error_message: Some("another gateway had taken the work over"),
            ..record.entry()
        };
        if let Err(error) = self.services.ledger.append(&entry) {
            tracing::error!(%error, request_id = record.request_id, "cannot record an interrupted request");
        }
    }

    /// Observes metrics, ends the trace and writes the line in the log.
    fn observe(&self) {
        let record = &self.record;
        let overhead = self.overhead.filter(|_| record.was_forwarded);
        self.services.metrics.observe(record, overhead);
        self.services.incidents.ended(record);
        if let (Some(traces), Some(trace)) = (&self.services.traces, self.trace) {
            let steps = Steps {
                parsed: self.overhead,
                asked: self.forwarded_after,
            };
            traces.end(trace, record, steps);
        }
        if record.snapshot.config.gateway.log_requests {
            crate::telemetry::log(record);
        }
    }

    /// The receipt of the record, to be waited for before the last bytes.
    pub(super) fn take_receipt(&mut self) -> Option<Receipt> {
        self.receipt.take()
    }

    /// Gives the record up: the request is stored and goes on in another process.
    pub(super) fn abandon(mut self: Box<Self>) {
        self.is_written = true;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // What has no client and did not end is done again by the next process, or by another gateway.
        if self.is_written || (self.claim.is_some() && !std::thread::panicking()) {
            return;
        }
        let error = if std::thread::panicking() {
            super::panicked()
        } else {
            super::client::shutting_down()
        };
        let result = Err(error);
        self.note_end(&result);
        if let Err(error) = self.write() {
            tracing::error!(error = error.message, "a request ended early and has no record");
        }
    }
}
