//! One request's record: filled on the request's way, entered into the ledger once at its end. Metrics are observed from
//! the same record, so that they cannot disagree with the ledger.

use crate::clock;
use crate::identity::Caller;
use crate::snapshot::Snapshot;
use ledger::{Decision, Entry, EntryNumber, Outcome};
use policy::{Class, Milestone, ModelId, NanoEuro, Objectives, Priority, Terms, Time, Units};
use protocol::error::RequestError;
use protocol::meter::{Source, Usage};
use protocol::{Operation, Protocol};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The attempts at a request that were aborted for one of a higher priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Evicted {
    /// Their number.
    pub(crate) times: u32,
    /// The time for which they had their slots.
    pub(crate) held: Duration,
}

impl Evicted {
    /// A request that was evicted so often is not evicted again.
    const MOST: u32 = 3;

    /// Adds an attempt that had its slot for so long.
    pub(crate) fn plus(self, held: Duration) -> Self {
        Self {
            times: self.times + 1,
            held: self.held + held,
        }
    }

    /// Returns whether it may be evicted again.
    pub(crate) fn may_recur(self) -> bool {
        self.times < Self::MOST
    }
}

/// Everything that is known of one request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its number in the ledger, where one was given before its end.
    pub(crate) number: Option<EntryNumber>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) request_id: String,
    /// The caller's own id for it, where it sent a sane one; a key for nothing.
    pub(crate) client_request_id: Option<String>,
    pub(crate) operation: Operation,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) caller: Option<Caller>,
    pub(crate) requested_model: String,
    pub(crate) model: Option<ModelId>,
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) streamed: bool,
    /// Limits of the request, after degradation.
    pub(crate) terms: Terms,
    /// How soon its answer is wanted.
    pub(crate) objectives: Objectives,
    /// Units that it uses apart from the tokens of prompts and answers.
    pub(crate) units: Units,
    /// The configured path that a pass-through request was let through by.
    pub(crate) opened_by: Option<Arc<str>>,
    pub(crate) queue_wait: Option<Duration>,
    pub(crate) evicted: Evicted,
    /// True if an upstream was asked.
    pub(crate) was_forwarded: bool,
    pub(crate) first_token: Option<Duration>,
    pub(crate) latency: Duration,
    pub(crate) usage: Usage,
    pub(crate) usage_source: Source,
    pub(crate) cost: NanoEuro,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<RequestError>,
    pub(crate) http_status: u16,
    pub(crate) trace_id: Option<String>,
}

impl Record {
    pub(crate) fn begin(snapshot: Arc<Snapshot>, operation: Operation, request_id: String) -> Self {
        Self {
            number: None,
            snapshot,
            request_id,
            client_request_id: None,
            operation,
            started: Instant::now(),
            started_at: clock::system_time(),
            caller: None,
            requested_model: String::new(),
            model: None,
            upstream: None,
            class: Class::Interactive,
            priority: Priority::Normal,
            streamed: false,
            terms: Terms::default(),
            objectives: Objectives::default(),
            units: Units::default(),
            opened_by: None,
            queue_wait: None,
            evicted: Evicted::default(),
            was_forwarded: false,
            first_token: None,
            latency: Duration::ZERO,
            usage: Usage::default(),
            usage_source: Source::Estimated,
            cost: NanoEuro(0),
            outcome: Outcome::Failed,
            error: None,
            http_status: 0,
            trace_id: None,
        }
    }

    /// Dates the record on the day on which quotas count its request: that on which policy decides on it, where the body
    /// arrived after midnight or the request was stored before.
    pub(crate) fn count_on(&mut self, now: Time) {
        if clock::system_time_of(now.day_start()) > self.started_at {
            self.started_at = clock::system_time_of(now);
        }
    }

    /// Returns by the kind of objective, of those that it had, whether it was met; none of a request that its client gave up.
    pub(crate) fn attained(&self) -> impl Iterator<Item = (Milestone, bool)> + use<> {
        let is_counted = self.outcome != Outcome::Cancelled;
        let is_complete = self.outcome == Outcome::Completed;
        let first = self.first_token.unwrap_or(self.latency);
        let wanted = [
            (Milestone::FirstToken, self.objectives.first_token, first),
            (Milestone::End, self.objectives.total, self.latency),
        ];
        let counted = wanted.into_iter().filter(move |_| is_counted);
        counted.filter_map(move |(milestone, within, taken)| Some((milestone, is_complete && taken <= within?)))
    }

