//! The table of error codes: ledger reason, HTTP status, usual blame, OpenAI's type and code.

use super::Blame;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $reason:literal, $status:literal, $blame:ident, $kind:literal, $code:literal;)*) => {
        /// The kind of an error, finer than the reason that is seen from outside.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes, for tests that walk the table.
            #[cfg(test)]
            pub(crate) const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The reason in the ledger, in `sluice_refusals_total` and in the answer of `/generate`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $reason,)* }
            }

            /// The first code of the table with this reason.
            pub fn from_name(name: &str) -> Option<Self> {
                [$(ErrorCode::$variant),*].into_iter().find(|code| code.name() == name)
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)* }
            }

            /// The party that usually causes it.
            pub(super) fn usual_blame(self) -> Blame {
                match self { $(ErrorCode::$variant => Blame::$blame,)* }
            }

            /// OpenAI's `type` and `code`.
            pub(crate) fn openai(self) -> (&'static str, &'static str) {
                match self { $(ErrorCode::$variant => ($kind, $code),)* }
            }
        }
    };
}

codes! {
    /// No API key was given.
    NoKey = "invalid_key", 401, Client, "invalid_request_error", "invalid_api_key";
    /// The API key is unknown.
    InvalidKey = "invalid_key", 401, Client, "invalid_request_error", "invalid_api_key";
    /// The API key has expired.
    KeyExpired = "key_expired", 401, Client, "invalid_request_error", "invalid_api_key";
    /// The API key was revoked.
    KeyRevoked = "key_revoked", 401, Client, "invalid_request_error", "invalid_api_key";
    /// The identity provider's keys are not known, so that no token can be verified.
    IdentityUnavailable = "identity_unavailable", 503, Gateway, "server_error", "identity_unavailable";
    /// The API key is unknown, and too many such keys came from the client's address.
    TooManyWrongKeys = "too_many_wrong_keys", 429, Client, "requests", "too_many_wrong_keys";
    /// The user is not in the configuration.
    UnknownUser = "unknown_user", 403, Client, "permission_error", "unknown_user";
    /// The user is disabled.
    UserDisabled = "user_disabled", 403, Policy, "permission_error", "user_disabled";
    /// The user does not belong to the project.
    ProjectMismatch = "project_mismatch", 403, Client, "permission_error", "project_mismatch";
    /// The project is disabled.
    ProjectDisabled = "project_disabled", 403, Policy, "permission_error", "project_disabled";
    /// The API key may not use the model.
    ModelNotAllowed = "model_not_allowed", 403, Policy, "permission_error", "model_not_allowed";
    /// A web page's origin, or a host name, that may not call.
    OriginNotAllowed = "not_allowed", 403, Policy, "permission_error", "not_allowed";
    /// Model management, which no client may do.
    ManagementRefused = "not_allowed", 403, Policy, "permission_error", "not_allowed";
    /// The model is not in the configuration.
    UnknownModel = "unknown_model", 404, Client, "invalid_request_error", "model_not_found";
    /// The model is disabled.
    ModelDisabled = "model_disabled", 400, Policy, "invalid_request_error", "model_disabled";
    /// No request, response, file or batch has the id.
    UnknownRequest = "not_found", 404, Client, "invalid_request_error", "not_found";
    /// The response that a request goes on from is not stored. The name and the status are OpenAI's.
    PreviousResponseNotFound = "previous_response_not_found", 400, Client, "invalid_request_error", "previous_response_not_found";
    /// An item to which a request refers is not stored.
    ItemNotFound = "item_not_found", 404, Client, "invalid_request_error", "item_not_found";
    /// Nothing is served at the path.
    UnknownPath = "not_found", 404, Client, "invalid_request_error", "not_found";
    /// The path exists with another method.
    WrongMethod = "method_not_allowed", 405, Client, "invalid_request_error", "method_not_allowed";
    /// The body cannot be read, or a field has a wrong value.
    BadRequest = "bad_request", 400, Client, "invalid_request_error", "bad_request";
    /// The prompt is longer than the model's context.
    ContextLengthExceeded = "context_length_exceeded", 400, Client, "invalid_request_error", "context_length_exceeded";
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge = "body_too_large", 413, Client, "invalid_request_error", "body_too_large";
    /// The body's content coding is not understood.
    UnsupportedMediaType = "unsupported_media_type", 415, Client, "invalid_request_error", "unsupported_media_type";
    /// The client sends its body too slowly.
    RequestTimeout = "request_timeout", 408, Client, "invalid_request_error", "request_timeout";
    /// The project has as many files as it may have.
    StorageLimitExceeded = "storage_limit_exceeded", 400, Policy, "invalid_request_error", "storage_limit_exceeded";
    /// The request is larger than its rate limit or quota can ever pass.
    RequestExceedsLimit = "request_exceeds_limit", 400, Policy, "invalid_request_error", "request_exceeds_limit";
    /// A limit of requests a minute or a day is reached.
    RateLimited = "rate_limited", 429, Policy, "requests", "rate_limit_exceeded";
    /// A limit of tokens a minute or a day is reached.
    TokensRateLimited = "rate_limited", 429, Policy, "tokens", "rate_limit_exceeded";
    /// A quota of tokens or requests is used up.
    QuotaExceeded = "quota_exceeded", 429, Policy, "insufficient_quota", "quota_exceeded";
    /// A budget is used up.
    BudgetExceeded = "budget_exceeded", 429, Policy, "insufficient_quota", "budget_exceeded";
    /// A limit of concurrent requests is reached.
    TooManyConcurrent = "too_many_concurrent", 429, Policy, "requests", "concurrency_limit_exceeded";
    /// Degradation refuses batch requests.
    BatchRejected = "batch_rejected", 503, Policy, "server_error", "batch_rejected";
    /// Degradation refuses requests of normal and low priority.
    StandardRejected = "standard_rejected", 503, Policy, "server_error", "standard_rejected";
    /// Degradation refuses all but high priority.
    Emergency = "emergency", 503, Policy, "server_error", "emergency";
    /// The queue is full.
    QueueFull = "queue_full", 503, Policy, "server_error", "queue_full";
    /// The request waited in the queue as long as it may.
    QueueTimeout = "queue_timeout", 503, Policy, "server_error", "queue_timeout";
    /// The request's own objective, or its project's, cannot be met.
    ObjectiveOutOfReach = "objective_out_of_reach", 503, Policy, "server_error", "objective_out_of_reach";
    /// The ledger's backlog takes no more records; this request has none either.
    LedgerBacklogFull = "ledger_unavailable", 503, Gateway, "server_error", "ledger_unavailable";
    /// The request's record could not be written.
    RecordNotWritten = "ledger_unavailable", 503, Gateway, "server_error", "ledger_unavailable";
    /// The store of jobs, files or batches cannot be written.
    StoreUnavailable = "ledger_unavailable", 503, Gateway, "server_error", "ledger_unavailable";
    /// The database cannot be read.
    DatabaseUnreadable = "ledger_unavailable", 503, Gateway, "server_error", "ledger_unavailable";
    /// The quotas and budgets that gateways share cannot be drawn from.
    CreditUnavailable = "ledger_unavailable", 503, Gateway, "server_error", "ledger_unavailable";
    /// No server of the model can be asked.
    NoHealthyUpstream = "no_healthy_upstream", 503, Upstream, "server_error", "no_healthy_upstream";
    /// The model's server failed, or its answer cannot be read.
    UpstreamError = "upstream_error", 502, Upstream, "server_error", "upstream_error";
    /// The model's server did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504, Upstream, "server_error", "upstream_timeout";
    /// The gateway stops, and its drain time is over.
    ShuttingDown = "shutting_down", 503, Gateway, "server_error", "shutting_down";
    /// A fault of the gateway itself.
    InternalError = "internal_error", 500, Gateway, "server_error", "internal_error";
    /// The request was cancelled through `DELETE /requests/{id}`.
    Cancelled = "cancelled", 409, Client, "invalid_request_error", "cancelled";
    /// The client closed its connection; nobody reads this.
    ClientGone = "client_gone", 499, Client, "server_error", "client_gone";
}
