//! Traces: a request's steps as spans, made once from its record at its end, so that what is not traced costs a
//! comparison. Names are those of OpenTelemetry's conventions for HTTP and for generative AI; prompts, answers and keys
//! are in none of them.

use crate::config::Telemetry;
use crate::record::Record;
use crate::web_client;
use http::HeaderValue;
use ledger::Outcome;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};
use protocol::{Operation, Work};
use reqwest_blocking::blocking::Client;
use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Time for sending a batch of spans.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Debug)]
pub(crate) struct Traces {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// Of all 64-bit numbers, those below are traced.
    share: u64,
    random: AtomicU64,
}

/// The ids of a request that is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    id: TraceId,
    /// The caller's span.
    parent: Option<SpanId>,
    request: SpanId,
    upstream: SpanId,
}

/// Durations of the steps of a request, beside those in its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    /// Until it was offered to admission.
    pub(crate) parsed: Option<Duration>,
    /// Until the upstream was asked.
    pub(crate) asked: Duration,
}

/// The exporter; failures are logged, at most one a minute.
#[derive(Debug)]
struct ReportingExporter {
    otlp: Otlp,
    endpoint: String,
    /// When a failure was last logged, in seconds since 1970.
    reported_at: AtomicI64,
}

impl SpanExporter for ReportingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.otlp.export(batch).await;
        if let Err(error) = &sent {
            let now = crate::clock::now_ms() / 1000;
            if now - self.reported_at.swap(now, Relaxed) >= 60 {
                tracing::warn!(%error, endpoint = self.endpoint, spans, "traces cannot be sent; these are lost");
            }
        }
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

impl Traces {
    /// `None` where nothing is to be traced. An error says what is wrong with the collector's address.
    pub(crate) fn new(settings: &Telemetry) -> Result<Option<Self>, String> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            return Ok(None);
        };
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(http_client()?)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(SEND_WITHIN)
            .build()
            .map_err(|error| format!("telemetry.otlp_endpoint: {error}"))?;
        let exporter = ReportingExporter {
            otlp,
            endpoint: endpoint.clone(),
            reported_at: AtomicI64::new(0),
        };
        let mut processor = BatchSpanProcessor::new(exporter, BatchConfig::default());
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", settings.service_name.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", std::process::id().to_string()),
            ])
            .build();
        processor.set_resource(&resource);
        Ok(Some(Self {
            processor,
            scope: InstrumentationScope::builder("sluice")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            share: share(settings.sample_ratio),
            random: AtomicU64::new(getrandom::u64().map_err(|error| error.to_string())?),
        }))
    }

    /// Decides whether a request is traced, and under which ids: as its caller decided, else a share of all.
    pub(crate) fn begin(&self, traceparent: Option<&HeaderValue>) -> Option<Trace> {
        let (id, parent) = match traceparent.and_then(parse) {
            Some((id, parent, true)) => (id, Some(parent)),
            Some((.., false)) => return None,
            None if self.share == u64::MAX || self.next() < self.share => {
                let id = u128::from(self.next()) << 64 | u128::from(self.next());
                (TraceId::from_bytes(id.to_be_bytes()), None)
            }
            None => return None,
        };
        let span = || SpanId::from_bytes(self.next().to_be_bytes());
        Some(Trace {
            id,
            parent,
            request: span(),
            upstream: span(),
        })
    }

    /// Random enough for ids (splitmix64; Steele et al. 2014, doi 10.1145/2660193.2660195); never 0, which is no id.
    fn next(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }

    /// Sends the spans of a request that has ended.
    pub(crate) fn end(&self, trace: Trace, record: &Record, steps: Steps) {
        for span in spans(trace, record, steps, &self.scope) {
            self.processor.on_end(span);
        }
    }

    /// Sends what there is still.
    pub(crate) fn shutdown(&self) {
        let _ = self.processor.shutdown_with_timeout(Duration::from_secs(5));
    }
}

