//! One request's record: filled while the request goes its way, written once at its end. Metrics are
//! observed from the same record, so that they cannot disagree with the ledger.

use crate::identity::Caller;
use crate::snapshot::Snapshot;
use policy::{Class, ModelId, NanoEuro, Priority, Terms};
use protocol::meter::{Source, Usage};
use protocol::refuse::RequestError;
use protocol::{Operation, Protocol};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    /// Refused before an upstream was asked.
    Rejected,
    Failed,
    TimedOut,
    /// The client went away, or it was cancelled with `DELETE`.
    Cancelled,
}

impl Outcome {
    /// The original's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// Everything that is known of one request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its id in the ledger, where one was given before its end.
    pub(crate) ledger_id: Option<i64>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) request_id: String,
    pub(crate) call: Operation,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) caller: Option<Caller>,
    pub(crate) requested_model: String,
    pub(crate) model: Option<ModelId>,
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) streamed: bool,
    /// What it may use, after whatever gave way.
    pub(crate) terms: Terms,
    pub(crate) queue_wait: Option<Duration>,
    /// Whether an upstream was asked.
    pub(crate) was_forwarded: bool,
    pub(crate) first_token: Option<Duration>,
    pub(crate) latency: Duration,
    pub(crate) usage: Usage,
    pub(crate) usage_source: Source,
    pub(crate) cost: NanoEuro,
    pub(crate) outcome: Outcome,
    pub(crate) stop: Option<RequestError>,
    pub(crate) http_status: u16,
    pub(crate) trace_id: Option<String>,
}

impl Record {
    pub(crate) fn begin(snapshot: Arc<Snapshot>, call: Operation, request_id: String) -> Self {
        Self {
            ledger_id: None,
            snapshot,
            request_id,
            call,
            started: Instant::now(),
            started_at: SystemTime::now(),
            caller: None,
            requested_model: String::new(),
            model: None,
            upstream: None,
            class: Class::Interactive,
            priority: Priority::Normal,
            streamed: false,
            terms: Terms::default(),
            queue_wait: None,
            was_forwarded: false,
            first_token: None,
            latency: Duration::ZERO,
            usage: Usage::default(),
            usage_source: Source::Estimated,
            cost: NanoEuro(0),
            outcome: Outcome::Failed,
            stop: None,
            http_status: 0,
            trace_id: None,
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.call.protocol()
    }

    pub(crate) fn project_id(&self) -> &str {
        self.caller
            .as_ref()
            .map_or("", |caller| &self.snapshot.config.project(caller.project).id)
    }

    pub(crate) fn user_id(&self) -> &str {
        self.caller
            .as_ref()
            .map_or("", |caller| &self.snapshot.config.user(caller.user).id)
    }

    pub(crate) fn model_name(&self) -> &str {
        self.model.map_or("", |model| &self.snapshot.config.model(model).name)
    }

    pub(crate) fn backend(&self) -> &'static str {
        self.model
            .map_or("", |model| self.snapshot.config.model(model).backend.word())
    }

    /// The original's word for what admission decided.
    pub(crate) fn decision(&self) -> &'static str {
        match self.queue_wait {
            _ if !self.was_forwarded => "rejected",
            Some(_) => "queued",
            None => "accepted",
        }
    }

    /// The price of what was used, at the model's prices.
    pub(crate) fn price(&self, usage: Usage) -> NanoEuro {
        self.model.map_or(NanoEuro(0), |model| {
            let prices = self.snapshot.config.model(model).prices;
            prices.of(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
        })
    }

    /// The degradation level that held when it was decided on.
    pub(crate) fn level_name(&self) -> &str {
        self.snapshot.config.level_name(self.terms.level)
    }

    /// What gave way for it, in words; `None` where nothing did.
    pub(crate) fn degraded(&self) -> Option<String> {
        let degradations = self.terms.degradations;
        if !degradations.any() {
            return None;
        }
        let actions = [
            (
                degradations.max_tokens_reduced,
                format!("reduce_max_tokens={}", self.terms.max_tokens),
            ),
            (
                degradations.routed_by_pressure,
                format!("route_to_smaller_model={}", self.model_name()),
            ),
            (
                degradations.routed_by_budget,
                format!("downgrade_by_budget={}", self.model_name()),
            ),
        ];
        let actions: Vec<String> = actions
            .into_iter()
            .filter(|(did, _)| *did)
            .map(|(_, action)| action)
            .collect();
        degradations
            .any()
            .then(|| format!("{}; {}", self.level_name(), actions.join(", ")))
    }
}

/// The ledger's word for a class.
pub(crate) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Interactive => "interactive",
        Class::Batch => "batch",
    }
}

/// The ledger's word for a band.
pub(crate) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// The class of a word; interactive where it is no class.
pub(crate) fn class_named(name: &str) -> Class {
    if name == "batch" {
        Class::Batch
    } else {
        Class::Interactive
    }
}

/// The priority of a word; low where it is none.
pub(crate) fn priority_named(name: &str) -> Priority {
    match name {
        "high" => Priority::High,
        "normal" => Priority::Normal,
        _ => Priority::Low,
    }
}

/// The status of a correction, which is no request.
pub(super) const CORRECTION: &str = "correction";

/// What an operator adds to the ledger, since nothing in it is ever changed: amounts may be negative.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Correction {
    /// Its own, beginning with `correction-`.
    pub(crate) id: String,
    pub(crate) project_id: String,
    pub(crate) user_id: String,
    pub(crate) key_id: Option<String>,
    pub(crate) model: String,
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) cost_nano_eur: i64,
    /// In words, and of which request.
    pub(crate) why: String,
}
