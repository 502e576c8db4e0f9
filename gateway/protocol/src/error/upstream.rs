//! A model's server that failed: its own sentence, and whose fault it is.

use super::{Contact, ErrorCode, RequestError};
use crate::wire::lenient;
use serde_json::Value;

/// Characters of a server's sentence that are passed on.
const LONGEST_SENTENCE: usize = 500;

/// Where servers put their sentence: OpenAI's `error.message`, Ollama's `error`, `message` at the top (vLLM before 0.10),
/// `detail` (FastAPI), and rarer ones.
const KEYS: [&str; 10] = [
    "message",
    "error_description",
    "error",
    "detail",
    "msg",
    "reason",
    "errors",
    "error_message",
    "error_msg",
    "title",
];

/// The sentence in the body of a server's error: in its JSON, else the body's first line, if it is no page of HTML.
pub fn server_message(body: &[u8]) -> Option<String> {
    match lenient::value(body) {
        Some(body) => message_in(&body),
        None => plain(body).and_then(shortened),
    }
}

/// The sentence in a server's error as JSON.
fn message_in(error: &Value) -> Option<String> {
    sentence(error).as_deref().and_then(shortened)
}

/// Returns whether a field `error` of an answer reports a failure; some servers send an empty one with every answer.
pub(crate) fn reports_failure(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn sentence(error: &Value) -> Option<String> {
    match error {
        Value::String(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned),
        // Google's servers wrap the error into a list.
        Value::Array(items) => validation(items).or_else(|| items.iter().find_map(sentence)),
        Value::Object(fields) => {
            // Beside an error in detail, a message at the top says less; beside a name for it, it says more.
            let detailed = fields.get("error").filter(|error| !error.is_string());
            let others = || KEYS.into_iter().find_map(|key| sentence(fields.get(key)?));
            detailed.and_then(sentence).or_else(others)
        }
        _ => None,
    }
}

/// FastAPI's list of validation errors as one sentence: `body.messages: Field required; …`.
fn validation(errors: &[Value]) -> Option<String> {
    let errors = errors.iter().filter_map(|error| {
        let message = error["msg"].as_str()?;
        let path = error["loc"].as_array().into_iter().flatten();
        let path: Vec<String> = path
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        Some(if path.is_empty() {
            message.to_owned()
        } else {
            format!("{}: {message}", path.join("."))
        })
    });
    let errors: Vec<String> = errors.collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// The first line of a text that is no page of HTML.
fn plain(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.starts_with('<')).then(|| text.lines().next()).flatten()
}

fn shortened(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(LONGEST_SENTENCE).collect())
}

const NO_REASON: &str = "no reason was given";

/// A failure that the model's server reports in an answer with status 200, as its JSON or its text. As with other
/// statuses, what the request itself caused is the client's fault.
pub(crate) fn failed_in_answer(error: &[u8]) -> RequestError {
    let text = || shortened(&String::from_utf8_lossy(error));
    let sentence = server_message(error).or_else(text);
    let sentence = sentence.as_deref().unwrap_or(NO_REASON);
    let error = match code(error) {
        _ if is_context_exceeded(error, sentence) => RequestError::new(
            ErrorCode::ContextLengthExceeded,
            format!("the prompt is too long: {sentence}"),
        ),
        Some(400 | 413 | 422) => RequestError::new(
            ErrorCode::BadRequest,
            format!("the model's server refused the request: {sentence}"),
        ),
        _ if is_clients_fault(error, sentence) => RequestError::new(
            ErrorCode::BadRequest,
            format!("the model's server cannot serve the request: {sentence}"),
        ),
        _ => RequestError::new(
            ErrorCode::UpstreamError,
            format!("the model's server failed: {sentence}"),
        ),
    };
    error.at(Contact::Answered(200))
}

/// The HTTP status that an error names: OpenRouter's, vLLM's and llama.cpp's `code`, `status` or `statusCode`.
fn code(error: &[u8]) -> Option<u64> {
    let body = lenient::value(error)?;
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
    let codes = ["code", "status", "status_code", "statusCode"];
    codes.into_iter().find_map(|key| match error.get(key)? {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    })
}

