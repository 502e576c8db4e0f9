//! Every "no", and its one table: reason → HTTP status → each protocol's shape.

use super::Protocol;
use policy::{QuotaUnit, Refusal};
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $reason:literal, $status:literal, $kind:literal, $code:literal;)*) => {
        /// Why a request ended without the answer that it asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All of them, for the test that walks the table.
            #[cfg(test)]
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// As in the ledger, the metrics and `/generate`'s answer.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $reason,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)* }
            }

            /// Whether no record is written of a request that ends so.
            pub fn is_unrecorded(self) -> bool {
                self == ErrorCode::LedgerBacklogFull
            }

            /// OpenAI's `type` and `code`.
            fn openai(self) -> (&'static str, &'static str) {
                match self { $(ErrorCode::$variant => ($kind, $code),)* }
            }
        }
    };
}

reasons! {
    NoKey = "invalid_key", 401, "invalid_request_error", "invalid_api_key";
    InvalidKey = "invalid_key", 401, "invalid_request_error", "invalid_api_key";
    KeyExpired = "key_expired", 401, "invalid_request_error", "invalid_api_key";
    KeyRevoked = "key_revoked", 401, "invalid_request_error", "invalid_api_key";
    UnknownUser = "unknown_user", 403, "permission_error", "unknown_user";
    UserDisabled = "user_disabled", 403, "permission_error", "user_disabled";
    ProjectMismatch = "project_mismatch", 403, "permission_error", "project_mismatch";
    ProjectDisabled = "project_disabled", 403, "permission_error", "project_disabled";
    ModelNotAllowed = "model_not_allowed", 403, "permission_error", "model_not_allowed";
    ManagementRefused = "not_allowed", 403, "permission_error", "not_allowed";
    UnknownModel = "unknown_model", 404, "invalid_request_error", "model_not_found";
    ModelDisabled = "model_disabled", 400, "invalid_request_error", "model_disabled";
    UnknownRequest = "not_found", 404, "invalid_request_error", "not_found";
    UnknownPath = "not_found", 404, "invalid_request_error", "not_found";
    WrongMethod = "method_not_allowed", 405, "invalid_request_error", "method_not_allowed";
    BadRequest = "bad_request", 400, "invalid_request_error", "bad_request";
    ContextLengthExceeded = "context_length_exceeded", 400, "invalid_request_error", "context_length_exceeded";
    BodyTooLarge = "body_too_large", 413, "invalid_request_error", "body_too_large";
    RequestTimeout = "request_timeout", 408, "invalid_request_error", "request_timeout";
    /// Larger than a rate or an allowance can ever let pass.
    RequestExceedsLimit = "request_exceeds_limit", 400, "invalid_request_error", "request_exceeds_limit";
    RateLimited = "rate_limited", 429, "requests", "rate_limit_exceeded";
    TokensRateLimited = "rate_limited", 429, "tokens", "rate_limit_exceeded";
    QuotaExceeded = "quota_exceeded", 429, "insufficient_quota", "quota_exceeded";
    BudgetExceeded = "budget_exceeded", 429, "insufficient_quota", "budget_exceeded";
    TooManyConcurrent = "too_many_concurrent", 429, "requests", "concurrency_limit_exceeded";
    BatchRejected = "batch_rejected", 503, "server_error", "batch_rejected";
    StandardRejected = "standard_rejected", 503, "server_error", "standard_rejected";
    Emergency = "emergency", 503, "server_error", "emergency";
    QueueFull = "queue_full", 503, "server_error", "queue_full";
    QueueTimeout = "queue_timeout", 503, "server_error", "queue_timeout";
    UnsupportedMediaType = "unsupported_media_type", 415, "invalid_request_error", "unsupported_media_type";
    /// The ledger's backlog is full: the refusal itself is not recorded.
    LedgerBacklogFull = "ledger_unavailable", 503, "server_error", "ledger_unavailable";
    LedgerUnavailable = "ledger_unavailable", 503, "server_error", "ledger_unavailable";
    NoHealthyUpstream = "no_healthy_upstream", 503, "server_error", "no_healthy_upstream";
    UpstreamError = "upstream_error", 502, "server_error", "upstream_error";
    UpstreamTimeout = "upstream_timeout", 504, "server_error", "upstream_timeout";
    /// The gateway stops, and its drain time is over.
    ShuttingDown = "shutting_down", 503, "server_error", "shutting_down";
    /// A fault of the gateway itself.
    InternalError = "internal_error", 500, "server_error", "internal_error";
    /// Through `DELETE /requests/{id}`.
    Cancelled = "cancelled", 409, "invalid_request_error", "cancelled";
    /// The client went away; nobody reads this.
    ClientGone = "client_gone", 499, "server_error", "client_gone";
}

