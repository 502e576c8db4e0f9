//! Every error that a client can get: its code, whose fault it is, and whether another attempt can help.
//!
//! [`ErrorCode`] is the table from which HTTP status, ledger reason and OpenAI's words follow. The party to blame,
//! whether a server was asked and whether another try makes sense are data of the [`RequestError`], set where it
//! arises. The shape of a body is its protocol's.

mod code;
mod upstream;

pub use code::ErrorCode;
pub(crate) use upstream::{failed_in_answer, reports_failure};
pub use upstream::{server_message, server_refused};

use policy::{QuotaUnit, Refusal};
use std::borrow::Cow;
use std::time::Duration;

/// The party that caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request itself, or the client's behavior: it left, it was slow, its deadline was short.
    Client,
    /// The gateway: its ledger, its database, its configuration.
    Gateway,
    /// A model's server.
    Upstream,
    /// A rule that the operator set: a limit, a quota, a budget, degradation, a full queue.
    Policy,
}

impl Blame {
    /// The label in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Gateway => "gateway",
            Blame::Upstream => "upstream",
            Blame::Policy => "policy",
        }
    }
}

/// The progress of a request at a model's server when it failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contact {
    /// No byte of the request was sent.
    #[default]
    None,
    /// The request was sent, or a part of it; no status came back.
    Sent,
    /// The server returned this HTTP status.
    Answered(u16),
}

/// The end of a request without the answer that it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// The error's code; status, ledger reason and metric label follow from it.
    pub code: ErrorCode,
    /// A sentence for the client.
    pub message: String,
    /// The field of the body that is wrong.
    pub param: Option<Cow<'static, str>>,
    /// The time after which another attempt may succeed.
    pub retry_after: Option<Duration>,
    /// The party that caused it.
    pub blame: Blame,
    /// The progress of the request at a server.
    pub contact: Contact,
    /// True if another server, or the same one on a new connection, may do better.
    pub is_retryable: bool,
    /// Anthropic's `error.details.error_code`, by which its SDKs decide what to do.
    pub detail: Option<&'static str>,
}