/// The client that sends spans. It is made on a thread of its own, since a blocking client may not be made by async code.
fn http_client() -> Result<Client, String> {
    let made = std::thread::spawn(|| web_client::client(SEND_WITHIN)).join();
    let made = made.map_err(|_| "the HTTP client cannot be made".to_owned())?;
    made.map_err(|error| format!("telemetry.otlp_endpoint: {error}"))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn share(ratio: f64) -> u64 {
    if ratio >= 1.0 {
        u64::MAX
    } else {
        (ratio * u64::MAX as f64) as u64
    }
}

/// A W3C `traceparent`: the trace, the caller's span, whether it is sampled.
fn parse(value: &HeaderValue) -> Option<(TraceId, SpanId, bool)> {
    let mut parts = value.to_str().ok()?.split('-');
    let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Version 00 has nothing after the flags; 255 is forbidden.
    let is_known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    if !is_known || id.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let (id, span) = (TraceId::from_hex(id).ok()?, SpanId::from_hex(span).ok()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (id != TraceId::INVALID && span != SpanId::INVALID).then_some((id, span, flags & 1 == 1))
}

/// The id of the trace that a caller's `traceparent` names, traced here or not.
pub(crate) fn id_of(traceparent: Option<&HeaderValue>) -> Option<String> {
    let (id, ..) = traceparent.and_then(parse)?;
    Some(id.to_string())
}

impl Trace {
    /// The trace's id, as the ledger has it.
    pub(crate) fn id(&self) -> String {
        self.id.to_string()
    }

    /// The `traceparent` for the upstream.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{}-{}-01", self.id, self.upstream)).ok()
    }
}

/// The spans of a request: itself, what was decided, its wait, and the upstream's work.
fn spans(trace: Trace, record: &Record, steps: Steps, scope: &InstrumentationScope) -> Vec<SpanData> {
    let make = |id: SpanId, parent: Option<SpanId>, kind: SpanKind, name: Cow<'static, str>| {
        move |from: Duration, to: Duration, attributes: Vec<KeyValue>| SpanData {
            span_context: SpanContext::new(trace.id, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: parent.is_some() && parent == trace.parent,
            span_kind: kind,
            name,
            start_time: record.started_at + from,
            end_time: record.started_at + to.max(from),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        }
    };
    // Ids of the smaller steps follow from the request's; nothing else refers to them.
    let number = u64::from_be_bytes(trace.request.to_bytes());
    let step = |of: u64| SpanId::from_bytes((number ^ of).to_be_bytes());
    let path = record.operation_name();
    let name = Cow::Owned(format!("POST {path}"));
    let mut request = make(trace.request, trace.parent, SpanKind::Server, name)(
        Duration::ZERO,
        record.latency,
        request_attributes(record, path),
    );
    if let Some(error) = record.error.as_ref().filter(|_| record.outcome != Outcome::Cancelled) {
        request.status = Status::error(error.code.name());
    }
    let mut all = vec![request];
    let parsed = steps.parsed.unwrap_or(record.latency);
    let inner = |of: u64, name: &'static str| make(step(of), Some(trace.request), SpanKind::Internal, name.into());
    all.push(inner(1, "admission")(Duration::ZERO, parsed, Vec::new()));
    if let Some(waited) = record.queue_wait {
        all.push(inner(2, "queue")(parsed, parsed + waited, Vec::new()));
    }
    if record.was_forwarded {
        let operation = operation(record.operation);
        let name = Cow::Owned(format!("{operation} {}", record.model_name()));
        let upstream = make(trace.upstream, Some(trace.request), SpanKind::Client, name);
        let mut span = upstream(steps.asked, record.latency, upstream_attributes(record, operation));
        span.status = match (&record.error, record.outcome) {
            (Some(error), Outcome::Failed | Outcome::TimedOut) => Status::error(error.code.name()),
            _ => Status::Unset,
        };
        if let Some(first) = record.first_token {
            let at: SystemTime = record.started_at + first;
            span.events.events.push(Event::new("first_token", at, Vec::new(), 0));
        }
        all.push(span);
    }
    all
}

/// A count as attributes have it.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn request_attributes(record: &Record, path: &str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.route", path.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(record.http_status)),
        KeyValue::new("sluice.request_id", record.request_id.clone()),
        KeyValue::new("sluice.project", record.project_id().to_owned()),
        KeyValue::new("sluice.status", record.outcome.name()),
        KeyValue::new("sluice.priority", record.priority.name()),
        KeyValue::new("sluice.degradation_level", record.level_name().to_owned()),
        KeyValue::new("sluice.cost_eur", record.cost.euros()),
    ];
    if let Some(error) = &record.error {
        attributes.push(KeyValue::new("error.type", error.code.name()));
    }
    attributes
}

fn upstream_attributes(record: &Record, operation: &'static str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("gen_ai.provider.name", record.backend()),
        KeyValue::new("gen_ai.request.model", record.requested_model.clone()),
        KeyValue::new("gen_ai.response.model", record.model_name().to_owned()),
        KeyValue::new("gen_ai.request.max_tokens", whole(record.terms.max_tokens)),
        KeyValue::new("gen_ai.usage.input_tokens", whole(record.usage.input_tokens)),
        KeyValue::new("gen_ai.usage.output_tokens", whole(record.usage.output_tokens)),
    ];
    if let Some((host, port)) = record.upstream.as_ref().and_then(|upstream| upstream.rsplit_once(':')) {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.push(KeyValue::new("server.port", port.parse::<i64>().unwrap_or_default()));
    }
    attributes
}

/// The operation's name in the conventions for generative AI.
fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Completions => "text_completion",
        _ => match operation.work() {
            Work::Generate => "chat",
            Work::Transcribe => "transcription",
            Work::Speak => "speech",
            Work::Draw => "image_generation",
            Work::Relay => "passthrough",
            Work::Embed | Work::Score | Work::Count | Work::Describe => "embeddings",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let read = |text: &str| parse(&HeaderValue::from_str(text).expect("a header"));
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (id, span, is_sampled) = read(good).expect("right");
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((span.to_string().as_str(), is_sampled), ("00f067aa0ba902b7", true));
        assert!(!read(&good.replace("-01", "-00")).expect("right").2);
        assert!(read("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").is_some());
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