    /// The number of objectives that it had, and of those that were met.
    fn objectives_met(&self) -> (u32, u32) {
        let each = self.attained().map(|(_, is_met)| (1, u32::from(is_met)));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.operation.protocol()
    }

    /// The operation's name: its path, or the configured one that a pass-through request was let through by.
    pub(crate) fn operation_name(&self) -> &str {
        self.opened_by
            .as_deref()
            .unwrap_or_else(|| self.operation.client_path())
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

    /// The decision of admission.
    pub(crate) fn decision(&self) -> Decision {
        match self.queue_wait {
            _ if !self.was_forwarded => Decision::Rejected,
            Some(_) => Decision::Queued,
            None => Decision::Accepted,
        }
    }

    /// Its entry in the ledger.
    pub(crate) fn entry(&self) -> Entry<'_> {
        let key = self.caller.as_ref().and_then(|caller| caller.key.as_ref());
        let error = self.error.as_ref();
        let objectives = self.objectives_met();
        Entry {
            number: self.number,
            request_id: &self.request_id,
            client_request_id: self.client_request_id.as_deref(),
            user_id: self.user_id(),
            project_id: self.project_id(),
            key_id: key.map(|key| key.id.as_str()),
            requested_model: &self.requested_model,
            model: self.model_name(),
            backend: self.backend(),
            upstream: self.upstream.as_deref(),
            client_protocol: self.protocol().name(),
            operation: self.operation_name(),
            class: self.class,
            priority: self.priority,
            is_streamed: self.streamed,
            outcome: self.outcome,
            decision: self.decision(),
            reason: error.map(|error| error.code.name()),
            http_status: self.http_status,
            degradation_level: self.level_name(),
            degraded: self.degraded(),
            input_tokens: self.usage.input_tokens,
            output_tokens: self.usage.output_tokens,
            cached_input_tokens: self.usage.cached_input_tokens,
            estimated_input_tokens: self.terms.estimate.input_tokens,
            reserved_output_tokens: self.terms.estimate.output_tokens,
            usage_source: self.usage_source.name(),
            estimated_cost: self.terms.estimate.cost,
            cost: self.cost,
            latency: self.latency,
            queue_wait: self.queue_wait.unwrap_or_default(),
            first_token: self.first_token,
            error_message: error.map(|error| error.message.as_str()),
            trace_id: self.trace_id.as_deref(),
            config_version: self.snapshot.config_version,
            started_at: self.started_at,
            evictions: self.evicted.times,
            evicted: self.evicted.held,
            objectives: objectives.0,
            objectives_met: objectives.1,
        }
    }

    /// Its entry if the gateway is killed while it runs: its prompt has been read, and it is unknown how much of the
    /// answer was made.
    pub(crate) fn interrupted(&self) -> Entry<'_> {
        let usage = Usage {
            input_tokens: self.terms.estimate.input_tokens,
            ..Usage::default()
        };
        let units = Units {
            images: 0,
            ..self.units
        };
        Entry {
            outcome: Outcome::Interrupted,
            reason: Some("interrupted"),
            error_message: Some("the gateway was killed while the request ran"),
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            cost: self.price_with(usage, &units),
            latency: self.started.elapsed(),
            ..self.entry()
        }
    }

    /// The price of what was used, at the model's prices.
    pub(crate) fn price(&self, usage: Usage) -> NanoEuro {
        self.price_with(usage, &self.units)
    }

    fn price_with(&self, usage: Usage, units: &Units) -> NanoEuro {
        self.model.map_or(NanoEuro(0), |model| {
            let prices = self.snapshot.config.model(model).prices;
            let tokens = prices.of(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens);
            tokens + prices.of_units(units)
        })
    }

    /// The degradation level that held when it was decided on.
    pub(crate) fn level_name(&self) -> &str {
        self.snapshot.config.level_name(self.terms.level)
    }

    /// The degradations that were applied, in words; `None` without any.
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