impl RequestError {
    /// An error with the blame that its code usually has. Errors of an upstream are retryable.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        // Time changes what 429 and 503 speak of, so both always say when.
        let time_helps = matches!(code.status(), 429 | 503);
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after: time_helps.then_some(Duration::from_secs(1)),
            blame: code.usual_blame(),
            contact: Contact::None,
            is_retryable: code.usual_blame() == Blame::Upstream,
            detail: None,
        }
    }

    /// An error about one field of the body.
    pub fn param(code: ErrorCode, param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(code, message)
        }
    }

    /// A field of the body that is missing or has a wrong value.
    pub(crate) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::param(ErrorCode::BadRequest, param, message)
    }

    /// The refusal of Anthropic's server-side threads, which only Anthropic keeps. Its SDKs and Claude Code then
    /// send the whole conversation, and no `thread` any more.
    pub(crate) fn thread_unsupported() -> Self {
        let message = "`thread` is not supported by this model's server; send the whole conversation in `messages`";
        Self {
            detail: Some("thread_unsupported_request"),
            ..Self::invalid("thread", message)
        }
    }

    /// The same error with another party to blame. What is not the server's fault is not tried again.
    #[must_use]
    pub fn blamed_on(self, blame: Blame) -> Self {
        Self {
            blame,
            is_retryable: self.is_retryable && blame == Blame::Upstream,
            ..self
        }
    }

    /// The same error with how far the request had come.
    #[must_use]
    pub fn at(self, contact: Contact) -> Self {
        Self { contact, ..self }
    }

    /// The same error, not to be tried again elsewhere.
    #[must_use]
    pub fn not_retryable(self) -> Self {
        Self {
            is_retryable: false,
            ..self
        }
    }

    /// The same error with the time after which another attempt may succeed, where one is given.
    #[must_use]
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after: retry_after.or(self.retry_after),
            ..self
        }
    }

    /// Returns whether it counts as a failure of the server, for its circuit breaker.
    pub fn counts_against_server(&self) -> bool {
        self.blame == Blame::Upstream
    }

    /// Returns whether the request may be sent again, to another server or as another model. Once the client has seen the
    /// head of an answer, it may not; only the caller knows.
    pub fn may_retry(&self) -> bool {
        self.is_retryable && self.blame == Blame::Upstream
    }

    /// Returns whether the connection broke, or was never made, before the server returned a status: the only failure that a
    /// server without replacement is asked again for.
    pub fn is_broken_connection(&self) -> bool {
        self.code == ErrorCode::UpstreamError && !matches!(self.contact, Contact::Answered(_))
    }

    /// Returns whether the ledger gets a record of it. A full backlog takes none, so that is in the metrics alone.
    pub fn is_recorded(&self) -> bool {
        self.code != ErrorCode::LedgerBacklogFull
    }

    /// Returns whether its client has shown no API key that is valid now, so that the request is no user's.
    pub fn is_strangers(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::NoKey
                | ErrorCode::InvalidKey
                | ErrorCode::TooManyWrongKeys
                | ErrorCode::KeyExpired
                | ErrorCode::KeyRevoked
        )
    }

    /// Returns whether the client has left, so that nobody reads an answer.
    pub fn is_client_gone(&self) -> bool {
        self.code == ErrorCode::ClientGone
    }

    /// Whole seconds until another attempt may succeed, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        let up = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        Some(up.max(1))
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::RateLimited { kind, .. } if kind.is_tokens() => ErrorCode::TokensRateLimited,
            Refusal::RateLimited { .. } => ErrorCode::RateLimited,
            Refusal::ExceedsLimit { .. } => ErrorCode::RequestExceedsLimit,
            Refusal::QuotaExceeded { unit, .. } if *unit == QuotaUnit::Cost => ErrorCode::BudgetExceeded,
            Refusal::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            Refusal::BatchRejected { .. } => ErrorCode::BatchRejected,
            Refusal::StandardRejected { .. } => ErrorCode::StandardRejected,
            Refusal::Emergency { .. } => ErrorCode::Emergency,
            Refusal::QueueFull { .. } => ErrorCode::QueueFull,
            Refusal::QueueTimeout { .. } => ErrorCode::QueueTimeout,
            Refusal::ObjectiveOutOfReach { .. } => ErrorCode::ObjectiveOutOfReach,
            Refusal::TooManyConcurrent { .. } => ErrorCode::TooManyConcurrent,
            Refusal::CreditUnavailable { .. } => ErrorCode::CreditUnavailable,
            Refusal::Cancelled => ErrorCode::Cancelled,
        };
        Self {
            retry_after: refusal.retry_after(),
            ..Self::new(code, refusal.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn every_code_has_its_status_and_shape_in_every_protocol() {
        let mut table = String::new();
        for code in ErrorCode::ALL {
            let error = RequestError::new(*code, "why");
            for protocol in [
                Protocol::OpenAi,
                Protocol::Anthropic,
                Protocol::Ollama,
                Protocol::Generate,
            ] {
                let body = String::from_utf8(error.body(protocol, "req-1")).expect("JSON is UTF-8");
                let line = format!("{:?} {} {} {}\n", code, code.status(), protocol.name(), body);
                table.push_str(&line);
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn every_429_and_503_says_when_to_come_back() {
        for code in ErrorCode::ALL {
            let error = RequestError::new(*code, "why");
            let says_when = error.retry_after_seconds().is_some_and(|seconds| seconds >= 1);
            assert_eq!(says_when, matches!(code.status(), 429 | 503), "{code:?}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let error = RequestError::new(ErrorCode::RateLimited, "why");
        let after = |millis| {
            error
                .clone()
                .after(Some(Duration::from_millis(millis)))
                .retry_after_seconds()
        };
        assert_eq!(after(1001), Some(2));
        assert_eq!(after(0), Some(1));
        assert_eq!(after(u64::MAX), Some(18_446_744_073_709_552));
    }

    #[test]
    fn only_a_servers_own_failure_counts_against_it_and_is_retried() {
        for code in ErrorCode::ALL {
            let error = RequestError::new(*code, "why").at(Contact::Sent);
            let is_upstreams = matches!(
                code,
                ErrorCode::NoHealthyUpstream | ErrorCode::UpstreamError | ErrorCode::UpstreamTimeout
            );
            assert_eq!(error.may_retry(), is_upstreams, "{code:?}");
            assert_eq!(error.counts_against_server(), is_upstreams, "{code:?}");
            // A client's own short deadline is nobody else's failure.
            let deadline = error.blamed_on(Blame::Client);
            assert!(!deadline.may_retry() && !deadline.counts_against_server());
        }
    }

    #[test]
    fn the_four_failures_of_the_ledger_are_told_apart_and_have_one_outside_name() {
        let codes = [
            ErrorCode::LedgerBacklogFull,
            ErrorCode::RecordNotWritten,
            ErrorCode::StoreUnavailable,
            ErrorCode::DatabaseUnreadable,
        ];
        for code in codes {
            assert_eq!((code.name(), code.status()), ("ledger_unavailable", 503));
            let error = RequestError::new(code, "why");
            assert_eq!(error.blame, Blame::Gateway);
            assert_eq!(error.is_recorded(), code != ErrorCode::LedgerBacklogFull);
        }
    }
}