/// The error for a client whose model's server returned `status`: the server's own sentence, with the names of model
/// and server. What the request itself caused is the client's fault, whatever status the server chose for it.
pub fn server_refused(status: u16, body: &[u8], model: &str, server: &str) -> RequestError {
    let message = server_message(body);
    let sentence = message.as_deref().unwrap_or(NO_REASON);
    let by = |what: &str| format!("{what} (model `{model}`, server {server}): {sentence}");
    let error = match status {
        _ if is_context_exceeded(body, sentence) => {
            RequestError::new(ErrorCode::ContextLengthExceeded, by("the prompt is too long"))
        }
        401 | 403 => RequestError::new(ErrorCode::UpstreamError, by("the server refused the gateway's API key")),
        404 if message.is_none() => RequestError::new(ErrorCode::UpstreamError, by("the server returned 404")),
        408 | 504 => RequestError::new(ErrorCode::UpstreamTimeout, by("the server took too long")),
        429 | 503 => RequestError::new(ErrorCode::NoHealthyUpstream, by("the server is overloaded")),
        400..=499 => RequestError::new(ErrorCode::BadRequest, by("the server refused the request")),
        500 | 501 if is_clients_fault(body, sentence) => {
            RequestError::new(ErrorCode::BadRequest, by("the server cannot serve the request"))
        }
        _ => RequestError::new(ErrorCode::UpstreamError, by(&format!("the server returned {status}"))),
    };
    RequestError {
        param: param(body).map(Into::into),
        ..error.at(Contact::Answered(status))
    }
}

/// The field that a server says is wrong.
fn param(body: &[u8]) -> Option<String> {
    let body = lenient::value(body)?;
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
    error["param"]
        .as_str()
        .map(|param| param.chars().take(LONGEST_SENTENCE).collect())
}

/// Words of servers that have no type for a prompt that is too long: OpenAI, vLLM, SGLang; SGLang and Ollama; LM Studio;
/// vLLM; Anthropic; LiteLLM; TGI; llama.cpp.
const TOO_LONG: [&str; 9] = [
    "maximum context length",
    "context length (",
    "exceeds the context length",
    "loaded with context length",
    "maximum model length",
    "prompt is too long",
    "contextwindowexceeded",
    "`inputs` must have less than",
    "exceeds the available context size",
];

fn is_context_exceeded(body: &[u8], sentence: &str) -> bool {
    let code = error_words(body);
    let named = ["context_length_exceeded", "exceed_context_size_error"];
    let sentence = sentence.to_ascii_lowercase();
    code.iter().any(|word| named.contains(&word.as_str())) || TOO_LONG.iter().any(|words| sentence.contains(words))
}

