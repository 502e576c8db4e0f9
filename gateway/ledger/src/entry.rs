//! Entries of the ledger: a finished request, or a correction.

use crate::id::EntryNumber;
use crate::state::{Decision, Outcome};
use policy::{Class, NanoEuro, Priority};
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// A request, as it is recorded once. Names are those of the configuration; empty where there is none.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its number, where one was given before its end; two entries of one number are one.
    pub number: Option<EntryNumber>,
    /// The gateway's own id.
    pub request_id: &'a str,
    /// The caller's own id for it, bounded by the gateway; a key for nothing.
    pub client_request_id: Option<&'a str>,
    /// The user's id.
    pub user_id: &'a str,
    /// The project's id.
    pub project_id: &'a str,
    /// The API key's id.
    pub key_id: Option<&'a str>,
    /// The model that was asked for.
    pub requested_model: &'a str,
    /// The model that was used.
    pub model: &'a str,
    /// The kind of server.
    pub backend: &'a str,
    /// The server's address.
    pub upstream: Option<&'a str>,
    /// The protocol that the client used.
    pub client_protocol: &'a str,
    /// The operation: its path.
    pub operation: &'a str,
    /// Interactive or batch.
    pub class: Class,
    /// Its priority.
    pub priority: Priority,
    /// True if the answer was a stream.
    pub is_streamed: bool,
    /// Its outcome.
    pub outcome: Outcome,
    /// The decision of admission.
    pub decision: Decision,
    /// The error's code.
    pub reason: Option<&'a str>,
    /// The status that the client got.
    pub http_status: u16,
    /// The degradation level at its admission.
    pub degradation_level: &'a str,
    /// The degradations that were applied.
    pub degraded: Option<String>,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Tokens of the prompt that the server had cached.
    pub cached_input_tokens: u64,
    /// Tokens of the prompt, estimated at admission.
    pub estimated_input_tokens: u64,
    /// Tokens of the answer, reserved at admission.
    pub reserved_output_tokens: u64,
    /// Where the usage comes from.
    pub usage_source: &'a str,
    /// The cost that was reserved.
    pub estimated_cost: NanoEuro,
    /// The cost.
    pub cost: NanoEuro,
    /// From its first byte to its end.
    pub latency: Duration,
    /// In the queue.
    pub queue_wait: Duration,
    /// To the first token of the answer.
    pub first_token: Option<Duration>,
    /// The error's message.
    pub error_message: Option<&'a str>,
    /// The trace that it belongs to.
    pub trace_id: Option<&'a str>,
    /// The version of the price list.
    pub config_version: u64,
    /// When it began.
    pub started_at: SystemTime,
    /// Attempts that were aborted for a request of a higher priority; they are not charged.
    pub evictions: u32,
    /// The time for which those attempts had their slots.
    pub evicted: Duration,
    /// Objectives (first token, whole answer) that it had.
    pub objectives: u32,
    /// Those of them that were met.
    pub objectives_met: u32,
}

/// Amounts that an operator adds to the ledger, since no entry is ever changed; they may be negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// Its own id, beginning with `correction-`.
    pub id: String,
    /// The project whose usage is corrected.
    pub project_id: String,
    /// The user whose usage is corrected.
    pub user_id: String,
    /// The key whose usage is corrected.
    pub key_id: Option<String>,
    /// The model whose usage is corrected.
    pub model: String,
    /// Tokens of prompts to add.
    pub input_tokens: i64,
    /// Tokens of answers to add.
    pub output_tokens: i64,
    /// Nano-euros to add.
    pub cost_nano_eur: i64,
    /// The reason, and the request that is corrected.
    pub reason: Cow<'static, str>,
}
