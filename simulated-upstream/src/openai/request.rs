//! Requests as vLLM reads them: which fields it demands, and which values it refuses, in its words. From
//! `vllm/sampling_params.py` (`_verify_args`), the validators of its request classes and its FastAPI error handler.

use super::Kind;
use crate::refusal::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write;

#[derive(Deserialize)]
pub(crate) struct Request {
    /// The first model where it is left out.
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) messages: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) tools: Vec<Value>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) response_format: Option<Value>,
    pub(crate) prompt: Option<Value>,
    pub(crate) max_tokens: Option<i64>,
    pub(crate) max_completion_tokens: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) stream: bool,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) n: Option<i64>,
    pub(crate) stop: Option<Value>,
    pub(crate) seed: Option<i64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) frequency_penalty: Option<f64>,
    pub(crate) repetition_penalty: Option<f64>,
    #[serde(default)]
    pub(crate) ignore_eos: bool,
    #[serde(default)]
    pub(crate) echo: bool,
    /// True, or for completions how many.
    pub(crate) logprobs: Option<Value>,
    pub(crate) top_logprobs: Option<i64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
    #[serde(default)]
    pub(crate) continuous_usage_stats: bool,
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Answers of one request, at most.
const MOST_ANSWERS: i64 = 128;

/// Reads a body in which these fields have to be.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8], required: &[&str]) -> Result<T, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let at = error.column().saturating_sub(1);
        Refusal::invalid(format!(
            "[{{'type': 'json_invalid', 'loc': ('body', {at}), 'msg': 'JSON decode error', 'input': {{}}, 'ctx': {{'error': '{error}'}}}}]"
        ))
    })?;
    let missing: Vec<&&str> = required.iter().filter(|field| value.get(**field).is_none()).collect();
    if !missing.is_empty() {
        let input = python(&value);
        let errors = missing.iter().map(|field| {
            format!("{{'type': 'missing', 'loc': ('body', '{field}'), 'msg': 'Field required', 'input': {input}}}")
        });
        return Err(Refusal::invalid(format!("[{}]", errors.collect::<Vec<_>>().join(", "))));
    }
    serde_json::from_value(value).map_err(|error| Refusal::invalid(error.to_string()))
}

/// A value as Python prints it.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let mut text = String::new();
            for (key, value) in fields {
                let separator = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{separator}'{key}': {}", python(value));
            }
            format!("{{{text}}}")
        }
    }
}

impl Request {
    pub(crate) fn read(body: &[u8], kind: Kind) -> Result<Self, Refusal> {
        let required: &[&str] = if kind == Kind::Chat { &["messages"] } else { &[] };
        let mut request: Self = read(body, required)?;
        request.check_fields(kind)?;
        if kind == Kind::Completion && request.echo && request.max_tokens == Some(0) {
            // Only the prompt is wanted back; vLLM makes a token all the same.
            request.max_tokens = Some(1);
        }
        request.check_sampling()?;
        Ok(request)
    }

    /// The validators of the request itself.
    fn check_fields(&self, kind: Kind) -> Result<(), Refusal> {
        let wrong = |message: &str| Err(Refusal::invalid(format!("Value error, {message}")));
        if self.stream_options.is_some() && !self.stream {
            return wrong("Stream options can only be defined when `stream=True`.");
        }
        if kind == Kind::Completion {
            let is_empty = match &self.prompt {
                None | Some(Value::Null) => true,
                Some(Value::Array(prompts)) => prompts.is_empty(),
                Some(_) => false,
            };
            if is_empty {
                return wrong("Either prompt or prompt_embeds must be provided and non-empty.");
            }
        }
        let choice = self
            .tool_choice
            .as_ref()
            .filter(|choice| !choice.is_null() && **choice != "none");
        if choice.is_some() && self.tools.is_empty() {
            return wrong("When using `tool_choice`, `tools` must be set.");
        }
        if self.top_logprobs.is_some_and(|top| top > 0) && self.logprobs.as_ref() != Some(&Value::Bool(true)) {
            return wrong("when using `top_logprobs`, `logprobs` must be set to true.");
        }
        Ok(())
    }