/// Returns whether a server that failed says that the request is wrong: by its error's type, or by the words in which llama.cpp
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
    let Some(body) = lenient::value(body) else {
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
            (
                r#"{"error":{"error":{"message":"nested"}},"message":null}"#,
                Some("nested"),
            ),
            (r#"{"error":{"message":"inner"},"message":"outer"}"#, Some("inner")),
            (
                r#"{"statusCode":400,"error":"Bad Request","message":"said better"}"#,
                Some("said better"),
            ),
            (
                r#"{"object":"error","message":{"detail":[{"loc":["body"],"msg":"mistral"}]}}"#,
                Some("body: mistral"),
            ),
            (r#"{"code":500,"msg":"in short","success":false}"#, Some("in short")),
            (r#"{"errors":[{"message":"one of several"}]}"#, Some("one of several")),
            (r#"{"error_code":336501,"error_msg":"baidu"}"#, Some("baidu")),
            (r#""a text""#, Some("a text")),
            ("\u{feff}{\"error\":\"cut \\ud83d\"}", Some("cut \u{fffd}")),
            (r#"{"error":" spaced \n"}"#, Some("spaced")),
            ("Internal Server Error\n", Some("Internal Server Error")),
            ("<html>502</html>", None),
            ("", None),
            ("{}", None),
            (r#"{"error":{"code":5}}"#, None),
            (r#"{"error":null}"#, None),
            (r#"{"error":""}"#, None),
        ];
        for (body, sentence) in cases {
            assert_eq!(server_message(body.as_bytes()).as_deref(), sentence, "{body}");
        }
        for long in [
            format!("{{\"error\":\"{}\"}}", "\u{e4}".repeat(900)),
            "\u{e4}".repeat(900),
        ] {
            assert_eq!(
                server_message(long.as_bytes()).map(|text| text.chars().count()),
                Some(500)
            );
        }
        assert!(failed_in_answer(br#"{"code":5}"#).message.ends_with(r#"{"code":5}"#));
    }

    #[test]
    fn a_request_that_the_model_cannot_take_is_the_clients_fault_whatever_the_status() {
        // llama.cpp's answer to a picture for a model without eyes.
        let body = br#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#;
        let error = server_refused(500, body, "m", "127.0.0.1:1");
        assert_eq!((error.code, error.blame), (ErrorCode::BadRequest, Blame::Client));
        assert!(!error.counts_against_server() && !error.may_retry());
        assert!(error.message.contains("`m`") && error.message.contains("image input is not supported"));
        let error = server_refused(500, br#"{"error":"CUDA out of memory"}"#, "m", "s");
        assert!(error.may_retry() && error.counts_against_server());
        assert_eq!(error.contact, Contact::Answered(500));
    }

    #[test]
    fn a_failure_in_an_answer_is_judged_as_one_with_its_status() {
        for (error, code) in [
            // vLLM's event for a request that it refuses once it streams.
            (
                r#"{"message":"bad guided_json","type":"BadRequestError","code":400}"#,
                ErrorCode::BadRequest,
            ),
            (r#"{"error":{"message":"no","code":"422"}}"#, ErrorCode::BadRequest),
            (
                r#"{"message":"This model's maximum context length is 10 tokens.","code":400}"#,
                ErrorCode::ContextLengthExceeded,
            ),
            (r#""image input is not supported""#, ErrorCode::BadRequest),
            (
                r#"{"message":"Provider disconnected","code":502}"#,
                ErrorCode::UpstreamError,
            ),
            (r#"{"message":"slow down","code":429}"#, ErrorCode::UpstreamError),
            ("CUDA error", ErrorCode::UpstreamError),
            ("", ErrorCode::UpstreamError),
        ] {
            let given = failed_in_answer(error.as_bytes());
            assert_eq!((given.code, given.contact), (code, Contact::Answered(200)), "{error}");
            assert_eq!(
                given.counts_against_server(),
                code == ErrorCode::UpstreamError,
                "{error}"
            );
        }
    }

    #[test]
    fn the_field_that_a_server_names_is_passed_on() {
        let body = br#"{"error":{"message":"Unknown field","param":"stream_options"}}"#;
        assert_eq!(
            server_refused(400, body, "m", "s").param.as_deref(),
            Some("stream_options")
        );
        assert_eq!(server_refused(400, b"no", "m", "s").param, None);
    }

    #[test]
    fn a_prompt_that_is_too_long_for_the_server_has_its_own_code() {
        let vllm = br#"{"object":"error","message":"This model's maximum context length is 10 tokens.","code":400}"#;
        let llama = br#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
        let others = [
            r#"{"error":"the input length exceeds the context length"}"#,
            r#"{"error":{"message":"The input (9 tokens) is longer than the model's context length (8 tokens)."}}"#,
            r#"{"error":"Trying to keep the first 9 tokens when context the overflows. However, the model is loaded with context length of only 8 tokens"}"#,
            r#"{"object":"error","message":"The decoder prompt (length 9) is longer than the maximum model length of 8."}"#,
            r#"{"error":{"message":"litellm.ContextWindowExceededError: 9 > 8","code":"400"}}"#,
            r#"{"error":"Input validation error: `inputs` must have less than 8 tokens. Given: 9","error_type":"validation"}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
        ];
        for body in [&vllm[..], &llama[..]].into_iter().chain(others.map(str::as_bytes)) {
            assert_eq!(
                server_refused(400, body, "m", "s").code,
                ErrorCode::ContextLengthExceeded
            );
        }
    }
}
