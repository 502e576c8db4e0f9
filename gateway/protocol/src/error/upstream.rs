//! A model's server that returned an error: its own sentence, and whose fault it is.

use super::{Contact, ErrorCode, RequestError};
use serde_json::Value;

/// Characters of a server's sentence that are passed on.
const LONGEST_SENTENCE: usize = 500;

/// The sentence in a server's error body: `error.message`, `error`, `message` or `detail` (a text, or FastAPI's list
/// of what is wrong where); else the body itself, if it is a short line of text.
pub fn upstream_message(body: &[u8]) -> Option<String> {
    let sentence = match serde_json::from_slice::<Value>(body) {
        Ok(body) => in_json(&body)?,
        Err(_) => plain(body)?.to_owned(),
    };
    let sentence = sentence.trim();
    (!sentence.is_empty()).then(|| sentence.chars().take(LONGEST_SENTENCE).collect())
}

fn in_json(body: &Value) -> Option<String> {
    if let Value::String(text) = body {
        return Some(text.clone());
    }
    // Google's servers wrap the error into a list.
    let body = body.get(0).unwrap_or(body);
    let fields = [
        "/error/message",
        "/error",
        "/message",
        "/detail",
        "/error/detail",
        "/detail/message",
    ];
    let texts = fields.iter().find_map(|field| body.pointer(field)?.as_str());
    texts.map(str::to_owned).or_else(|| validation(body.get("detail")?))
}

/// FastAPI's list of validation errors as one sentence: `body.messages: Field required; …`.
fn validation(detail: &Value) -> Option<String> {
    let errors = detail.as_array()?.iter().filter_map(|error| {
        let message = error["msg"].as_str().or(error.as_str())?;
        let place = error["loc"].as_array().into_iter().flatten();
        let place: Vec<String> = place
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        Some(if place.is_empty() {
            message.to_owned()
        } else {
            format!("{}: {message}", place.join("."))
        })
    });
    let errors: Vec<String> = errors.collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// A body of text that is no page of HTML.
fn plain(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.starts_with('<')).then(|| text.lines().next()).flatten()
}

/// The error for a client whose model's server returned `status`: the server's own sentence, with the names of model
/// and server. What the request itself caused is the client's fault, whatever status the server chose for it.
pub fn upstream_error(status: u16, body: &[u8], model: &str, server: &str) -> RequestError {
    let sentence = upstream_message(body);
    let said = sentence.as_deref().unwrap_or("no reason given");
    let by = |what: &str| format!("{what} (model `{model}`, server {server}): {said}");
    let error = match status {
        _ if is_context_exceeded(body, said) => {
            RequestError::new(ErrorCode::ContextLengthExceeded, by("the prompt is too long"))
        }
        401 | 403 => RequestError::new(ErrorCode::UpstreamError, by("the server refused the gateway's API key")),
        404 if sentence.is_none() => RequestError::new(ErrorCode::UpstreamError, by("the server returned 404")),
        408 | 504 => RequestError::new(ErrorCode::UpstreamTimeout, by("the server took too long")),
        429 | 503 => RequestError::new(ErrorCode::NoHealthyUpstream, by("the server is overloaded")),
        400..=499 => RequestError::new(ErrorCode::BadRequest, by("the server refused the request")),
        500 | 501 if is_clients_fault(body, said) => {
            RequestError::new(ErrorCode::BadRequest, by("the server cannot serve the request"))
        }
        _ => RequestError::new(ErrorCode::UpstreamError, by(&format!("the server returned {status}"))),
    };
    error.at(Contact::Answered(status))
}

fn is_context_exceeded(body: &[u8], sentence: &str) -> bool {
    let code = error_words(body);
    let named = ["context_length_exceeded", "exceed_context_size_error"];
    // vLLM's and OpenAI's sentence; neither has an own type for it.
    code.iter().any(|word| named.contains(&word.as_str())) || sentence.contains("maximum context length")
}

/// Whether a server that failed says that the request is wrong: by its error's type, or by the words in which llama.cpp
/// and Ollama report a picture or a feature that the model does not have.
fn is_clients_fault(body: &[u8], sentence: &str) -> bool {
    const KINDS: [&str; 4] = [
        "invalid_request_error",
        "BadRequestError",
        "not_supported_error",
        "ValueError",
    ];
    const WORDS: [&str; 6] = [
        "not supported",
        "not support",
        "unsupported",
        "invalid image",
        "failed to parse",
        "too long",
    ];
    let sentence = sentence.to_ascii_lowercase();
    let has_kind = error_words(body).iter().any(|word| KINDS.contains(&word.as_str()));
    has_kind || WORDS.iter().any(|word| sentence.contains(word))
}

/// The error's `type` and `code`.
fn error_words(body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Vec::new();
    };
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
    let words = ["type", "code"].into_iter().filter_map(|key| error.get(key)?.as_str());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Blame;
    use super::*;

    /// Bodies as servers send them.
    #[test]
    fn the_sentence_is_found_in_every_form_that_servers_use() {
        let cases = [
            (r#"{"error":{"message":"openai","type":"x"}}"#, Some("openai")),
            (r#"{"error":"ollama"}"#, Some("ollama")),
            (
                r#"{"object":"error","message":"old vLLM","code":400}"#,
                Some("old vLLM"),
            ),
            (r#"{"detail":"Not Found"}"#, Some("Not Found")),
            (
                r#"{"detail":[{"type":"missing","loc":["body","messages",0],"msg":"Field required"},{"msg":"b"}]}"#,
                Some("body.messages.0: Field required; b"),
            ),
            (
                r#"{"type":"error","error":{"type":"api_error","message":"anthropic"}}"#,
                Some("anthropic"),
            ),
            (r#"[{"error":{"message":"google"}}]"#, Some("google")),
            ("Internal Server Error\n", Some("Internal Server Error")),
            ("<html>502</html>", None),
            ("", None),
            ("{}", None),
            (r#"{"error":{"code":5}}"#, None),
        ];
        for (body, sentence) in cases {
            assert_eq!(upstream_message(body.as_bytes()).as_deref(), sentence, "{body}");
        }
    }

    #[test]
    fn a_request_that_the_model_cannot_take_is_the_clients_fault_whatever_the_status() {
        // llama.cpp's answer to a picture for a model without eyes.
        let body = br#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#;
        let error = upstream_error(500, body, "m", "127.0.0.1:1");
        assert_eq!((error.code, error.blame), (ErrorCode::BadRequest, Blame::Client));
        assert!(!error.counts_against_server() && !error.may_retry());
        assert!(error.message.contains("`m`") && error.message.contains("image input is not supported"));
        let error = upstream_error(500, br#"{"error":"CUDA out of memory"}"#, "m", "s");
        assert!(error.may_retry() && error.counts_against_server());
        assert_eq!(error.contact, Contact::Answered(500));
    }

    #[test]
    fn a_prompt_that_is_too_long_for_the_server_has_its_own_code() {
        let vllm = br#"{"object":"error","message":"This model's maximum context length is 10 tokens.","code":400}"#;
        let llama = br#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
        for body in [&vllm[..], &llama[..]] {
            assert_eq!(
                upstream_error(400, body, "m", "s").code,
                ErrorCode::ContextLengthExceeded
            );
        }
    }
}