/// A request's end without the answer: why, in words for the client, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    pub reason: ErrorCode,
    pub message: String,
    /// The field of the body that is wrong.
    pub param: Option<Cow<'static, str>>,
    pub retry_after: Option<Duration>,
}

impl RequestError {
    pub fn new(reason: ErrorCode, message: impl Into<String>) -> Self {
        // Time changes what 429 and 503 speak of, so both always say when.
        let time_helps = matches!(reason.status(), 429 | 503);
        Self {
            reason,
            message: message.into(),
            param: None,
            retry_after: time_helps.then_some(Duration::from_secs(1)),
        }
    }

    pub fn param(reason: ErrorCode, param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(reason, message)
        }
    }

    /// Whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        let up = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Some(up.max(1))
    }

    /// The body of the refusal.
    pub fn body(&self, protocol: Protocol, request_id: &str) -> Vec<u8> {
        let (kind, code) = self.reason.openai();
        let body = match protocol {
            Protocol::OpenAi | Protocol::Responses => json!({"error": {
                "message": self.message, "type": kind, "param": self.param, "code": code,
            }}),
            Protocol::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(self.reason.status()), "message": self.message},
                "request_id": request_id,
            }),
            Protocol::Ollama => json!({"error": self.message}),
            Protocol::Generate if matches!(self.reason, ErrorCode::BadRequest | ErrorCode::RequestExceedsLimit) => {
                json!({"detail": self.message})
            }
            Protocol::Generate => json!({"detail": self.reason.name()}),
        };
        body.to_string().into_bytes()
    }

    /// What ends a stream that has begun: an error event, and no clean end after it.
    pub fn event(&self, protocol: Protocol, request_id: &str) -> Vec<u8> {
        let body = self.body(protocol, request_id);
        match protocol {
            Protocol::Anthropic => [b"event: error\ndata: ", &body[..], b"\n\n"].concat(),
            Protocol::Responses => {
                let (_, code) = self.reason.openai();
                let body = json!({"type": "error", "code": code, "message": self.message, "param": self.param});
                format!("event: error\ndata: {body}\n\n").into_bytes()
            }
            Protocol::OpenAi | Protocol::Generate => [b"data: ", &body[..], b"\n\n"].concat(),
            Protocol::Ollama => [&body[..], b"\n"].concat(),
        }
    }
}

/// Anthropic's word for a status.
fn anthropic_type(status: u16) -> &'static str {
    match status {
        400 | 405 | 408 | 409 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal {
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
            Refusal::TooManyConcurrent { .. } => ErrorCode::TooManyConcurrent,
            Refusal::Cancelled => ErrorCode::Cancelled,
        };
        Self {
            retry_after: refusal.retry_after(),
            ..Self::new(reason, refusal.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_status_and_shape_in_every_protocol() {
        let mut table = String::new();
        for reason in ErrorCode::ALL {
            let stop = RequestError::new(*reason, "why");
            for protocol in [
                Protocol::OpenAi,
                Protocol::Anthropic,
                Protocol::Ollama,
                Protocol::Generate,
            ] {
                let body = String::from_utf8(stop.body(protocol, "req-1")).expect("JSON is UTF-8");
                let line = format!("{:?} {} {} {}\n", reason, reason.status(), protocol.name(), body);
                table.push_str(&line);
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn what_time_changes_says_when_to_come_back() {
        for reason in ErrorCode::ALL {
            let stop = RequestError::new(*reason, "why");
            let says_when = stop.retry_after_seconds().is_some_and(|seconds| seconds >= 1);
            assert_eq!(says_when, matches!(reason.status(), 429 | 503), "{reason:?}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let mut stop = RequestError::new(ErrorCode::RateLimited, "why");
        stop.retry_after = Some(Duration::from_millis(1001));
        assert_eq!(stop.retry_after_seconds(), Some(2));
        stop.retry_after = Some(Duration::ZERO);
        assert_eq!(stop.retry_after_seconds(), Some(1));
    }
}
