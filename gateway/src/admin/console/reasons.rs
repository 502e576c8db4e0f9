//! What outcomes and error codes mean, and what an operator does about them.

/// The meaning of an outcome.
pub(super) fn outcome(status: &str) -> &'static str {
    match status {
        "completed" => "Answered to its end.",
        "rejected" => "Refused by the gateway before a server was asked. Nothing was billed.",
        "failed" => "A server was asked and did not answer, or not to the end.",
        "timed_out" => "Not answered in time.",
        "cancelled" => "The client went away, or the request was cancelled. What was made until then is billed.",
        "interrupted" => "The gateway was killed while the request ran; its prompt is billed.",
        "correction" => "No request: an operator added these amounts to the ledger.",
        "queued" => "It waits for a slot.",
        "processing" => "It runs.",
        _ => "",
    }
}

/// What to do about an error code.
pub(super) fn advice(reason: &str) -> &'static str {
    match reason {
        "invalid_key" => {
            "The client sent no API key or an unknown one. Check its settings, or create a key on the Keys page."
        }
        "identity_unavailable" => {
            "No token can be verified before the identity provider's keys are fetched. See the log for the cause, and jwt in gateway.yaml."
        }
        "too_many_wrong_keys" => {
            "An address sends many unknown API keys; the log names it. Valid keys from there still work. See bounds.wrong_credentials_per_minute."
        }
        "key_expired" => "Create another key for the user on the Keys page.",
        "key_revoked" => "The key was revoked. Create another one if the user is to go on.",
        "unknown_user" => "Add the user to users.yaml, or correct the name that the client sends.",
        "user_disabled" => "Set enabled: true for the user in users.yaml to allow it again.",
        "project_mismatch" => {
            "The user belongs to another project; correct x-sluice-project, or the user's project in users.yaml."
        }
        "project_disabled" => "Set enabled: true for the project in projects.yaml to allow it again.",
        "model_not_allowed" => {
            "The key is limited to other models. Create a key without that limit, or for this model."
        }
        "not_allowed" => "The origin or the call is not allowed; see cors_origins in gateway.yaml.",
        "unknown_model" => "Add the model to models.yaml, or an alias of this name to one that is there.",
        "model_disabled" => "Set enabled: true for the model in models.yaml to allow it again.",
        "bad_request"
        | "not_found"
        | "method_not_allowed"
        | "unsupported_media_type"
        | "item_not_found"
        | "previous_response_not_found" => {
            "The request itself is at fault; its message says which field or path. Nothing to do here."
        }
        "context_length_exceeded" => {
            "The prompt is longer than max_input_tokens of the model. Shorten it, or use a larger model."
        }
        "body_too_large" => "Raise bounds.max_body_bytes in gateway.yaml if such bodies are meant to pass.",
        "request_timeout" => "The client sent its body too slowly; see timeouts.body_seconds.",
        "storage_limit_exceeded" => {
            "The project has as many files as it may have. Delete some, let them expire (files.keep_days), or raise bounds.max_files or max_files_bytes."
        }
        "request_exceeds_limit" => {
            "This request alone is larger than a rate limit or quota. Raise the limit, or lower max_tokens."
        }
        "rate_limited" => {
            "A limit a minute or a day is reached. The client tries again after retry-after; raise the plan's limits if this is usual."
        }
        "quota_exceeded" => "The project's, user's or key's quota is used up until it resets; see the project's page.",
        "budget_exceeded" => {
            "The budget is used up until it resets; see the project's page, and raise it in projects.yaml if it is to go on."
        }
        "too_many_concurrent" => {
            "max_concurrent_requests of the project is reached. Raise it, or let the client send fewer at once."
        }
        "batch_rejected" | "standard_rejected" | "emergency" => {
            "Degradation refuses this priority while the queue is full; see the Overview. More slots or servers help."
        }
        "queue_full" => "More requests came than can run or wait. Add servers or slots, or raise max_queue_size.",
        "queue_timeout" => {
            "No slot came free within max_queue_wait_seconds. Add servers or slots, or allow longer waits."
        }
        "objective_out_of_reach" => {
            "The answer was wanted sooner (slo of the project, or headers of the request) than a slot came free. Add servers \
             or slots, or relax the objective."
        }
        "ledger_unavailable" => {
            "The record could not be written. Check the disk of the data directory and the database."
        }
        "no_healthy_upstream" => {
            "No server of the model can be asked. See Models and upstreams for their state and last failure."
        }
        "upstream_error" => "The server failed; its message is below. Look at the server's own log at this time.",
        "upstream_timeout" => {
            "The server did not answer in time. It may be overloaded; see its latency, and the model's timeouts."
        }
        "shutting_down" => "The gateway was stopping. The client may try again at once.",
        "internal_error" => "A fault of the gateway. Please report it with the log of this time.",
        "interrupted" => "The gateway was killed. The client may try again.",
        "cancelled" => "Cancelled through DELETE /requests/{id} or from the console. Nothing to do.",
        "client_gone" => {
            "The client closed its connection. If this is usual, its timeout may be shorter than the wait."
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Outcome;

    #[test]
    fn every_outcome_and_every_error_code_is_explained() {
        for outcome_name in Outcome::ALL {
            assert!(!outcome(outcome_name.name()).is_empty(), "{outcome_name}");
        }
        let table = include_str!("../../../protocol/src/error/code.rs");
        let codes = table.split("\ncodes! {").nth(1).expect("the table").lines();
        let names = codes.filter_map(|line| line.split_once(" = \"")?.1.split('"').next());
        let unexplained: Vec<&str> = names.filter(|name| advice(name).is_empty()).collect();
        assert_eq!(unexplained, Vec::<&str>::new());
    }
}
