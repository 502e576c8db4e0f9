//! The shapes of refusals.

use super::{Dialect, Family};
use crate::refusal::Refusal;
use serde_json::{Value, json};

impl Dialect {
    /// A refusal's body, as this server's OpenAI API has it.
    pub(crate) fn refusal(&self, refusal: &Refusal) -> Value {
        let Refusal {
            message, kind, param, ..
        } = refusal;
        let code = refusal.status.as_u16();
        match self.family {
            Family::Vllm => json!({"error": {"message": message, "type": kind, "param": param, "code": code}}),
            Family::FastChat => {
                json!({"object": "error", "message": message, "type": kind, "param": param, "code": code})
            }
            Family::LlamaCpp => {
                let mut error = json!({"code": code, "message": message, "type": llama_cpp(refusal)});
                for (key, value) in &refusal.details {
                    error[key] = value.clone();
                }
                json!({"error": error})
            }
            Family::OpenAi => {
                json!({"error": {"message": message, "type": openai(code), "param": param, "code": null}})
            }
            Family::Text => json!({"error": message}),
        }
    }

    /// Returns whether a prompt too long has llama.cpp's fields.
    pub(crate) fn is_llama_cpp(&self) -> bool {
        self.family == Family::LlamaCpp
    }
}

/// llama.cpp's names (tools/server, `error_type`).
fn llama_cpp(refusal: &Refusal) -> &'static str {
    match refusal.status.as_u16() {
        400 if refusal.details.iter().any(|(key, _)| *key == "n_ctx") => "exceed_context_size_error",
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        503 => "unavailable_error",
        501 => "not_supported_error",
        _ => "server_error",
    }
}

/// OpenAI's names.
fn openai(code: u16) -> &'static str {
    match code {
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn every_server_refuses_in_its_own_shape() {
        let of = |name: &str, refusal: &Refusal| Dialect::parse(name).expect(name).refusal(refusal);
        let unknown = Refusal::no_model("x");
        assert_eq!(
            of("vllm", &unknown),
            json!({"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}})
        );
        let bad = Refusal::bad("no", None);
        assert_eq!(
            of("vllm-0.6", &bad),
            json!({"object": "error", "message": "no", "type": "BadRequestError", "param": null, "code": 400})
        );
        assert_eq!(
            of("llama.cpp", &bad),
            json!({"error": {"code": 400, "message": "no", "type": "invalid_request_error"}})
        );
        assert_eq!(
            of("ollama", &Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "no"))["error"]["type"],
            "api_error"
        );
        assert_eq!(of("lmstudio", &bad), json!({"error": "no"}));
    }
}
