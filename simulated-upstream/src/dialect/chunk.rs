//! Fields of chunks and of whole answers, by dialect.

use super::{Dialect, Quirk};
use serde_json::{Value, json};

impl Dialect {
    /// Changes a chunk of a stream from vLLM's form into this server's.
    pub(crate) fn chunk(&self, chunk: &mut Value) {
        if let Some(choices) = chunk["choices"].as_array_mut() {
            for choice in choices {
                self.choice(choice);
            }
        }
        if self.has(Quirk::UsageNull) && chunk.get("usage").is_none() {
            chunk["usage"] = Value::Null;
        }
        if self.has(Quirk::UsageZero) {
            chunk["usage"] = zero();
        }
        self.usage(chunk);
    }

    fn choice(&self, choice: &mut Value) {
        if self.has(Quirk::FinishEmpty) && choice["finish_reason"].is_null() {
            choice["finish_reason"] = "".into();
        }
        self.finish(choice);
        if let Some(delta) = choice.get_mut("delta").filter(|delta| delta.is_object()) {
            if self.has(Quirk::RoleEverywhere) {
                delta["role"] = "assistant".into();
            }
            if self.has(Quirk::ReasoningNull) && delta.get("role").is_some() {
                delta["reasoning_content"] = Value::Null;
                delta["reasoning"] = Value::Null;
            }
            self.calls(delta, true);
        }
    }

    fn finish(&self, choice: &mut Value) {
        if self.has(Quirk::StopFinish) && choice["finish_reason"] == "tool_calls" {
            choice["finish_reason"] = "stop".into();
        }
    }

    fn calls(&self, message: &mut Value, is_chunk: bool) {
        let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) else {
            return;
        };
        for call in calls {
            if is_chunk && self.has(Quirk::ToolIndexZero) {
                call["index"] = 0.into();
            }
            if let (true, Some(call)) = (self.has(Quirk::ToolIndexAbsent), call.as_object_mut()) {
                call.remove("index");
            }
            if self.has(Quirk::ToolIdEmpty) && call.get("id").is_some() {
                call["id"] = "".into();
            }
            let arguments = &mut call["function"]["arguments"];
            if !is_chunk
                && self.has(Quirk::ToolArgumentsObject)
                && let Some(Ok(object)) = arguments.as_str().map(serde_json::from_str::<Value>)
            {
                *arguments = object;
            }
        }
    }

    /// Changes a whole answer from vLLM's form into this server's.
    pub(crate) fn whole(&self, answer: &mut Value) {
        if let Some(choices) = answer["choices"].as_array_mut() {
            for choice in choices {
                self.finish(choice);
                if let Some(message) = choice.get_mut("message") {
                    if self.has(Quirk::ReasoningNull) {
                        message["reasoning_content"] = Value::Null;
                        message["reasoning"] = Value::Null;
                    }
                    if self.has(Quirk::ReasoningTwice) {
                        message["reasoning_content"] = THOUGHT.into();
                        message["reasoning"] = THOUGHT.into();
                    }
                    self.calls(message, false);
                }
            }
        }
        if self.has(Quirk::UsageZero) {
            answer["usage"] = zero();
        }
        self.usage(answer);
    }

    fn usage(&self, answer: &mut Value) {
        if let (true, Some(answer)) = (self.has(Quirk::NoUsage), answer.as_object_mut()) {
            answer.remove("usage");
        }
        if self.has(Quirk::UsageFloat)
            && let Some(usage) = answer.get_mut("usage").and_then(Value::as_object_mut)
        {
            for count in usage.values_mut() {
                if let Some(number) = count.as_f64() {
                    *count = json!(number);
                }
            }
        }
    }

    /// The delta of a thought that comes before an answer, where there is one.
    pub(crate) fn thought(&self) -> Option<Value> {
        self.has(Quirk::ReasoningTwice)
            .then(|| json!({"reasoning": THOUGHT, "reasoning_content": THOUGHT}))
    }
}

const THOUGHT: &str = "let me see";

fn zero() -> Value {
    json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(quirks: &str, mut chunk: Value) -> Value {
        Dialect::parse(quirks).expect(quirks).chunk(&mut chunk);
        chunk
    }

    #[test]
    fn chunks_have_what_each_server_sends() {
        let content = json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]});
        assert_eq!(chunk("vllm", content.clone()), content);
        assert_eq!(
            chunk("localai", content.clone()),
            json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": ""}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})
        );
        assert_eq!(chunk("sglang", content.clone())["usage"], Value::Null);
        assert_eq!(chunk("ollama", content)["choices"][0]["delta"]["role"], "assistant");
        let call = json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "delta": {"tool_calls": [
            {"index": 1, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}}]});
        assert_eq!(
            chunk("ollama", call.clone())["choices"][0]["delta"]["tool_calls"][0]["index"],
            0
        );
        let bare = chunk("tool-index-absent,tool-id-empty,stop-finish", call);
        assert_eq!(
            bare["choices"][0],
            json!({"index": 0, "finish_reason": "stop", "delta": {"tool_calls": [
                {"id": "", "function": {"name": "f", "arguments": "{}"}}]}})
        );
    }

    #[test]
    fn usage_is_null_zero_a_float_or_absent() {
        let whole = json!({"choices": [{"message": {"content": "x", "tool_calls": [{"id": "c", "function":
            {"name": "f", "arguments": "{\"a\":1}"}}]}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
        let of = |quirks: &str| {
            let mut answer = whole.clone();
            Dialect::parse(quirks).expect(quirks).whole(&mut answer);
            answer
        };
        assert_eq!(
            of("usage-float")["usage"].to_string(),
            "{\"prompt_tokens\":3.0,\"completion_tokens\":2.0}"
        );
        assert_eq!(of("no-usage").get("usage"), None);
        assert_eq!(of("localai")["usage"]["prompt_tokens"], 0);
        let message = &of("vllm-0.11")["choices"][0]["message"];
        assert!(
            message["reasoning"].is_null()
                && message
                    .as_object()
                    .is_some_and(|all| all.contains_key("reasoning_content"))
        );
        assert_eq!(
            of("tool-arguments-object")["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
            json!({"a": 1})
        );
    }
}