    fn check_sampling(&self) -> Result<(), Refusal> {
        let n = self.n.unwrap_or(1);
        if n < 1 {
            return Err(Refusal::bad(format!("n must be at least 1, got {n}."), Some("n")));
        }
        if n > MOST_ANSWERS {
            return Err(Refusal::bad(
                format!("n must be at most {MOST_ANSWERS}, got {n}."),
                Some("n"),
            ));
        }
        within(
            "presence_penalty",
            self.presence_penalty,
            |value| (-2.0..=2.0).contains(&value),
            "in [-2, 2]",
            None,
        )?;
        within(
            "frequency_penalty",
            self.frequency_penalty,
            |value| (-2.0..=2.0).contains(&value),
            "in [-2, 2]",
            None,
        )?;
        within(
            "repetition_penalty",
            self.repetition_penalty,
            |value| value > 0.0,
            "greater than zero",
            None,
        )?;
        within(
            "temperature",
            self.temperature,
            |value| value >= 0.0,
            "non-negative",
            Some("temperature"),
        )?;
        within(
            "temperature",
            self.temperature,
            |value| value <= 2.0,
            "in [0, 2]",
            Some("temperature"),
        )?;
        within(
            "top_p",
            self.top_p,
            |value| value > 0.0 && value <= 1.0,
            "in (0, 1]",
            Some("top_p"),
        )?;
        within(
            "min_p",
            self.min_p,
            |value| (0.0..=1.0).contains(&value),
            "in [0, 1]",
            None,
        )?;
        if let Some(top_k) = self.top_k.filter(|top_k| *top_k < -1) {
            return Err(Refusal::bad(
                format!("top_k must be 0 (disable), or at least 1, got {top_k}."),
                None,
            ));
        }
        if let Some(limit) = self.limit().filter(|limit| *limit < 1) {
            return Err(Refusal::bad(
                format!("max_tokens must be at least 1, got {limit}."),
                Some("max_tokens"),
            ));
        }
        if super::texts(self.stop.as_ref()).iter().any(String::is_empty) {
            return Err(Refusal::bad("stop cannot contain an empty string.", None));
        }
        Ok(())
    }

    /// Tokens of the answer, at most.
    pub(crate) fn limit(&self) -> Option<i64> {
        self.max_completion_tokens.or(self.max_tokens)
    }
}

fn within(
    name: &str,
    value: Option<f64>,
    is_right: impl Fn(f64) -> bool,
    range: &str,
    param: Option<&'static str>,
) -> Result<(), Refusal> {
    match value {
        Some(value) if !is_right(value) => {
            let value = python(&Value::from(value));
            Err(Refusal::bad(format!("{name} must be {range}, got {value}."), param))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(kind: Kind, body: &Value) -> (u16, String, &'static str) {
        let refusal = Request::read(body.to_string().as_bytes(), kind).err();
        let refusal = refusal.unwrap_or_else(|| panic!("{body} passed"));
        (refusal.status.as_u16(), refusal.message, refusal.kind)
    }

    #[test]
    fn what_vllm_refuses_is_refused_in_its_words() {
        let (status, message, kind) = refused(Kind::Chat, &json!({"model": "m", "n": null}));
        assert_eq!((status, kind), (400, "Bad Request"));
        assert!(
            message.contains("('body', 'messages'), 'msg': 'Field required'"),
            "{message}"
        );
        assert!(
            message.contains("'model': 'm'") && message.contains("'n': None"),
            "{message}"
        );
        let chat = |field: &str, value: Value| {
            let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
            body[field] = value;
            refused(Kind::Chat, &body)
        };
        for (field, value, message) in [
            ("max_tokens", json!(0), "max_tokens must be at least 1, got 0."),
            (
                "max_completion_tokens",
                json!(-1),
                "max_tokens must be at least 1, got -1.",
            ),
            ("temperature", json!(-1), "temperature must be non-negative, got -1.0."),
            ("temperature", json!(2.5), "temperature must be in [0, 2], got 2.5."),
            ("top_p", json!(0), "top_p must be in (0, 1], got 0.0."),
            ("n", json!(0), "n must be at least 1, got 0."),
            (
                "presence_penalty",
                json!(3),
                "presence_penalty must be in [-2, 2], got 3.0.",
            ),
            ("stop", json!(["a", ""]), "stop cannot contain an empty string."),
        ] {
            assert_eq!(chat(field, value), (400, message.to_owned(), "BadRequestError"));
        }
        let (_, message, kind) = chat("stream_options", json!({"include_usage": true}));
        assert!(message.contains("`stream=True`") && kind == "Bad Request");
        assert!(chat("tool_choice", json!("required")).1.contains("`tools` must be set"));
        assert!(
            refused(Kind::Completion, &json!({"prompt": []}))
                .1
                .contains("must be provided")
        );
        assert_eq!(
            refused(Kind::Completion, &json!({"prompt": "x", "max_tokens": 0})).0,
            400
        );
    }

    #[test]
    fn what_vllm_takes_passes() {
        for body in [
            json!({"messages": [], "stream": null, "tools": null, "temperature": 0, "top_k": -1, "tool_choice": "none"}),
            json!({"messages": [], "n": 128, "logprobs": true, "top_logprobs": 2, "unknown_field": {}}),
        ] {
            assert!(Request::read(body.to_string().as_bytes(), Kind::Chat).is_ok(), "{body}");
        }
        let echo = json!({"prompt": "x", "max_tokens": 0, "echo": true});
        let request = Request::read(echo.to_string().as_bytes(), Kind::Completion);
        assert_eq!(request.ok().and_then(|request| request.limit()), Some(1));
    }
}
